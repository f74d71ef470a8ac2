"""Read a journal: every undamaged record once, and what is damaged with its offset."""

from __future__ import annotations

import os
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

from mlcore.errors import JournalError, Malformed, NewerFormat
from mlcore.journal import format as f
from mlcore.store import Event, Record, RowsLogged, decode_event, from_json
from mlcore_local.points import Points, Stretch, Stretches

__all__ = ["Damage", "Frame", "Journal", "TakePoints", "read", "read_header", "unpacked"]

_MARK = f.MARK.to_bytes(2, "little")
_CHUNK = 4 << 20
_SIZES = {f.POINT: f.POINT_FRAME.size, f.POINT_AT: f.POINT_AT_FRAME.size}


class Damage(NamedTuple):
    """Say which bytes of a journal cannot be read. A `torn` end may be a write that is still under way."""

    offset: int
    length: int
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"offset {self.offset}: {self.reason} ({self.length} bytes)"


class Frame(NamedTuple):
    """Hold one frame whose checksum fits. `word` is the key of a point, else the length of the payload."""

    offset: int
    end: int
    kind: int
    flags: int
    word: int
    number: int
    stamp: int
    payload: memoryview


TakePoints = Callable[["Journal", Points], None]


class Journal:
    """Hold what was read of one journal so far, so that its growth can be read without starting over.

    Give the file's bytes from `offset` on to `feed`, as they come. `damage` lists what could not be read,
    a torn end not included: see `tail`. `gaps` are record numbers that are not in this file, `first` and
    `stamp` the first and the last stamp. `writer` is what the
    writer said about itself.
    """

    def __init__(self) -> None:
        self.header: f.Header | None = None
        self.writer: dict[str, Any] = {}
        self.damage: list[Damage] = []
        self.tail: Damage | None = None
        self.offset = 0
        self.last = 0
        self.first = self.stamp = 0
        self.gaps: list[tuple[int, int]] = []
        self.keys: dict[int, dict[str, str]] = {}
        self._names: dict[int, tuple[str, str, str, str]] = {}
        self._stretches: Stretches | None = None

    @property
    def source(self) -> str:
        """The source whose records these are, empty before the header was read."""
        return self.header.source if self.header else ""

    def noted(self) -> list[Any]:
        """Return as JSON what `restored` needs to go on reading from here."""
        header = self.header or f.Header("", "")
        place = [self.offset, self.last, self.first, self.stamp]
        return [header.source, header.home, *place, self.writer, [*self.keys.values()]]

    @classmethod
    def restored(cls, noted: Sequence[Any]) -> Self:
        """Return a journal that was read as far as `noted` says."""
        journal = cls()
        source, home, journal.offset, journal.last, journal.first, journal.stamp, journal.writer, keys = noted
        journal.header = f.Header(source, home)
        journal.keys = {each["number"]: each for each in keys}
        return journal

    def feed(self, data: bytes, *, final: bool = True, points: TakePoints | None = None) -> Iterator[Record]:
        """Yield the records in `data`, which starts at `offset`; `offset` moves to where reading must go on.

        `final` says that the file ends with `data`. Single points go to `points` instead, where it is given:
        that is much faster. Raises `JournalError` if this is no journal.
        """
        end, frames = self.offset + len(data), list[Frame]()
        for frame in self.frames(data, final, stretches=points is not None):
            if isinstance(frame, Stretch):
                assert points is not None
                self._follow(frame, points)
                continue
            if frames and not _follows(frame, frames[-1]):
                self._lost(frames, "a record without its end")
                frames = []
            if frame.number == 0:
                self._note(frame)
            elif frame.flags & f.CONTINUED and not frames:
                self._lost([frame], "a record without its beginning")
            else:
                frames.append(frame)
                if frame.flags & f.CONTINUES:
                    continue
                whole, frames = frames, []
                self.offset = frame.end
                if self._in_turn(whole):
                    if points is not None and frame.kind in _SIZES and len(whole) == 1 and frame.word in self.keys:
                        step, time, value = _point(frame)
                        one = Points(frame.word, (frame.number,), (frame.stamp,), (step,), (time,), (value,))
                        points(self, one)
                    elif (record := self._record(whole)) is not None:
                        yield record
            self.offset = frame.end
        if frames:
            self.offset = frames[0].offset
            self.damage = [each for each in self.damage if each.offset < self.offset]
            self.tail = Damage(self.offset, end - self.offset, "a record without its end, so far", torn=True)

    def _follow(self, stretch: Stretch, points: TakePoints) -> None:
        numbers, stamps = stretch.frames["number"], stretch.frames["stamp"]
        self.first = self.first or int(stamps[0])
        self.last, self.stamp, self.offset = int(numbers[-1]), max(self.stamp, int(stamps.max())), stretch.end
        for each in stretch.by_key():
            points(self, each)

    def frames(self, data: bytes, final: bool = True, *, stretches: bool = False) -> Iterator[Frame | Stretch]:
        """Yield the frames of `data` whose checksum fits, and note the damage between them.

        With `stretches`, points whose records follow the last one come many at once.
        """
        base, position, view = self.offset, 0, memoryview(data)
        self.tail = None
        if self.header is None:
            if len(data) < 2 * f.HEADER_SIZE:
                self.tail = Damage(0, len(data), "an incomplete header", torn=True)
                return
            self.header = read_header(data)
            position = 2 * f.HEADER_SIZE
            for start in (0, f.HEADER_SIZE):
                if data[start : start + f.HEADER_SIZE] != f.pack_header(self.header)[: f.HEADER_SIZE]:
                    self.damage.append(Damage(start, f.HEADER_SIZE, "one of the two headers is damaged"))
            self.offset = position
        seed = self.header.seed
        self._stretches = self._stretches or Stretches(seed)
        whole = True
        while position < len(data):
            if stretches and whole:
                stretch = self._stretches.find(data, position, base, self.last + 1, self.keys)
                if stretch is not None:
                    position = stretch.end - base
                    yield stretch
                    continue
            frame = _frame(view, position, seed, base)
            if frame is None:
                start = position
                while frame is None and (start := data.find(_MARK, start + 1)) >= 0:
                    frame = _frame(view, start, seed, base)
                if frame is None:
                    self._end(data, position, base, final)
                    return
                self.damage.append(Damage(base + position, frame.offset - base - position, "damaged"))
            position, whole = frame.end - base, not frame.flags & f.CONTINUES
            yield frame

    def _end(self, data: bytes, position: int, base: int, final: bool) -> None:
        """Tell a write that is under way, or was torn, from damage: the first is a frame that goes past the end."""
        start = position
        if final and any(data[position:]):
            while start >= 0 and not _begins(data, start):
                start = data.find(_MARK[:1], start + 1)
        start = len(data) if start < 0 else start
        if start > position:
            self.damage.append(Damage(base + position, start - position, "damaged"))
            self.offset = base + start
        if start < len(data):
            self.tail = Damage(base + start, len(data) - start, "an incomplete frame", torn=True)

    def _lost(self, frames: list[Frame], reason: str) -> None:
        self.damage.append(Damage(frames[0].offset, frames[-1].end - frames[0].offset, reason))

    def _note(self, frame: Frame) -> None:
        try:
            content = from_json(bytes(frame.payload))
            if frame.kind == f.WRITER:
                self.writer = content
            elif frame.kind == f.KEY:
                self.keys[content["number"]] = content
                self._names.pop(content["number"], None)
        except (ValueError, KeyError, TypeError) as error:
            self._lost([frame], f"a {f.NAMES.get(frame.kind, 'strange')} frame that cannot be understood: {error}")

    def _in_turn(self, frames: list[Frame]) -> bool:
        number = frames[0].number
        if number <= self.last:
            self._lost(frames, f"record {number} after record {self.last}")
            return False
        if number > self.last + 1:
            self.gaps.append((self.last + 1, number - 1))
        self.first = self.first or frames[0].stamp
        self.last, self.stamp = number, max(self.stamp, frames[0].stamp)
        return True

    def _record(self, frames: list[Frame]) -> Record | None:
        try:
            events = tuple(event for frame in frames for event in self._events(frame))
        except (ValueError, Malformed) as error:
            self._lost(frames, f"record {frames[0].number} cannot be understood: {error}")
            return None
        return Record(frames[0].number, frames[0].stamp, events)

    def _events(self, frame: Frame) -> list[Event]:
        if frame.kind == f.EVENTS:
            return [decode_event(line) for line in bytes(frame.payload).split(b"\n")]
        if frame.kind in _SIZES:
            step, time, value = _point(frame)
            row = {"step": array("q", [step]), "time": array("q", [time]), "value": array("d", [value])}
            return [self._rows(frame.word, row)]
        if frame.kind != f.BLOCK:
            raise ValueError(f"a frame of kind {frame.kind}")
        key, columns = _unpack_block(frame.payload, frame.flags, frame.stamp)
        return [
            self._rows(key, {name: values[start : start + f.BLOCK_ROWS] for name, values in columns.items()})
            for start in range(0, len(columns["step"]), f.BLOCK_ROWS)
        ]

    def _rows(self, key: int, columns: dict[str, Any]) -> RowsLogged:
        found = self._names.get(key)
        if found is None:
            if key not in self.keys:
                raise ValueError(f"key {key} is not defined")
            found = self._names[key] = self.named(key)
        kind, id, name, context = found
        return RowsLogged(kind, id, name, columns, context)

    def named(self, key: int) -> tuple[str, str, str, str]:
        """Return kind and id of the entity, key and context that a key's number stands for."""
        assert self.header is not None
        about = self.keys[key]
        return about.get("kind", "run"), about.get("id", self.header.home), about["key"], about.get("context", "")


def read(
    path: str | os.PathLike[str],
    journal: Journal | None = None,
    *,
    stop: int | None = None,
    points: TakePoints | None = None,
) -> Iterator[Record]:
    """Yield the records of a file, from where `journal` stopped; what was damaged stands in `journal` afterwards.

    `stop` is an offset not to read beyond. Raises `OSError`, or `JournalError` if the file is no journal.
    """
    journal, size = journal or Journal(), _CHUNK
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size if stop is None else stop
        while journal.offset < end:
            before = journal.offset
            file.seek(before)
            data = file.read(min(size, end - before))
            yield from journal.feed(data, final=before + len(data) >= end, points=points)
            if before + len(data) >= end or not data:
                return
            if journal.offset == before:
                size *= 2  # not one whole record in it


def _follows(frame: Frame, before: Frame) -> bool:
    return bool(frame.flags & f.CONTINUED) and frame.number == before.number and frame.offset == before.end


def _point(frame: Frame) -> tuple[int, int, float]:
    """Return step, time and value."""
    if frame.kind == f.POINT:
        _, _, _, step, value = f.POINT_FRAME.unpack(frame.payload)
        return step, frame.stamp // 1_000_000, value
    step, time, value = f.POINT_AT_FRAME.unpack(frame.payload)[3:]
    return step, time, value


def _begins(data: bytes, position: int) -> bool:
    if len(data) - position < f.FRAME.size:
        return data.startswith(_MARK, position) or data[position:] == _MARK[:1]
    size = _size(data, position)
    return size is not None and position + size > len(data)


def _size(view: bytes | memoryview, position: int) -> int | None:
    """Return the size that a frame at `position` says it has, None if it cannot be one."""
    if len(view) - position < f.FRAME.size:
        return None
    mark, kind, _, word, _, _ = f.FRAME.unpack_from(view, position)
    if mark != f.MARK or kind not in f.NAMES:
        return None
    if kind in _SIZES:
        return _SIZES[kind] + 4
    return f.FRAME.size + word + 4 if word <= f.FRAME_LIMIT else None


def _frame(view: memoryview, position: int, seed: int, base: int) -> Frame | None:
    if len(view) - position < f.FRAME.size:
        return None
    mark, kind, flags, word, number, stamp = f.FRAME.unpack_from(view, position)
    fixed = _SIZES.get(kind)
    if mark != f.MARK or (fixed is None and (kind not in f.NAMES or word > f.FRAME_LIMIT)):
        return None
    end = position + (f.FRAME.size + word if fixed is None else fixed)  # of what the checksum is of
    if end + 4 > len(view):
        return None
    body = view[position:end]
    if zlib.crc32(body, seed) != f.CHECKSUM.unpack_from(view, end)[0]:
        return None
    payload = body if fixed is not None else body[f.FRAME.size :]
    return Frame(base + position, base + end + 4, kind, flags, word, number, stamp, payload)


def read_header(data: bytes | memoryview) -> f.Header:
    """Return the header from the first bytes of a journal; either copy will do.

    Raises `JournalError` if neither can be read, `NewerFormat` if a newer mlcore wrote it.
    """
    for start in (0, f.HEADER_SIZE):
        body = bytes(data[start : start + f.HEADER.size])
        check = bytes(data[start + f.HEADER.size : start + f.HEADER_SIZE])
        if len(check) == 4 and zlib.crc32(body) == f.CHECKSUM.unpack(check)[0]:
            magic, version, _, _, source, home, _ = f.HEADER.unpack(body)
            if magic == f.MAGIC and version > f.VERSION:
                raise NewerFormat(f"journal format {version} is newer than {f.VERSION}: upgrade mlcore to read it")
            if magic == f.MAGIC:
                return f.Header(source.hex(), home.rstrip(b"\0").decode())
    raise JournalError("not a journal: neither copy of its header can be read")


def _unpack_block(payload: memoryview, flags: int, stamp: int) -> tuple[int, dict[str, Any]]:
    """Return the key and the columns of a block. Raises `ValueError` if its length is wrong."""
    key, rows = f.BLOCK_HEAD.unpack_from(payload)
    body, size = payload[f.BLOCK_HEAD.size :], 8 * rows
    if len(body) != size * (2 if flags & f.STAMPED else 3):
        raise ValueError("a block's length does not fit its rows")
    steps, values = unpacked("q", body[:size]), unpacked("d", body[len(body) - size :])
    times = array("q", [stamp // 1_000_000]) * rows if flags & f.STAMPED else unpacked("q", body[size : 2 * size])
    return key, {"step": steps, "time": times, "value": values}


def unpacked(code: str, data: bytes | memoryview) -> array[Any]:
    """Return a column of little-endian int64 (code ``q``) or float64 (``d``)."""
    values = array(code)
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values
