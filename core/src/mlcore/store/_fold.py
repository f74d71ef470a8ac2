"""The fold: the one rule by which batches become state, whatever order they arrived in.

Everything is ordered by ``(stamp, source, number)``, and what is kept of each field, attribute and series
is a function of the set of records alone, so adding them in any order gives the same state.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Self

import attrs

from mlcore._value import Value
from mlcore.store import _events as e

__all__ = ["METRIC", "Columns", "Conflict", "Entity", "Fold", "Order", "Rewind", "Summary", "ordered", "same"]

METRIC = ("step", "time", "value")
Order = tuple[int, str, int, int]  # stamp, source, number, index of the event in its record
Rewind = tuple[Order, int]  # what was logged before, with a step above this one, is dropped


@attrs.frozen(eq=False, repr=False)
class Summary(Value):
    """Sum up one metric: number of rows, least and greatest value (NaN left out), and the last row."""

    count: int
    min: float
    max: float
    step: int
    time: int
    value: float


@attrs.frozen(eq=False)
class Columns:
    """Hold rows as columns of one length, by name, in order of step, time and log order.

    Metric columns are ``step`` and ``time`` (int64, ms since 1970) and ``value`` (float64), as numpy arrays
    where numpy is importable and `array.array` elsewhere.
    """

    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self.columns[name]

    def as_numpy(self) -> Self:
        """Return the same with numpy arrays, without a copy; itself where numpy is not importable."""
        try:
            import numpy
        except ImportError:
            return self
        arrays: Any = {k: numpy.frombuffer(v, v.typecode) for k, v in self.columns.items() if isinstance(v, array)}
        return type(self)({**self.columns, **arrays})

    def sampled(self, max_points: int | None) -> Self:
        """Return at most `max_points` rows that keep the least and the greatest value of every bucket."""
        size = len(self)
        if max_points is None or size <= max_points or not _numeric(self.columns.get("value")):
            return self
        values, buckets = self.columns["value"], max(1, max_points // 2)
        keep: set[int] = set()
        for bucket in range(buckets):
            start, stop = bucket * size // buckets, (bucket + 1) * size // buckets
            real = [row for row in range(start, stop) if values[row] == values[row]] or [start]
            keep |= {min(real, key=values.__getitem__), max(real, key=values.__getitem__)}
        rows = sorted(keep)[:max_points]
        return type(self)({name: e.column([values[row] for row in rows]) for name, values in self.columns.items()})

    def summary(self) -> Summary | None:
        """Sum up a metric whose rows are in order; None of no rows, or rows that are no metric."""
        if not len(self) or not all(_numeric(self.columns.get(name)) for name in METRIC):
            return None
        values = self["value"]
        real = [value for value in values if value == value] or [math.nan]  # noqa: PLR0124 - isnan fails on huge integers
        return Summary(len(values), min(real), max(real), self["step"][-1], self["time"][-1], values[-1])


def ordered(logged: Sequence[tuple[Order, Mapping[str, Sequence[Any]]]], rewinds: Sequence[Rewind] = ()) -> Columns:
    """Return the rows of several events in order, without those that a rewind, later than they, dropped."""
    rows: list[tuple[int, int, Order, int, Mapping[str, Sequence[Any]]]] = []
    for order, columns in logged:
        count = len(next(iter(columns.values()), ()))
        steps, times = (columns.get(name) or [0] * count for name in ("step", "time"))
        rows += [(step, time, order, row, columns) for row, (step, time) in enumerate(zip(steps, times, strict=True))]
    for order, limit in rewinds:
        rows = [row for row in rows if row[0] <= limit or row[2] > order]
    rows.sort(key=itemgetter(0, 1, 2, 3))
    names = dict.fromkeys(name for _, columns in logged for name in columns)
    return Columns({name: e.column([at[name][row] if name in at else None for *_, row, at in rows]) for name in names})


def _numeric(values: Any) -> bool:
    return hasattr(values, "tolist") or (values is not None and {type(each) for each in values} <= {int, float})


_REMOVED = object()


@attrs.frozen(eq=False, repr=False)
class Conflict(Value):
    """Tell of a value that was set once more, and lost: it is kept, never shown as the value."""

    family: str
    name: str
    value: Any
    source: str


@attrs.frozen(eq=False, repr=False)
class Entity(Value):
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

    created_ms = property(lambda it: it.created // 1_000_000, doc="When it was first named, in ms since 1970.")
    changed_ms = property(lambda it: it.changed // 1_000_000, doc="When it was last changed, in ms since 1970.")

    @property
    def duration(self) -> int | None:
        """How long it took, in ms; None while it has no end."""
        start, end = self.fields.get("start_time"), self.fields.get("end_time")
        return end - start if isinstance(start, int) and isinstance(end, int) else None


@attrs.define(eq=False, repr=False)
class _Value:
    """One field or attribute: the last plain write, and every write that was to be the only one."""

    plain: tuple[Order, Any] = ((-1, "", 0, 0), _REMOVED)
    once: dict[Order, Any] = attrs.field(factory=dict)

    def write(self, order: Order, value: Any, once: bool = False) -> None:
        if once:
            self.once[order] = value
        elif order > self.plain[0]:
            self.plain = (order, value)

    def begin(self, order: Order, value: Any) -> None:
        if all(order < each for each in self.once):  # every run brings its experiment's first values along
            self.once = {order: value}

    def resolve(self) -> tuple[Any, list[tuple[Order, Any]]]:
        """Return the value, or _REMOVED, and the writes that lost to it."""
        written, value = self.plain
        later = sorted(item for item in self.once.items() if item[0] > written)
        if value is _REMOVED and later:
            value = later.pop(0)[1]
        return value, [item for item in later if not same(item[1], value)]


class _State:
    """All that is known of one entity, and what it was shown as since it changed."""

    def __init__(self, erased: bool = False) -> None:
        self.erased = erased
        self.shown: Entity | None = None
        self.first, self.last = 1 << 64, 0
        self.parent: tuple[Order, str] = ((1 << 64, "", 0, 0), "")
        self.fields: defaultdict[str, _Value] = defaultdict(_Value)
        self.attributes: defaultdict[tuple[str, str], _Value] = defaultdict(_Value)
        self.rewinds: list[Rewind] = []
        self.rows: defaultdict[tuple[str, str], list[tuple[Order, Mapping[str, Any]]]] = defaultdict(list)

    def add(self, event: e.Event, order: Order) -> None:
        match event:
            case e.RowsLogged():
                self.rows[event.key, event.context].append((order, event.columns))
            case e.Created():
                for name, value in event.fields.items():
                    self.fields[name].begin(order, value)
                self.parent = min(self.parent, (order, event.parent))
            case e.Updated():
                for name, value in event.fields.items():
                    self.fields[name].write(order, value)
            case e.AttributesSet():
                for name, value in event.values.items():
                    self.attributes[event.family, name].write(order, value, event.once)
            case e.AttributesRemoved():
                for name in event.names:
                    self.attributes[event.family, name].write(order, _REMOVED)
            case e.Rewound():
                self.rewinds.append((order, event.step))
            case e.Erased():
                self.erased = True

    def series(self) -> dict[tuple[str, str], Columns]:
        return {key: ordered(rows, self.rewinds) for key, rows in sorted(self.rows.items())}

    def entity(self, kind: str, id: str) -> Entity:
        fields = {name: each.resolve()[0] for name, each in sorted(self.fields.items())}
        attributes: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        conflicts = []
        for (family, name), attribute in sorted(self.attributes.items()):
            value, lost = attribute.resolve()
            conflicts += [Conflict(family, name, each, order[1]) for order, each in lost]
            if value is not _REMOVED:
                attributes[family][name] = value
        metrics = {key: summary for key, each in self.series().items() if (summary := each.summary()) is not None}
        shown = fields, dict(attributes), metrics, tuple(conflicts)
        return Entity(kind, id, self.parent[1], *shown, self.first, self.last)


_NOWHERE = _State(erased=True)


class Fold:
    """Hold the state that a set of batches makes. Not thread-safe."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str, _State]] = {}
        self._seen: defaultdict[str, set[int]] = defaultdict(set)
        self.stamp = 0
        self.claims: dict[str, str] = {}

    def add(self, batch: e.Batch) -> None:
        """Take in a batch; records that were taken in before change nothing."""
        if batch.claim is not None:
            self.claims[batch.claim] = min(batch.source, self.claims.get(batch.claim, batch.source))
        seen = self._seen[batch.source]
        for record in batch.records:
            if record.number not in seen:
                seen.add(record.number)
                self.add_record(batch.source, record)

    def add_record(self, source: str, record: e.Record) -> None:
        """Take in one record that was certainly not taken in before."""
        self.stamp = max(self.stamp, record.stamp)
        for index, event in enumerate(record.events):
            if not isinstance(event, e.Unknown):
                self.touch(event.kind, event.id, record.stamp)
                self._states[event.kind][event.id].add(event, (record.stamp, source, record.number, index))

    def entity(self, kind: str, id: str) -> Entity | None:
        """Return the entity, None if no event names it or it was erased."""
        state = self._state(kind, id)
        if state.shown is None and not state.erased:
            state.shown = state.entity(kind, id)
        return state.shown

    def entities(self, kind: str) -> Iterator[Entity]:
        """Yield all entities of a kind that were not erased."""
        return filter(None, (self.entity(kind, id) for id in list(self._states.get(kind, ()))))

    def touch(self, kind: str, id: str, stamp: int) -> None:
        """Let an entity be known, and changed at `stamp`, for whoever keeps its rows elsewhere."""
        state = self._states.setdefault(kind, {}).setdefault(id, _State())
        state.first, state.last, state.shown = min(state.first, stamp), max(state.last, stamp), None

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """Return the order and the step of each `Rewound` of an entity, for whoever keeps its rows elsewhere."""
        return self._state(kind, id).rewinds

    def series(self, kind: str, id: str) -> dict[tuple[str, str], Columns]:
        """Return the rows of an entity by key and context, in order, rewound rows left out."""
        state = self._state(kind, id)
        return {} if state.erased else state.series()

    def _state(self, kind: str, id: str) -> _State:
        return self._states.get(kind, {}).get(id, _NOWHERE)


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same: NaN is the same as NaN, 1 is neither 1.0 nor True."""
    return type(one) is type(other) and (one == other or repr(one) == repr(other))
