"""Rows as a folder store reads them: the rule of `mlcore.store.ordered`, for millions of points."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from mlcore.store import METRIC, Columns, Rewind, Summary, column


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

    def __or__(self, other: Rows) -> Rows:
        """Return the rows of both, whose sources are all different."""
        rows = Rows()
        rows._parts = self._parts | other._parts
        return rows

    def columns(self, rewinds: Sequence[Rewind] = ()) -> Columns:
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

    def summary(self, rewinds: Sequence[Rewind] = ()) -> Summary | None:
        """Return the summary of a metric, None of rows that are no metric or were all rewound."""
        if self._known is None or self._known[0] != len(rewinds):
            self._known = (len(rewinds), self.columns(rewinds).summary())
        return self._known[1]


def _joined(known: Any, values: Sequence[Any]) -> Any:
    if known is None:
        return array(values.typecode, values) if isinstance(values, array) else column([*values])
    if isinstance(known, array) and isinstance(values, array) and known.typecode == values.typecode:
        known.extend(values)
        return known
    return column([*known, *values])
