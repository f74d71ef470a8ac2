"""Bring an index up to date with a store's folder: each change is read once, however many processes ask."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping

from mlcore.errors import JournalError, StoreError
from mlcore.folder import STORE_HOME
from mlcore.store import Batch, Created, Erased, Record, Rewound, Summary, Updated
from mlcore_local.held import Held
from mlcore_local.home import Home, Name, Rewinds, Taking
from mlcore_local.index import Filling, Index, Summed
from mlcore_local.marks import BEGUN, FOREIGN, WHOLE, Marks, claim_paths, folder_of, holders, named
from mlcore_local.notes import Notes
from mlcore_local.reader import Journal, read
from mlcore_local.rows import Rows
from mlcore_local.seal import Sealed
from mlcore_local.sealed_fold import SealedFold
from mlcore_local.watch import QUICK, SETTLED_SECONDS, Watch

__all__ = ["fill", "whole_home"]

_LIMIT = 1_000  # new homes in one transaction, so that others that wait get their turn, and help
_NEVER = (0, "", 0, 0)  # the order of a last row to which nothing is added: what comes makes the home be read anew
_Named = tuple[str, str]  # kind and id


def fill(root: str, index: Index) -> bool:
    """Read what is new in a store's folder into its index; False if something is left for the next time.

    Raises what `Index` raises, and `OSError` where the folder cannot be read.
    """
    with index.writing() as filling:
        try:
            return _Step(root, filling).take()
        except _Vanished:
            filling.clear()
            return _Step(root, filling).take()


def whole_home(root: str, id: str, notes: Notes, fold: Taking) -> Home:
    """Read all of a home."""
    home = Home(id, folder_of(root, id))
    for path in claim_paths(root, notes, id):
        journal, records = _read_claim(path)
        home.take_claim(journal, records, fold)
    home.read(fold)
    return home


def _read_claim(path: str) -> tuple[Journal, list[Record]]:
    journal, records = Journal(), list[Record]()
    with contextlib.suppress(JournalError, FileNotFoundError):  # `mlcore fsck` tells
        records = list(read(path, journal))
    return journal, records


class _Vanished(StoreError):
    """Say that something is gone that was read: what it said cannot be taken back."""


class _Feed:
    """Give an index what homes hold, and remember what of it needs a second look."""

    def __init__(self, filling: Filling) -> None:
        self._filling = filling
        self.whole = False  # whether what comes is the whole of a home
        self.runs: set[str] = set()
        self.rewound: set[_Named] = set()

    def add(self, batch: Batch) -> None:
        self._filling.take(batch.source, batch.records)
        for record in batch.records:
            for event in record.events:
                if isinstance(event, Rewound):
                    self.rewound.add((event.kind, event.id))
                elif event.kind == "run" and isinstance(event, Created | Updated | Erased):
                    self.runs.add(event.id)

    def touch(self, kind: str, id: str, stamp: int) -> None:
        if kind == "run" and self.whole:
            self.runs.add(id)  # perhaps nothing else is known of it
        self._filling.touch(kind, id, stamp, stamp)

    def take_sealed(self, id: str, sealed: Sealed) -> None:
        for source, record in sealed.records:
            self.add(Batch(source, id, (record,)))
        self._filling.touch("run", id, *sealed.span)

    def wake(self, id: str) -> None:
        pass  # its journals are read now, and what they say again changes nothing

    def rewinds(self, kind: str, id: str) -> Rewinds:
        return self._filling.rewinds(kind, id)


class _Step:
    """Do it once, in one transaction."""

    def __init__(self, root: str, filling: Filling) -> None:
        self._root, self._filling = root, filling
        self._notes = Notes(filling.notes)
        self._watch, self._marks = Watch(root, self._notes), Marks(root, self._notes)
        self._feed = _Feed(filling)
        self._doubtful: set[_Named] = set()
        self._read: dict[str, tuple[Home, os.stat_result | None, bool]] = {}
        self._first = False  # whether nothing was ever read, and what is noted is all there is
        self._noted: dict[str, int] = {}
        self._new: set[str] = set()

    def take(self) -> bool:
        self._first = self._notes.get(QUICK, "changes") is None
        self._noted, claims = {**self._watch.noted()}, self._watch.claims(_LIMIT)
        self._new = {*self._watch.runs(_LIMIT)}
        if self._watch.vanished:
            raise _Vanished
        if self._notes.get(QUICK, BEGUN) is None:
            self._notes.set(QUICK, BEGUN, os.urandom(8).hex())
        for shard, name in claims:
            self._take_claim(shard, name)
        homes = {*self._noted, *self._new, *(home for home, mark in self._marks.all() if self._marks.grown(home, mark))}
        homes |= set() if self._marks.get(STORE_HOME) else {STORE_HOME}
        while homes:
            for home in sorted(homes):
                self._read_home(home)
            homes = self._settle()
        self._marks.remove_expired()
        self._notes.set(QUICK, WHOLE, not self._watch.left)
        self._filling.note(self._notes.changed)
        return not self._watch.left

    def _take_claim(self, shard: str, name: str) -> None:
        path = f"{self._root}/claims/{shard}/{name}"
        journal, records = _read_claim(path)
        if journal.header is None or journal.tail is not None:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.stat(path).st_ctime < SETTLED_SECONDS:  # somebody copies it here
                    self._watch.forget("claims", shard, name)
        if journal.header is None:
            return
        home = Home(journal.header.home, "")
        home.take_claim(journal, records, self._feed)
        self._notes.set(f"claim/{home.id}", f"{shard}+{name}", [journal.source, journal.writer])
        for kind, id in home.logged():
            self._note_holder(kind, id, home.id)
            self._doubtful.add((kind, id))

    def _read_home(self, id: str) -> None:
        looked = self._marks.look(id)
        known = self._known(id)
        self._feed.whole = known is None
        home = known or whole_home(self._root, id, self._notes, self._feed)
        if known is not None:
            known.read(self._feed)
        anew = home.sealed
        for kind, of in {*home.logged(), *([("run", id)] if home.sealed else [])}:
            self._note_holder(kind, of, id)
            anew |= self._sum_up(kind, of, home, whole=known is None)
        self._read[id] = home, looked, anew

    def _known(self, id: str) -> Home | None:
        """Return a home to be read from where it was left, None if it must be read whole."""
        if self._marks.get(id) is None:
            return None
        files, same = self._marks.files(id), True
        for name, (inode, size, *_) in files.items():
            try:
                status = os.stat(f"{folder_of(self._root, id)}/{name}")
            except FileNotFoundError:
                raise _Vanished from None
            if status.st_size < size:
                raise _Vanished
            same = same and status.st_ino == inode
        if not files or not same or self._marks.anew(id):
            return None
        home = Home(id, folder_of(self._root, id))
        home.restore(files)
        return home

    def _note_holder(self, kind: str, id: str, home: str) -> None:
        if (kind, id) != ("run", home):
            known = self._notes.get("rows", named(kind, id)) or []
            self._notes.set("rows", named(kind, id), sorted({*known, home}))
            self._notes.set(QUICK, FOREIGN, value=True)

    def _sum_up(self, kind: str, id: str, home: Home, *, whole: bool) -> bool:
        """Bring the summaries of an entity up to date with what was read; tell whether more is to be read anew."""
        if holders(self._notes, kind, id) != [home.id]:
            self._doubtful.add((kind, id))
            return True
        if whole:
            return self._replace(Held(kind, id, [home], self._filling, SealedFold()))
        rewinds, rows = self._filling.rewinds(kind, id), home.logged()[kind, id]
        if rewinds and min(each.first_stamp() for each in rows.values()) <= max(order[0] for order, _ in rewinds):
            self._doubtful.add((kind, id))
            return False
        summed = _summed(rows, {name: each.summary() for name, each in rows.items()})
        if not all(each and isinstance(each[0].value, float) for each in summed.values()):
            self._doubtful.add((kind, id))
            return True
        self._filling.merge(kind, id, {name: each for name, each in summed.items() if each})
        return False

    def _replace(self, held: Held) -> bool:
        """Set the summaries of an entity; tell whether one is of rows that are no metric."""
        found = held.summaries()
        rows = held.homes[0].logged().get((held.kind, held.id), {}) if len(held.homes) == 1 else {}
        summed = _summed(rows, {name: found.get(name) for name in held.names()})
        self._filling.replace(held.kind, held.id, summed)
        return None in summed.values()

    def _settle(self) -> set[str]:
        """Sum up what is doubtful and mark what was read; return the homes of runs that go on again."""
        for kind, id in self._doubtful | self._feed.rewound:
            homes = [whole_home(self._root, each, self._notes, SealedFold()) for each in holders(self._notes, kind, id)]
            homes = [each for each in homes if each.names(kind, id)]
            self._replace(Held(kind, id, homes, self._filling, SealedFold()))
        self._filling.flush()
        changed = self._running(self._feed.runs)
        for id, (home, looked, anew) in self._read.items():
            running = changed[id] if id in changed else self._marks.runs_on(id)
            noted = self._noted.pop(id, 0)  # a second look has no more of them
            is_new = self._first or id in self._new
            self._marks.set(home, looked, running=running, noted=noted, is_new=is_new, anew=anew)
        woken = set()
        for id, running in changed.items():
            if id not in self._read and not self._marks.keep(id, running=running):
                woken.add(id)
        self._doubtful, self._feed, self._read = set(), _Feed(self._filling), {}
        return woken

    def _running(self, ids: Iterable[str]) -> Mapping[str, bool]:
        asked = sorted(ids)
        found = zip(asked, self._filling.get("run", asked), strict=True)
        return {id: each is not None and each.fields.get("status", "RUNNING") == "RUNNING" for id, each in found}


def _summed(rows: Mapping[Name, Rows], summaries: Mapping[Name, Summary | None]) -> dict[Name, Summed | None]:
    return {
        name: None if each is None else (each, rows[name].last() if name in rows else _NEVER)
        for name, each in summaries.items()
    }
