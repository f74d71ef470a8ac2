"""Write a journal: one `write` a call, nothing lost when the process dies, and no error for training to see."""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time_ns
from typing import Any, Protocol

from mlcore.errors import InvalidValue
from mlcore.journal import _format as f
from mlcore.journal._keeper import keep, let_go
from mlcore.journal._values import as_float, as_float_column, as_int, as_int_column, check_key
from mlcore.journal._signs import this_process
from mlcore.store import Event, clock, encode_event, to_json

_log = logging.getLogger("mlcore")
_SIZE = f.POINT_FRAME.size + f.CHECKSUM.size
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Sink(Protocol):
    """Take in what a run logs; a journal does, and so does a store that is written to directly."""

    dropped: int
    reason: str

    def point(self, key: str, value: Any, step: Any = None, time: Any = None) -> None:
        """Log one value; without `step` the key's next one, without `time` (ms since 1970) now."""

    def points(self, values: Mapping[str, Any], step: Any = None, time: Any = None) -> None:
        """Log one value a key, all or none of them."""

    def block(self, key: str, steps: Any, values: Any, times: Any = None) -> None:
        """Log columns of one length for one key."""

    def events(self, events: Sequence[Event]) -> None:
        """Log events as one record."""

    def continue_after(self, steps: Mapping[str, int]) -> None:
        """Count steps on from these, as after a resume."""

    def close(self) -> None:
        """Sync and close."""


class Writer:
    """Append to a journal of its own in `folder`.

    Thread-safe. A child process that was forked goes on in a journal of its own, too. What the disk
    refuses is dropped, counted in `dropped`, and told of in `reason`; a write that went in half
    is cut back, so that what follows stays readable.
    """

    def __init__(self, folder: Path, home: str) -> None:
        self.folder, self.home, self.source = folder, home, ""
        self.dropped, self.reason = 0, ""
        self._lock = threading.Lock()
        self._fd, self._number, self._synced, self._stamp = -1, 0, 0, clock.tick()
        self._keys: dict[str, list[int]] = {}  # key -> first word of its frames, last step
        self._steps: dict[str, int] = {}  # last steps of before this journal
        self._buffer = bytearray(_SIZE)
        self._body = memoryview(self._buffer)[: f.POINT_FRAME.size]
        self._seed = 0

    def open(self) -> None:
        """Make the file now rather than with the first record. Raises `OSError`."""
        with self._lock:
            self._open()

    def point(
        self,
        key: str,
        value: Any,
        step: Any = None,
        time: Any = None,
        *,
        _pack: Any = f.POINT_FRAME.pack_into,
        _crc: Any = zlib.crc32,
        _seal: Any = f.CHECKSUM.pack_into,
        _write: Any = os.write,
        _now: Any = time_ns,
    ) -> None:
        """Log one value. This is the call that training makes most, so it is written for speed."""
        with self._lock:
            entry = self._keys.get(key)
            stamp = _now()
            if entry is None or time is not None or stamp <= self._stamp:
                return self._several({key: value}, step, time)
            if step is None:
                step = entry[1] + 1
            buffer = self._buffer
            try:
                _pack(buffer, 0, entry[0], self._number + 1, stamp, step, value)
            except (struct.error, TypeError, ValueError, OverflowError):
                return self._several({key: value}, step, time)
            _seal(buffer, 40, _crc(self._body, self._seed))
            try:
                done = _write(self._fd, buffer)
                if done != _SIZE:
                    return self._commit(bytes(buffer), stamp, {key: step}, done)
            except BaseException as error:
                return self._failed(error, bytes(buffer), stamp, 0)
            self._number += 1
            self._stamp = stamp
            entry[1] = step
        return None

    def points(self, values: Mapping[str, Any], step: Any = None, time: Any = None) -> None:
        """See `Sink.points`."""
        with self._lock:
            if values:
                self._several(values, step, time)

    def block(self, key: str, steps: Any, values: Any, times: Any = None) -> None:
        """See `Sink.block`. More than 1,048,576 rows make several records."""
        columns = [as_int_column(key, "step", steps), as_float_column(key, values)]
        columns += [] if times is None else [as_int_column(key, "time", times)]
        if len({len(each) for each in columns}) > 1:
            raise InvalidValue(f"{key!r}: columns of different lengths: {[len(each) for each in columns]}")
        for start in range(0, len(columns[0]), f.CALL_ROWS):
            with self._lock:
                word = self._word(key)
                if word is None:
                    continue
                steps, values, *more = (each[start : start + f.CALL_ROWS] for each in columns)
                payload = f.pack_block(word[0] >> 32, steps, more[0] if more else None, values)
                stamp, flags = self._tick(), 0 if more else f.STAMPED
                data = f.pack_frame(self._seed, f.BLOCK, flags, self._number + 1, stamp, payload)
                self._commit(data, stamp, {key: steps[-1]})

    def events(self, events: Sequence[Event]) -> None:
        """See `Sink.events`."""
        payload = b"\n".join(map(encode_event, events))
        with self._lock:
            if self._ready():
                stamp = self._tick()
                data = f.pack_frame(self._seed, f.EVENTS, 0, self._number + 1, stamp, payload)
                self._commit(data, stamp, {})

    def continue_after(self, steps: Mapping[str, int]) -> None:
        """See `Sink.continue_after`."""
        with self._lock:
            self._steps.update(steps)

    def close(self) -> None:
        """See `Sink.close`."""
        let_go(self)
        try:
            self.sync()
        except OSError as error:
            _log.warning("could not sync %s to disk: %s", self.folder, error)
        with self._lock:
            self._let_go()

    def sync(self) -> None:
        """Make what was written survive a loss of power. Raises `OSError`."""
        with self._lock:
            if self._fd < 0 or self._number == self._synced:
                return
            number, copy = self._number, os.dup(self._fd)
        try:
            getattr(os, "fdatasync", os.fsync)(copy)
            self._synced = number
        finally:
            os.close(copy)

    def sign(self) -> None:
        """Show that the writer lives: the journal's time of change is now. Raises `OSError`."""
        with self._lock:
            if self._fd >= 0:
                os.utime(self._fd if os.utime in os.supports_fd else self.folder / (self.source + f.SUFFIX))

    def forked(self) -> None:
        """Go on in a journal of this process's own; the parent keeps the file."""
        self._lock = threading.Lock()
        self.dropped, self.reason = 0, ""
        self._let_go()

    def _open(self) -> None:
        source = os.urandom(16).hex()
        path = self.folder / (source + f.SUFFIX)
        fd = os.open(path, _FLAGS, 0o666)
        header = f.Header(source, self.home)
        about = to_json({**this_process(), "inode": os.fstat(fd).st_ino})
        data = f.pack_header(header) + f.pack_frame(header.seed, f.WRITER, 0, 0, clock.tick(), about)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(28, "No space left on device")
        except BaseException:
            os.close(fd)
            path.unlink()
            raise
        self.source, self._fd, self._seed = source, fd, header.seed
        self._number = self._synced = 0
        keep(self)

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._steps.update({key: entry[1] for key, entry in self._keys.items()})
        self._keys.clear()

    def _ready(self) -> bool:
        if self._fd < 0:
            try:
                self._open()
            except OSError as error:
                self._drop(error)
                return False
        return True

    def _tick(self) -> int:
        return clock.tick(self._stamp)

    def _word(self, key: str) -> list[int] | None:
        """Return the entry of a key, defined in the journal, or None if the disk refuses that."""
        entry = self._keys.get(key)
        if entry is None and check_key(key) and self._ready():
            number = len(self._keys) + 1
            about = to_json({"number": number, "key": key})
            frame = f.pack_frame(self._seed, f.KEY, 0, 0, self._tick(), about)
            # twice, since all points of the key hang on it
            if not self._write(frame * 2):
                return None
            entry = self._keys[key] = [f.word(f.POINT, number), self._steps.get(key, -1)]
        return entry

    def _several(self, values: Mapping[str, Any], step: Any, time: Any) -> None:
        numbers = {key: as_float(key, value) for key, value in values.items()}
        given, at = None if step is None else as_int("step", step), None if time is None else as_int("time", time)
        entries = {key: self._word(key) for key in numbers}
        words = {key: entry for key, entry in entries.items() if entry is not None}
        if len(words) < len(numbers):
            return
        stamp, frames, steps = self._tick(), [], {}
        at = time_ns() // 1_000_000 if at is None else at
        for index, (key, value) in enumerate(numbers.items()):
            steps[key] = words[key][1] + 1 if given is None else given
            flags = (f.CONTINUES if index + 1 < len(numbers) else 0) | (f.CONTINUED if index else 0)
            first = f.word(f.POINT_AT, words[key][0] >> 32, flags)
            body = f.POINT_AT_FRAME.pack(first, self._number + 1, stamp, steps[key], at, value)
            frames.append(body + f.CHECKSUM.pack(zlib.crc32(body, self._seed)))
        self._commit(b"".join(frames), stamp, steps)

    def _commit(self, data: bytes, stamp: int, steps: Mapping[str, int], done: int = 0) -> None:
        if self._write(data, stamp, done):
            self._number += 1
            self._stamp = stamp
            for key, step in steps.items():
                self._keys[key][1] = step

    def _write(self, data: bytes, stamp: int = 0, done: int = 0) -> bool:
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except BaseException as error:
            self._failed(error, data, stamp, done)
            return False
        return True

    def _failed(self, error: BaseException, data: bytes, stamp: int, done: int) -> None:
        """Bring the journal back to a boundary after a write that failed, or that a signal broke off."""
        if isinstance(error, OSError):
            if done:
                try:
                    os.ftruncate(self._fd, os.fstat(self._fd).st_size - done)
                except OSError:
                    self._let_go()
            return self._drop(error)
        size = os.fstat(self._fd).st_size
        if size >= len(data) and os.pread(self._fd, len(data), size - len(data)) == data:
            self._number += stamp > 0  # the interrupt came after the write
        else:
            self._let_go()
        raise error

    def _drop(self, error: OSError) -> None:
        self.dropped += 1
        if not self.reason:
            self.reason = f"{self.folder}: {error.strerror or error}"
            _log.warning("cannot write to %s; training goes on, what cannot be written is counted", self.reason)


class Nowhere:
    """Take in everything and keep nothing, for ``MLCORE_STORE=off``."""

    dropped, reason = 0, ""

    def point(self, key: str, value: Any, step: Any = None, time: Any = None) -> None:
        """See `Sink.point`."""

    def points(self, values: Mapping[str, Any], step: Any = None, time: Any = None) -> None:
        """See `Sink.points`."""

    def block(self, key: str, steps: Any, values: Any, times: Any = None) -> None:
        """See `Sink.block`."""

    def events(self, events: Sequence[Event]) -> None:
        """See `Sink.events`."""

    def continue_after(self, steps: Mapping[str, int]) -> None:
        """See `Sink.continue_after`."""

    def close(self) -> None:
        """See `Sink.close`."""
