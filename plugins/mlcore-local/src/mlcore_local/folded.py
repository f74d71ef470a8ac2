"""Read a whole folder store into memory: right without an index, and slower."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from mlcore.errors import JournalError
from mlcore.folder import STORE_HOME
from mlcore.store import And, Columns, Entity, Not, Or, Page, Query, Record, SeriesKey, Where, find
from mlcore_local.held import Held
from mlcore_local.home import Home
from mlcore_local.marks import folder_of
from mlcore_local.notes import Notes
from mlcore_local.reader import Journal, read
from mlcore_local.sealed_fold import SealedFold
from mlcore_local.watch import SETTLED_SECONDS, Watch

__all__ = ["Folded"]

_BATCH_RECORDS = 1_000


class Folded:
    """Keep what was read, and look only at what changed; with `newest` set, at so many runs. Not thread-safe."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.newest: int | None = None
        self._fold = SealedFold()
        self._homes: dict[str, Home] = {}
        self._active: dict[str, float] = {}  # homes, and until when they are looked at
        self._foreign: set[str] = set()
        self._claims: dict[str, list[Path]] = {}
        self._watch = Watch(self._root, Notes())

    def claims_of(self, source: str) -> list[Path]:
        """Return the files of the claims that a source has."""
        self._read_claims()
        return self._claims.get(source, [])

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`. Runs are looked up by themselves, so this does not read the whole store."""
        self._read(kind, ids)
        return [self._entity(kind, id) for id in ids]

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        self._read_all()
        found, early = self._fold.entities(kind), _asks_metrics(query)
        page = find(map(self._with_metrics, found) if early else found, query)
        items = page.items if early or query.select is not None else map(self._with_metrics, page.items)
        return attrs.evolve(page, items=tuple(map(self._with_signs, items)))

    def series(
        self, kind: str, ids: Sequence[str], keys: Sequence[str] | None, context: str | None
    ) -> dict[SeriesKey, Columns]:
        """Return whole series; see `mlcore.store.Store.series`."""
        self._read(kind, ids)
        held = [self._held(kind, each) for each in ids if self._fold.entity(kind, each)]
        return {name: columns for each in held for name, columns in each.series(keys, context)}

    # What is read

    def _read(self, kind: str, ids: Iterable[str]) -> None:
        if kind == "run":
            self._read_claims()
            for home in (STORE_HOME, *ids):
                if home in self._homes or os.path.isdir(folder_of(self._root, home)):
                    self._read_home(home)
        else:
            self._read_all()

    def _read_all(self) -> None:
        self._read_claims()
        soon = time.time() + SETTLED_SECONDS
        self._active |= dict.fromkeys(self._watch.noted(), soon)  # its journal may be there only a moment later
        homes = {STORE_HOME, *self._watch.runs(), *self._active}
        for home in homes if self.newest is None else {STORE_HOME, *sorted(homes)[-self.newest :]}:
            self._read_home(home)

    def _read_claims(self) -> None:
        for shard, name in self._watch.claims():
            path = Path(self._root, "claims", shard, name)
            journal, records = Journal(), list[Record]()
            with contextlib.suppress(JournalError):  # `mlcore fsck` tells
                records = list(read(path, journal))
            if journal.header is not None:
                home = self._home(journal.header.home)
                home.take_claim(journal, records, self._fold)
                self._fold.claims[str(journal.writer.get("claim"))] = journal.source
                self._claims.setdefault(journal.source, []).append(path)

    def _home(self, id: str) -> Home:
        if id not in self._homes:
            self._homes[id] = Home(id, folder_of(self._root, id))
        return self._homes[id]

    def _read_home(self, id: str) -> None:
        home = self._home(id)
        home.read(self._fold)
        if home.foreign:
            self._foreign.add(id)
        entity = self._fold.entity("run", id) if id else None
        running = entity is not None and entity.fields.get("status", "RUNNING") == "RUNNING"
        until = max(home.changed() + SETTLED_SECONDS, self._active.get(id, 0.0))
        if running or (id and time.time() < until):
            self._active[id] = until
        else:
            self._active.pop(id, None)

    # What is answered

    def _entity(self, kind: str, id: str) -> Entity | None:
        found = self._fold.entity(kind, id)
        return None if found is None else self._with_signs(self._with_metrics(found))

    def _held(self, kind: str, id: str) -> Held:
        """Return the rows of an entity: of its own home, if any, before those of others."""
        homes = [id, *sorted(self._foreign - {id})] if self._foreign else [id]
        found = [self._homes[home] for home in homes if home in self._homes and self._homes[home].names(kind, id)]
        return Held(kind, id, found, self._fold, self._fold)

    def _with_metrics(self, entity: Entity) -> Entity:
        held = self._held(entity.kind, entity.id)
        return attrs.evolve(entity, metrics=held.summaries()) if held.homes else entity

    def _with_signs(self, entity: Entity) -> Entity:
        home = self._homes.get(entity.id) if entity.kind == "run" else None
        whole = (
            None if home is None else self._fold.entity("run", entity.id)
        )  # of a page only what was asked for is here
        over = whole is None or whole.fields.get("status", "RUNNING") != "RUNNING"
        return entity if home is None or over else home.signed(entity)


def _asks_metrics(query: Query) -> bool:
    """Tell whether metrics have a part in which entities a query finds, in what order, and what of each."""

    def asks(where: Where | None) -> bool:
        if isinstance(where, And | Or):
            return any(map(asks, where.parts))
        return where is not None and (asks(where.part) if isinstance(where, Not) else where.term.family == "metrics")

    terms = [*(sort.term for sort in query.order), *(query.select or ())]
    return asks(query.where) or any(term.family == "metrics" for term in terms)
