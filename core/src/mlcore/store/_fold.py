"""The fold: the one rule by which batches become state, whatever order they arrived in.

Everything is ordered by ``(stamp, source, number)``, and what is kept of each field, attribute and series
is a function of the set of records alone, so adding them in any order gives the same state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from mlcore.store._batch import Batch, Record
from mlcore.store._events import (
    AttributesRemoved,
    AttributesSet,
    Created,
    Erased,
    Event,
    Rewound,
    RowsLogged,
    Unknown,
    Updated,
)
from mlcore.store._rows import Columns, Order, Rewind, Summary, ordered

__all__ = ["Conflict", "Entity", "Fold", "same"]

_REMOVED = object()


@attrs.frozen
class Conflict:
    """Tell of a value that was set once more, and lost: it is kept, never shown as the value."""

    family: str
    name: str
    value: Any
    source: str


@attrs.frozen
class Entity:
    """Show one thing as the events made it.

    `created` is the stamp (ns) of its first event, `changed` of its last. `metrics` sums up its metrics by key
    and context. `seen` is the last sign of life (ms since 1970) where the store can vouch for one, `alive`
    whether the process that opened it is known to run (True), known to be gone (False), or neither (None).
    """

    kind: str
    id: str
    parent: str = ""
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    attributes: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    metrics: Mapping[tuple[str, str], Summary] = attrs.field(factory=dict)
    conflicts: tuple[Conflict, ...] = ()
    created: int = 0
    changed: int = 0
    seen: int | None = None
    alive: bool | None = None


class _Attribute:
    """One name of a family: the last plain write, and every write that was to be the only one."""

    __slots__ = ("once", "plain")

    def __init__(self) -> None:
        self.plain: tuple[Order, Any] | None = None
        self.once: dict[Order, Any] = {}

    def resolve(self) -> tuple[Any, list[tuple[Order, Any]]]:
        """Return the value, or _REMOVED, and the writes that lost to it."""
        later = sorted(item for item in self.once.items() if self.plain is None or item[0] > self.plain[0])
        if self.plain is not None and self.plain[1] is not _REMOVED:
            value = self.plain[1]
        elif later:
            value = later.pop(0)[1]
        else:
            return _REMOVED, []
        return value, [item for item in later if not same(item[1], value)]


def _when(write: tuple[Order, Any]) -> Order:
    return write[0]


class _State:
    """All that is known of one entity."""

    def __init__(self) -> None:
        self.erased = False
        self.first, self.last = 1 << 64, 0
        self.parent: tuple[Order, str] | None = None
        self.initial: dict[str, tuple[Order, Any]] = {}
        self.updated: dict[str, tuple[Order, Any]] = {}
        self.attributes: dict[tuple[str, str], _Attribute] = {}
        self.rewinds: list[Rewind] = []
        self.rows: dict[tuple[str, str], list[tuple[Order, Mapping[str, Any]]]] = {}

    def add(self, event: Event, order: Order) -> None:
        self.first, self.last = min(self.first, order[0]), max(self.last, order[0])
        if isinstance(event, RowsLogged):
            self.rows.setdefault((event.key, event.context), []).append((order, event.columns))
        elif isinstance(event, Created):
            self.parent = min(self.parent or (order, event.parent), (order, event.parent))
            for name, value in event.fields.items():
                self.initial[name] = min(self.initial.get(name, (order, value)), (order, value), key=_when)
        elif isinstance(event, Updated):
            for name, value in event.fields.items():
                self.updated[name] = max(self.updated.get(name, (order, value)), (order, value), key=_when)
        elif isinstance(event, AttributesSet):
            for name, value in event.values.items():
                self.write(event.family, name, order, value, event.once)
        elif isinstance(event, AttributesRemoved):
            for name in event.names:
                self.write(event.family, name, order, _REMOVED, False)
        elif isinstance(event, Rewound):
            self.rewinds.append((order, event.step))
        elif isinstance(event, Erased):
            self.erased = True

    def write(self, family: str, name: str, order: Order, value: Any, once: bool) -> None:
        attribute = self.attributes.setdefault((family, name), _Attribute())
        if once:
            attribute.once[order] = value
        elif attribute.plain is None or order > attribute.plain[0]:
            attribute.plain = (order, value)

    def series(self) -> dict[tuple[str, str], Columns]:
        return {key: ordered(rows, self.rewinds) for key, rows in sorted(self.rows.items())}

    def entity(self, kind: str, id: str) -> Entity:
        fields = {name: value for name, (_, value) in sorted((self.initial | self.updated).items())}
        attributes: dict[str, dict[str, Any]] = {}
        conflicts = []
        for (family, name), attribute in sorted(self.attributes.items()):
            value, lost = attribute.resolve()
            conflicts += [Conflict(family, name, each, order[1]) for order, each in lost]
            if value is not _REMOVED:
                attributes.setdefault(family, {})[name] = value
        metrics = {key: summary for key, each in self.series().items() if (summary := each.summary()) is not None}
        parent = self.parent[1] if self.parent else ""
        return Entity(kind, id, parent, fields, attributes, metrics, tuple(conflicts), self.first, self.last)


class Fold:
    """Hold the state that a set of batches makes. Not thread-safe."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str, _State]] = {}
        self._cache: dict[tuple[str, str], Entity] = {}
        self._seen: dict[str, tuple[int, set[int]]] = {}
        self.stamp = 0
        self.claims: dict[str, str] = {}

    def add(self, batch: Batch) -> None:
        """Take in a batch; records that were taken in before change nothing."""
        if batch.claim is not None:
            self.claims[batch.claim] = min(batch.source, self.claims.get(batch.claim, batch.source))
        for record in batch.records:
            if self._unseen(batch.source, record.number):
                self.add_record(batch.source, record)

    def add_record(self, source: str, record: Record) -> None:
        """Take in one record that was certainly not taken in before."""
        self.stamp = max(self.stamp, record.stamp)
        for index, event in enumerate(record.events):
            if isinstance(event, Unknown):
                continue
            state = self._states.setdefault(event.kind, {}).setdefault(event.id, _State())
            state.add(event, (record.stamp, source, record.number, index))
            self._cache.pop((event.kind, event.id), None)

    def _unseen(self, source: str, number: int) -> bool:
        last, beyond = self._seen.get(source, (0, set()))
        if number <= last or number in beyond:
            return False
        beyond.add(number)
        while last + 1 in beyond:
            last += 1
            beyond.remove(last)
        self._seen[source] = (last, beyond)
        return True

    def entity(self, kind: str, id: str) -> Entity | None:
        """Return the entity, None if no event names it or it was erased."""
        known = self._cache.get((kind, id))
        if known is not None:
            return known
        state = self._states.get(kind, {}).get(id)
        if state is None or state.erased:
            return None
        return self._cache.setdefault((kind, id), state.entity(kind, id))

    def entities(self, kind: str) -> Iterator[Entity]:
        """Yield all entities of a kind that were not erased."""
        found = (self.entity(kind, id) for id in list(self._states.get(kind, ())))
        return (each for each in found if each is not None)

    def touch(self, kind: str, id: str, stamp: int) -> None:
        """Let an entity be known, and changed at `stamp`, for whoever keeps its rows elsewhere."""
        state = self._states.setdefault(kind, {}).setdefault(id, _State())
        state.first, state.last = min(state.first, stamp), max(state.last, stamp)
        self._cache.pop((kind, id), None)

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """Return the order and the step of each `Rewound` of an entity, for whoever keeps its rows elsewhere."""
        state = self._states.get(kind, {}).get(id)
        return state.rewinds if state else ()

    def series(self, kind: str, id: str) -> dict[tuple[str, str], Columns]:
        """Return the rows of an entity by key and context, in order, rewound rows left out."""
        state = self._states.get(kind, {}).get(id)
        return {} if state is None or state.erased else state.series()


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same: NaN is the same as NaN, 1 is neither 1.0 nor True."""
    return type(one) is type(other) and (one == other or repr(one) == repr(other))
