"""Take in long stretches of single points at once, where numpy is importable: a frame by itself costs 60 times as much.

The checksum of every frame is verified. A CRC is linear over GF(2), so that of a frame of fixed length is the one of
zeros, changed by what each of its 16-bit words contributes at its place, which a table tells.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from mlcore.journal import format as f

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIZE", "Points", "Stretch", "Stretches", "numpy_for"]

_BODY = f.POINT_FRAME.size
SIZE = _BODY + f.CHECKSUM.size
_HEAD = f.word(f.POINT, 0).to_bytes(8, "little")[:4]
_FIELDS = {"head": "<u4", "key": "<u4", "number": "<u8", "stamp": "<u8", "step": "<i8", "value": "<f8", "sum": "<u4"}
_FEW, _MANY = 64, 16_384  # frames that are looked at together; as many as the processor's cache holds
_WORTH = 20_000  # frames for which numpy is imported, if it is not there already


def numpy_for(rows: int) -> Any:
    """Return numpy if it is loaded already, or if so many rows are worth loading it; None where there is none."""
    return None if rows < _WORTH and "numpy" not in sys.modules else _numpy()


@cache
def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


class Points(NamedTuple):
    """Hold points of one key, each a record: columns of int64, of float64 the values; times in ms since 1970."""

    key: int
    numbers: Any
    stamps: Any
    steps: Any
    times: Any
    values: Any

    def span(self) -> tuple[int, ...]:
        """Return the least and the greatest stamp, once if there is one point, whose columns are tuples."""
        known = self.stamps
        return known if isinstance(known, tuple) else (int(known.min()), int(known.max()))


class Stretch(NamedTuple):
    """Hold undamaged frames that follow one another: a structured array of their fields."""

    offset: int
    end: int
    frames: NDArray[Any]

    def by_key(self) -> Iterator[Points]:
        """Yield the points of each key, in order."""
        import numpy

        keys = self.frames["key"]
        order = None if (keys == keys[0]).all() else numpy.argsort(keys, kind="stable")
        frames = self.frames if order is None else self.frames[order]
        borders = [] if order is None else (numpy.flatnonzero(numpy.diff(frames["key"])) + 1).tolist()
        for start, stop in zip([0, *borders], [*borders, len(frames)], strict=True):
            part = frames[start:stop]
            stamps = part["stamp"].astype("i8")
            steps, values = (numpy.ascontiguousarray(part[name]) for name in ("step", "value"))
            # numbers that follow one another need no memory
            first, last = int(part["number"][0]), int(part["number"][-1])
            numbers = part["number"].astype("i8") if last - first >= len(part) else range(first, last + 1)
            yield Points(int(part["key"][0]), numbers, stamps, steps, stamps // 1_000_000, values)


class Stretches:
    """Find stretches in the bytes of one journal; how far it looks ahead follows how long they were so far."""

    def __init__(self, seed: int) -> None:
        self._start = zlib.crc32(_HEAD + bytes(_BODY - len(_HEAD)), seed)
        self._ahead = _FEW

    def find(self, data: bytes, position: int, base: int, number: int, keys: Collection[Any]) -> Stretch | None:
        """Return the stretch at `position` whose records are numbered from `number` on, all of known `keys`."""
        rows = (len(data) - position) // SIZE
        numpy = numpy_for(rows)
        if numpy is None or rows < _FEW or sys.byteorder == "big":
            return None
        if any(data[at : at + 4] != _HEAD for at in (position, position + (_FEW - 1) * SIZE)):
            return None
        frames = numpy.frombuffer(data, list(_FIELDS.items()), min(rows, self._ahead), position)
        fits = frames["head"] == int.from_bytes(_HEAD, "little")
        fits &= frames["number"] == numpy.arange(number, number + len(frames), dtype="u8")
        if (frames["key"] != frames["key"][0]).any():
            fits &= numpy.isin(frames["key"], [key for key in keys if isinstance(key, int) and key >> 32 == 0])
        elif int(frames["key"][0]) not in keys:
            return None
        frames = frames[: _first_false(fits)]
        if len(frames):
            frames = frames[: _first_false(self._checksums(frames) == frames["sum"])]
        self._ahead = min(2 * max(len(frames), _FEW // 2), _MANY)
        end = position + len(frames) * SIZE
        return Stretch(base + position, base + end, frames) if len(frames) else None

    def _checksums(self, frames: NDArray[Any]) -> NDArray[Any]:
        import numpy

        found = numpy.full(len(frames), self._start, "u4")
        words = frames.view("<u2").reshape(len(frames), SIZE // 2)
        for place, table in enumerate(_tables(), len(_HEAD) // 2):
            word = words[:, place]
            # the upper words of keys, numbers, stamps and steps hardly ever change
            found ^= table[word[0]] if (word == word[0]).all() else table.take(word)
        return found


def _first_false(fits: NDArray[Any]) -> int:
    return len(fits) if fits.all() else int(fits.argmin(0))


@cache
def _tables() -> list[NDArray[Any]]:
    """Return, for each 16-bit word of a frame after its head, what each of its values changes in the CRC."""
    import numpy

    zeros = zlib.crc32(bytes(_BODY))
    tables = []
    for place in range(len(_HEAD), _BODY, 2):
        low, high = (
            numpy.array([zlib.crc32(bytes(at) + bytes([v]) + bytes(_BODY - 1 - at)) ^ zeros for v in range(256)], "u4")
            for at in (place, place + 1)
        )
        tables.append((high[:, None] ^ low[None, :]).ravel())
    return tables
