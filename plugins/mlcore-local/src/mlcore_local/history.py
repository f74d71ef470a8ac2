"""List what a folder store holds, batch by batch, and look only at what changed since the last time."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import attrs

from mlcore.errors import JournalError, PositionLost
from mlcore.folder import STORE_HOME, Folder
from mlcore.journal.format import SUFFIX
from mlcore.store import START, Batch, Fold, Record, RowsLogged, Stored, digest
from mlcore_local.append import claim_path
from mlcore_local.marks import folder_of
from mlcore_local.notes import Notes
from mlcore_local.points import Points
from mlcore_local.reader import Journal, read
from mlcore_local.seal import NAME as SEAL
from mlcore_local.watch import SETTLED_SECONDS, Watch

__all__ = ["History"]

_BATCH_RECORDS = 1_000
_CURSORS = 1_024  # files that may be read on from where they were listed
_PIECES = 100_000  # after which those that came first are put together, a file's to one
_DULL = 60  # a run that is silent for so many seconds may be looked at a second later
_LATE_SECONDS = 5.0


class _Piece(NamedTuple):
    """Say which records of a file arrived together: those after number `known`, up to the offset `stop`."""

    path: str
    home: str
    known: int
    stop: int


@attrs.define
class _Open:
    """Remember of a home that may grow until when it is looked at in any case, and since when it is silent.

    `due` is when to look again, `ended` the sizes of its files for which its records say that the run is over.
    """

    until: float = 0.0
    grown: float = 0.0
    due: float = 0.0
    ended: tuple[dict[str, int], bool] | None = None


@attrs.define
class _Cursor:
    """Remember how far a file was listed, and the digest of its source there."""

    journal: Journal
    digest: str


class History:
    """List batches in the order in which they were found; a position is a place in that list.

    What is kept is no more than names and sizes: the journals of ended runs are read when they are listed, those of
    others go on where they were left. Thread-safe.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._token = os.urandom(8).hex()
        self._watch = Watch(root, Notes())
        self._open = {STORE_HOME: _Open()}
        self._sizes: dict[str, int] = {}
        self._journals: dict[str, Journal] = {}  # of files that may grow, as far as their pieces go
        self._claims: defaultdict[str, list[str]] = defaultdict(list)  # by source, and those of a run by its id
        self._pieces: list[_Piece] = []
        self._gone = 0  # pieces that came first, and were put together with others
        self._cursors: OrderedDict[str, _Cursor] = OrderedDict()

    def events(self, after: str, of: str | None) -> Iterator[Stored]:
        """Look at what is there now, and yield it after a position as it is asked for; see `Store.events`."""
        with self._lock:
            start, known = self._place(after)
            self._look(of)
            pieces = self._pieces[start - self._gone :]
        return (
            stored
            for index, piece in enumerate(pieces, start)
            if of is None or piece.home == of
            for stored in self._stored(index, piece, known if index == start else 0)
        )

    def latest(self) -> str:
        """Return the position after all that is there now, which is not read for that."""
        with self._lock:
            self._look()
            return self._position(self._gone + len(self._pieces), 0)

    def _position(self, index: int, known: int) -> str:
        return f"{self._token}-{index}-{known}"

    def _place(self, position: str) -> tuple[int, int]:
        """Return the piece to go on with, and the last record of it that was passed on."""
        if position == START:
            return self._gone, 0
        token, *place = position.split("-")
        if token == self._token and len(place) == 2 and all(each.isascii() and each.isdigit() for each in place):
            index, known = map(int, place)
            if self._gone <= index <= self._gone + len(self._pieces):
                return index, known
        raise PositionLost(f"position {position[:40]!r} is not one of this handle of {self._root}, or is too old")

    # What is there

    def _look(self, of: str | None = None) -> None:
        now = time.time()
        for shard, name in self._watch.claims():
            self._look_at_claim(f"claims/{shard}/{name}")
        if of == STORE_HOME:  # whoever asks for the store itself need not wait for a look at all runs
            self._goes_on(STORE_HOME, self._open[STORE_HOME], now)
            return
        for home in self._watch.runs():
            self._open.setdefault(home, _Open())
        for home in self._watch.noted():  # its journal may be there only a moment later
            self._open[home] = _Open(now + SETTLED_SECONDS)
        for home, each in list(self._open.items()):
            if now >= each.due and not self._goes_on(home, each, now) and home != STORE_HOME:
                del self._open[home]
        if len(self._pieces) > _PIECES:
            self._put_together()

    def _look_at_claim(self, path: str) -> None:
        journal = Journal()
        with contextlib.suppress(FileNotFoundError, JournalError):  # `mlcore fsck` tells
            for _ in read(f"{self._root}/{path}", journal):
                pass
        if journal.header is not None:
            home = journal.header.home
            self._claims[journal.source].append(path)
            if home != STORE_HOME:
                self._claims[home].append(path)
            self._pieces.append(_Piece(path, home, 0, journal.offset))

    def _goes_on(self, home: str, about: _Open, now: float) -> bool:
        """Note what is new in a home; tell whether there may be more."""
        folder = folder_of("", home)[1:]
        found, sealed = dict[str, os.stat_result](), 0.0
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{self._root}/{folder}") as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    found[f"{folder}/{entry.name}"] = entry.stat()
                elif entry.name == SEAL:
                    sealed = entry.stat().st_mtime
        changed = max((each.st_mtime for each in found.values()), default=0.0)
        new = [path for path, status in found.items() if self._sizes.get(path) != status.st_size]
        if any(path in self._sizes for path in new):
            about.grown = now
        silent = now - max(changed, about.grown)
        for path in new:
            self._grow(path, home, found[path].st_size, settled=silent > SETTLED_SECONDS)
        if silent < SETTLED_SECONDS or now < about.until:
            return True
        sizes = {path: status.st_size for path, status in found.items()}
        if sealed >= changed or self._over(home, about, sizes):
            for path in found:
                self._journals.pop(path, None)
                self._cursors.pop(path, None)
            return False
        about.due = now + min(silent / _DULL, _LATE_SECONDS)
        return True

    def _grow(self, path: str, home: str, size: int, *, settled: bool) -> None:
        path = sys.intern(path)  # which every piece has
        before, journal = self._sizes.get(path), self._journals.get(path)
        self._sizes[path] = size
        if before is None and settled:
            self._pieces.append(_Piece(path, home, 0, size))
            return
        with contextlib.suppress(FileNotFoundError, JournalError):
            if journal is None:
                journal = Journal()
                if before is not None:
                    self._pass(path, journal, before)
                    if journal.offset != before:  # it was torn, and may hold other records there now: rather twice
                        journal = Journal()
            known = journal.last
            self._pass(path, journal, size)
            self._journals[path] = journal
            if journal.header is not None:
                self._pieces.append(_Piece(path, home, known, journal.offset))

    def _pass(self, path: str, journal: Journal, stop: int) -> None:
        for _ in read(f"{self._root}/{path}", journal, stop=stop, points=_ignored):
            pass

    def _over(self, home: str, about: _Open, sizes: dict[str, int]) -> bool:
        """Tell whether the records of a run that is silent say that it is over."""
        if about.ended is None or about.ended[0] != sizes:
            fold = Fold()
            for path in [*sizes, *self._claims.get(home, ())]:
                journal = Journal()
                with contextlib.suppress(FileNotFoundError, JournalError):
                    for record in read(f"{self._root}/{path}", journal, points=_ignored):
                        events = tuple(event for event in record.events if not isinstance(event, RowsLogged))
                        fold.add(Batch(journal.source, home, (attrs.evolve(record, events=events),)))
            run = fold.entity("run", home)
            about.ended = sizes, run is None or run.fields.get("status", "RUNNING") != "RUNNING"
        return about.ended[1]

    def _put_together(self) -> None:
        """Let one piece stand for all of a file that came long ago; positions among them are lost."""
        old = self._pieces[: -_PIECES // 2]
        merged: dict[object, _Piece] = {}
        for index, piece in enumerate(old):
            # the order of a source counts, which may have claims between its other records
            name = (index, piece.path) if _source_of(piece.path) in self._claims else piece.path
            first = merged.get(name, piece)
            merged[name] = first._replace(stop=piece.stop)
        if len(merged) < len(old) // 2:
            self._gone += len(old) - len(merged)
            self._pieces[: len(old)] = merged.values()

    # What it says

    def _stored(self, index: int, piece: _Piece, passed: int) -> Iterator[Stored]:
        path, known = f"{self._root}/{piece.path}", max(piece.known, passed)
        at = self._cursors.pop(piece.path, None)
        if at is None or at.journal.last != known or at.journal.offset > piece.stop:
            at = _Cursor(Journal(), "")
        journal = at.journal
        try:
            received = int(os.stat(path).st_mtime * 1000)
            for records, last in _parts(read(path, journal, stop=piece.stop), _BATCH_RECORDS, journal):
                fresh = tuple(record for record in records if record.number > known)
                if not fresh:
                    at.digest = digest(records, at.digest)
                    continue
                at.digest = digest(records[: len(records) - len(fresh)], at.digest)
                actor, claim = str(journal.writer.get("user", "")), journal.writer.get("claim")
                if claim is not None and not piece.path.startswith("claims/"):
                    claim = claim if fresh[0].number == 1 else None
                    if claim is not None and self._holds(claim, journal.source):  # that file tells it
                        at.digest = digest(fresh, at.digest)
                        continue
                previous = self._digest(journal.source, piece, fresh[0].number) or at.digest
                place = (index + 1, 0) if last else (index, fresh[-1].number)
                batch = Batch(journal.source, piece.home, fresh, previous if fresh[0].number > 1 else "", claim)
                yield Stored(self._position(*place), received, actor, batch)
                if not last or piece.path in self._journals:
                    at.digest = digest(fresh, at.digest)
        except (FileNotFoundError, JournalError):
            return  # the run was removed from the folder meanwhile, or this is no journal
        if piece.path in self._journals:
            self._cursors[piece.path] = at
            while len(self._cursors) > _CURSORS:
                self._cursors.popitem(last=False)

    def _holds(self, claim: str, source: str) -> bool:
        """Tell whether the file of a claim is of a source; it is another's, if a store was copied over this one."""
        journal = Journal()
        with contextlib.suppress(FileNotFoundError, JournalError):
            next(iter(read(str(claim_path(Folder(Path(self._root), ""), claim)), journal)), None)
        return journal.source == source

    def _digest(self, source: str, piece: _Piece, number: int) -> str | None:
        """Return the digest of a source's records before `number`, None if they are all in the file of `piece`."""
        paths = self._claims.get(source, [])
        if number == 1 or not paths:
            return None
        own = f"{folder_of('', piece.home)[1:]}/{source}{SUFFIX}"
        found: dict[int, Record] = {}
        for path in [*paths, own]:
            with contextlib.suppress(FileNotFoundError):
                found |= {record.number: record for record in read(f"{self._root}/{path}") if record.number < number}
        return digest(found[each] for each in sorted(found))


def _source_of(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(SUFFIX)


def _parts(records: Iterator[Record], size: int, journal: Journal) -> Iterator[tuple[tuple[Record, ...], bool]]:
    """Yield so many records together, and whether they are the last; the copy of what was claimed comes alone."""
    part: list[Record] = []
    for record in records:
        if len(part) == size or (part and part[0].number == 1 and "claim" in journal.writer):
            yield tuple(part), False
            part = []
        part.append(record)
    if part:
        yield tuple(part), True


def _ignored(journal: Journal, points: Points) -> None:
    """Leave points out, which are most of a journal."""
