"""The folder store: batches as journals, answers folded from them, sealed runs read as columns."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import itemgetter, or_
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from mlcore.errors import JournalError, PositionLost
from mlcore.folder import STORE_HOME, Folder
from mlcore.journal.format import SUFFIX
from mlcore.store import (
    START,
    And,
    Batch,
    Capabilities,
    Columns,
    Entity,
    Not,
    Or,
    Page,
    Query,
    Record,
    SeriesKey,
    SimpleStore,
    Stored,
    Where,
    digest,
    find,
    selected,
    shaped,
)
from mlcore_local.home import Home, Piece
from mlcore_local.reader import Journal, read
from mlcore_local.sealed_fold import SealedFold
from mlcore_local.watch import Watch

if TYPE_CHECKING:
    from mlcore_local.append import Appender

__all__ = ["FolderStore", "open_store"]

_BATCH_RECORDS = 1_000
_SETTLED_SECONDS = 90  # three signs of life: a run that ended and is silent that long is not being written to


class FolderStore(SimpleStore):
    """Read and append to a store in a folder; a handle keeps what it read, and looks only at what changed.

    Positions are good in the handle that gave them. With `newest` set it looks only at so many runs, the newest by id.
    """

    capabilities = Capabilities()

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.newest: int | None = None
        self._fold: SealedFold = SealedFold()
        self._folder: Folder | None = None
        self._homes: dict[str, Home] = {}
        self._active: set[str] = set()
        self._foreign: set[str] = set()
        self._claims: dict[str, list[Path]] = {}
        self._pieces: list[Piece] = []
        self._token = os.urandom(8).hex()
        self._watch: Watch | None = None
        self._appender: Appender | None = None

    # What the contract asks for

    def append(self, batch: Batch) -> None:
        """See `mlcore.store.Store.append`; the first one makes the store."""
        with self._lock:
            if self._appender is None:
                from mlcore_local.append import Appender  # brings OpenSSL, which who reads does not need

                self._folder, _ = Folder.create(self.root)
                self._appender = Appender(self._folder)
            self._appender.append(batch, self._claims_of)

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        """See `mlcore.store.Store.events`."""
        with self._lock:
            self._read_all()
            start, known = self._index(after)
            pieces = self._pieces[start:]
        wanted = None if kinds is None else set(kinds)
        for index, piece in enumerate(pieces, start):
            if of is None or piece.home == of:
                for stored in self._stored(index, piece, known if index == start else 0):
                    chosen = selected(stored, of, wanted, rows)
                    if chosen is not None:
                        yield chosen

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`. Runs are looked up by themselves, so this does not read the whole store."""
        with self._lock:
            if kind == "run":
                self._read_some(ids)
            else:
                self._read_all()
            return [self._entity(kind, id) for id in ids]

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        with self._lock:
            self._read_all()
            found, early = self._fold.entities(kind), _asks_metrics(query)
            page = find(map(self._with_metrics, found) if early else found, query)
            items = page.items if early or query.select is not None else map(self._with_metrics, page.items)
            return attrs.evolve(page, items=tuple(map(self._with_signs, items)))

    def series(
        self,
        kind: str,
        ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        context: str | None = None,
        columns: Sequence[str] | None = None,
        max_points: int | None = None,
    ) -> dict[SeriesKey, Columns]:
        """See `mlcore.store.Store.series`."""
        found: dict[SeriesKey, Columns] = {}
        with self._lock:
            if kind == "run":
                self._read_some(ids)
            else:
                self._read_all()
            for id in (each for each in ids if self._fold.entity(kind, each)):
                for name in self._names(kind, id):
                    if (keys is None or name[0] in keys) and context in (None, name[1]):
                        found[id, *name] = self._columns(kind, id, name)
        return shaped(found, None, None, columns, max_points)

    # What is read

    def _open(self) -> Folder:
        if self._folder is None:
            self._folder = Folder.open(self.root)
        if self._watch is None:
            self._watch = Watch(self._folder)
        return self._folder

    def _read_all(self) -> None:
        self._read_claims()
        assert self._watch is not None
        homes = {STORE_HOME, *self._watch.changed(), *self._active}
        for home in homes if self.newest is None else {STORE_HOME, *sorted(homes)[-self.newest :]}:
            self._read_home(home)

    def _read_some(self, run_ids: Iterable[str]) -> None:
        self._read_claims()
        for home in (STORE_HOME, *run_ids):
            if home in self._homes or self._open().run_folder(home).is_dir():
                self._read_home(home)

    def _read_claims(self) -> None:
        self._open()
        assert self._watch is not None
        for path in self._watch.new_claims():
            journal, records = Journal(), list[Record]()
            with contextlib.suppress(JournalError):  # `mlcore fsck` tells
                records = list(read(path, journal))
            if journal.header is not None:
                home = self._home(journal.header.home)
                home.take_claim(journal, records, self._fold)
                self._fold.claims[str(journal.writer.get("claim"))] = journal.source
                self._claims.setdefault(journal.source, []).append(path)
                self._pieces.append(Piece(str(path), home.id, 0, journal.offset))

    def _claims_of(self, source: str) -> list[Path]:
        self._read_claims()
        return self._claims.get(source, [])

    def _home(self, id: str) -> Home:
        if id not in self._homes:
            folder = f"runs/{id[-2:]}/{id}" if id else "store"  # as `Folder.run_folder`, but without a thousand paths
            self._homes[id] = Home(id, f"{self.root}/{folder}")
        return self._homes[id]

    def _read_home(self, id: str) -> None:
        home = self._home(id)
        self._pieces += home.read(self._fold)
        if home.foreign:
            self._foreign.add(id)
        entity = self._fold.entity("run", id) if id else None
        running = entity is not None and entity.fields.get("status") == "RUNNING"
        if running or (id and time.time() - home.changed() < _SETTLED_SECONDS):
            self._active.add(id)
        else:
            self._active.discard(id)

    # What is answered

    def _entity(self, kind: str, id: str) -> Entity | None:
        found = self._fold.entity(kind, id)
        return None if found is None else self._with_signs(self._with_metrics(found))

    def _holders(self, kind: str, id: str) -> list[Home]:
        """Return the homes that hold rows of an entity: its own, if any, before those of others."""
        homes = [id, *sorted(self._foreign - {id})] if self._foreign else [id]
        return [self._homes[home] for home in homes if home in self._homes and self._homes[home].names(kind, id)]

    def _names(self, kind: str, id: str) -> list[tuple[str, str]]:
        return sorted({name for home in self._holders(kind, id) for name in home.names(kind, id)})

    def _columns(self, kind: str, id: str, name: tuple[str, str]) -> Columns:
        holders = [home for home in self._holders(kind, id) if name in home.names(kind, id)]
        rewinds = self._fold.rewinds(kind, id)
        if len(holders) == 1:
            with contextlib.suppress(OSError):  # somebody seals it anew, or removes the seal
                return holders[0].columns(kind, id, name, rewinds)
        for home in holders:
            home.unseal(self._fold)
        return reduce(or_, (home.rows(kind, id, name) for home in holders)).columns(rewinds)

    def _with_metrics(self, entity: Entity) -> Entity:
        holders = self._holders(entity.kind, entity.id)
        if not holders:
            return entity
        kind, id = entity.kind, entity.id
        if len(holders) == 1:
            metrics = holders[0].summaries(kind, id, self._fold)
        else:
            held = Counter(name for home in holders for name in home.names(kind, id))
            named = [item for home in holders for item in home.summaries(kind, id, self._fold).items()]
            shared = [(name, self._columns(kind, id, name).summary()) for name, homes in held.items() if homes > 1]
            named = [item for item in named if held[item[0]] == 1] + [(name, each) for name, each in shared if each]
            metrics = dict(sorted(named, key=itemgetter(0)))
        return attrs.evolve(entity, metrics=metrics)

    def _with_signs(self, entity: Entity) -> Entity:
        home = self._homes.get(entity.id) if entity.kind == "run" else None
        if home is None or entity.fields.get("status", "RUNNING") != "RUNNING":
            return entity
        return attrs.evolve(entity, seen=home.seen(), alive=home.alive())

    # What is passed on

    def _index(self, after: str) -> tuple[int, int]:
        """Return the piece to go on with, and the last record of it that was passed on."""
        if after == START:
            return 0, 0
        token, _, place = after.partition("-")
        index, _, known = place.partition("-")
        if token != self._token or not (index.isdigit() and known.isdigit()) or int(index) >= len(self._pieces):
            raise PositionLost(f"position {after[:40]!r} is not one of this handle of {self.root}")
        return int(index), int(known)

    def _stored(self, index: int, piece: Piece, known: int) -> Iterator[Stored]:
        journal = Journal()
        try:
            received = int(os.stat(piece.path).st_mtime * 1000)
            records = list(read(piece.path, journal, stop=piece.stop))
        except FileNotFoundError:
            return  # the run was removed from the folder meanwhile
        actor, claim = str(journal.writer.get("user", "")), journal.writer.get("claim")
        first = max(piece.known, known) + 1
        fresh = [record for record in records if record.number >= first]
        previous = self._digest_before(journal.source, piece.home, fresh[0].number) if fresh else ""
        for start in range(0, len(fresh) or (known == 0), _BATCH_RECORDS):
            part = tuple(fresh[start : start + _BATCH_RECORDS])
            last = part[-1].number if part else 0
            batch = Batch(journal.source, piece.home, part, previous, claim)
            yield Stored(f"{self._token}-{index}-{last}", received, actor, batch)
            previous = digest(part, previous)

    def _digest_before(self, source: str, home: str, number: int) -> str:
        if number == 1:
            return ""
        own = Path(self._home(home).folder, source + SUFFIX)
        paths = [*self._claims.get(source, []), *([own] if own.exists() else [])]
        found = {record.number: record for path in paths for record in read(path) if record.number < number}
        return digest(found[each] for each in sorted(found))


def _asks_metrics(query: Query) -> bool:
    """Tell whether metrics have a part in which entities a query finds, in what order, and what of each."""

    def asks(where: Where | None) -> bool:
        if isinstance(where, And | Or):
            return any(map(asks, where.parts))
        return where is not None and (asks(where.part) if isinstance(where, Not) else where.term.family == "metrics")

    terms = [*(sort.term for sort in query.order), *(query.select or ())]
    return asks(query.where) or any(term.family == "metrics" for term in terms)


def open_store(uri: str) -> FolderStore:
    """Open the folder store at a path or ``file://`` URI; it need not be there before something is appended."""
    return FolderStore(Path(uri.removeprefix("file://")).expanduser().absolute())
