"""Group commit: what comes while others are written goes along with the next, and what waits is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from mlcore.errors import MlcoreError, OutOfOrder, StoreError
from mlcore.store import Batch, SimpleStore
from mlcore_server.committing import Committer
from mlcore_server.routing import Declined

SOURCE = "0" * 32


class Slow(SimpleStore):
    """Keep what was appended together, once it is let; refuse what has no home."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[str]] = []
        self.actors: list[str] = []
        self.free = threading.Event()
        self.error: Exception | None = None

    def append_all(self, batches: Sequence[Batch], actors: Sequence[str] = ()) -> list[MlcoreError | None]:
        self.free.wait(30)
        if self.error is not None:
            raise self.error
        self.groups.append([each.home for each in batches])
        self.actors += actors
        return [None if each.home else OutOfOrder(each.source, 1, 2) for each in batches]


def committing(limit: int = 100, size_limit: int = 1_000) -> tuple[Slow, Committer]:
    """Return a store that writes when it is let, and a committer that has begun."""
    store = Slow()
    committer = Committer(store, limit=limit, size_limit=size_limit)
    committer.start()
    return store, committer


def test_what_comes_while_others_are_written_is_written_together() -> None:
    """Guards the speed: one lock, one transaction and one sync for all that wait."""

    async def many() -> Slow:
        store, committer = committing()
        first = asyncio.create_task(committer.append([Batch(SOURCE, "a")], "alice"))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(committer.append([Batch(SOURCE, name)], "bob")) for name in "bcd"]
        await asyncio.sleep(0.05)
        assert committer.waiting == 4
        store.free.set()
        assert await first == [None]
        assert await asyncio.gather(*rest) == [[None]] * 3
        await committer.close()
        return store

    store = asyncio.run(many())
    assert store.groups == [["a"], ["b", "c", "d"]]
    assert store.actors == ["alice", "bob", "bob", "bob"]


def test_each_request_is_told_of_its_own_batches() -> None:
    """Guards that a batch that is refused refuses no other."""

    async def mixed() -> None:
        store, committer = committing()
        store.free.set()
        good = committer.append([Batch(SOURCE, "a"), Batch(SOURCE, "b")], "alice")
        bad = committer.append([Batch(SOURCE, ""), Batch(SOURCE, "c")], "bob")
        (one, two), (three, four) = await asyncio.gather(good, bad)
        assert (one, two, four) == (None, None, None)
        assert isinstance(three, OutOfOrder)
        await committer.close()

    asyncio.run(mixed())


@pytest.mark.parametrize(("limit", "size_limit"), [(3, 1_000), (100, 30)], ids=["batches", "bytes"])
def test_what_waits_is_bounded(limit: int, size_limit: int) -> None:
    """Guards the memory of a server whose store is slow: who comes too much is told when to come again."""

    async def crowd() -> None:
        store, committer = committing(limit, size_limit)
        waiting = [asyncio.create_task(committer.append([Batch(SOURCE, "a")], "x", 10)) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Declined) as told:
            await committer.append([Batch(SOURCE, "b")], "x", 10)
        assert (told.value.status, told.value.headers) == (503, {"retry-after": "1"})
        store.free.set()
        assert await asyncio.gather(*waiting) == [[None]] * 3
        assert await committer.append([Batch(SOURCE, "b")], "x", 10) == [None]
        await committer.close()

    asyncio.run(crowd())


def test_one_request_may_be_larger_than_the_queue_when_nobody_waits() -> None:
    """Guards that a message of many batches can be sent at all."""

    async def large() -> None:
        store, committer = committing(limit=2, size_limit=5)
        store.free.set()
        assert await committer.append([Batch(SOURCE, "a")] * 10, "x", 100) == [None] * 10
        await committer.close()

    asyncio.run(large())


def test_a_store_that_fails_fails_those_that_wait_and_no_others() -> None:
    """Guards that nothing is acknowledged that was not written, and that the committer goes on."""

    async def failing() -> None:
        store, committer = committing()
        store.free.set()
        store.error = StoreError("away")
        with pytest.raises(StoreError, match="away"):
            await committer.append([Batch(SOURCE, "a")], "x")
        store.error = None
        assert await committer.append([Batch(SOURCE, "a")], "x") == [None]
        await committer.close()

    asyncio.run(failing())


def test_who_went_away_keeps_nobody_waiting() -> None:
    """Guards against a request that was cancelled: its batch is written, and the others are answered."""

    async def gone() -> None:
        store, committer = committing()
        leaver = asyncio.create_task(committer.append([Batch(SOURCE, "a")], "x"))
        await asyncio.sleep(0.05)
        leaver.cancel()
        other = asyncio.create_task(committer.append([Batch(SOURCE, "b")], "x"))
        await asyncio.sleep(0)
        store.free.set()
        assert await other == [None]
        assert store.groups == [["a"], ["b"]]
        await committer.close()

    asyncio.run(gone())
