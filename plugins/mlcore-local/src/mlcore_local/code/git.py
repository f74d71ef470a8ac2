"""Run git so that no repository can run anything, in time, and without writing into a repository of somebody else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from mlcore.errors import MlcoreError
from mlcore_local.code.places import Checkout, read_small

__all__ = ["Git", "GitFailed", "installed", "safe_environment", "view"]

_OUTPUT = 256 << 20
# what of a repository's settings says how its files are read, and runs nothing
_KEPT = {
    *("core.autocrlf", "core.eol", "core.filemode", "core.ignorecase", "core.symlinks", "core.precomposeunicode"),
    *("core.excludesfile", "core.attributesfile", "core.sparsecheckout", "core.sparsecheckoutcone", "core.checkstat"),
    *("core.trustctime", "core.bigfilethreshold", "extensions.objectformat", "extensions.refstorage"),
}
_ALWAYS = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "core.pager": "cat",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "index.sparse": "false",
    "protocol.version": "2",
    "submodule.recurse": "false",
}


class GitFailed(MlcoreError):
    """Say which command of git failed, and what it said."""


def installed() -> str | None:
    """Return the path of git, None if there is none."""
    return shutil.which("git")


def safe_environment(temporary: Path, **more: str) -> dict[str, str]:
    """Return variables for git that let it ask nobody, run nothing, and read the settings of no user and no machine."""
    kept = ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "SYSTEMROOT", "USER", "LOGNAME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_SYSTEM": os.devnull, "GIT_CONFIG_GLOBAL": os.devnull}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""}
    environment |= {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1"}
    environment |= {"GIT_LITERAL_PATHSPECS": "1", "GIT_PAGER": "cat", "GIT_ADVICE": "0", "LC_ALL": "C"}
    environment |= {"GIT_CEILING_DIRECTORIES": str(temporary.parent)}
    return environment | more


@attrs.define
class Git:
    """Call git with arguments in a folder; `until` is when time is up, by `time.monotonic`."""

    program: str
    folder: Path
    environment: Mapping[str, str]
    temporary: Path
    until: float

    def __call__(
        self, *arguments: str, given: bytes = b"", allowed: Iterable[int] = (0,), also: Mapping[str, str] | None = None
    ) -> bytes:
        """Return what git printed; `also` are variables. Raises `GitFailed` for other results than those `allowed`."""
        options = [part for key, value in _ALWAYS.items() for part in ("-c", f"{key}={value}")]
        told = f"git {' '.join(arguments[:2])}"
        if time.monotonic() >= self.until:
            raise GitFailed(f"{told} would be too late: looking at the repository took too long")
        with tempfile.TemporaryFile(dir=self.temporary) as source, tempfile.TemporaryFile(dir=self.temporary) as output:
            source.write(given)
            source.seek(0)
            with tempfile.TemporaryFile(dir=self.temporary) as complaint:
                process = subprocess.Popen(
                    [self.program, "--no-pager", *options, *arguments],
                    cwd=self.folder,
                    env={**self.environment, **(also or {})},
                    stdin=source,
                    stdout=output,
                    stderr=complaint,
                    start_new_session=True,  # Ctrl-C is for the training, and there is no terminal to ask at
                )
                try:
                    code = process.wait(max(0.05, self.until - time.monotonic()))
                except BaseException as error:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    if isinstance(error, subprocess.TimeoutExpired):
                        raise GitFailed(f"{told} took too long") from None
                    raise
                if code not in allowed:
                    complaint.seek(0)
                    lines = complaint.read(20_000).decode(errors="replace").strip().splitlines() or [
                        f"ended with {code}"
                    ]
                    raise GitFailed(f"{told}: {_worst(lines)}")
            if output.seek(0, os.SEEK_END) > _OUTPUT:
                raise GitFailed(f"{told} printed more than {_OUTPUT:,} bytes")
            output.seek(0)
            return output.read()

    def text(self, *arguments: str, allowed: Iterable[int] = (0,)) -> str:
        """Return what git printed as text, without the last line's end."""
        return os.fsdecode(self(*arguments, allowed=allowed)).rstrip("\n")


def _worst(lines: list[str]) -> str:
    """Return the line that says most."""
    fatal = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ERROR:"))]
    return (fatal or lines)[0][:500]


def view(checkout: Checkout, program: str, temporary: Path, until: float) -> tuple[Git, dict[str, str]]:
    """Lay a git directory of our own beside a repository, and return git for it, and the repository's settings.

    It borrows objects and refs, has a copy of the index, and of the settings those that say how files are read. So no
    hook, filter, driver, monitor, helper or alias of the repository is even known to git, what git writes goes into the
    temporary folder, and whoever owns the repository, git looks at it.
    """
    place = Path(tempfile.mkdtemp(prefix="git-", dir=temporary))
    environment = safe_environment(temporary, GIT_DIR=str(checkout.git))
    for name in ("GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_GLOBAL"):  # a user may say how lines end
        environment.pop(name)
    listed = Git(program, temporary, environment, temporary, until)("config", "--includes", "--list", "-z")
    settings = dict[str, str]()
    for entry in os.fsdecode(listed).split("\0"):
        key, separator, value = entry.partition("\n")
        settings[key] = value if separator else "true"
    _lay(checkout, place, {key: value for key, value in settings.items() if key in _KEPT})
    own = safe_environment(temporary, GIT_DIR=str(place), GIT_WORK_TREE=str(checkout.root))
    own["GIT_INDEX_FILE"] = str(place / "index")
    return Git(program, checkout.root, own, temporary, until), settings


def _lay(checkout: Checkout, place: Path, settings: Mapping[str, str]) -> None:
    version = int(any(key.startswith("extensions.") for key in settings))
    lines = ["[core]", "\tbare = false", f"\trepositoryformatversion = {version}"]
    for key, value in settings.items():
        section, _, name = key.partition(".")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        lines += [f"[{section}]", f'\t{name} = "{escaped}"']
    (place / "config").write_bytes(os.fsencode("\n".join(lines) + "\n"))
    (place / "HEAD").write_bytes(read_small(checkout.git / "HEAD"))
    (place / "objects" / "info").mkdir(parents=True)
    objects = str(checkout.common / "objects").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    (place / "objects" / "info" / "alternates").write_bytes(os.fsencode(f'"{objects}"\n'))
    (place / "info").mkdir()
    for name, home in (
        ("exclude", checkout.common),
        ("attributes", checkout.common),
        ("sparse-checkout", checkout.git),
    ):
        with suppress(OSError):
            (place / "info" / name).write_bytes(read_small(home / "info" / name))
    with suppress(OSError):
        (place / "shallow").write_bytes(read_small(checkout.common / "shallow"))
    for name in ("refs", "packed-refs", "reftable"):
        if (checkout.common / name).exists():
            (place / name).symlink_to(checkout.common / name)
    for path in (checkout.git / "index", *checkout.git.glob("sharedindex.*")):
        if path.is_file():  # there is none if nothing was ever added
            shutil.copy2(path, place / path.name)  # with its time, by which git tells what may have changed since
