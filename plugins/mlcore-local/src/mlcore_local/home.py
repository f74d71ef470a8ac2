"""One home of a folder store: a run's folder, or the store's own journals, as far as it was read."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from mlcore.errors import JournalError
from mlcore.journal import started, this_process
from mlcore.journal.format import SUFFIX
from mlcore.store import Batch, Columns, Erased, Record, Rewound, RowsLogged, Summary
from mlcore_local.points import Points
from mlcore_local.reader import Journal, read
from mlcore_local.rows import Rows
from mlcore_local.seal import NAME, Sealed, open_sealed
from mlcore_local.sealed_fold import SealedFold

__all__ = ["Home", "Name", "Piece", "Rewinds", "alive"]

_log = logging.getLogger("mlcore")
Name = tuple[str, str]  # key, context
Rewinds = Sequence[tuple[Any, int]]


def alive(writer: Mapping[str, Any]) -> bool | None:
    """Tell whether the process that `writer` describes runs: None if that cannot be known from here."""
    here = this_process()
    if not here["boot"] or any(writer.get(name) != here[name] for name in ("host", "boot", "pidns")):
        return None
    return bool(writer.get("started")) and started(int(writer.get("pid", 0))) == writer["started"]


class Piece(NamedTuple):
    """Say which records of a file arrived together: those after number `known`, up to the offset `stop`."""

    path: str
    home: str
    known: int
    stop: int


@attrs.define
class _File:
    size: int = 0
    inode: int = 0
    changed: float = 0.0
    journal: Journal = attrs.field(factory=Journal)

    def own(self) -> bool:
        """Tell whether this is the file that its writer made, not a copy of it."""
        return self.inode == self.journal.writer.get("inode")


class Home:
    """Read what is new in a home's journals into a fold, and keep their rows here, or sealed."""

    def __init__(self, id: str, folder: str) -> None:
        self.id, self.folder = id, folder
        self.foreign = False
        self._files: dict[str, _File] = {}
        self._claims: list[tuple[Journal, list[Record]]] = []
        self._rows: dict[tuple[str, str], dict[Name, Rows]] = {}
        self._spans: dict[tuple[str, str], tuple[int, int]] = {}  # first and last stamp of rows, until the fold knows
        self._sealed: Sealed | None = None

    def read(self, fold: SealedFold) -> list[Piece]:
        """Read what was written since the last time."""
        fresh = not self._files and not self._rows
        grown, seal_there = self._grown()
        if fresh and seal_there:
            self._sealed = open_sealed(self.folder)
        if self._sealed is not None and (fresh or grown) and not self._covered(grown):
            self.unseal(fold)
        if fresh and self._sealed is not None:
            fold.take_sealed(self.id, self._sealed)
        pieces = []
        for name, size in grown.items():
            file, path = self._files[name], f"{self.folder}/{name}"
            known = file.journal.last
            if self._sealed is not None and name in self._sealed.journals:
                file.size = size
                pieces.append(Piece(path, self.id, 0, size))
                continue
            with contextlib.suppress(FileNotFoundError, JournalError):
                self._take(file, path, size, fold)
                pieces.append(Piece(path, self.id, known, file.journal.offset))
        return pieces

    def take_claim(self, journal: Journal, records: list[Record], fold: SealedFold) -> None:
        """Read the records of a claim's file that has its home here."""
        self._claims.append((journal, records))
        if any(isinstance(event, RowsLogged) for record in records for event in record.events):
            self.unseal(fold)
        self._add(journal, records, fold)

    def unseal(self, fold: SealedFold) -> None:
        """Read the rows from the journals after all, as somebody wrote to the run after it was sealed."""
        if self._sealed is not None:
            self._sealed = None
            fold.wake(self.id)
            for name, file in self._files.items():
                file.journal = Journal()
                with contextlib.suppress(FileNotFoundError, JournalError):
                    self._take(file, f"{self.folder}/{name}", file.size, fold)

    def names(self, kind: str, id: str) -> Iterable[Name]:
        """Return key and context of what is logged about an entity here."""
        if self._sealed is not None and (kind, id) == ("run", self.id):
            return self._sealed.summaries.keys()
        return self._rows.get((kind, id), {}).keys()

    def columns(self, kind: str, id: str, name: Name, rewinds: Rewinds) -> Columns:
        """Return rows in order."""
        return self._rows[kind, id][name].columns(rewinds) if self._sealed is None else self._sealed.columns(name)

    def rows(self, kind: str, id: str, name: Name) -> Rows:
        """Return rows as they were read, of a home that is not sealed."""
        return self._rows[kind, id][name]

    def summaries(self, kind: str, id: str, fold: SealedFold) -> dict[Name, Summary]:
        """Return the summaries of the metrics of an entity."""
        if self._sealed is not None:
            return {**self._sealed.summaries}
        rewinds = fold.rewinds(kind, id)
        found = {name: rows.summary(rewinds) for name, rows in sorted(self._rows.get((kind, id), {}).items())}
        return {name: summary for name, summary in found.items() if summary is not None}

    def alive(self) -> bool | None:
        """Tell whether a writer runs; None if that cannot be known, as of a copy, whose run may go on elsewhere."""
        files = [file for file in self._files.values() if file.journal.header is not None]
        known = {alive(journal.writer) for journal in [*(file.journal for file in files), *self._claimed()]}
        if True in known:
            return True
        return None if None in known or not known or not all(map(_File.own, files)) else False

    def changed(self) -> float:
        """Return when a journal changed last, in s since 1970."""
        return max((file.changed for file in self._files.values()), default=0.0)

    def seen(self) -> int | None:
        """Return the last sign of life in ms since 1970, None if these are copies, whose times say nothing."""
        own = [file.changed for file in self._files.values() if file.own()]
        return int(max(own) * 1000) if own else None

    def _claimed(self) -> Iterator[Journal]:
        return (journal for journal, _ in self._claims)

    def _grown(self) -> tuple[dict[str, int], bool]:
        """Return the sizes of the journals that are new or not as long as they were, and whether there is a seal."""
        grown, seal_there = dict[str, int](), False
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name
                if name == NAME:
                    seal_there = True
                elif name.endswith(SUFFIX):
                    status = entry.stat()
                    file = self._files.get(name)
                    if file is None:
                        self._files[name] = _File(0, status.st_ino, status.st_mtime)
                        grown[name] = status.st_size
                        continue
                    file.changed, file.inode = status.st_mtime, status.st_ino
                    if file.size != status.st_size:
                        grown[name] = status.st_size
        return grown, seal_there

    def _covered(self, grown: Mapping[str, int]) -> bool:
        """Tell whether the seal still holds: its journals are as they were, and what came is no row and no rewind."""
        assert self._sealed is not None
        for name, (size, _) in self._sealed.journals.items():
            if name not in self._files or size != grown.get(name, self._files[name].size):
                return False
        for name in grown.keys() - self._sealed.journals.keys():
            with contextlib.suppress(FileNotFoundError, JournalError):
                for record in read(f"{self.folder}/{name}"):
                    if any(isinstance(event, RowsLogged | Rewound | Erased) for event in record.events):
                        return False
        return True

    def _take(self, file: _File, path: str, size: int, fold: SealedFold) -> None:
        def take(journal: Journal, points: Points) -> None:
            for stamp in points.span():
                rows = self._series(*journal.named(points.key), stamp)
            rows.add_points(journal.source, points)

        journal, known = file.journal, len(file.journal.damage)
        self._add(journal, read(path, journal, stop=size, points=take), fold)
        file.size = size
        if journal.damage[known:]:
            _log.warning("%s is damaged, the rest of it is read: %s", path, journal.damage[-1])

    def _add(self, journal: Journal, records: Iterable[Record], fold: SealedFold) -> None:
        for record in records:
            rest = []
            for index, event in enumerate(record.events):
                if isinstance(event, RowsLogged):
                    rows = self._series(event.kind, event.id, event.key, event.context, record.stamp)
                    rows.add(journal.source, record.number, record.stamp, event.columns, index)
                else:
                    rest.append(event)
            if rest:
                fold.add(Batch(journal.source, self.id, (attrs.evolve(record, events=tuple(rest)),)))
        for (kind, id), span in self._spans.items():
            for stamp in span:
                fold.touch(kind, id, stamp)
        self._spans.clear()

    def _series(self, kind: str, id: str, key: str, context: str, stamp: int) -> Rows:
        """Return where rows go, and note that their entity was there at `stamp`."""
        self.foreign = self.foreign or (kind, id) != ("run", self.id)
        first, last = self._spans.get((kind, id), (stamp, stamp))
        self._spans[kind, id] = (min(first, stamp), max(last, stamp))
        return self._rows.setdefault((kind, id), {}).setdefault((key, context), Rows())
