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
            return Columns({"step": steps, "time": _joined("q", in_turn, "time"), "value": _joined("d", in_turn, "value")})
    return _sorted(chunks, rewinds)


def _joined(code: str, chunks: Sequence[Chunk], name: str) -> array[Any]:
    joined = array(code)
    for chunk in chunks:
        joined.extend(chunk.column(name))
    return joined


def _sorted(chunks: Sequence[Chunk], rewinds: Sequence[Rewind]) -> Columns:
    """Sort rows by step, time and the order of their events; Python's sort keeps what is equal as it was."""
    heads = [zip(*(chunk.column(name) for name in ("stamps", "numbers", "indexes", "sizes")), strict=True) for chunk in chunks]
    events = [
        ((stamp, chunk.source, number, index), size)
        for chunk, head in zip(chunks, heads, strict=True)
        for stamp, number, index, size in head
    ]
    ends = list(accumulate(size for _, size in events))
    by_order = sorted(range(len(events)), key=lambda event: events[event][0])
    rows: Any = chain.from_iterable(range(ends[event] - events[event][1], ends[event]) for event in by_order)
    columns = {name: _joined(code, chunks, name) for name, code in zip(METRIC, "qqd", strict=True)}
    steps, times = columns["step"], columns["time"]
    if rewinds:
        kept = []
        for event in by_order:
            order, size = events[event]
            limit = min((step for at, step in rewinds if order <= at), default=math.inf)
            kept += [row for row in range(ends[event] - size, ends[event]) if steps[row] <= limit]
        rows = kept
    in_order = sorted(rows, key=list(zip(steps, times, strict=True)).__getitem__)
    pick = operator.itemgetter(*in_order) if len(in_order) > 1 else lambda values: [values[row] for row in in_order]
    return Columns({name: array(code, pick(columns[name])) for name, code in zip(METRIC, "qqd", strict=True)})


def summed(events: Sequence[Logged], source: str) -> Summed:
    """Sum up points of one source, whose events are in order."""
    columns = [array(code, chain.from_iterable(e.columns[name] for e in events)) for name, code in zip(METRIC, "qqd", strict=True)]
    steps, times, values = columns
    last = len(steps) - 1
    if not rising(steps):
        top = max(steps)
        last = max((times[row], row) for row, step in enumerate(steps) if step == top)[1]
    real = values if all(map(operator.eq, values, values)) else [value for value in values if value == value] or [math.nan]  # noqa: PLR0124
    summary = Summary(len(values), min(real), max(real), steps[last], times[last], values[last])
    ends = accumulate(map(len, events))
    holder = next(event for event, end in zip(events, ends, strict=True) if last < end)
    return summary, (holder.stamp, source, holder.number, holder.index)
