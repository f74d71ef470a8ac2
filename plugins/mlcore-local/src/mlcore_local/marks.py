"""Remember how far the journals of a home were read, so that the next process goes on from there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlcore.folder import STORE_HOME
from mlcore.journal.format import SUFFIX
from mlcore_local.home import Home
from mlcore_local.notes import Notes
from mlcore_local.watch import QUICK, SETTLED_SECONDS

__all__ = ["Marks"]

_PREFIX = "home:"
_TICK_NS = 2_000_000_000
_EXPIRED = 50  # homes that are looked at in vain before somebody says so


class Marks:
    """Keep a mark for each home that may still be written to: how it looked, and how far it was read.

    A mark has the time of the folder, the number of journals, the sizes of those that may grow, until when it
    is looked at (None: while the run goes on), and whether it must be read from the start once it grows.
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
        changed, count, sizes, _, _ = mark
        folder = folder_of(self._root, home)
        try:
            status = os.stat(folder)
            if changed != [status.st_mtime_ns, status.st_ctime_ns] and count != sum(
                name.endswith(SUFFIX) for name in os.listdir(folder)
            ):
                return True
            return any(os.stat(f"{folder}/{name}").st_size != size for name, size in sizes.items())
        except FileNotFoundError:
            return bool(count)

    def looked_at(self, home: str) -> list[int] | None:
        """Return the time of a home's folder, None if it may change again within its clock's tick; ask before reading."""
        try:
            status = os.stat(folder_of(self._root, home))
        except FileNotFoundError:
            return None
        return [status.st_mtime_ns, status.st_ctime_ns] if time.time_ns() - status.st_ctime_ns > _TICK_NS else None

    def set(self, home: Home, looked: list[int] | None, *, until: float | None, anew: bool) -> None:
        """Mark a home as far as it was read, if somebody may still write to it."""
        now = time.time()
        sizes = {name: size for name, (size, changed) in home.sizes().items() if home.id or changed > now - SETTLED_SECONDS}
        mark = [looked, len(home.sizes()), sizes, until, anew]
        if _expired(home.id, mark, now):
            return self.remove(home.id)
        self._notes.set(QUICK, _PREFIX + home.id, mark)
        for name, state in home.noted().items():
            self._notes.set(f"file/{home.id}", name, state)
        return None

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


def _expired(home: str, mark: list[Any], now: float) -> bool:
    until: float | None = mark[3]
    return home != STORE_HOME and until is not None and until < now
