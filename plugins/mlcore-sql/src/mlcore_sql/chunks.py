"""Chunks: the rows of one series and source, packed into columns, with the events they came in.

A chunk begins with its form. ``P`` has points: events with nothing but the columns of a metric, as int64, int64 and
float64. It goes on with the number of events and of rows (two uint32), then, each as a packed column: record numbers,
indexes in the record, stamps and numbers of rows of the events, then steps, times and values of all rows. A packed
column is ``=`` and the numbers of eight bytes each, or ``+``, the first number and the stride, for a column that is
as long as it has to be and rises or falls evenly. ``J`` has anything else as JSON. All numbers are little-endian.
"""

from __future__ import annotations

import operator
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import islice
from typing import Any

import attrs

from mlcore.store import METRIC, from_json, to_json

__all__ = ["JSON", "POINTS", "Chunk", "Logged", "pack", "rising"]

POINTS, JSON = b"P", b"J"
_POINT_BYTES = 24
_WORTH = 20_000  # numbers that are worth loading numpy, where it is
_COUNTS = struct.Struct("<II")
_EVEN = struct.Struct("<qq")
_EVENT_COLUMNS = ("numbers", "indexes", "stamps", "sizes")
_LIMIT = 1 << 63
_TYPES = dict(zip(METRIC, "qqd", strict=True))
_ONE = struct.Struct("<cIIcqqcqqcqqcqqcqqcqqcd")


@attrs.frozen
class Logged:
    """Hold the rows of one `RowsLogged`: `number` is of its record, `index` its place in it."""

    number: int
    index: int
    stamp: int
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @cached_property
    def is_points(self) -> bool:
        """Whether these are rows, and nothing but the columns of a metric, of the right types."""
        return {name: getattr(values, "typecode", "") for name, values in self.columns.items()} == _TYPES and bool(self)

    @property
    def weight(self) -> int:
        """How many points take as much room."""
        return len(self) if self.is_points else len(to_json(_plain(self.columns))) // _POINT_BYTES + 1


def pack(events: Sequence[Logged]) -> bytes:
    """Return a chunk of these events, which must be in order of number and index."""
    if len(events) == 1 and len(events[0]) == 1 and events[0].is_points:  # as a server is sent most
        (one,) = events
        step, time, value = (one.columns[name][0] for name in METRIC)
        head = (b"+", one.number, 0, b"+", one.index, 0, b"+", one.stamp, 0, b"+", 1, 0)
        return _ONE.pack(POINTS, 1, 1, *head, b"+", step, 0, b"+", time, 0, b"=", value)
    if not all(event.is_points for event in events):
        return JSON + to_json([[each.number, each.index, each.stamp, _plain(each.columns)] for each in events])
    rows = [_joined(code, (event.columns[name] for event in events)) for code, name in zip("qqd", METRIC, strict=True)]
    heads = [array("q", column) for column in zip(*((e.number, e.index, e.stamp, len(e)) for e in events), strict=True)]
    counts = _COUNTS.pack(len(events), len(rows[0]))
    return b"".join([POINTS, counts, *map(_packed, heads), *map(_packed, rows)])


class Chunk:
    """Read a chunk; columns are unpacked when they are asked for."""

    def __init__(self, source: str, data: bytes) -> None:
        self.source = source
        self.is_points = data[:1] == POINTS
        self._data = memoryview(data)
        self._events, self._rows = _COUNTS.unpack_from(data, 1) if self.is_points else (0, 0)
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return self._rows if self.is_points else sum(map(len, self.events()))

    def column(self, name: str) -> array[Any]:
        """Return a column of a chunk of points: of its events (`numbers`, `indexes`, `stamps`, `sizes`) or its rows."""
        place, size = self._place(name)
        if self._data[place] == ord("="):
            return _array("d" if name == "value" else "q", self._data[place + 1 : place + 1 + 8 * size])
        first, stride = _EVEN.unpack_from(self._data, place + 1)
        return _evenly(first, stride, size)

    def first_step(self) -> int:
        """Return the step of the first row of a chunk of points."""
        place, _ = self._place("step")
        return int.from_bytes(self._data[place + 1 : place + 9], "little", signed=True)

    def _place(self, name: str) -> tuple[int, int]:
        if not self._places:
            at = 1 + _COUNTS.size
            for each in (*_EVENT_COLUMNS, *METRIC):
                self._places[each] = at
                size = self._events if each in _EVENT_COLUMNS else self._rows
                at += 1 + (8 * size if self._data[at] == ord("=") else _EVEN.size)
        return self._places[name], self._events if name in _EVENT_COLUMNS else self._rows

    def events(self, first: int = 0, last: int = _LIMIT) -> Iterator[Logged]:
        """Yield the rows of each event of the records from number `first` to `last`."""
        if not self.is_points:
            for number, index, stamp, columns in from_json(bytes(self._data[1:])):
                if first <= number <= last:
                    yield Logged(number, index, stamp, {name: _column(*each) for name, each in columns.items()})
            return
        numbers, indexes, stamps, sizes = map(self.column, _EVENT_COLUMNS)
        steps, times, values = map(self.column, METRIC)
        begin, stop = bisect_left(numbers, first), bisect_right(numbers, last)
        start = sum(sizes[:begin])
        for event in range(begin, stop):
            part = slice(start, start + sizes[event])
            columns = {"step": steps[part], "time": times[part], "value": values[part]}
            yield Logged(numbers[event], indexes[event], stamps[event], columns)
            start = part.stop


def rising(values: array[int]) -> bool:
    """Tell whether each of the values is above the one before."""
    numpy = _numpy() if len(values) > _WORTH else None
    if numpy is None:
        return all(map(operator.lt, values, islice(values, 1, None)))
    each = numpy.frombuffer(values, "q")
    return bool((each[1:] > each[:-1]).all())


def _evenly(first: int, stride: int, size: int) -> array[Any]:
    numpy = _numpy() if size > _WORTH else None
    if stride == 0 or numpy is None:
        return array("q", range(first, first + stride * size, stride)) if stride else array("q", [first]) * size
    return array("q", numpy.arange(first, first + stride * size, stride, "q").tobytes())


@cache
def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _packed(values: array[Any]) -> bytes:
    if values.typecode == "q":
        first, stride = values[0], values[1] - values[0] if len(values) > 1 else 0
        last = first + stride * len(values)
        if min(stride, last) >= -_LIMIT and max(stride, last) < _LIMIT and _is_even(values, first, stride, last):
            return b"+" + _EVEN.pack(first, stride)
    return b"=" + _little(values).tobytes()


def _is_even(values: array[Any], first: int, stride: int, last: int) -> bool:
    if len(values) > 2 and values[2] - values[1] != stride:
        return False  # what is random is mostly noticed here
    return values.count(first) == len(values) if stride == 0 else values == array("q", range(first, last, stride))


def _array(code: str, data: memoryview) -> array[Any]:
    values = array(code)
    values.frombytes(data)
    return _little(values)


def _little(values: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values


def _joined(code: str, columns: Iterable[Any]) -> array[Any]:
    values = array(code)
    for column in columns:
        values.extend(column)
    return values


def _plain(columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: [getattr(values, "typecode", ""), list(values)] for name, values in columns.items()}


def _column(code: str, values: list[Any]) -> Sequence[Any]:
    return array(code, values) if code else values
