"""One home of a folder store: a run's folder, or the store's own journals, as far as it was read."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from mlcore.errors import JournalError
from mlcore.journal import started, this_process
from mlcore.journal.format import SUFFIX
from mlcore.store import Batch, Columns, Entity, Erased, Record, Rewind, Rewound, RowsLogged, Summary
from mlcore_local.points import Points
from mlcore_local.reader import Journal, read
from mlcore_local.rows import Rows
from mlcore_local.seal import NAME, Sealed, open_sealed

__all__ = ["File", "Home", "Name", "Rewinding", "Rewinds", "Taking", "alive"]

_BEGINNING = 4_096  # bytes, of which the header and the frame of the writer are less
_log = logging.getLogger("mlcore")
Name = tuple[str, str]  # key, context
Rewinds = Sequence[Rewind]


class Rewinding(Protocol):
    """Know what was rewound."""

    def rewinds(self, kind: str, id: str) -> Rewinds:
        """See `mlcore.store.Fold.rewinds`."""
        ...


class Taking(Rewinding, Protocol):
    """Take in what homes hold, as `mlcore_local.sealed_fold.SealedFold` does."""

    def add(self, batch: Batch) -> None:
        """Take in events that are no rows."""
        ...

    def touch(self, kind: str, id: str, stamp: int) -> None:
        """Let an entity be known, and changed at `stamp`."""
        ...

    def take_sealed(self, id: str, sealed: Sealed) -> None:
        """Take in a sealed run."""
        ...

    def wake(self, id: str) -> None:
        """Know that the seal of a run does not count any more."""
        ...


def alive(writer: Mapping[str, Any]) -> bool | None:
    """Tell whether the process that `writer` describes runs: None if that cannot be known from here."""
    here = this_process()
    if not here["boot"] or any(writer.get(name) != here[name] for name in ("host", "boot", "pidns")):
        return None
    return bool(writer.get("started")) and started(int(writer.get("pid", 0))) == writer["started"]


@attrs.define
class File:
    """Remember a journal: how far it was read (`size`), and what the file was at the last look."""

    size: int = 0
    inode: int = 0
    changed: float = 0.0
    arrived: float = 0.0
    looked: int = 0
    journal: Journal = attrs.field(factory=Journal)
    peeked: Journal | None = None

    def look(self, status: os.stat_result) -> None:
        """Take in the status of the file; times are in s since 1970."""
        self.inode, self.looked = status.st_ino, status.st_size
        self.changed, self.arrived = status.st_mtime, status.st_ctime

    def writer(self, path: str) -> Mapping[str, Any]:
        """Return what the writer of the journal said about itself, from its beginning if it was not read."""
        if self.journal.header is None and self.peeked is None:
            self.peeked = Journal()
            with contextlib.suppress(OSError, JournalError), open(path, "rb", buffering=0) as file:
                next(self.peeked.feed(file.read(_BEGINNING), final=False), None)
        return (self.peeked or self.journal).writer


class Home:
    """Read what is new in a home's journals into a fold, and keep their rows here, or sealed."""

    def __init__(self, id: str, folder: str) -> None:
        self.id, self.folder = id, folder
        self.foreign = False
        self._files: dict[str, File] = {}
        self._claims: list[tuple[Journal, list[Record]]] = []
        self._rows: dict[tuple[str, str], dict[Name, Rows]] = {}
        self._spans: dict[tuple[str, str], tuple[int, int]] = {}  # first and last stamp of rows, until the fold knows
        self._sealed: Sealed | None = None
        self._changed = False  # by claims, of which the seal does not know

    def read(self, fold: Taking) -> None:
        """Read what was written since the last time."""
        fresh = not self._files and not self._changed
        grown, seal_there = self._grown()
        if fresh and seal_there:
            self._sealed = open_sealed(self.folder)
        if self._sealed is not None and (fresh or grown) and not self._covered(grown):
            self.unseal(fold)
        if fresh and self._sealed is not None:
            fold.take_sealed(self.id, self._sealed)
        for name, size in grown.items():
            file, path = self._files[name], f"{self.folder}/{name}"
            if self._sealed is not None and name in self._sealed.journals:
                file.size = size
                continue
            with contextlib.suppress(FileNotFoundError, JournalError):
                self._take(file, path, size, fold)

    def take_claim(self, journal: Journal, records: list[Record], fold: Taking) -> None:
        """Read the records of a claim's file that has its home here."""
        self._claims.append((journal, records))
        if any(isinstance(event, RowsLogged | Rewound) for record in records for event in record.events):
            self._changed = True
            self.unseal(fold)
        self._add(journal, records, fold)

    def unseal(self, fold: Taking) -> None:
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

    def summaries(self, kind: str, id: str, fold: Rewinding) -> dict[Name, Summary]:
        """Return the summaries of the metrics of an entity."""
        if self._sealed is not None:
            return {**self._sealed.summaries}
        rewinds = fold.rewinds(kind, id)
        found = {name: rows.summary(rewinds) for name, rows in sorted(self._rows.get((kind, id), {}).items())}
        return {name: summary for name, summary in found.items() if summary is not None}

    def alive(self) -> bool | None:
        """Tell whether a writer runs; None if that cannot be known, as of a copy, whose run may go on elsewhere."""
        files = [(file, writer) for file, writer in self._writers() if writer]
        known = {alive(writer) for writer in [*(writer for _, writer in files), *self._claimed()]}
        if True in known:
            return True
        own = all(file.inode == writer.get("inode") for file, writer in files)
        return None if None in known or not known or not own else False

    def changed(self) -> float:
        """Return when a journal changed last, in s since 1970."""
        return max((file.changed for file in self._files.values()), default=0.0)

    def seen(self) -> int | None:
        """Return the last sign of life in ms since 1970, None if these are copies, whose times say nothing."""
        own = [file.changed for file, writer in self._writers() if file.inode == writer.get("inode")]
        return int(max(own) * 1000) if own else None

    def _writers(self) -> Iterator[tuple[File, Mapping[str, Any]]]:
        return ((file, file.writer(f"{self.folder}/{name}")) for name, file in self._files.items())

    def signed(self, entity: Entity) -> Entity:
        """Return the run of this home with its signs of life, which say something of one that is not over."""
        return attrs.evolve(entity, seen=self.seen(), alive=self.alive())

    @property
    def sealed(self) -> bool:
        """Whether the seal stands for the journals that it names."""
        return self._sealed is not None

    def over(self) -> bool:
        """Tell whether one writer wrote all there is, and ended the run: whoever is next notes it, and has a journal.

        What others wrote may go on, and what ended elsewhere, too: their journals are not closed.
        """
        if len(self._files) != 1:
            return False
        sealed = self._sealed or open_sealed(self.folder)
        sizes = {name: file.looked for name, file in self._files.items()}
        return sealed is not None and sealed.ends and {name: it[0] for name, it in sealed.journals.items()} == sizes

    def logged(self) -> Mapping[tuple[str, str], Mapping[Name, Rows]]:
        """Return the rows that were read from journals, by kind and id of their entity."""
        return self._rows

    # What another process needs to go on from here

    def files(self) -> Mapping[str, File]:
        """Return the journals by name, as they were at the last look."""
        return self._files

    def noted(self) -> dict[str, list[Any]]:
        """Return as JSON how far each journal was read, and what the rest of it needs to be understood."""
        return {
            name: [file.inode, file.size, *file.journal.noted()]
            for name, file in self._files.items() if file.journal.header is not None
        }  # fmt: skip

    def restore(self, noted: Mapping[str, Sequence[Any]], writers: Iterable[Mapping[str, Any]] = ()) -> None:
        """Begin where another process stopped; the rows that it read are not here. `writers` are those of claims."""
        for name, (inode, size, *journal) in noted.items():
            self._files[name] = File(size, inode, journal=Journal.restored(journal))
        for writer in writers:
            claimed = Journal()
            claimed.writer = dict(writer)
            self._claims.append((claimed, []))

    def look(self) -> None:
        """Look when the journals changed last, without reading them."""
        self._grown()

    def _claimed(self) -> Iterator[Mapping[str, Any]]:
        return (journal.writer for journal, _ in self._claims)

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
                    known = self._files.get(name)
                    file = known or self._files.setdefault(name, File())
                    file.look(status)
                    if known is None or file.size != status.st_size:
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

    def _take(self, file: File, path: str, size: int, fold: Taking) -> None:
        def take(journal: Journal, points: Points) -> None:
            for stamp in points.span():
                rows = self._series(*journal.named(points.key), stamp)
            rows.add_points(journal.source, points)

        journal, known = file.journal, len(file.journal.damage)
        self._add(journal, read(path, journal, stop=size, points=take), fold)
        file.size = size
        if journal.damage[known:]:
            _log.warning("%s is damaged, the rest of it is read: %s", path, journal.damage[-1])

    def _add(self, journal: Journal, records: Iterable[Record], fold: Taking) -> None:
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
