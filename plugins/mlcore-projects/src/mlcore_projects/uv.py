"""Virtual environments made by uv: the same as pip makes, in a fraction of the time."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from mlcore_projects import interpreters, lock_files
from mlcore_projects.environments import EnvironmentFailed, Environments, Making, Origin
from mlcore_projects.indexes import pip_indexes, uv_indexes
from mlcore_projects.locks import Lock, Pinned
from mlcore_projects.specs import Wanted
from mlcore_projects.venv import programs, virtual_variables

__all__ = ["UvEnvironments", "program"]

# whichever index has the file that is meant: its hash tells
_CHECKED = ["--require-hashes", "--index-strategy", "unsafe-best-match"]
_UNKNOWN = ("--pre", "--prefer-binary", "--require-hashes", "--trusted-host")  # lines that only pip knows


def program() -> Path | None:
    """Return the program ``uv``: the one beside this interpreter, or on the path."""
    beside = Path(sys.executable).parent / ("uv.exe" if os.name == "nt" else "uv")
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("uv")
    return Path(found) if found else None


class UvEnvironments(Environments):
    """Make environments by uv, which is asked for everything but where interpreters are."""

    name = "uv"

    def origin(self, wanted: Wanted) -> Origin:
        """Return the interpreter that satisfies what is wanted, and where uv would look.

        If there is none and the user allows it (``UV_PYTHON_DOWNLOADS=automatic``), uv fetches one first.
        """
        _uv()
        options = lock_files.indexes_of(wanted)
        try:
            found = interpreters.found(wanted.python)
        except EnvironmentFailed:
            if os.environ.get("UV_PYTHON_DOWNLOADS") != "automatic":
                raise
            interpreters.fetched(_uv(), wanted.python)
            found = interpreters.found(wanted.python)
        indexes = tuple(dict.fromkeys((*options, *uv_indexes(wanted.folder))))
        return Origin(found.platform, found.version, indexes, found.path, found.markers)

    def resolve(self, making: Making) -> Lock:
        """Ask uv for versions, with the hashes of every file that an index has of them."""
        try:
            return lock_files.resolved(making, partial(_compile, making))
        except EnvironmentFailed as error:
            if pip_indexes() and not making.origin.indexes:
                raise EnvironmentFailed(f"{error}\npip has indexes set, which only --env venv asks") from error
            raise

    def wheel(self, source: Path, folder: Path, making: Making) -> None:
        """Build a wheel apart from everything that is installed."""
        command: list[str | Path] = [
            _uv(),
            "build",
            "--wheel",
            "--python",
            _python(making),
            "--out-dir",
            folder,
            "--",
            source,
        ]
        making.run(command, variables=_variables(making.asked.options))

    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        """Install the lock's distributions and nothing else, each checked by its hash where one is known."""
        making.progress(f"making an environment of Python {lock.python}")
        making.run([_uv(), "venv", "--no-project", "--python", _python(making), folder])
        making.progress(f"installing {len(lock.packages)} packages with uv")
        for pins in (lock.build, lock.requirements):
            for lines, how in zip(making.pinned(pins), (_CHECKED, ["--no-verify-hashes"]), strict=True):
                if lines:
                    file = making.write("pinned.txt", [*_known(lock_files.options(making, lock)), *lines])
                    target: list[str | Path] = ["--python", self.python(folder), "--no-deps"]
                    making.run([_uv(), "pip", "install", *target, *how, "-r", file])

    def python(self, folder: Path) -> Path:
        """Return the environment's own interpreter."""
        return programs(folder) / ("python.exe" if os.name == "nt" else "python")

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Return what activating it would set."""
        return virtual_variables(folder)


def _uv() -> Path:
    if (found := program()) is None:
        raise EnvironmentFailed("there is no program uv here: pip install uv, or choose another kind by --env venv")
    return found


def _known(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if not line.startswith(_UNKNOWN)]


def _variables(options: Iterable[str]) -> dict[str, str]:
    """Return options of requirements as variables, since what lets in would be seen among arguments."""
    told = [each.partition("=") for each in options]
    first, more = ([value for name, _, value in told if name == f"--{word}index-url"] for word in ("", "extra-"))
    return ({"UV_DEFAULT_INDEX": first[-1]} if first else {}) | ({"UV_INDEX": " ".join(more)} if more else {})


def _python(making: Making) -> Path:
    assert making.origin.interpreter is not None
    return making.origin.interpreter


def _compile(making: Making, name: str, lines: list[str], limits: list[str]) -> list[Pinned]:
    loose = ["--prerelease", "allow"] if "--pre" in lines else []
    lines = _known(lines)
    found = making.scratch / f"pylock.{name}.toml"
    asked: list[str | Path] = [making.write(f"{name}.in", lines)]
    asked += ["-c", making.write("limits.txt", limits)] if limits else []
    how: list[str | Path] = ["--format", "pylock.toml", "--no-header", "--python", _python(making), "-o", found]
    making.run([_uv(), "pip", "compile", *how, *loose, *asked])
    with suppress(OSError):
        return lock_files.read_pylock(found, making)
    raise EnvironmentFailed("uv told nothing of what it would install")
