"""Records as a batch keeps them: a line a record, a line an event, rows left to chunks.

``#NUMBER STAMP`` begins a record. ``@`` and JSON is a `RowsLogged` whose columns are in chunks, found by its number and
its place in the record. Any other line is an event as `encode_event` wrote it, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs

from mlcore.store import Event, Record, RowsLogged, decode_event, encode_event

__all__ = ["Part", "Rows", "decoded", "split"]

_PART_BYTES = 1 << 20  # a server takes a statement of a few MB
Rows = Callable[[int, int], Mapping[str, Sequence[Any]]]


@attrs.frozen
class Part:
    """Hold records that fit into one row of `batches`: encoded, with the number of their rows and what logged them."""

    records: tuple[Record, ...]
    events: bytes
    size: int


def split(records: Iterable[Record]) -> Iterator[Part]:
    """Yield records in order, as many together as fit."""
    taken: list[Record] = []
    lines: list[bytes] = []
    length = size = 0
    for record in records:
        added = [b"#%d %d" % (record.number, record.stamp), *map(_encoded, record.events)]
        if taken and length + sum(map(len, added)) > _PART_BYTES:
            yield Part(tuple(taken), b"\n".join(lines), size)
            taken, lines, length, size = [], [], 0, 0
        taken.append(record)
        lines += added
        length += sum(map(len, added))
        size += sum(1 + len(each) for each in record.events if isinstance(each, RowsLogged))
    if taken:
        yield Part(tuple(taken), b"\n".join(lines), size)


def _encoded(event: Event) -> bytes:
    if not isinstance(event, RowsLogged):
        return encode_event(event)
    if event.raw is not None and encode_event(attrs.evolve(event, raw=None)) != event.raw:
        return event.raw  # of a later version, with more in it than we know
    return _head(event.kind, event.id, event.key, event.context)


@lru_cache(4_096)
def _head(kind: str, id: str, key: str, context: str) -> bytes:
    return b"@" + encode_event(RowsLogged(kind, id, key, {}, context))


def decoded(events: bytes, rows: Rows | None) -> tuple[Record, ...]:
    """Return the records of a batch; `rows` gives columns by number and index, None leaves all `RowsLogged` out."""
    records: list[tuple[int, int, list[Event]]] = []
    index = 0
    for line in events.split(b"\n"):
        if line[:1] == b"#":
            number, stamp = map(int, line[1:].split())
            records.append((number, stamp, []))
            index = 0
            continue
        number, _, found = records[-1]
        if line[:1] != b"@":
            event = decode_event(line)
            if rows is not None or not isinstance(event, RowsLogged):
                found.append(event)
        elif rows is not None:
            event = decode_event(line[1:])
            assert isinstance(event, RowsLogged)
            found.append(attrs.evolve(event, columns=rows(number, index), raw=None))
        index += 1
    return tuple(Record(number, stamp, tuple(found)) for number, stamp, found in records)
