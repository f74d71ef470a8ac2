"""Do several requests at once, with a bound on the memory that all transfers of a process hold together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["READ", "WRITTEN", "Budget", "submit"]

_THREADS = 16
_BYTES = 64 << 20
_R = TypeVar("_R")
_POOL = list[ThreadPoolExecutor]()  # the one of this process, when it was first needed


class Budget:
    """Count the bytes that are held; what would be too many waits, unless nothing else is held."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._freed = limit, 0, threading.Condition()

    def take(self, count: int, *, wait: bool = True) -> bool:
        """Hold so many bytes more; without `wait` tell whether that could be."""
        with self._freed:
            while self._held and self._held + count > self._limit:
                if not wait:
                    return False
                self._freed.wait()
            self._held += count
            return True

    def forget(self) -> None:
        """Hold nothing: begin anew in a process that was forked."""
        self._held, self._freed = 0, threading.Condition()

    def give(self, count: int) -> None:
        """Hold so many bytes less."""
        with self._freed:
            self._held -= count
            self._freed.notify_all()


# Two, as what was read ahead may wait for one who writes it elsewhere, and what is written waits for nobody.
READ, WRITTEN = Budget(_BYTES), Budget(_BYTES)


def submit(work: Callable[[], _R]) -> Future[_R]:
    """Do some work in a thread, or as the interpreter ends, when there are no more threads, here and now."""
    try:
        if not _POOL:
            _POOL.append(ThreadPoolExecutor(_THREADS, "mlcore-bucket"))
        return _POOL[0].submit(work)
    except RuntimeError:
        done = Future[_R]()
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            done.set_exception(error)
        return done


def _after_fork() -> None:
    _POOL.clear()  # its threads stayed with the parent
    READ.forget()
    WRITTEN.forget()


os.register_at_fork(after_in_child=_after_fork)
