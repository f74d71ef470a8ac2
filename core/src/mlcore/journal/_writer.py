"""Write a journal: one `write` a call, nothing lost when the process dies, and no error for training to see."""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from time import time_ns
from typing import Any, TypeVar, cast

from mlcore.journal import format as f
from mlcore.journal._keeper import keep
from mlcore.journal._signs import this_process
from mlcore.journal._values import as_float, as_int, check_key, metric_columns
from mlcore.store import Event, clock, encode_event, to_json

_log = logging.getLogger("mlcore")
_SIZE = f.POINT_FRAME.size + f.CHECKSUM.size
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


_F = TypeVar("_F", bound=Callable[..., None])


def _in_turn(method: _F) -> _F:
    """Let calls of several threads wait for each other, and one that comes amid another of its own thread go aside."""

    @wraps(method)
    def call(self: Writer, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            if self._busy:
                return getattr(self._aside(), method.__name__)(*args, **kwargs)  # type: ignore[no-any-return]
            self._busy = True
            try:
                return method(self, *args, **kwargs)
            finally:
                self._busy = False

    return cast("_F", call)


class Writer:
    """Append to a journal of its own in `folder`.

    Thread-safe. A child process that was forked goes on in a journal of its own, too, and so does a signal's
    handler or a finalizer that comes while its thread is in the middle of a call. What the disk refuses is dropped,
    counted in `dropped`, and told of in `reason`; a write that went in half is cut back, so that what follows stays
    readable.
    """

    def __init__(self, folder: Path, home: str) -> None:
        self.folder, self.home, self.source = folder, home, ""
        self.dropped, self.reason = 0, ""
        self._lock = threading.RLock()
        self._fd, self._number, self._synced, self._stamp = -1, 0, 0, clock.tick()
        self._keys: dict[str, list[int]] = {}  # key -> first word of its frames, last step
        self._steps: dict[str, int] = {}  # last steps of before this journal
        self._buffer = bytearray(_SIZE)
        self._body = memoryview(self._buffer)[: f.POINT_FRAME.size]
        self._seed, self._busy = 0, False
        self._beside: Writer | None = None
        keep(self)

    @_in_turn
    def open(self) -> None:
        """Make the file now rather than with the first record. Raises `OSError`."""
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
            if self._busy:
                return self._aside().point(key, value, step, time)
            self._busy = True
            try:
                try:
                    entry = self._keys.get(key)
                except TypeError:  # a list, or another thing that is no key of a dict
                    check_key(key)
                    raise
                stamp = _now()
                if entry is None or time is not None or stamp <= self._stamp:
                    return self._several({key: value}, step, time)
                if step is None:
                    step = entry[1] + 1
                elif type(step) is not int:  # numpy's would overflow when counted on
                    return self._several({key: value}, step, time)
                buffer = self._buffer
                try:
                    _pack(buffer, 0, entry[0], self._number + 1, stamp, step, value)
                except Exception:  # noqa: BLE001 - the value's own code may raise anything; this tells what is wrong
                    return self._several({key: value}, step, time)
                _seal(buffer, 40, _crc(self._body, self._seed))
                try:
                    done = _write(self._fd, buffer)
                    if done == _SIZE:
                        self._number += 1
                        self._stamp = stamp
                        entry[1] = step
                        return None
                except BaseException as error:  # noqa: BLE001 - see _commit
                    return self._failed(error, bytes(buffer), {key: step}, 0)
                self._commit(bytes(buffer), {key: step}, done)
                return None
            finally:
                self._busy = False

    @_in_turn
    def points(self, values: Mapping[str, Any], step: Any = None, time: Any = None) -> None:
        """Log one value a key as one record: all of them or none."""
        if values:
            self._several(values, step, time)

    @_in_turn
    def block(self, key: str, steps: Any, values: Any, times: Any = None) -> None:
        """Log columns of one length for one key. More than 1,048,576 rows make several records."""
        columns = metric_columns(key, steps, values, times)
        for start in range(0, len(columns["step"]), f.CALL_ROWS):
            part = {name: column[start : start + f.CALL_ROWS] for name, column in columns.items()}
            entry = self._entry(key)
            if entry is not None:
                payload = f.pack_block(entry[0] >> 32, part["step"], part.get("time"), part["value"])
                flags = 0 if "time" in part else f.STAMPED
                self._frame(f.BLOCK, flags, payload, {key: part["step"][-1]})

    @_in_turn
    def events(self, events: Sequence[Event]) -> None:
        """Log events as one record."""
        payload = b"\n".join(map(encode_event, events))
        if self._ready():
            self._frame(f.EVENTS, 0, payload, {})

    def continue_after(self, steps: Mapping[str, int]) -> None:
        """Count the steps of these keys on from here, as after a resume."""
        with self._lock:
            self._steps.update(steps)

    @_in_turn
    def close(self) -> None:
        """Sync and close; a later call opens a new journal."""
        try:
            self.sync()
        except OSError as error:
            _log.warning("could not sync %s to disk: %s", self.folder, error)
        self._let_go()
        if self._beside is not None:
            beside, self._beside = self._beside, None
            beside.close()
            self.dropped, self.reason = self.dropped + beside.dropped, self.reason or beside.reason

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
        self._lock = threading.RLock()
        self.dropped, self.reason, self._busy, self._beside = 0, "", False, None
        self._let_go()

    def _aside(self) -> Writer:
        if self._beside is None:
            self._beside = Writer(self.folder, self.home)
            self._beside.continue_after({**self._steps, **{key: entry[1] for key, entry in self._keys.items()}})
        return self._beside

    def _open(self) -> None:
        source = os.urandom(16).hex()
        path = self.folder / (source + f.SUFFIX)
        self.folder.mkdir(parents=True, exist_ok=True)
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
        self._steps.update({key: entry[1] for key, entry in self._keys.items()})
        fd, self._fd, self._keys = self._fd, -1, {}  # at once, whatever signal comes
        if fd >= 0:
            os.close(fd)

    def _ready(self) -> bool:
        if self._fd < 0:
            try:
                self._open()
            except OSError as error:
                self._drop(error)
                return False
        return True

    def _frame(self, kind: int, flags: int, payload: bytes, steps: Mapping[str, int]) -> None:
        stamp = clock.tick(self._stamp)
        self._commit(f.pack_frame(self._seed, kind, flags, self._number + 1, stamp, payload), steps)

    def _entry(self, key: str) -> list[int] | None:
        """Return what is known of a key, defined in the journal, or None if the disk refuses that."""
        entry = self._keys.get(key)
        if entry is None and check_key(key) and self._ready():
            number = len(self._keys) + 1
            frame = f.pack_frame(self._seed, f.KEY, 0, 0, clock.tick(), to_json({"number": number, "key": key}))
            # twice, since all points of the key hang on it
            if self._commit(frame * 2, {}):
                entry = self._keys[key] = [f.word(f.POINT, number), self._steps.get(key, -1)]
        return entry

    def _several(self, values: Mapping[str, Any], step: Any, time: Any) -> None:
        numbers = {check_key(key): as_float(key, value) for key, value in values.items()}
        given = None if step is None else as_int("step", step)
        at = time_ns() // 1_000_000 if time is None else as_int("time", time)
        entries: dict[str, list[int]] = {}
        for key in numbers:
            entry = self._entry(key)
            if entry is None:
                return
            entries[key] = entry
        stamp, frames, steps = clock.tick(self._stamp), list[bytes](), dict[str, int]()
        for index, (key, value) in enumerate(numbers.items()):
            steps[key] = as_int("step", entries[key][1] + 1) if given is None else given
            flags = (f.CONTINUES if index + 1 < len(numbers) else 0) | (f.CONTINUED if index else 0)
            first = f.word(f.POINT_AT, entries[key][0] >> 32, flags)
            body = f.POINT_AT_FRAME.pack(first, self._number + 1, stamp, steps[key], at, value)
            frames.append(body + f.CHECKSUM.pack(zlib.crc32(body, self._seed)))
        self._commit(b"".join(frames), steps)

    def _commit(self, data: bytes, steps: Mapping[str, int], done: int = 0) -> bool:
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
            self._count(data, steps)
        except BaseException as error:  # noqa: BLE001 - a signal's, which goes on from there, or the disk's
            self._failed(error, data, steps, done)
        else:
            return True
        return False

    def _count(self, data: bytes, steps: Mapping[str, int]) -> None:
        _, number, self._stamp = f.PLACE.unpack_from(data)
        self._number = number or self._number
        for key, step in steps.items():
            self._keys[key][1] = step

    def _failed(self, error: BaseException, data: bytes, steps: Mapping[str, int], done: int) -> None:
        """Bring the journal back to a boundary after a write that failed, or that a signal broke off."""
        if isinstance(error, OSError) and error.errno is not None:  # None: a handler's own, such as TimeoutError
            if done:
                try:
                    os.ftruncate(self._fd, os.fstat(self._fd).st_size - done)
                except OSError:
                    self._let_go()
            return self._drop(error)
        size = os.fstat(self._fd).st_size
        if size < len(data) or os.pread(self._fd, len(data), size - len(data)) != data:
            self._let_go()
        else:
            self._count(data, steps)  # the signal came after the write
        raise error

    def _drop(self, error: OSError) -> None:
        self.dropped += 1
        if not self.reason:
            self.reason = f"{self.folder}: {error.strerror or error}"
            _log.warning("cannot write to %s; training goes on, what cannot be written is counted", self.reason)
