"""Write a journal: one `write` a call, nothing lost when the process dies, and no error for training to see.

A background thread, one a process, keeps open journals synced and shows that their writers live.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from itertools import takewhile
from pathlib import Path
from time import time_ns
from typing import Any, Concatenate, ParamSpec
from zlib import crc32

from mlcore import _log
from mlcore.errors import InvalidValue
from mlcore.journal import format as f
from mlcore.journal._values import as_float, as_int, check_key, metric_columns
from mlcore.store import Event, clock, encode_event, to_json

SYNC_SECONDS = 1.0
SIGN_SECONDS = 30.0
_pack, _seal = f.POINT_FRAME.pack, f.CHECKSUM.pack
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_COUNTED = (int, type(None))  # steps to count on from: numpy's would overflow
_P = ParamSpec("_P")
_kept: weakref.WeakSet[Writer] = weakref.WeakSet()
_thread: threading.Thread | None = None
_lock = threading.RLock()  # a signal's handler may come in between


def _in_turn(method: Callable[Concatenate[Writer, _P], None]) -> Callable[Concatenate[Writer, _P], None]:
    """Let calls of several threads wait for each other, and one that comes amid another of its own thread go aside."""

    @wraps(method)
    def call(self: Writer, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        with self._lock:
            if self._busy:
                return call(self._aside(), *args, **kwargs)
            self._busy = True
            try:
                return method(self, *args, **kwargs)
            finally:
                self._busy = False

    return call


class Sink:
    """Count the steps of each key, and what could not be written."""

    told = "cannot write to %s; training goes on, what cannot be written is counted"

    def __init__(self) -> None:
        self.dropped, self.reason = 0, ""
        self._steps: dict[str, int] = {}  # the last one of each key, of before this process too

    def continue_after(self, steps: Mapping[str, int]) -> None:
        """Count the steps of these keys on from here, as after a resume."""
        self._steps.update(steps)

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if not self.reason:
            self.reason = reason
            _log.warning(self.told, reason)


class Writer(Sink):
    """Append to a journal of its own in `folder`.

    Thread-safe. A child process that was forked goes on in a journal of its own, too, and so does a signal's
    handler or a finalizer that comes while its thread is in the middle of a call. What the disk refuses is dropped,
    counted in `dropped`, and told of in `reason`; a write that went in half is cut back, so that what follows stays
    readable.
    """

    def __init__(self, folder: Path, home: str) -> None:
        import logging  # noqa: F401 - later there may be no file descriptor left to import it with

        super().__init__()
        self.folder, self.home, self.source = folder, home, ""
        self._lock = threading.RLock()
        self._fd, self._number, self._synced, self._stamp = -1, 0, ("", 0), clock.tick()
        self._words: dict[str, int] = {}  # the first word of each key's frames in this journal
        self._seed, self._busy = 0, False
        self._beside: Writer | None = None
        keep(self)

    @_in_turn
    def open(self) -> None:
        """Make the file now rather than with the first record. Raises `OSError`."""
        self._open()

    def point(self, key: str, value: Any, step: Any = None, time: Any = None) -> None:
        """Log one value. This is the call that training makes most, so it is written for speed."""
        with self._lock:  # what _in_turn does, without the cost of another call
            if self._busy:
                return self._aside().point(key, value, step, time)
            self._busy = True
            try:
                word = self._words.get(key) if isinstance(key, str) else None  # type: ignore[redundant-expr]
                stamp = time_ns()
                if word is None or time is not None or stamp <= self._stamp or type(step) not in _COUNTED:
                    return self._several({check_key(key): value}, step, time)
                step = self._steps.get(key, -1) + 1 if step is None else step
                try:
                    body = _pack(word, self._number + 1, stamp, step, value)
                except Exception:  # noqa: BLE001 - the value's own code may raise anything; this tells what is wrong
                    return self._several({key: value}, step, time)
                data = body + _seal(crc32(body, self._seed))
                try:
                    done = os.write(self._fd, data)
                    if done == len(data):
                        self._number, self._stamp, self._steps[key] = self._number + 1, stamp, step
                        return None
                except BaseException as error:  # noqa: BLE001 - see _failed
                    return self._failed(error, data, {key: step}, 0)
                self._commit(data, {key: step}, done)
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
            if word := self._word(key):
                payload = f.pack_block(word >> 32, part["step"], part.get("time"), part["value"])
                self._frame(f.BLOCK, 0 if "time" in part else f.STAMPED, payload, {key: part["step"][-1]})

    @_in_turn
    def events(self, events: Sequence[Event]) -> None:
        """Log events as one record."""
        self._frame(f.EVENTS, 0, b"\n".join(map(encode_event, events)), {})

    @_in_turn
    def close(self) -> None:
        """Sync and close; a later call opens a new journal."""
        try:
            self.sync()
        except OSError as error:
            _log.warning("could not sync %s to disk: %s", self.folder, error)
        self._let_go()
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.close()
            self.dropped, self.reason = self.dropped + beside.dropped, self.reason or beside.reason

    def sync(self) -> None:
        """Make what was written survive a loss of power. Raises `OSError`."""
        with self._lock:
            written = self.source, self._number
            if self._fd < 0 or self._synced == written:
                return
            copy = os.dup(self._fd)
        try:
            getattr(os, "fdatasync", os.fsync)(copy)
            self._synced = written
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
            self._beside.continue_after(self._steps)
        return self._beside

    def _open(self) -> None:
        source = os.urandom(16).hex()
        path = self.folder / (source + f.SUFFIX)
        self.folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, _FLAGS, 0o666)
        header = f.Header(source, self.home)
        try:
            about = to_json({**this_process(), "inode": os.fstat(fd).st_ino})
            data = f.pack_header(header) + f.pack_frame(header.seed, f.WRITER, 0, 0, clock.tick(), about)
            if os.write(fd, data) != len(data):
                raise OSError(28, "No space left on device")
        except BaseException:
            os.close(fd)
            path.unlink()
            raise
        self.source, self._fd, self._seed = source, fd, header.seed
        self._number, self._synced = 0, (source, 0)
        keep(self)

    def _let_go(self) -> None:
        fd, self._fd, self._words = self._fd, -1, {}  # at once, whatever signal comes
        if fd >= 0:
            os.close(fd)

    def _frame(self, kind: int, flags: int, payload: bytes, steps: Mapping[str, int]) -> bool:
        """Write a frame, into a new journal if none is open, and tell whether the disk took it."""
        try:
            if self._fd < 0:
                self._open()
        except OSError as error:
            self._drop(f"{self.folder}: {error.strerror or error}")
            return False
        # a key's frame is no record, and written twice, since all points of the key hang on it
        number, times = (0, 2) if kind == f.KEY else (self._number + 1, 1)
        frame = f.pack_frame(self._seed, kind, flags, number, clock.tick(self._stamp), payload)
        return self._commit(frame * times, steps)

    def _word(self, key: str) -> int:
        """Return the first word of a key's frames, once it is defined in the journal, or 0 if the disk refuses that."""
        word = self._words.get(key, 0)
        number = len(self._words) + 1
        if not word and self._frame(f.KEY, 0, to_json({"number": number, "key": check_key(key)}), {}):
            word = self._words[key] = f.word(f.POINT, number)
        return word

    def _several(self, values: Mapping[str, Any], step: Any, time: Any) -> None:
        numbers = {check_key(key): as_float(key, value) for key, value in values.items()}
        given = None if step is None else as_int("step", step)
        at = time_ns() // 1_000_000 if time is None else as_int("time", time)
        words = list(takewhile(bool, map(self._word, numbers)))  # up to the first that the disk refuses
        if len(words) < len(numbers):
            return
        stamp, frames, steps = clock.tick(self._stamp), list[bytes](), dict[str, int]()
        for word, (key, value) in zip(words, numbers.items(), strict=True):
            flags = (f.CONTINUES if len(steps) + 1 < len(words) else 0) | (f.CONTINUED if steps else 0)
            steps[key] = as_int("step", self._steps.get(key, -1) + 1) if given is None else given
            place = f.word(f.POINT_AT, word >> 32, flags), self._number + 1, stamp
            frames.append(f.sealed(f.POINT_AT_FRAME.pack(*place, steps[key], at, value), self._seed))
        self._commit(b"".join(frames), steps)

    def _commit(self, data: bytes, steps: Mapping[str, int], done: int = 0) -> bool:
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
            self._count(data, steps)
        except BaseException as error:  # noqa: BLE001 - a signal's, which goes on from there, or the disk's
            self._failed(error, data, steps, done)
            return False
        return True

    def _count(self, data: bytes, steps: Mapping[str, int]) -> None:
        _, number, self._stamp = f.PLACE.unpack_from(data)
        self._number = number or self._number
        self._steps.update(steps)

    def _failed(self, error: BaseException, data: bytes, steps: Mapping[str, int], done: int) -> None:
        """Bring the journal back to a boundary after a write that failed, or that a signal broke off."""
        if isinstance(error, OSError) and error.errno is not None:  # None: a handler's own, such as TimeoutError
            if done:
                try:
                    os.ftruncate(self._fd, os.fstat(self._fd).st_size - done)
                except OSError:
                    self._let_go()
            return self._drop(f"{self.folder}: {error.strerror or error}")
        size = os.fstat(self._fd).st_size
        if size < len(data) or os.pread(self._fd, len(data), size - len(data)) != data:
            self._let_go()
        else:
            self._count(data, steps)  # the signal came after the write
        raise error


def keep(journal: Writer) -> None:
    """Look after a journal, as long as it is used, and after what becomes of it in the child of a fork."""
    global _thread
    with _lock:
        _kept.add(journal)
        if _thread is None:
            _thread = threading.Thread(target=_work, name="mlcore-keeper", daemon=True)
            with suppress(RuntimeError):  # no more threads: at exit, or at the limit of a container
                _thread.start()


def _work() -> None:
    signed = time.monotonic()
    while True:
        time.sleep(SYNC_SECONDS)
        due = time.monotonic() - signed >= SIGN_SECONDS
        signed = time.monotonic() if due else signed
        with _lock:
            journals = list(_kept)
        for journal in journals:
            try:
                journal.sync()
                if due:
                    journal.sign()
            except OSError as error:  # the disk's trouble must not end the thread
                _log.debug("cannot sync a journal: %s", error)


def _after_fork() -> None:
    global _thread, _lock
    _thread, _lock = None, threading.RLock()
    for journal in list(_kept):
        journal.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read()
    return ""


def started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks, so that a reused process id is not taken for it."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def this_process() -> dict[str, Any]:
    """Return what a journal records about its writer; `boot` and `pidns` tell what process ids count in, on Linux.

    The process is this one, or the one that it logs for, such as a script of a shell (``MLCORE_PROCESS``).
    """
    given, boot = os.environ.get("MLCORE_PROCESS") or str(os.getpid()), _read("/proc/sys/kernel/random/boot_id").strip()
    if not given.isdecimal():
        raise InvalidValue(f"MLCORE_PROCESS is the number of a process, not {given!r}: set it to one, or unset it")
    pid = int(given)
    about = {"host": platform.node(), "boot": boot, "pidns": 0, "pid": pid, "started": started(pid), "user": user()}
    with suppress(OSError):
        about["pidns"] = os.stat("/proc/self/ns/pid").st_ino
    return about


def user() -> str:
    """Return the name of the user, or the number where there is no name."""
    name = os.environ.get("USER") or os.environ.get("LOGNAME") or os.environ.get("USERNAME")
    return name or str(os.getuid() if hasattr(os, "getuid") else "")
