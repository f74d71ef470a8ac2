"""The store contract: what a store is, and what the simplest one has to write itself."""

import threading
from collections.abc import Iterable, Iterator, Sequence

import attrs

from mlcore.errors import PositionLost
from mlcore.store._events import Batch, Event, RowsLogged
from mlcore.store._fold import Columns, Entity, Fold
from mlcore.store._query import Page, Query, find

__all__ = ["START", "Capabilities", "SeriesKey", "SimpleStore", "Store", "Stored", "selected", "shaped"]

START = ""


@attrs.frozen
class Capabilities:
    """Declare what a store can do; what it cannot, core replaces or refuses by name.

    `history`: `events` yields every batch, not only what is current. `claims`: batches with a claim are taken
    atomically. `erase`: what was erased is physically gone. `client_ids`: ids made by clients are kept.
    `durability`: what was appended survives the end of the ``"process"`` or the loss of ``"power"``.
    `shared_positions`: a position is good in every handle, not only in the one that gave it.
    """

    history: bool = True
    claims: bool = True
    erase: bool = False
    client_ids: bool = True
    durability: str = "process"
    shared_positions: bool = False


@attrs.frozen
class Stored:
    """Hold a batch as a store has it. `received_at` (ms since 1970) and `actor` are the store's word."""

    position: str
    received_at: int
    actor: str
    batch: Batch


Names = Sequence[str] | None
SeriesKey = tuple[str, str, str]


def selected(
    stored: Stored, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
) -> Stored | None:
    """Return what `events` asks for of a stored batch, None if that is nothing."""
    if of is not None and stored.batch.home != of:
        return None
    if kinds is None and rows:
        return stored
    wanted = None if kinds is None else set(kinds)

    def asked(event: Event) -> bool:
        return (wanted is None or event.kind in wanted) and (rows or not isinstance(event, RowsLogged))

    left = ((record, tuple(filter(asked, record.events))) for record in stored.batch.records)
    records = tuple(attrs.evolve(record, events=events) for record, events in left if events)
    return attrs.evolve(stored, batch=attrs.evolve(stored.batch, records=records)) if records else None


class SimpleStore:
    """Answer `get`, `find` and `series` by folding what `events` yields: subclass, write two methods.

    ::

        class MyStore(SimpleStore):
            def append(self, batch): ...
            def events(self, after=START, *, of=None, kinds=None, rows=True): ...

    The state is kept in memory and brought up to date at every question; a store that can answer faster overrides
    the question. Handles are thread-safe, read their own writes, and see those of others within a second.
    """

    capabilities = Capabilities()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._fold = Fold()
        self._position = START
        self._signs: dict[str, int] = {}

    def append(self, batch: Batch) -> None:
        """Store a batch, durably as declared when this returns.

        What is known already is trimmed. A batch with a claim is taken with it, or refused. Raises
        `Malformed`, `OutOfOrder`, `SourceReused` or `AlreadyExists`.
        """
        raise NotImplementedError

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        """Yield what is stored after a position, and end. Order holds within a source only.

        Nothing that was durable before a position was given out is ever skipped after it. `of` asks for one
        home, `kinds` for events of these kinds of entity, ``rows=False`` for no `RowsLogged`; what was not
        asked for is left out of its records, and a batch with nothing left may be left out.
        Raises `PositionLost` if `after` is unknown here.
        """
        raise NotImplementedError

    def _current(self) -> Fold:
        try:
            self._catch_up()
        except PositionLost:
            self._fold, self._position = Fold(), START
            self._catch_up()
        return self._fold

    def _catch_up(self) -> None:
        for stored in self.events(self._position):
            self._fold.add(stored.batch)
            self._signs[stored.batch.home] = max(stored.received_at, self._signs.get(stored.batch.home, 0))
            self._position = stored.position

    def _alive(self, entity: Entity) -> Entity:
        return attrs.evolve(entity, seen=self._signs.get(entity.id) if entity.kind == "run" else None)

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """Return the entities of these ids, deleted ones included, None where there is none."""
        with self._lock:
            fold = self._current()
            return [found and self._alive(found) for found in (fold.entity(kind, id) for id in ids)]

    def find(self, kind: str, query: Query) -> Page:
        """Return the entities that fit a query, as `mlcore.store.find` would."""
        with self._lock:
            page = find(self._current().entities(kind), query)
            return attrs.evolve(page, items=tuple(map(self._alive, page.items)))

    def series(
        self,
        kind: str,
        ids: Sequence[str],
        keys: Names = None,
        *,
        context: str | None = None,
        columns: Names = None,
        max_points: int | None = None,
    ) -> dict[SeriesKey, Columns]:
        """Return rows by (id, key, context), in order of step, time and log order.

        `keys` and `context` are all if None. More than `max_points` rows are thinned so that the least and
        the greatest value of every bucket stay.
        """
        with self._lock:
            fold = self._current()
            found = {(id, *key): value for id in ids for key, value in fold.series(kind, id).items()}
        return shaped(found, keys, context, columns, max_points)

    def close(self) -> None:
        """Give back what the handle holds; closing twice is fine."""


Store = SimpleStore  # the type of every store: what it does not override is folded


def shaped(
    found: dict[SeriesKey, Columns], keys: Names, context: str | None, columns: Names, max_points: int | None
) -> dict[SeriesKey, Columns]:
    """Return of whole series what `Store.series` was asked for."""
    answer = {}
    for name, series in found.items():
        if (keys is None or name[1] in keys) and (context is None or name[2] == context):
            thin = series.sampled(max_points).columns.items()
            answer[name] = Columns({k: values for k, values in thin if columns is None or k in columns}).as_numpy()
    return answer
