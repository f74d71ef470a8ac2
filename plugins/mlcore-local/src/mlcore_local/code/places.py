"""Find the code that runs and the repository it is in, without git: by reading files alone."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from mlcore_local.context import code_root, started_as

__all__ = [
    "Checkout",
    "Signs",
    "code_folder",
    "entry_file",
    "find",
    "head",
    "is_home",
    "read_config",
    "read_small",
    "settled",
    "signs_of",
    "use_folder",
]

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SMALL = 10 << 20
_RECENT = 100_000_000  # ns
Signs = Mapping[str, tuple[int, int, int, int] | None]
said: Path | None = None  # see `use_folder`
_SECTION = re.compile(r'^\s*\[\s*([\w.\-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]\s*(.*)$')
_SETTING = re.compile(r"^\s*([A-Za-z][\w\-]*)\s*(?:=\s*(.*?))?\s*$")


@attrs.frozen
class Checkout:
    """Name the folders of a repository: the `root` of its working tree, and its `git` directory.

    `common` is where that has what other working trees share: objects, refs and settings.
    """

    root: Path
    git: Path
    common: Path


def entry_file() -> Path | None:
    """Return the script or notebook that runs, None if that is not known: in a console, or with ``python -c``."""
    name = started_as()[1]
    return Path(name) if os.path.isabs(name) and os.path.isfile(name) else None


@contextmanager
def use_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Let runs record the code in this folder, for who runs something else than itself; keep it until the run ends."""
    global said  # noqa: PLW0603 - what there is once in a process
    before, said = said, Path(folder).resolve()
    try:
        yield
    finally:
        said = before


def code_folder() -> Path:
    """Return the folder that the code which runs belongs to: the top of its repository, else the folder of the script.

    A program that was installed, such as a test runner, says nothing about the code: then the current folder counts.
    """
    return Path(code_root())


def is_home(folder: Path) -> bool:
    """Tell whether a folder is too high up for all in it to belong to a project: the root, or somebody's home."""
    with suppress(RuntimeError):
        return Path.home().resolve().is_relative_to(folder)
    return folder == folder.parent


def find(folder: Path) -> Checkout | None:
    """Return the repository that a folder is in, of a working tree or a submodule, or None."""
    with suppress(OSError, ValueError, RuntimeError):
        for root in (start := folder.resolve(), *start.parents):
            found = _opened(root)
            if found is not None:
                return found
    return None


def _opened(root: Path) -> Checkout | None:
    git = root / ".git"
    if git.is_file():
        text = read_small(git).decode(errors="surrogateescape")
        if not text.startswith("gitdir: "):
            return None
        git = root / text.removeprefix("gitdir: ").rstrip("\r\n")
    if not (git / "HEAD").is_file() and not (git / "HEAD").is_symlink():
        return None
    common = git
    with suppress(OSError):
        common = git / read_small(git / "commondir").decode(errors="surrogateescape").rstrip("\r\n")
    return Checkout(root, git.resolve(), common.resolve()) if (common / "objects").is_dir() else None


def read_small(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises `OSError`, also if it is of another kind or large."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > _SMALL:
            raise OSError(f"{path} is no small file")
        return file.read(_SMALL)


def head(checkout: Checkout) -> tuple[str | None, str | None]:
    """Return the commit and the branch that are checked out: None where there is no commit yet, or no branch."""
    try:
        text = read_small(checkout.git / "HEAD").decode(errors="replace").strip()
    except OSError:
        return None, None
    if not text.startswith("ref:"):
        return (text if _SHA.fullmatch(text) else None), None
    name = text.removeprefix("ref:").strip()
    branch = name.removeprefix("refs/heads/")
    if ".." in name or not name.startswith("refs/"):
        return None, branch
    for folder in (checkout.git, checkout.common):
        with suppress(OSError):
            if _SHA.fullmatch(commit := read_small(folder / name).decode(errors="replace").strip()):
                return commit, branch
    with suppress(OSError):
        for line in read_small(checkout.common / "packed-refs").decode(errors="replace").splitlines():
            commit, _, packed = line.partition(" ")
            if packed == name and _SHA.fullmatch(commit):
                return commit, branch
    return None, branch


def read_config(file: Path) -> dict[str, str]:
    """Read a file of git's settings, for a machine without git: no includes, the last value of each key."""
    found, section = dict[str, str](), ""
    try:
        text = read_small(file).decode(errors="replace")
    except OSError:
        return {}
    for line in text.replace("\\\n", "").splitlines():
        if opened := _SECTION.match(line):
            inner = "" if opened[2] is None else "." + re.sub(r"\\(.)", r"\1", opened[2])
            section, line = opened[1].casefold() + inner, opened[3]  # noqa: PLW2901 - a setting may follow on the line
        if line.lstrip().startswith(("#", ";")):
            continue
        if section and (setting := _SETTING.match(line)):
            value = "true" if setting[2] is None else setting[2]
            if value.startswith('"') and value.endswith('"') and len(value) > 1:
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            found[f"{section}.{setting[1].casefold()}"] = value
    return found


def signs_of(paths: Iterable[str]) -> Signs:
    """Return for each path by what is seen that it did not change: time, size, inode, mode; None if it is not there."""
    found = dict[str, tuple[int, int, int, int] | None]()
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:
            found[path] = None
        else:
            found[path] = (max(status.st_mtime_ns, status.st_ctime_ns), status.st_size, status.st_ino, status.st_mode)
    return found


def settled(signs: Signs, moment: int) -> bool:
    """Tell whether nothing changed just before a moment, ns since 1970: it could change again with the same time."""
    return all(each is None or each[0] < moment - _RECENT for each in signs.values())
