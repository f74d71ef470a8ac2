"""The process between a supervisor and a job: whatever the job starts becomes its child in the end, and ends with it.

It is forked before mlcore is imported, has one thread, and imports nothing but the standard library. It is told what to
do by single bytes: ``G`` go, ``I`` interrupt, ``T`` terminate, ``K`` kill; when that pipe ends its supervisor is dead,
and so is the job. It tells what happens in lines of JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

__all__ = ["fork", "start_ticks"]

_SUBREAPER, _DEATH_SIGNAL = 36, 1  # PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG of prctl(2)
_GONE_SECONDS = 10.0  # for what the kernel does not let die
_LOOK_SECONDS = 0.02
_MOST_FILES = 1 << 16
_SIGNALS = {b"I": signal.SIGINT, b"T": signal.SIGTERM}


def fork(
    argv: Sequence[str],
    variables: Mapping[str, str],
    folder: str,
    *,
    output: tuple[int, int],
    stdin: int,
    linger: float,
) -> tuple[int, int, int]:
    """Fork it; return its process id, the pipe that it listens to, and the one where it tells.

    `output` are the pipes for what the job prints, `linger` the seconds that what is left of a job has to end.
    """
    prctl = _prctl()
    listens, control = os.pipe()
    report, tells = os.pipe()
    pid = os.fork()
    if pid:
        for each in (listens, tells, *output):
            os.close(each)
        return pid, control, report
    try:
        _leave_alone((listens, tells, *output, stdin))
        _Reaper(listens, tells, prctl, linger).run(lambda: _become(argv, variables, folder, (stdin, *output), prctl))
    except BaseException as error:  # noqa: BLE001 - this is the whole process: it must not go on as its parent
        os.write(2, f"mlcore: what watches a job broke: {error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def start_ticks(pid: int) -> str:
    """Return when a process started, as `mlcore.journal.started` does, without importing it."""
    found = _stat(pid)
    return found[19] if len(found) > 19 and found[0] not in "ZX" else ""


def _prctl() -> Callable[[int, int], object]:
    """Return Linux's prctl, or what does nothing: there a daemon of a job gets away."""
    if not sys.platform.startswith("linux"):
        return lambda *_: None
    import ctypes  # before the fork, as memory is shared then

    return ctypes.CDLL(None, use_errno=True).prctl


def _leave_alone(kept: Sequence[int]) -> None:
    """Close what the supervisor has open, but its stderr."""
    last = 2
    for fd in sorted({fd for fd in kept if fd > last} | {_MOST_FILES}):
        os.closerange(last + 1, fd)
        last = fd


def _become(
    argv: Sequence[str], variables: Mapping[str, str], folder: str, stdio: Sequence[int], prctl: Callable[..., object]
) -> NoReturn:
    """Turn this process, which is new, into the job."""
    parent = os.getppid()
    os.setpgid(0, 0)
    prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for target, source in enumerate(stdio):
        os.dup2(source, target)
    os.chdir(folder)
    os.execvpe(argv[0], [*argv], variables)  # noqa: S606 - an argument list, which no shell sees


class _Reaper:
    def __init__(self, listens: int, tells: int, prctl: Callable[[int, int], object], linger: float) -> None:
        self._listens, self._tells, self._prctl, self._linger = listens, tells, prctl, linger
        self._child = 0

    def run(self, become: Callable[[], NoReturn]) -> None:
        """Wait for the word, start the job, and stay until nothing is left of it."""
        os.setsid()
        self._prctl(_SUBREAPER, 1)
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if os.read(self._listens, 1) != b"G":
            return
        if self._start(become):
            self._tell(ended=self._watch(woken))
            self._tell(left=self._sweep())

    def _start(self, become: Callable[[], NoReturn]) -> bool:
        told, tells = os.pipe()  # closed by exec; what comes through it is why there was none
        self._child = os.fork()
        if not self._child:
            try:
                become()
            except OSError as error:
                os.write(tells, f"{error.errno}".encode())
            finally:
                os._exit(127)
        os.close(tells)
        with suppress(OSError):
            os.setpgid(self._child, self._child)  # whoever of the two is first
        failed = os.read(told, 16)
        os.close(told)
        if failed:
            os.waitpid(self._child, 0)
            self._tell(errno=int(failed))
            return False
        self._tell(pid=self._child, started=start_ticks(self._child))
        return True

    def _watch(self, woken: int) -> int:
        """Do as told until the job's own process ends; return how it did, as `subprocess` says it."""
        poll = select.poll()
        poll.register(self._listens, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == woken:
                    with suppress(BlockingIOError):
                        os.read(woken, 4096)
                    if (ended := self._reap()) is not None:
                        return ended
                    continue
                word = os.read(self._listens, 1)
                if word in _SIGNALS:
                    with suppress(ProcessLookupError):
                        os.killpg(self._child, _SIGNALS[word])
                        os.killpg(self._child, signal.SIGCONT)  # one that was stopped cannot end
                    continue
                _end(_descendants)
                while (ended := self._reap()) is None:
                    time.sleep(_LOOK_SECONDS)
                return ended

    def _reap(self) -> int | None:
        """Take note of all that ended, and return how the job's own process did, if it was among them."""
        ended = None
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._child:
                    ended = os.waitstatus_to_exitcode(found[1])
        return ended

    def _sweep(self) -> int:
        """End what the job left running: asked first, then killed. Return how many there were."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child, signal.SIGTERM)  # all there is where there is no /proc
        left = _descendants()
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + self._linger
        while _descendants() and time.monotonic() < deadline and not select.select([self._listens], [], [], 0)[0]:
            time.sleep(_LOOK_SECONDS)
            self._reap()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child, signal.SIGKILL)
        deadline = time.monotonic() + _GONE_SECONDS
        while _descendants() and time.monotonic() < deadline:
            _end(_descendants)
            time.sleep(_LOOK_SECONDS)
            self._reap()
        return len(left)

    def _tell(self, **told: Any) -> None:
        with suppress(OSError):  # nobody listens any more
            os.write(self._tells, json.dumps(told).encode() + b"\n")


def _end(found: Callable[[], list[int]]) -> None:
    """Stop all there are, until none is new, and kill them: what starts others as fast as it can gets no further."""
    stopped: set[int] = set()
    while fresh := set(found()) - stopped:
        for pid in fresh:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= fresh
    for pid in stopped:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _descendants() -> list[int]:
    """Return all processes below this one that have not ended, from /proc."""
    children: dict[int, list[int]] = {}
    ended = set()
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal() and len(found := _stat(int(name))) > 1:
                children.setdefault(int(found[1]), []).append(int(name))
                if found[0] in "ZX":
                    ended.add(int(name))
    below, look = list[int](), [os.getpid()]
    while look:
        found_below = children.get(look.pop(), [])
        look += found_below
        below += [pid for pid in found_below if pid not in ended]
    return below


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on: a name may hold anything."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].decode().split()
    return []
