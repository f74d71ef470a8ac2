"""Read what a store holds of its registry, record by record, and since when: as it says itself, or as the writers do.

See docs/explanation/registry-history.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, Literal

import attrs

from mlcore.errors import InvalidValue
from mlcore.registry import MODEL, VERSION
from mlcore.store import Batch, Created, Event, Fold, Record, Store, Updated

__all__ = ["CLOCKS", "Clock", "Fact", "change_in", "facts", "folded", "names_of", "vouched"]

Clock = Literal["store", "writer"]
CLOCKS: tuple[Clock, ...] = ("store", "writer")
_STORE_HOME = ""
_GRAIN_MS = 2_000  # of the times of files, on the coarsest file systems


@attrs.frozen
class Fact:
    """Hold one record about models or versions: `time` (ms since 1970) is since when the store has it, by a clock.

    `received_at` and `actor` are the store's word, the stamp of the record is the writer's.
    """

    time: int
    received_at: int
    actor: str
    source: str
    record: Record

    @property
    def order(self) -> tuple[int, str, int]:
        """Its place among all: of two that say something about the same, the later one counts."""
        return self.record.stamp, self.source, self.record.number

    @property
    def stamped(self) -> int:
        """When its writer says that it was, in ms since 1970."""
        return self.record.stamp // 1_000_000


def facts(store: Store, clock: Clock = "store") -> list[Fact]:
    """Return all that a store holds about models and versions, in the order of the fold.

    By the ``"store"``'s clock a record is there since it was received; where a store has only the time of a file, since
    its stamp, but not later than that. By that of the ``"writer"`` this is so in every store, so that one that was
    brought elsewhere has the same past there. Raises `InvalidValue`, and what the store does.
    """
    if clock not in CLOCKS:
        raise InvalidValue(f"a clock is {' or '.join(map(repr, CLOCKS))}, not {clock!r:.40}")
    receipts = clock == "store" and store.capabilities.receipts
    found, seen = list[Fact](), set[tuple[str, int]]()
    for stored in store.events(of=_STORE_HOME, kinds=(MODEL, VERSION), rows=False):
        batch = stored.batch
        for record in batch.records:
            if (batch.source, record.number) in seen:
                continue
            seen.add((batch.source, record.number))
            stamped, received = record.stamp // 1_000_000, stored.received_at
            time = received if receipts or stamped > received + _GRAIN_MS else stamped
            found.append(Fact(time, stored.received_at, stored.actor, batch.source, record))
    return sorted(found, key=attrgetter("order"))


def folded(known: Iterable[Fact]) -> Fold:
    """Return the state that facts make."""
    fold = Fold()
    for each in known:
        fold.add(Batch(each.source, _STORE_HOME, (each.record,)))
    return fold


def change_in(events: Iterable[Event]) -> Mapping[str, Any] | None:
    """Return what a record tells of itself: who changed what, see `mlcore.registry.Change`; None if it does not."""
    for event in events:
        if event.kind == MODEL and isinstance(event, Updated) and isinstance(event.fields.get("change"), Mapping):
            return dict(event.fields["change"])
    return None


def vouched(store: Store, clock: Clock = "store") -> str:
    """Say whose word the times and names of facts are."""
    if clock == "writer":
        return "the writers say when: no store vouches for it"
    if store.capabilities.receipts:
        return "the store says when and who: when it received each change, and from whom"
    return "a folder cannot vouch: the writers say when and who, and no change is later than its file"


def names_of(known: Iterable[Fact]) -> dict[str, list[str]]:
    """Return the names that models ever had, each with the ids of those that had it, the latest last."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for fact in known:
        for event in fact.record.events:
            if event.kind == MODEL and isinstance(event, Created | Updated) and "name" in event.fields:
                ids = found[str(event.fields["name"])]
                if event.id in ids:
                    ids.remove(event.id)
                ids.append(event.id)
    return dict(found)
