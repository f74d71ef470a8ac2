"""What a folder store asks of an index (hook `mlcore_indexes`), where it may keep one, and how it is opened."""

from __future__ import annotations

import os
import platform
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from mlcore import config, plugins
from mlcore.errors import PluginError
from mlcore.folder import Folder
from mlcore.store import Entity, Order, Page, Query, Record, Rewind, Summary

__all__ = ["FOLDER", "Filling", "Index", "Reading", "Summed", "described", "open_index", "setting", "there"]

FOLDER = "index"
_DEFAULT = "sqlite"
_REMOTE = {"9p", "afs", "beegfs", "ceph", "cifs", "drvfs", "glusterfs", "gpfs", "lustre", "ncpfs", "ocfs2", "prl_fs"}
_REMOTE |= {"smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "wekafs"}

Summed = tuple[Summary, Order]  # of rows, and the order of the event that holds the last of them


class Reading(Protocol):
    """Answer from one state of an index. What was taken in counts once it was flushed."""

    revision: object  # another one after each change

    def notes(self, prefix: str) -> dict[str, Any]:
        """Return the notes, JSON values, whose names begin so."""
        ...

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""
        ...

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        ...

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """See `mlcore.store.Fold.rewinds`."""
        ...


class Filling(Reading, Protocol):
    """Take in what is new; nobody else sees any of it before all of it."""

    def note(self, values: Mapping[str, Any]) -> None:
        """Keep notes by name; None removes one."""
        ...

    def take(self, source: str, records: Sequence[Record]) -> None:
        """Take in records, in any order, perhaps again; of rows only what they say of their entity."""
        ...

    def touch(self, kind: str, id: str, first: int, last: int) -> None:
        """Let an entity be known, and changed from stamp `first` to stamp `last`."""
        ...

    def merge(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed]) -> None:
        """Add rows to metrics by (key, context): the summaries of the new rows alone."""
        ...

    def replace(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed | None]) -> None:
        """Set the summaries of whole metrics by (key, context); None where the rows are no metric, or none are left."""
        ...

    def flush(self) -> None:
        """Let answers show what was taken in so far."""
        ...

    def clear(self) -> None:
        """Forget everything, notes too."""
        ...


class Index(Protocol):
    """Keep entities and notes where the next process finds them; thread-safe, and safe across a fork.

    Its methods raise `OSError` where it cannot be used, `BlockingIOError` if another process fills it for too long, and
    `PositionLost` where it was damaged or taken away, and is empty now.
    """

    path: Path

    def reading(self) -> AbstractContextManager[Reading]:
        """Open a state to read from, which stays as it is meanwhile."""
        ...

    def writing(self) -> AbstractContextManager[Filling]:
        """Wait for others that write, and open the state to be changed: on leaving, unless by an error, it is kept."""
        ...

    def drop(self) -> None:
        """Remove it; it is made anew when it is used again."""
        ...

    def close(self) -> None:
        """Give back what it holds; closing twice is fine."""
        ...


def setting() -> str:
    """Return the name of the index to use, or ``"off"``."""
    return os.environ.get("MLCORE_INDEX") or _DEFAULT


def described(folder: Folder) -> tuple[Path | None, str]:
    """Return where the index of a store is or would be, None if there is none, and why."""
    name = setting()
    if name == config.OFF:
        return None, "MLCORE_INDEX is off"
    if name not in plugins.provided("indexes"):
        named = "" if name == _DEFAULT else f" as {name!r}, which MLCORE_INDEX names"
        return None, f"none is installed{named}: pip install mlcore-sql makes reading fast"
    place = next(_places(folder))
    if place.parent == folder.root:
        return place, "in the store"
    return place, "in your cache, as the store is on a network file system or not yours to write"


def there(folder: Folder) -> bool:
    """Tell whether somebody ever made an index of a store."""
    place, _ = described(folder)
    return place is not None and place.is_dir()


def open_index(folder: Folder) -> Index | None:
    """Open the index of a store, in the store or where this user's cache is; None if there is none to be used.

    Raises `NotInstalled` or `PluginError` if the environment names one that is not there.
    """
    name = setting()
    known = plugins.provided("indexes")
    if name == config.OFF or (name == _DEFAULT and name not in known):
        return None
    try:
        make = plugins.load("indexes", name)
    except PluginError as error:
        if name != _DEFAULT:
            raise
        _warn("%s; reading goes on without an index", error)
        return None
    problem: OSError | None = None
    for place in _places(folder):
        try:
            place.mkdir(parents=True, exist_ok=True)
            index: Index = make(place / name, _identity(folder))
        except OSError as error:
            problem = error
        else:
            return index
    _warn("there is nowhere to keep an index of %s, reading goes on without: %s", folder.root, problem)
    return None


def _warn(text: str, *values: object) -> None:
    import logging  # most questions are answered without

    logging.getLogger("mlcore").warning(text, *values)


def _identity(folder: Folder) -> str:
    """Return what a copy of a store, or one that took its place, does not share with it."""
    root, runs = os.stat(folder.root), os.stat(folder.root / "runs")
    return f"{folder.id} {root.st_dev} {root.st_ino} {runs.st_ino}"


def _places(folder: Folder) -> Iterator[Path]:
    own = folder.root / FOLDER
    if not _remote(folder.root) and os.access(own if own.is_dir() else folder.root, os.W_OK | os.X_OK):
        yield own
    # another host may have the same home, too
    told = f"{platform.node()} {os.path.realpath(folder.root)}"
    yield config.user_cache() / FOLDER / f"{folder.id}-{zlib.crc32(os.fsencode(told)):08x}"


def _remote(path: Path, mounts: str = "/proc/self/mountinfo") -> bool:
    """Tell whether a path is on a network file system, whose locks and shared memory a database cannot rely on."""
    real, found = os.path.realpath(path), ("", "")
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                mount = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields.split(" ")[4])
                inside = mount in ("/", real) or real.startswith(f"{mount}/")
                if inside and len(mount) >= len(found[0]):  # the later of two is on top
                    found = mount, rest.split(" ")[0]
    except (OSError, IndexError):
        return False  # no Linux: what the system does not tell is taken for a disk
    kind = found[1]
    return kind in _REMOTE or (kind.startswith(("nfs", "fuse")) and kind != "fuseblk")
