"""Threads for what blocks: a few, begun when they are needed, and left behind when the process must end."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mlcore_server.routing import Declined

__all__ = ["Threads"]

_T = TypeVar("_T")
_QUEUED = 16  # that may wait for each that is answered
_Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Threads:
    """Call what blocks, at most `most` at once.

    Unlike those of `concurrent.futures` these threads keep no process from ending: a database that does not answer
    would else hold a server that was told to stop.
    """

    def __init__(self, most: int) -> None:
        self._most, self._busy, self._count = max(1, most), 0, 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()

    async def call(self, call: Callable[[], _T]) -> _T:
        """Return what `call` returns, or raise what it raises. Raises `Declined` if too many wait already."""
        if self._busy >= self._most * (1 + _QUEUED):
            raise Declined(503, "too many questions wait for an answer: try again soon", {"retry-after": "1"})
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        if self._busy >= self._count < self._most:
            self._count += 1
            threading.Thread(target=self._work, name=f"mlcore-reader-{self._count}", daemon=True).start()
        self._busy += 1
        self._jobs.put((call, loop, future))
        return await future

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, loop, future = job
            found, error = None, None
            if not future.cancelled():
                try:
                    found = call()
                except BaseException as raised:  # noqa: BLE001 - it is the answer to who waits
                    error = raised
            try:
                loop.call_soon_threadsafe(self._done, future, found, error)
            except RuntimeError:
                return  # the loop was closed: nobody waits any more
            job = call = found = error = future = None  # type: ignore[assignment] # or they live until the next job

    def _done(self, future: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
        self._busy -= 1
        if future.done():  # whoever waited has gone
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)
