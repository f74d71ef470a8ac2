"""Group commit: batches that come while others are being written go into the next write together."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence

import attrs

from mlcore.errors import MlcoreError, StoreError
from mlcore.store import Batch, Store
from mlcore_server.routing import Declined

__all__ = ["Committer", "Told"]

Answers = list[MlcoreError | None]
Told = Callable[[int, float], None]  # how many batches were written together, and in how many seconds
_LONGEST_WAIT = 0.002  # seconds that a group waits for those who were just answered and may come again
_GROUP = 1_024  # batches that are written together, so that nobody waits for very many


@attrs.define(eq=False)
class _Turn:
    """Hold what one request wants stored, and who waits for the answer."""

    batches: Sequence[Batch]
    actor: str
    size: int
    waiter: asyncio.Future[Answers]


class Committer:
    """Write batches of many requests, one group at a time, in a thread of its own.

    While a group is written the next one gathers: so a request costs one hop between threads per group, and a store one
    lock, one transaction and one sync per group. What waits is bounded, by batches and by bytes.
    """

    def __init__(self, store: Store, *, limit: int, size_limit: int = 256 << 20, told: Told | None = None) -> None:
        self._store, self._limit, self._size_limit, self._told = store, limit, size_limit, told
        self._turns: list[_Turn] = []
        self._count = self._size = 0
        self._busy = False
        self._crowd, self._seconds = 1, 0.0  # how many waited at once lately, and how long the last commit took
        self._timer: asyncio.TimerHandle | None = None
        self._work: queue.SimpleQueue[list[_Turn] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many batches wait or are being written."""
        return self._count

    def start(self) -> None:
        """Begin; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write, name="mlcore-committer", daemon=True)
        self._thread.start()

    async def append(self, batches: Sequence[Batch], actor: str, size: int = 0) -> Answers:
        """Store batches; return, once that is durable, an error or None for each. `size` is what they weigh here.

        Raises `Declined` if too many wait already.
        """
        if self._count and (self._count + len(batches) > self._limit or self._size + size > self._size_limit):
            raise Declined(503, "too many batches wait to be stored: try again soon", {"retry-after": "1"})
        assert self._loop is not None
        turn = _Turn(batches, actor, size, self._loop.create_future())
        self._turns.append(turn)
        self._count += len(batches)
        self._size += size
        self._soon()
        return await turn.waiter

    async def close(self) -> None:
        """Write what waits, and end the thread."""
        while self._count:
            await asyncio.sleep(0.005)
        self._work.put(None)

    def _soon(self) -> None:
        """Begin a group once as many wait as lately did at once, or when that takes long, compared with a commit."""
        if self._busy or not self._turns:
            return
        assert self._loop is not None
        if len(self._turns) >= self._crowd:
            self._begin()
        elif self._timer is None:
            self._timer = self._loop.call_later(min(self._seconds * 6, _LONGEST_WAIT), self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy or not self._turns:
            return
        count = stop = 0
        while stop < len(self._turns) and (not stop or count + len(self._turns[stop].batches) <= _GROUP):
            count += len(self._turns[stop].batches)
            stop += 1
        group, self._turns = self._turns[:stop], self._turns[stop:]
        self._busy = True
        self._work.put(group)

    def _write(self) -> None:
        assert self._loop is not None
        while (group := self._work.get()) is not None:
            began = time.perf_counter()
            answers = self._append_all(group)
            self._loop.call_soon_threadsafe(self._done, group, answers, time.perf_counter() - began)

    def _append_all(self, group: Sequence[_Turn]) -> list[Answers | Exception]:
        """Return for each turn what became of its batches."""
        batches = [batch for turn in group for batch in turn.batches]
        actors = [turn.actor for turn in group for _ in turn.batches]
        try:
            found, at = self._store.append_all(batches, actors), 0
        except StoreError as error:  # the store cannot be written to: it would say so to each
            return [error] * len(group)
        except Exception as error:  # noqa: BLE001 - one of them has what nobody foresaw, and shall fail alone
            return [error] if len(group) == 1 else [each for turn in group for each in self._append_all([turn])]
        answers = list[Answers | Exception]()
        for turn in group:
            answers.append(found[at : at + len(turn.batches)])
            at += len(turn.batches)
        return answers

    def _done(self, group: Sequence[_Turn], answers: Sequence[Answers | Exception], seconds: float) -> None:
        self._busy, self._seconds = False, seconds
        self._crowd = max(len(group) + len(self._turns), self._crowd * 7 // 8)
        count = 0
        for turn, answer in zip(group, answers, strict=True):
            count += len(turn.batches)
            self._count -= len(turn.batches)
            self._size -= turn.size
            if not turn.waiter.done():  # whoever waited may have gone
                if isinstance(answer, Exception):
                    turn.waiter.set_exception(answer)
                else:
                    turn.waiter.set_result(answer)
        if self._told is not None:
            self._told(count, seconds)
        self._soon()
