"""Rows in memory: what was logged under one key and context, by whichever sources, as columns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from mlcore.store._events import column

METRIC = ("step", "time", "value")
Order = tuple[int, str, int, int]  # stamp, source, number, index of the event in its record


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

    def as_numpy(self) -> Columns:
        """Return the same with numpy arrays, without a copy; itself where numpy is not importable."""
        try:
            import numpy
        except ImportError:
            return self
        arrays: dict[str, Any] = {
            name: numpy.frombuffer(values, dtype="<i8" if values.typecode == "q" else "<f8")
            if isinstance(values, array) else values
            for name, values in self.columns.items()
        }  # fmt: skip
        return Columns(arrays)

    def sampled(self, max_points: int | None) -> Columns:
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
        return self.picked(sorted(keep)[:max_points])

    def summary(self) -> Summary | None:
        """Sum up a metric whose rows are in order; None of no rows, or rows that are no metric."""
        if not len(self) or not all(_numeric(self.columns.get(name)) for name in METRIC):
            return None
        values = self["value"]
        real = [value for value in values if value == value]  # NaN is not itself
        low, high = (min(real), max(real)) if real else (math.nan, math.nan)
        return Summary(len(values), low, high, self["step"][-1], self["time"][-1], values[-1])

    def picked(self, rows: Sequence[int]) -> Columns:
        """Return the rows at these indexes."""
        return Columns({name: column([values[row] for row in rows]) for name, values in self.columns.items()})


@attrs.frozen
class Summary:
    """Sum up one metric: number of rows, least and greatest value (NaN left out), and the last row."""

    count: int
    min: float
    max: float
    step: int
    time: int
    value: float


@attrs.define(eq=False)
class _Part:
    """The rows of one source that have the same columns."""

    columns: dict[str, Any]
    stamps: array[int] = attrs.field(factory=lambda: array("q"))
    numbers: array[int] = attrs.field(factory=lambda: array("q"))
    events: array[int] = attrs.field(factory=lambda: array("q"))

    def get(self, name: str) -> Sequence[Any]:
        return self.columns.get(name) or [0] * len(self.numbers)

    def in_order(self) -> bool:
        steps = self.get("step")
        if all(map(int.__lt__, steps[:-1], steps[1:])):
            return True
        keys = list(self.orders())
        return keys == sorted(keys)

    def orders(self) -> Iterator[tuple[int, int, int, int, int]]:
        return zip(self.get("step"), self.get("time"), self.stamps, self.numbers, self.events, strict=True)


class Rows:
    """Gather the rows of one key and context. The caller adds every record once, in any order."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, tuple[str, ...]], _Part] = {}
        self._known: tuple[object, Summary | None] | None = None

    def add(self, source: str, number: int, stamp: int, columns: Mapping[str, Sequence[Any]], event: int = 0) -> None:
        """Take in the rows of one event, `event` being its index in its record."""
        part = self._parts.setdefault((source, tuple(sorted(columns))), _Part({}))
        count = 0
        for name, values in columns.items():
            part.columns[name] = _joined(part.columns.get(name), values)
            count = len(values)
        for kept, value in ((part.stamps, stamp), (part.numbers, number), (part.events, event)):
            kept.extend([value] * count)
        self._known = None

    def add_point(self, source: str, number: int, stamp: int, step: int, time: int, value: float) -> None:
        """Take in one point of a metric; the same as `add` with columns of one row, only faster."""
        part = self._parts.get((source, METRIC))
        if part is None:
            return self.add(
                source,
                number,
                stamp,
                {"step": array("q", [step]), "time": array("q", [time]), "value": array("d", [value])},
            )
        for name, number_of in zip(METRIC, (step, time, value), strict=True):
            part.columns[name].append(number_of)
        for kept, each in ((part.stamps, stamp), (part.numbers, number), (part.events, 0)):
            kept.append(each)
        self._known = None
        return None

    @classmethod
    def merged(cls, several: Sequence[Rows]) -> Rows:
        """Return the rows of several, whose sources are all different."""
        rows = cls()
        for each in several:
            rows._parts |= each._parts
        return rows

    def columns(self, rewinds: Sequence[tuple[Order, int]] = ()) -> Columns:
        """Return the rows in order, without those that one of `rewinds` (its order and step) dropped."""
        parts = [(source, part) for (source, _), part in sorted(self._parts.items()) if part.numbers]
        if len(parts) == 1 and not rewinds and parts[0][1].in_order():
            return Columns({name: values[:] for name, values in parts[0][1].columns.items()})
        keys: list[tuple[Any, ...]] = []
        for index, (source, part) in enumerate(parts):
            keys += [(step, time, stamp, source, number, event, row, index)
                     for row, (step, time, stamp, number, event) in enumerate(part.orders())]  # fmt: skip
        for order, limit in rewinds:
            keys = [key for key in keys if key[0] <= limit or key[2:6] > order]
        keys.sort()
        merged: dict[str, Sequence[Any]] = {}
        for name in dict.fromkeys(name for _, part in parts for name in part.columns):
            columns = [part.columns.get(name) for _, part in parts]
            values = [None if columns[key[7]] is None else columns[key[7]][key[6]] for key in keys]
            merged[name] = column(values)
        return Columns(merged)

    def summary(self, rewinds: Sequence[tuple[Order, int]] = ()) -> Summary | None:
        """Return the summary of a metric, None of rows that are no metric or were all rewound."""
        if self._known is None or self._known[0] != len(rewinds):
            self._known = (len(rewinds), self.columns(rewinds).summary())
        return self._known[1]


def _numeric(values: Any) -> bool:
    return hasattr(values, "tolist") or (values is not None and {type(each) for each in values} <= {int, float})


def _joined(known: Any, values: Sequence[Any]) -> Any:
    if known is None:
        return array(values.typecode, values) if isinstance(values, array) else column([*values])
    if isinstance(known, array) and isinstance(values, array) and known.typecode == values.typecode:
        known.extend(values)
        return known
    return column([*known, *values])
