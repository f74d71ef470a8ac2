"""Wait until the disk has several files at once: the disk writes them together, which takes as long as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

__all__ = ["Syncing"]

_AT_ONCE = 16
Call = Callable[[], None]


class Syncing:
    """Make calls that wait for the disk in threads that stay: handing over costs less than the disk does."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def all(self, calls: Sequence[Call]) -> None:
        """Make all calls, and return when all have returned. Raises what one of them raised, `OSError` say."""
        while len(self._threads) < min(len(calls) - 1, _AT_ONCE):
            thread = threading.Thread(target=self._work, name="mlcore-syncing", daemon=True)
            thread.start()
            self._threads.append(thread)
        for call in calls[1:]:
            self._calls.put(call)
        found = [_outcome(call) for call in calls[:1]]  # this thread would wait only
        found += [self._done.get() for _ in calls[1:]]
        for error in found:
            if error is not None:
                raise error

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._done.put(_outcome(call))


def _outcome(call: Call) -> BaseException | None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
        return error
    return None
