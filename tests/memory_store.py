"""The smallest store there can be: batches in a list. Sixty lines are enough for a store that passes the contract."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator

from mlcore.errors import AlreadyExists, PositionLost
from mlcore.store import START, Batch, Capabilities, Marks, SimpleStore, Stored, selected


class Shelf:
    """What all handles of one store share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.name = uuid.uuid4().hex
        self.marks = Marks()
        self.claims: dict[str, str] = {}
        self.stored: list[Stored] = []


class MemoryStore(SimpleStore):
    """Keep batches in a list."""

    capabilities = Capabilities(shared_positions=True)

    def __init__(self, shelf: Shelf) -> None:
        super().__init__()
        self.shelf = shelf

    def append(self, batch: Batch) -> None:
        with self.shelf.lock:
            fresh = self.shelf.marks.new(batch)
            if fresh is None:
                return
            if fresh.claim is not None:
                if fresh.claim in self.shelf.claims:
                    raise AlreadyExists(fresh.claim, self.shelf.claims[fresh.claim])
                self.shelf.claims[fresh.claim] = fresh.source
            self.shelf.marks.advance(fresh)
            position = f"{self.shelf.name} {len(self.shelf.stored) + 1}"
            self.shelf.stored.append(Stored(position, time.time_ns() // 1_000_000, "", fresh))

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        name, _, count = after.partition(" ") if after else (self.shelf.name, "", "0")
        if name != self.shelf.name or not count.isdigit() or int(count) > len(self.shelf.stored):
            raise PositionLost(f"position {after!r} is not of this store")
        answers = (selected(stored, of, kinds, rows) for stored in self.shelf.stored[int(count) :])
        return (stored for stored in answers if stored is not None)
