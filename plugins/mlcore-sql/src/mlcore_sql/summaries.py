"""Summaries of metrics as rows of a table: floats as their keys, what a key does not give back beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mlcore.store import Order, Summary, from_json, to_json
from mlcore_sql.keys import float_of, floats_of, number

__all__ = ["COLUMNS", "SHOWN", "Summed", "joined", "origin_of", "packed", "summaries_of", "summary_of"]

SHOWN = ("count", "low", "high", "last", "step", "time", "odd")
COLUMNS = (*SHOWN, "origin")
Summed = tuple[Summary, Order]  # of rows, and the order of the event that holds the last of them


def packed(summed: Summed) -> tuple[Any, ...]:
    """Return the columns of a row."""
    summary, origin = summed
    values = summary.min, summary.max, summary.value
    odd = to_json(values) if any(map(_is_odd, values)) else None
    keys = map(number, values)
    return (summary.count, *keys, summary.step, summary.time, odd, to_json(origin))


def summary_of(row: Sequence[Any]) -> Summary:
    """Return the summary in the columns of a row, those of `SHOWN`."""
    count, low, high, last, step, time, odd = row
    values = from_json(bytes(odd)) if odd is not None else (float_of(low), float_of(high), float_of(last))
    return Summary(count, values[0], values[1], step, time, values[2])


def summaries_of(columns: Sequence[Sequence[Any]]) -> Iterator[Summary]:
    """Return the summaries in columns that are there, in the order of `SHOWN`: many cost less than each by itself."""
    *known, odd = columns
    if any(each is not None for each in odd):
        return map(summary_of, zip(*columns, strict=True))
    count, low, high, last, step, time = known
    return map(Summary, count, *map(floats_of, (low, high)), step, time, floats_of(last))


def origin_of(row: Sequence[Any]) -> Order:
    """Return the order of the event with the last row."""
    stamp, source, number, index = from_json(bytes(row[-1]))
    return stamp, source, number, index


def joined(one: Summed | None, other: Summed) -> Summed:
    """Return the summary of the rows of both."""
    if one is None:
        return other
    a, b = one[0], other[0]
    last, order = max(one, other, key=lambda summed: (summed[0].step, summed[0].time, summed[1]))
    low = [value for value in (a.min, b.min) if value == value] or [math.nan]  # noqa: PLR0124 - see Columns.summary
    high = [value for value in (a.max, b.max) if value == value] or [math.nan]  # noqa: PLR0124
    return Summary(a.count + b.count, min(low), max(high), last.step, last.time, last.value), order


def _is_odd(value: float) -> bool:
    return type(value) is not float or (value == 0 and math.copysign(1, value) < 0)
