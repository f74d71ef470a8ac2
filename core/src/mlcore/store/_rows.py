"""Rows in order: what was logged under one key and context, by whichever sources, as columns."""

import math
from array import array
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Self

import attrs

from mlcore.store._events import column

__all__ = ["METRIC", "Columns", "Order", "Rewind", "Summary", "ordered"]

METRIC = ("step", "time", "value")
Order = tuple[int, str, int, int]  # stamp, source, number, index of the event in its record
Rewind = tuple[Order, int]  # what was logged before, with a step above this one, is dropped


@attrs.frozen
class Summary:
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
        return type(self)({name: column([values[row] for row in rows]) for name, values in self.columns.items()})

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
    return Columns({name: column([at[name][row] if name in at else None for *_, row, at in rows]) for name in names})


def _numeric(values: Any) -> bool:
    return hasattr(values, "tolist") or (values is not None and {type(each) for each in values} <= {int, float})
