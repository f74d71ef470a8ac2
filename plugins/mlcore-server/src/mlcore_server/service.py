"""What routes are given: the store, asked in threads and written to in groups, and what the server was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mlcore.errors import MlcoreError
from mlcore.store import Batch, Store
from mlcore_server.committing import Committer
from mlcore_server.guard import Gate
from mlcore_server.metrics import Metrics
from mlcore_server.routing import Declined, Route
from mlcore_server.settings import Settings

__all__ = ["Service"]

_T = TypeVar("_T")
_QUEUED = 16  # questions that may wait for each that is answered
_END = object()


class Service:
    """Serve one store in one process.

    `settings` are what the server was told, `kind` is the scheme of the store's URI, `routes` what it answers,
    `metrics` what it counted, `draining` is True once it stops. Routes ask by `read`, stream by `stream`, and write by
    `append`: the store itself would block the loop.
    """

    def __init__(self, settings: Settings, store: Store, kind: str = "file") -> None:
        self.settings, self.store, self.kind = settings, store, kind
        self.routes: tuple[Route, ...] = ()
        self.draining = False
        self.gate = Gate(settings)
        self.metrics = Metrics()
        self.committer = Committer(store, limit=settings.queue, told=self.metrics.committed)
        self.metrics.watch_queue(lambda: self.committer.waiting)
        self._readers = ThreadPoolExecutor(settings.readers, "mlcore-reader")
        self._reading = 0

    async def start(self) -> None:
        """Begin to write; called on the event loop before the first request."""
        self.committer.start()

    async def close(self) -> None:
        """Write what waits, and close the store."""
        self.draining = True
        await self.committer.close()
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self.store.close)
        self.gate.close()

    async def append(self, batches: Sequence[Batch], actor: str, size: int = 0) -> list[MlcoreError | None]:
        """Store batches together with those of other requests; see `Committer.append`."""
        return await self.committer.append(batches, actor, size)

    async def read(self, call: Callable[[Store], _T]) -> _T:
        """Return what `call` makes of the store, in a thread. Raises `Declined` if too many questions wait."""
        return await self.run(lambda: call(self.store))

    async def run(self, call: Callable[[], _T]) -> _T:
        """Return what `call` returns, in a thread for what blocks."""
        if self._reading >= self.settings.readers * _QUEUED:
            raise Declined(503, "too many questions wait for an answer: try again soon", {"retry-after": "1"})
        self._reading += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, call)
        finally:
            self._reading -= 1

    async def stream(self, chunks: Iterator[_T]) -> AsyncIterator[_T]:
        """Yield from an iterator that blocks, each item made in a thread."""
        while (chunk := await self.run(lambda: next(chunks, _END))) is not _END:
            yield chunk  # type: ignore[misc]
