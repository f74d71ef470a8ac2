"""What routes are given: the store, asked in threads and written to in groups, and what the server was told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

from mlcore.errors import MlcoreError
from mlcore.store import Batch, Store
from mlcore_server.committing import Committer
from mlcore_server.guard import Gate
from mlcore_server.metrics import Metrics
from mlcore_server.routing import Route
from mlcore_server.settings import Settings
from mlcore_server.threads import Threads

__all__ = ["Service"]

_T = TypeVar("_T")
_LAST_SECONDS = 5.0  # for what is being written when the server ends, after all requests had their time
_log = logging.getLogger("mlcore")
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
        self._threads = Threads(settings.readers)
        self._watching: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Begin to write; called on the event loop before the first request."""
        self.committer.start()

    async def close(self) -> None:
        """Write what waits, and close the store."""
        self.stop()
        self._threads.close()
        try:
            await asyncio.wait_for(self.committer.close(), _LAST_SECONDS)
            self.store.close()
        except TimeoutError:
            _log.error("the store does not answer: %d batches were not acknowledged", self.committer.waiting)
        self.gate.close()

    def stop(self) -> None:
        """Tell who asks that no new requests are wanted."""
        self.draining = True

    async def append(self, batches: Sequence[Batch], actor: str, size: int = 0) -> list[MlcoreError | None]:
        """Store batches together with those of other requests; see `Committer.append`."""
        results = await self.committer.append(batches, actor, size)
        for told in self._watching:
            told()
        return results

    def watch(self, told: Callable[[], None]) -> None:
        """Call `told` on the event loop whenever batches were stored here."""
        self._watching.append(told)

    async def read(self, call: Callable[[Store], _T]) -> _T:
        """Return what `call` makes of the store, in a thread. Raises `Declined` if too many questions wait."""
        return await self.run(lambda: call(self.store))

    async def run(self, call: Callable[[], _T]) -> _T:
        """Return what `call` returns, in a thread for what blocks."""
        return await self._threads.call(call)

    async def stream(self, chunks: Iterator[_T]) -> AsyncIterator[_T]:
        """Yield from an iterator that blocks, each item made in a thread."""
        while (chunk := await self.run(lambda: next(chunks, _END))) is not _END:
            yield chunk  # type: ignore[misc]
