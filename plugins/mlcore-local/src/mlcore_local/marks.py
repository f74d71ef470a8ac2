"""Remember how far the journals of a home were read, so that the next process goes on from there."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlcore.folder import STORE_HOME
from mlcore.journal.format import SUFFIX
from mlcore.store import to_json
from mlcore_local.notes import Notes
from mlcore_local.watch import QUICK, SETTLED_SECONDS

if TYPE_CHECKING:
    from mlcore_local.home import Home

__all__ = ["BEGUN", "FOREIGN", "WHOLE", "Marks", "claim_paths", "folder_of", "holders", "named"]

WHOLE = "whole"  # the note that everything there was has been read
BEGUN = "begun"  # the note of when that began: what was read before may be gone
FOREIGN = "foreign"  # the note that some rows are not in the home of their run

_PREFIX = "home:"
_TICK_NS = 2_000_000_000
_SEALED_SECONDS = 5  # of a seal that came, whose journals came, too
_FEW = 100  # journals, of which all are looked at
_EXPIRED = 50  # homes that are looked at in vain before somebody says so


class Marks:
    """Keep a mark for each home that may still be written to: how it looked, and how far it was read.

    A mark has the time of the folder, the number of journals, the sizes of those that may grow, until when it
    is looked at (None: while the run goes on), whether it must be read from the start once it grows, and how many
    journals were noted that are not there yet.
    """

    def __init__(self, root: str, notes: Notes) -> None:
        self._root, self._notes = root, notes

    def all(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield the homes that are looked at, with their marks."""
        for name, mark in self._notes.under(QUICK).items():
            if name.startswith(_PREFIX):
                yield name[len(_PREFIX) :], mark

    def quiet(self) -> bool:
        """Tell whether all of them look as they did."""
        now, expired = time.time(), 0
        for home, mark in self.all():
            if self.grown(home, mark):
                return False
            expired += _expired(home, mark, now)
        return expired <= _EXPIRED

    def grown(self, home: str, mark: list[Any]) -> bool:
        """Tell whether a home does not look as it did."""
        changed, count, sizes, *_ = mark
        folder = folder_of(self._root, home)
        try:
            same = changed is not None and changed == _times(os.stat(folder))
            if not same and count != len([name for name in os.listdir(folder) if name.endswith(SUFFIX)]):
                return True
            for name, size in sizes.items():  # no generator: a look is at thousands that ended just now
                if os.stat(f"{folder}/{name}").st_size != size:
                    return True
        except FileNotFoundError:
            return bool(count)
        return False

    def look(self, home: str) -> os.stat_result | None:
        """Return the status of a home's folder, None if there is none; to be asked for before the home is read."""
        try:
            return os.stat(folder_of(self._root, home))
        except FileNotFoundError:
            return None

    def set(
        self, home: Home, looked: os.stat_result | None, *, running: bool, noted: int, is_new: bool, anew: bool
    ) -> None:
        """Mark a home as far as it was read, if somebody may still write to it.

        `noted` is how often it was opened since its mark was set, or, of one that `is_new`, at all.
        """
        now, files, until = time.time(), home.files(), None
        known = self.get(home.id)
        there, owed = (known[1], known[5]) if known else (0 if is_new else len(files), 0)
        owed = max(0, owed + noted - (len(files) - there))
        if not running:
            over = home.over()
            growing = 0 if over and not owed else SETTLED_SECONDS
            arriving = _SEALED_SECONDS if over or home.sealed else SETTLED_SECONDS  # who copies it may have more of it
            until = max(
                now + SETTLED_SECONDS if noted and owed else 0.0, *(each.changed + growing for each in files.values()),
                *(each.arrived + arriving for each in files.values()), looked.st_ctime + arriving if looked else 0.0,
            )  # fmt: skip
        every = bool(home.id) or len(files) < _FEW
        young = (each for each in files.items() if every or each[1].changed > now - SETTLED_SECONDS)
        sizes = {name: each.looked for name, each in young}
        settled = looked is not None and time.time_ns() - looked.st_ctime_ns > _TICK_NS
        mark = [_times(looked) if looked and settled else None, len(files), sizes, until, anew, owed]
        if _expired(home.id, mark, now):
            self.remove(home.id)
            return
        self._notes.set(QUICK, _PREFIX + home.id, mark)
        for name, state in home.noted().items():
            self._notes.set(f"file/{home.id}", name, state)

    def keep(self, home: str, *, running: bool) -> bool:
        """Go on or stop looking at a home that was not read; False if it must be read before one can."""
        mark = self.get(home)
        if mark is None:
            return not running or self.look(home) is None
        if running != (mark[3] is None):
            until = None if running else time.time() + SETTLED_SECONDS
            self._notes.set(QUICK, _PREFIX + home, [*mark[:3], until, *mark[4:]])
        return True

    def runs_on(self, home: str) -> bool:
        """Tell whether a home is marked as one whose run goes on."""
        mark = self.get(home)
        return mark is not None and mark[3] is None

    def going(self) -> Collection[str]:
        """Return the homes that are marked so."""
        return {home for home, mark in self.all() if mark[3] is None}

    def anew(self, home: str) -> bool:
        """Tell whether a home must be read from the start."""
        mark = self.get(home)
        return mark is None or bool(mark[4])

    def get(self, home: str) -> list[Any] | None:
        """Return the mark of a home."""
        mark: list[Any] | None = self._notes.get(QUICK, _PREFIX + home)
        return mark

    def files(self, home: str) -> Mapping[str, Any]:
        """Return how far each journal of a home was read."""
        return self._notes.under(f"file/{home}")

    def remove(self, home: str) -> None:
        """Forget a home that nobody writes to any more."""
        if self.get(home) is not None:
            self._notes.set(QUICK, _PREFIX + home, None)
            for name in self.files(home):
                self._notes.set(f"file/{home}", name, None)

    def remove_expired(self) -> None:
        """Forget the homes that were silent for long."""
        now = time.time()
        for home, mark in list(self.all()):
            if _expired(home, mark, now):
                self.remove(home)


def folder_of(root: str, home: str) -> str:
    """Return the folder of a home, as `mlcore.folder.Folder.run_folder`, but without a path object for each."""
    return f"{root}/runs/{home[-2:]}/{home}" if home else f"{root}/store"


def holders(notes: Notes, kind: str, id: str) -> list[str]:
    """Return the homes that may hold rows of an entity: its own, if any, before those of others."""
    others = notes.get("rows", named(kind, id)) if notes.get(QUICK, FOREIGN) else None
    return [*([id] if kind == "run" else []), *(home for home in others or () if (kind, home) != ("run", id))]


def claim_paths(root: str, notes: Notes, home: str, source: str | None = None) -> list[str]:
    """Return the files of the claims of a home, or of a source there."""
    claims = notes.under(f"claim/{home}").items()
    return [f"{root}/claims/{name.replace('+', '/')}" for name, (of, _) in claims if source in (None, of)]


def named(kind: str, id: str) -> str:
    """Return the name of an entity's note."""
    return to_json([kind, id]).decode()


def _times(status: os.stat_result) -> list[int]:
    return [status.st_mtime_ns, status.st_ctime_ns]


def _expired(home: str, mark: list[Any], now: float) -> bool:
    until: float | None = mark[3]
    return home != STORE_HOME and until is not None and until < now
