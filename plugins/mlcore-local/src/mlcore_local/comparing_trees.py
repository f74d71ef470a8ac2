"""Compare two folders file by file: which lines differ, and of what is no text that it does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from difflib import unified_diff
from itertools import islice
from pathlib import Path

from mlcore_local.differences import Change, changes

__all__ = ["tree_changes"]

_WHOLE = 2 << 20  # bytes of a file whose lines are compared
_LINES = 20_000  # lines of one
_CHUNK = 1 << 20


def tree_changes(before: Path, after: Path) -> Iterator[Change]:
    """Yield the files that two folders do not have alike, by their paths, with a unified diff of what is text.

    Only changed lines are in it, none around them. Links are compared by where they lead, and not followed.
    """
    for change in changes(_files(before), _files(after), _alike):
        old, new = change.before, change.after
        one, other = (None if each is None else _kind(each) for each in (old, new))
        lines = tuple(_lines(old, new))
        if one == other and not lines:
            lines = ("the content differs, which is no text or too long to show",)
        yield Change(change.name, change.kind, *((one, other) if one != other else (None, None)), lines=lines)


def _files(folder: Path) -> dict[str, Path]:
    """Return the files and links of a folder, without git's own."""
    found = dict[str, Path]()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name != ".git" and not os.path.islink(os.path.join(place, name))
        )
        entries = [*names, *(name for name in os.listdir(place) if os.path.islink(os.path.join(place, name)))]
        for name in dict.fromkeys(entries):
            if name != ".git":
                path = Path(place, name)
                found[path.relative_to(folder).as_posix()] = path
    return found


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"
    return "executable file" if mode & stat.S_IXUSR else "file"


def _alike(one: Path, other: Path) -> bool:
    if _kind(one) != _kind(other):
        return False
    if one.is_symlink():
        return True
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as old, other.open("rb") as new:
        while chunk := old.read(_CHUNK):
            if chunk != new.read(_CHUNK):
                return False
    return True


def _lines(old: Path | None, new: Path | None) -> Iterator[str]:
    """Yield a unified diff without context, nothing of what is no text."""
    before, after = _text(old), _text(new)
    if before is None or after is None:
        return
    for line in islice(unified_diff(before, after, n=0), 2, None):  # after the names of both
        yield line.rstrip("\r\n")
        if not line.endswith("\n"):
            yield "\\ without a line end"


def _text(path: Path | None) -> list[str] | None:
    """Return the lines of a text with their ends, None of what is none, or too long to compare."""
    if path is None:
        return []
    if path.is_symlink() or path.stat().st_size > _WHOLE:
        return None
    try:
        lines = path.read_bytes().decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        return None
    return lines if len(lines) <= _LINES and not any("\0" in line for line in lines) else None
