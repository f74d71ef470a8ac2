"""Put the chunks of one series together again: all rows in order, as `mlcore.store.ordered` would."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

from mlcore.store import METRIC, Columns, Order, Rewind, Summary, ordered
from mlcore_sql.chunks import Chunk, Logged, rising

__all__ = ["Summed", "assembled", "summed"]

_HEADS = ("stamps", "numbers", "indexes", "sizes")
Summed = tuple[Summary, Order]  # of rows, and the order of the event that holds the last of them


def assembled(chunks: Sequence[Chunk], rewinds: Sequence[Rewind] = ()) -> Columns:
    """Return all rows of one series in order, without those that a rewind dropped."""
    if not all(chunk.is_points for chunk in chunks):
        rows = ((chunk.source, event) for chunk in chunks for event in chunk.events())
        return ordered([((e.stamp, source, e.number, e.index), e.columns) for source, e in rows], rewinds)
    if not rewinds:
        in_turn = sorted(chunks, key=Chunk.first_step)
        steps = _joined("q", in_turn, "step")
        if rising(steps):  # as they mostly do: then nothing else has a say in their order
            return Columns(
                {"step": steps, "time": _joined("q", in_turn, "time"), "value": _joined("d", in_turn, "value")}
            )
    return _sorted(chunks, rewinds)


def _joined(code: str, chunks: Sequence[Chunk], name: str) -> array[Any]:
    joined = array(code)
    for chunk in chunks:
        joined.extend(chunk.column(name))
    return joined


def _sorted(chunks: Sequence[Chunk], rewinds: Sequence[Rewind]) -> Columns:
    """Sort rows by step, time and the order of their events, which a stable sort keeps where the others are equal."""
    events = [
        ((stamp, chunk.source, number, index), size)
        for chunk in chunks
        for stamp, number, index, size in zip(*map(chunk.column, _HEADS), strict=True)
    ]
    starts = list(accumulate((size for _, size in events), initial=0))
    columns = [_joined(code, chunks, name) for code, name in zip("qqd", METRIC, strict=True)]
    rows: list[int] = []
    for event in sorted(range(len(events)), key=lambda event: events[event][0]):
        span = range(starts[event], starts[event + 1])
        limits = [step for at, step in rewinds if events[event][0] <= at]
        rows += [row for row in span if columns[0][row] <= min(limits)] if limits else span
    return Columns(dict(zip(METRIC, _by_time(columns, rows), strict=True)))


def _by_time(columns: Sequence[array[Any]], rows: Sequence[int]) -> list[array[Any]]:
    """Return these rows of step, time and value, sorted by step and time."""
    try:
        import numpy
    except ImportError:
        steps, times, _ = columns
        in_order = sorted(rows, key=lambda row: (steps[row], times[row]))
        return [array(values.typecode, map(values.__getitem__, in_order)) for values in columns]
    chosen = numpy.asarray(rows, "q")
    picked = [numpy.frombuffer(values, values.typecode)[chosen] for values in columns]
    by_time = numpy.lexsort((picked[1], picked[0]))
    return [array(values.dtype.char.replace("l", "q"), values[by_time].tobytes()) for values in picked]


def summed(events: Sequence[Logged], source: str) -> Summed:
    """Sum up points of one source, whose events are in order."""
    columns = [
        array(code, chain.from_iterable(e.columns[name] for e in events))
        for name, code in zip(METRIC, "qqd", strict=True)
    ]
    steps, times, values = columns
    last = len(steps) - 1
    if not rising(steps):
        top = max(steps)
        last = max((times[row], row) for row, step in enumerate(steps) if step == top)[1]
    whole = all(map(operator.eq, values, values))
    real = values if whole else [value for value in values if not math.isnan(value)] or [math.nan]
    summary = Summary(len(values), min(real), max(real), steps[last], times[last], values[last])
    ends = accumulate(map(len, events))
    holder = next(event for event, end in zip(events, ends, strict=True) if last < end)
    return summary, (holder.stamp, source, holder.number, holder.index)
