"""Rows as a folder store reads them: the rule of `mlcore.store.ordered`, for millions of points."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from mlcore.store import METRIC, Columns, Order, Rewind, Summary, column
from mlcore_local.points import Points, numpy_for

__all__ = ["Rows", "summary_of"]


class _Part:
    """The rows of one source that have the same columns.

    `logged` says of so many rows after those before it: stamp, number and event, one for all of them or one each.
    """

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns
        self.logged: list[list[Any]] = []  # stamp, number, event, count

    def __len__(self) -> int:
        return sum(count for *_, count in self.logged)

    def get(self, name: str) -> Sequence[Any]:
        return self.columns.get(name) or [0] * len(self)

    def in_order(self) -> bool:
        steps = self.get("step")
        numpy = numpy_for(len(steps)) if isinstance(steps, array) else None
        if numpy is not None:
            view = numpy.frombuffer(steps, "q")
            if (view[1:] > view[:-1]).all():
                return True
        elif all(map(int.__lt__, steps[:-1], steps[1:])):
            return True
        keys = list(self.orders())
        return keys == sorted(keys)

    def orders(self) -> Iterator[tuple[int, int, int, int, int]]:
        logged = [
            [repeat(each, count) if isinstance(each, int) else each for each in parts] for *parts, count in self.logged
        ]
        return zip(
            self.get("step"), self.get("time"), *map(chain.from_iterable, zip(*logged, strict=True)), strict=True
        )

    def last(self) -> tuple[int, int, int, int, int]:
        """Return the order of the last row."""
        if not self.in_order():
            return max(self.orders())
        *logged, _ = next(each for each in reversed(self.logged) if each[3])
        stamp, number, event = (each if isinstance(each, int) else int(each[-1]) for each in logged)
        return self.get("step")[-1], self.get("time")[-1], stamp, number, event


class Rows:
    """Gather the rows of one key and context. The caller adds every record once, in any order."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, tuple[str, ...]], _Part] = {}
        self._known: tuple[object, Summary | None] | None = None

    def add(self, source: str, number: int, stamp: int, columns: Mapping[str, Sequence[Any]], event: int = 0) -> None:
        """Take in the rows of one event, `event` being its index in its record."""
        part = self._parts.setdefault((source, tuple(sorted(columns))), _Part({}))
        for name, values in columns.items():
            part.columns[name] = _joined(part.columns.get(name), values)
        part.logged.append([stamp, number, event, len(next(iter(columns.values()), ()))])
        self._known = None

    def add_points(self, source: str, points: Points) -> None:
        """Take in points of a metric, each a record by itself."""
        self._known = None
        key = (source, METRIC)
        part = self._parts.get(key)
        if part is None:  # not "or", which counts the rows
            part = self._parts[key] = _Part({"step": array("q"), "time": array("q"), "value": array("d")})
        one = isinstance(points.stamps, tuple)
        for name, values in (("step", points.steps), ("time", points.times), ("value", points.values)):
            if one:
                part.columns[name].append(values[0])
            else:
                part.columns[name].frombytes(memoryview(values).cast("B"))
        if not one:
            part.logged.append([points.stamps, points.numbers, 0, len(points.stamps)])
            return
        if not part.logged or not isinstance(part.logged[-1][0], array):
            part.logged.append([array("q"), array("q"), 0, 0])
        last = part.logged[-1]
        last[0].append(points.stamps[0])
        last[1].append(points.numbers[0])
        last[3] += 1

    def __or__(self, other: Rows) -> Rows:
        """Return the rows of both, whose sources are all different."""
        rows = Rows()
        rows._parts = self._parts | other._parts
        return rows

    def columns(self, rewinds: Sequence[Rewind] = ()) -> Columns:
        """Return the rows in order, without those that one of `rewinds` (its order and step) dropped."""
        found = self._ordered(rewinds)
        return Columns({name: values[:] for name, values in found.columns.items()})

    def last(self) -> Order:
        """Return the order of the event that holds the last row."""
        ends = ((source, part.last()) for (source, _), part in self._parts.items() if len(part))
        _, _, *order = max((step, time, stamp, source, *place) for source, (step, time, stamp, *place) in ends)
        return tuple(order)  # type: ignore[return-value]

    def first_stamp(self) -> int:
        """Return the least stamp."""
        return min(stamp for part in self._parts.values() for _, _, stamp, _, _ in part.orders())

    def _ordered(self, rewinds: Sequence[Rewind]) -> Columns:
        """Return the same, but columns that may grow while more is read."""
        parts = [(source, part) for (source, _), part in sorted(self._parts.items()) if len(part)]
        if len(parts) == 1 and not rewinds and parts[0][1].in_order():
            return Columns(parts[0][1].columns)
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

    def summary(self, rewinds: Sequence[Rewind] = ()) -> Summary | None:
        """Return the summary of a metric, None of rows that are no metric or were all rewound."""
        if self._known is None or self._known[0] != len(rewinds):
            self._known = (len(rewinds), summary_of(self._ordered(rewinds)))
        return self._known[1]


def summary_of(columns: Columns) -> Summary | None:
    """Return the summary of rows in order, as `Columns.summary` does."""
    numpy = numpy_for(len(columns)) if len(columns) else None
    if numpy is None or "".join(getattr(columns.columns.get(name), "typecode", "-") for name in METRIC) != "qqd":
        return columns.summary()
    values = numpy.frombuffer(columns["value"])
    real = values if not math.isnan(values.min()) else values[~numpy.isnan(values)]
    low, high = (float(real.min()), float(real.max())) if len(real) else (math.nan, math.nan)
    return Summary(len(values), low, high, columns["step"][-1], columns["time"][-1], columns["value"][-1])


def _joined(known: Any, values: Sequence[Any]) -> Any:
    if known is None:
        return array(values.typecode, values) if isinstance(values, array) else column([*values])
    if isinstance(known, array) and isinstance(values, array) and known.typecode == values.typecode:
        known.extend(values)
        return known
    return column([*known, *values])
