"""Every check of the contract bites: for each there is a store that is broken in one way, and fails it."""

from __future__ import annotations

import base64
import math
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy
import pytest

from memory_store import MemoryStore, Shelf
from mlcore.errors import AlreadyExists, Malformed, MlcoreError, OutOfOrder, PositionLost, SourceReused, StoreError
from mlcore.store import (
    START,
    And,
    AttributesRemoved,
    AttributesSet,
    Batch,
    Capabilities,
    Columns,
    Compare,
    Created,
    Entity,
    Erased,
    Event,
    Marks,
    Not,
    Or,
    Page,
    Query,
    Record,
    Rewound,
    RowsLogged,
    SeriesKey,
    Stored,
    Term,
    Unknown,
    Updated,
    Where,
    check,
    digest,
    find,
    selected,
)
from mlcore.testing import StoreContract, _checking
from mlcore.testing._appending import malformed

CHECKS = sorted(name for name in dir(StoreContract) if name.startswith("test_"))
MUTANTS: list[tuple[str, type[MemoryStore]]] = []
Mutant = type[MemoryStore]


def breaks(*checks: str) -> Callable[[Mutant], Mutant]:
    """Say by which checks a broken store must be found out."""

    def note(mutant: Mutant) -> Mutant:
        MUTANTS.extend((f"test_{name}", mutant) for name in checks)
        return mutant

    return note


# Stores that change what they tell


class Telling(MemoryStore):
    """Yields its events changed."""

    def told(self, stored: Stored) -> Stored:
        records = tuple(self.record(each, stored) for each in stored.batch.records)
        return attrs.evolve(stored, batch=attrs.evolve(stored.batch, records=records))

    def record(self, record: Record, stored: Stored) -> Record:
        events = tuple(kept for event in record.events if (kept := self.event(event)) is not None)
        return attrs.evolve(record, events=events, stamp=self.stamp(record, stored))

    def stamp(self, record: Record, stored: Stored) -> int:
        return record.stamp

    def event(self, event: Event) -> Event | None:
        return event

    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        answers = (selected(self.told(stored), **asked) for stored in super().events(after))
        return (stored for stored in answers if stored is not None)


@breaks("what_was_appended_comes_back")
class LosesTheSecondEvent(Telling):
    def record(self, record: Record, stored: Stored) -> Record:
        return attrs.evolve(record, events=record.events[:1])


@breaks("what_was_appended_comes_back")
class LosesTheHome(Telling):
    def told(self, stored: Stored) -> Stored:
        return attrs.evolve(stored, batch=attrs.evolve(stored.batch, home=""))


@breaks("every_value_survives_exactly")
class MakesIntsOfBools(Telling):
    def value(self, value: Any) -> Any:
        return int(value) if isinstance(value, bool) else value

    def event(self, event: Event) -> Event:
        if not isinstance(event, AttributesSet):
            return event
        return attrs.evolve(event, values={name: self.value(each) for name, each in event.values.items()})


@breaks("every_value_survives_exactly")
class LosesTheSignOfZero(MakesIntsOfBools):
    def value(self, value: Any) -> Any:
        return value + 0.0 if isinstance(value, float) else value


@breaks("every_value_survives_exactly")
class MakesNullOfNan(MakesIntsOfBools):
    def value(self, value: Any) -> Any:
        return None if isinstance(value, float) and math.isnan(value) else value


@breaks("the_store_says_when_it_received_a_batch")
class ReceivesInSeconds(Telling):
    def told(self, stored: Stored) -> Stored:
        return attrs.evolve(stored, received_at=stored.received_at // 1000)


@breaks("the_store_says_when_it_received_a_batch")
class ReceivesWhenTheWriterSays(Telling):
    def told(self, stored: Stored) -> Stored:
        return attrs.evolve(stored, received_at=stored.batch.records[0].stamp // 1_000_000)


@breaks("what_a_later_version_wrote_is_kept_byte_for_byte")
class WritesWhatItUnderstood(Telling):
    def event(self, event: Event) -> Event:
        return event if isinstance(event, Unknown) else attrs.evolve(event, raw=None)


@breaks("what_a_later_version_wrote_is_kept_byte_for_byte")
class DropsWhatItDoesNotKnow(Telling):
    def event(self, event: Event) -> Event | None:
        return None if isinstance(event, Unknown) else event


@breaks("what_a_later_version_wrote_changes_nothing_today")
class MakesEntitiesOfTheUnknown(Telling):
    def event(self, event: Event) -> Event:
        return Created(event.kind, event.id) if isinstance(event, Unknown) else event


@breaks("what_was_erased_never_comes_back")
class TakesErasedForDeleted(Telling):
    def event(self, event: Event) -> Event:
        return Updated(event.kind, event.id, {"deleted": True}) if isinstance(event, Erased) else event


@breaks("a_rewind_forgets_later_steps_logged_before")
class NeverRewinds(Telling):
    def event(self, event: Event) -> Event | None:
        return None if isinstance(event, Rewound) else event


@breaks("a_rewind_forgets_later_steps_logged_before")
class RewindsWhatComesLater(Telling):
    def stamp(self, record: Record, stored: Stored) -> int:
        return 1 << 62 if isinstance(record.events[0], Rewound) else record.stamp


@breaks(
    "the_last_write_wins_by_stamp",
    "state_is_what_the_fold_makes_of_the_batches",
    "created_and_changed_are_the_first_and_last_stamp",
    "of_what_is_set_once_the_first_wins",
    "rows_come_in_order_of_step_time_and_logging",
)
class OrdersByArrival(Telling):
    def stamp(self, record: Record, stored: Stored) -> int:
        return int(stored.position.split()[1])


@breaks("equal_stamps_are_ordered_by_source")
class OrdersTiesByArrival(Telling):
    def stamp(self, record: Record, stored: Stored) -> int:
        return record.stamp * 1000 + int(stored.position.split()[1])


@breaks("of_what_is_set_once_the_first_wins")
class LetsTheLastParamWin(Telling):
    def event(self, event: Event) -> Event:
        return attrs.evolve(event, once=False) if isinstance(event, AttributesSet) else event


@breaks("a_plain_write_corrects_what_was_set_once")
class TakesNoCorrection(Telling):
    def event(self, event: Event) -> Event:
        return attrs.evolve(event, once=True) if isinstance(event, AttributesSet) else event


@breaks("what_was_removed_is_gone_until_set_again")
class NeverRemoves(Telling):
    def event(self, event: Event) -> Event | None:
        return None if isinstance(event, AttributesRemoved) else event


@breaks("what_was_removed_is_gone_until_set_again")
class RemovesForEver(Telling):
    def stamp(self, record: Record, stored: Stored) -> int:
        return 1 << 62 if isinstance(record.events[0], AttributesRemoved) else record.stamp


@breaks("an_update_wins_over_creation")
class TakesCreationForAnUpdate(Telling):
    def record(self, record: Record, stored: Stored) -> Record:
        made = [each for each in record.events if isinstance(each, Created)]
        updates = [Updated(each.kind, each.id, each.fields) for each in made]
        return attrs.evolve(record, events=(*record.events, *updates))


@breaks("an_update_wins_over_creation")
class TakesTheLastCreation(Telling):
    def stamp(self, record: Record, stored: Stored) -> int:
        return 1000 - record.stamp if isinstance(record.events[0], Created) else record.stamp


# Stores that keep books badly


class Marking(MemoryStore):
    """Has marks of its own kind."""

    marks: type[Marks]

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        if type(shelf.marks) is Marks:
            shelf.marks = self.marks()


@breaks("many_batches_at_once_are_stored_or_refused_each_for_itself")
class StopsAtTheFirst(MemoryStore):
    """Forget those that come after one that was refused."""

    def append_all(self, batches: Sequence[Batch], actors: Sequence[str] = ()) -> list[MlcoreError | None]:
        answers = super().append_all(batches[:2], actors)
        return answers + [None] * (len(batches) - 2)


@breaks("a_batch_appended_again_is_stored_once")
class StoresAgain(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            check(batch)
            return batch


@breaks("an_overlap_is_trimmed_to_what_is_new")
class StoresTheOverlap(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            return batch if super().new(batch) is not None else None


@breaks("an_overlap_is_trimmed_to_what_is_new")
class DropsTheOverlap(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            return super().new(batch) if batch.first > self.get(batch.source)[0] else None


@breaks("a_gap_is_out_of_order")
class TakesGaps(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            try:
                return super().new(batch)
            except OutOfOrder:
                return batch


@breaks("a_gap_is_out_of_order")
class ExpectsTheWrongRecord(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            try:
                return super().new(batch)
            except OutOfOrder as error:
                raise OutOfOrder(error.source, error.expected - 1, error.given) from None


@breaks("other_content_under_a_known_range_is_refused")
class BelievesTheNumbers(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            try:
                return super().new(batch)
            except SourceReused:
                fresh = batch.records[self.get(batch.source)[0] - batch.first + 1 :]
                return attrs.evolve(batch, records=fresh) if fresh else None


@breaks("other_content_under_a_known_range_is_refused")
class ComparesTheOverlapOnly(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            if batch.first == self.get(batch.source)[0] + 1:
                return batch
            return super().new(batch)


@breaks("a_refused_batch_leaves_the_source_as_it_was")
class MarksWhatItRefuses(Marking):
    class marks(Marks):  # noqa: D106, N801
        def new(self, batch: Batch) -> Batch | None:
            try:
                return super().new(batch)
            except (OutOfOrder, SourceReused):
                self.advance(batch)
                raise


@breaks("an_empty_batch_is_no_event")
class NumbersSignsOfLife(Marking):
    class marks(Marks):  # noqa: D106, N801
        def advance(self, batch: Batch) -> None:
            super().advance(batch)
            if not batch.records:
                self.set(batch.source, self.get(batch.source)[0] + 1, digest(()))


@breaks("the_mark_of_a_source_is_shared_and_outlives_handles", "handles_continue_each_others_sources")
class MarksOfAHandle(MemoryStore):
    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self.marks = Marks()

    def append(self, batch: Batch) -> None:
        self.shelf.marks = self.marks
        super().append(batch)


@breaks("handles_that_append_the_same_batch_at_once_store_it_once")
class ChecksThenActs(MemoryStore):
    def append(self, batch: Batch) -> None:
        fresh = self.shelf.marks.new(batch)
        time.sleep(0.002)
        if fresh is not None:
            self.shelf.marks.advance(fresh)
            self.shelf.stored.append(Stored(f"{self.shelf.name} 1", 1, "", fresh))


@breaks("threads_share_a_handle")
class ReadsThenWrites(MemoryStore):
    def append(self, batch: Batch) -> None:
        stored = self.shelf.stored
        time.sleep(0.0001)
        self.shelf.stored = [*stored, Stored(f"{self.shelf.name} 1", 1, "", batch)]


def taking(reason: str) -> Mutant:
    """Return a store that takes batches of one kind of malformed."""
    index = list(malformed()).index(reason)

    class TakesMalformed(MemoryStore):
        refused = 0

        def append(self, batch: Batch) -> None:
            try:
                super().append(batch)
            except Malformed:
                self.refused += 1
                if self.refused != index + 1:
                    raise

    TakesMalformed.__name__ = f"Takes {reason}"
    return TakesMalformed


for each in malformed():
    breaks("a_malformed_batch_is_refused")(taking(each))


# Stores that keep claims badly


class Claiming(MemoryStore):
    """Keeps claims under another name."""

    def name(self, claim: str) -> str:
        return claim

    def append(self, batch: Batch) -> None:
        claim = batch.claim
        try:
            super().append(batch if claim is None else attrs.evolve(batch, claim=self.name(claim)))
        except AlreadyExists as error:
            raise AlreadyExists(str(claim), error.holder) from None


def claiming(name: Callable[[str], str]) -> Mutant:
    """Return a store that tells claims apart as `name` does."""
    return type("Claims", (Claiming,), {"name": staticmethod(name)})


for fold in (
    str.casefold,
    str.strip,
    lambda claim: claim[:255],
    lambda claim: claim.rstrip("/"),
    lambda claim: unicodedata.normalize("NFC", claim),
    lambda claim: claim.encode("ascii", "ignore").decode() or "x",
):
    breaks("claims_are_told_apart_by_code_point")(claiming(fold))


@breaks("a_claim_has_one_owner")
class ClaimsInARace(MemoryStore):
    def append(self, batch: Batch) -> None:
        held = self.shelf.claims.get(batch.claim or "")
        time.sleep(0.002)
        if held is not None:
            raise AlreadyExists(str(batch.claim), held)
        super().append(attrs.evolve(batch, claim=None))
        self.shelf.claims[str(batch.claim)] = batch.source


@breaks("a_claim_has_one_owner", "claims_outlive_handles")
class NamesTheLoser(MemoryStore):
    def append(self, batch: Batch) -> None:
        try:
            super().append(batch)
        except AlreadyExists as error:
            raise AlreadyExists(error.claim, batch.source) from None


@breaks("a_claim_has_one_owner")
class StoresTheLosers(MemoryStore):
    def append(self, batch: Batch) -> None:
        try:
            super().append(batch)
        except AlreadyExists:
            super().append(attrs.evolve(batch, claim=None))
            raise


@breaks("a_refused_claim_leaves_the_source_as_it_was")
class MarksTheLosers(MemoryStore):
    def append(self, batch: Batch) -> None:
        try:
            super().append(batch)
        except AlreadyExists:
            self.shelf.marks.advance(batch)
            raise


@breaks("a_claim_sent_again_by_its_owner_is_no_conflict")
class ClaimsBeforeItLooks(MemoryStore):
    def append(self, batch: Batch) -> None:
        if batch.claim in self.shelf.claims:
            raise AlreadyExists(str(batch.claim), self.shelf.claims[str(batch.claim)])
        super().append(batch)


@breaks("claims_outlive_handles")
class ClaimsOfAHandle(MemoryStore):
    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        shelf.claims = {}


@breaks("a_store_without_claims_refuses_them")
class IgnoresClaims(MemoryStore):
    capabilities = Capabilities(claims=False, shared_positions=True)


# Stores that list badly


class Listing(MemoryStore):
    """Lists in its own way."""

    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        return super().events(self.after(after), **self.asked(**asked))

    def after(self, position: str) -> str:
        return position

    def asked(self, **asked: Any) -> dict[str, Any]:
        return asked


@breaks("events_end")
class Tails(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        return iter(self.shelf.stored)


@breaks("records_of_a_source_come_in_order")
class NewestFirst(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        return reversed(list(super().events(after, **asked)))


@breaks("after_the_last_position_there_is_nothing")
class StartsOver(Listing):
    def after(self, position: str) -> str:
        return START


@breaks("after_the_last_position_there_is_nothing", "every_position_can_be_resumed_from")
class RepeatsTheLast(Listing):
    def after(self, position: str) -> str:
        name, _, count = position.partition(" ")
        return f"{name} {int(count) - 1}" if count else position


@breaks("every_position_can_be_resumed_from")
class SkipsOne(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        found = list(super().events(after, **asked))
        return iter(found[1:] if after and len(found) > 1 else found)


@breaks("an_unknown_position_is_lost")
class StartsOverSilently(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        try:
            return super().events(after, **asked)
        except PositionLost:
            return super().events(START, **asked)


@breaks("an_unknown_position_is_lost")
class EndsSilently(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        try:
            return super().events(after, **asked)
        except PositionLost:
            return iter(())


@breaks("positions_of_other_handles_are_as_declared")
class SkipsInAnotherHandle(MemoryStore):
    capabilities = Capabilities(shared_positions=False)

    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        mine = f"{id(self)} "
        found = super().events(after.partition(" ")[2], **asked)
        if after != START and not after.startswith(mine):
            next(found, None)
        return (attrs.evolve(each, position=mine + each.position) for each in found)


@breaks("positions_of_other_handles_are_as_declared")
class SharesInWords(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        mine = f"{id(self)} "
        if not after.startswith(mine) and after != START:
            raise PositionLost(after)
        found = super().events(after.removeprefix(mine), **asked)
        return (attrs.evolve(each, position=mine + each.position) for each in found)


@breaks("a_position_taken_during_commits_skips_nothing")
class NumbersBeforeItCommits(MemoryStore):
    def append(self, batch: Batch) -> None:
        with self.shelf.lock:
            self.shelf.marks.advance(batch)
            self.shelf.claims["number"] = number = str(int(self.shelf.claims.get("number", "0")) + 1)
        event = batch.records[0].events[0]
        if isinstance(event, RowsLogged) and len(event) > 1:
            time.sleep(0.02)
        self.shelf.stored.append(Stored(f"{self.shelf.name} {number}", 0, "", batch))

    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        last = int(after.split()[1]) if after else 0
        stored = sorted((int(each.position.split()[1]), each) for each in list(self.shelf.stored))
        return (each for number, each in stored if number > last)


def asking(*dropped: str) -> Mutant:
    """Return a store that ignores some of what `events` is asked for."""

    def asked(self: Listing, **asked: Any) -> dict[str, Any]:
        return {name: value for name, value in asked.items() if name not in dropped}

    return type(f"Ignores{'And'.join(dropped)}", (Listing,), {"asked": asked})


for name in ("of_asks_for_one_home", "kinds_asks_for_kinds_of_entities", "rows_can_be_left_out"):
    breaks(name, "filters_go_together_and_with_positions")(asking(name.split("_", maxsplit=1)[0]))


@breaks("kinds_asks_for_kinds_of_entities")
class ListsWholeRecords(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        whole = {stored.position: stored for stored in super().events(after)}
        return (whole[stored.position] for stored in super().events(after, **asked))


@breaks("of_asks_for_one_home")
class TakesTheStoreForAll(Listing):
    def asked(self, **asked: Any) -> dict[str, Any]:
        return asked | {"of": asked.get("of") or None}


@breaks("rows_can_be_left_out")
class LeavesOutWholeRecords(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        rows = asked.pop("rows", True)
        for stored in super().events(after, **asked):
            events = [event for record in stored.batch.records for event in record.events]
            if rows or not any(isinstance(event, RowsLogged) for event in events):
                yield stored


@breaks("filters_go_together_and_with_positions")
class FiltersFromTheStart(MemoryStore):
    def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:  # type: ignore[override]
        return super().events(START if asked.get("kinds") else after, **asked)


# Stores that answer `get` badly


class Showing(MemoryStore):
    """Shows entities changed."""

    def shown(self, entity: Entity) -> Entity | None:
        raise NotImplementedError

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        return [each and self.shown(each) for each in super().get(kind, ids)]


@breaks("get_answers_in_the_order_of_the_ids")
class GetsInItsOwnOrder(MemoryStore):
    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        return super().get(kind, sorted(ids))


@breaks("get_answers_in_the_order_of_the_ids")
class GetsWhatThereIs(MemoryStore):
    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        return [each for each in super().get(kind, ids) if each is not None]


@breaks("get_brings_all_of_an_entity")
class ShowsNoMetrics(Showing):
    def shown(self, entity: Entity) -> Entity:
        return attrs.evolve(entity, metrics={})


@breaks("get_brings_all_of_an_entity")
class ShowsNoParent(Showing):
    def shown(self, entity: Entity) -> Entity:
        return attrs.evolve(entity, parent="")


@breaks("of_what_is_set_once_the_first_wins", "a_plain_write_corrects_what_was_set_once")
class ShowsNoConflicts(Showing):
    def shown(self, entity: Entity) -> Entity:
        return attrs.evolve(entity, conflicts=())


@breaks("of_what_is_set_once_the_first_wins")
class TakesOneForOnePointZero(Showing):
    def shown(self, entity: Entity) -> Entity:
        values = entity.attributes["params"]
        return attrs.evolve(entity, conflicts=tuple(c for c in entity.conflicts if c.value != values[c.name]))


@breaks("get_brings_what_was_deleted")
class HidesTheDeleted(Showing):
    def shown(self, entity: Entity) -> Entity | None:
        return None if entity.fields.get("deleted") else entity


@breaks("kinds_have_ids_of_their_own")
class MixesKinds(MemoryStore):
    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        found = [super(MixesKinds, self).get(each, ids) for each in (kind, "model", "experiment")]
        return [next(filter(None, options), None) for options in zip(*found, strict=True)]


@breaks("get_takes_more_ids_than_a_database_takes_parameters")
class AsksInOneStatement(MemoryStore):
    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        if len(ids) > 32_766:
            raise StoreError("too many SQL variables")
        return super().get(kind, ids)


@breaks("what_was_erased_is_gone_where_that_is_declared")
class ErasesInWords(MemoryStore):
    capabilities = Capabilities(erase=True, shared_positions=True)


@breaks("what_was_erased_never_comes_back")
class KeepsTheRowsOfTheErased(MemoryStore):
    def series(self, kind: str, ids: Sequence[str], *args: Any, **asked: Any) -> dict[SeriesKey, Columns]:
        erased = [id for id in ids if super(KeepsTheRowsOfTheErased, self).get(kind, [id]) == [None]]
        return super().series(kind, ids, *args, **asked) | {(id, "loss", ""): Columns({}) for id in erased}


@breaks("an_empty_batch_is_a_sign_of_life")
class DeafToSignsOfLife(MemoryStore):
    def append(self, batch: Batch) -> None:
        if batch.records:
            super().append(batch)


@breaks("an_empty_batch_is_no_event")
class MakesRunsOfSignsOfLife(MemoryStore):
    def append(self, batch: Batch) -> None:
        made = Record(1, 1, (Created("run", batch.home),))
        super().append(batch if batch.records else attrs.evolve(batch, records=(made,)))


# Stores that find badly


class Finding(MemoryStore):
    """Finds in its own way."""

    def find(self, kind: str, query: Query) -> Page:
        with self._lock:
            entities = list(self._current().entities(kind))
        page = find(map(self.seen_as, entities), attrs.evolve(query, where=self.where(query.where)))
        whole = {each.id: each for each in find(entities, Query(_all_of(query), query.select)).items}
        return attrs.evolve(page, items=tuple(whole[each.id] for each in page.items))

    def seen_as(self, entity: Entity) -> Entity:
        return entity

    def where(self, where: Where | None) -> Where | None:
        if isinstance(where, And | Or):
            return type(where)(tuple(filter(None, map(self.where, where.parts))))
        if isinstance(where, Not):
            part = self.where(where.part)
            return self.negated(part) if part is not None else None
        return where and self.compare(where)

    def compare(self, where: Compare) -> Where:
        return where

    def negated(self, part: Where) -> Where:
        return Not(part)


def _all_of(query: Query) -> Where:
    everything = Compare(Term("", "id"), "is null")
    return Or((everything, Not(everything), Compare(Term("fields", "deleted"), "is null")))


def confusing(op: str, other: Callable[[Compare], Where]) -> Mutant:
    """Return a store that understands something else by `op`."""

    def compare(self: Finding, where: Compare) -> Where:
        return other(where) if where.op == op else where

    return type(f"Confuses {op}", (Finding,), {"compare": compare})


SWAPPED = {"=": "in", "!=": "=", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "like": "ilike", "ilike": "like"}
for op, swapped in SWAPPED.items():
    value = (lambda value: (value, "a")) if swapped == "in" else (lambda value: value)
    breaks("every_operator_means_what_core_says")(
        confusing(op, lambda where, swapped=swapped, value=value: Compare(where.term, swapped, value(where.value)))  # type: ignore[misc]
    )
for op, other in {
    "in": lambda where: Compare(where.term, "in", where.value[1:]),
    "is null": lambda where: Or((where, Compare(where.term, "=", ""))),
    "!=": lambda where: Not(Compare(where.term, "=", where.value)),
    "not in": lambda where: Not(Compare(where.term, "in", where.value)),
    "not like": lambda where: Not(Compare(where.term, "like", where.value)),
    "not ilike": lambda where: Compare(where.term, "not like", where.value),
}.items():
    breaks("every_operator_means_what_core_says")(confusing(op, other))
breaks("like_minds_case_and_ilike_does_not")(confusing("like", lambda where: Compare(where.term, "ilike", where.value)))
breaks("like_minds_case_and_ilike_does_not")(
    confusing("like", lambda where: Compare(where.term, "like", where.value.replace(".", "_")))
)
breaks("like_minds_case_and_ilike_does_not")(
    confusing("like", lambda where: Compare(where.term, "like", where.value.replace("_", "%")))
)


@breaks("every_operator_means_what_core_says")
class KnowsNoTextOfNumbers(Finding):
    def compare(self, where: Compare) -> Where:
        text = where.term.function == "text"
        return attrs.evolve(where, term=attrs.evolve(where.term, function="last")) if text else where


@breaks("every_operator_means_what_core_says")
class AsksForAllInsteadOfAny(Finding):
    def compare(self, where: Compare) -> Where:
        if where.term.function != "any" or where.op not in ("=", "!="):
            return where
        other = attrs.evolve(where, op="!=" if where.op == "=" else "=")
        return And((where, Not(other)))


@breaks("and_or_not_nest")
class ThinksInThreeValues(Finding):
    def negated(self, part: Where) -> Where:
        return And((Not(part), Not(Compare(part.term, "is null")))) if isinstance(part, Compare) else Not(part)


@breaks("and_or_not_nest")
class TakesAndForOr(Finding):
    def where(self, where: Where | None) -> Where | None:
        found = super().where(where)
        return Or(found.parts) if isinstance(found, And) and len(found.parts) > 1 else found


@breaks("every_term_orders_as_core_says")
class OrdersByOneTerm(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        return super().find(kind, attrs.evolve(query, order=query.order[:1]))


@breaks("what_is_missing_comes_last_in_both_directions", "every_term_orders_as_core_says")
class ReversesTheWhole(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        upwards = tuple(attrs.evolve(sort, descending=False) for sort in query.order)
        page = super().find(kind, attrs.evolve(query, order=upwards))
        return attrs.evolve(page, items=page.items[::-1]) if upwards != query.order else page


@breaks("ties_are_ordered_by_start_time_then_id")
class OrdersTiesById(Finding):
    def seen_as(self, entity: Entity) -> Entity:
        return attrs.evolve(entity, fields=dict(entity.fields) | {"start_time": 0})


@breaks("ties_are_ordered_by_start_time_then_id")
class OrdersTiesOldestFirst(Finding):
    def seen_as(self, entity: Entity) -> Entity:
        start = entity.fields.get("start_time", entity.created // 1_000_000)
        return attrs.evolve(entity, fields=dict(entity.fields) | {"start_time": -start})


@breaks("ties_are_ordered_by_start_time_then_id")
class StartsWithoutAStamp(Finding):
    def seen_as(self, entity: Entity) -> Entity:
        return attrs.evolve(entity, created=0)


class Collating(Finding):
    """Compares strings by what `key` makes of them."""

    def key(self, text: str) -> str:
        raise NotImplementedError

    def seen_as(self, entity: Entity) -> Entity:
        tags = {name: self.key(each) for name, each in entity.attributes["tags"].items()}
        return attrs.evolve(entity, attributes={"tags": tags})


@breaks("strings_are_ordered_by_code_point")
class CollatesByLetter(Collating):
    def key(self, text: str) -> str:
        return unicodedata.normalize("NFD", text).casefold()


@breaks("strings_are_ordered_by_code_point")
class CollatesByUtf16(Collating):
    def key(self, text: str) -> str:
        return text.encode("utf-16-be").decode("latin-1")


@breaks("pages_are_a_partition")
class SkipsAfterAPage(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        page = super().find(kind, query)
        if page.token is None or query.limit is None:
            return page
        return attrs.evolve(page, token=super().find(kind, attrs.evolve(query, limit=query.limit + 1)).token)


@breaks("pages_are_a_partition", "a_token_of_another_question_is_refused")
class ForgetsTheToken(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        return super().find(kind, attrs.evolve(query, token=None))


@breaks("pages_hold_while_runs_are_added")
class PagesByOffset(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        start = int(base64.b64decode(query.token)) if query.token else 0
        whole = super().find(kind, attrs.evolve(query, token=None, limit=None))
        stop = start + (query.limit or len(whole.items))
        token = base64.b64encode(str(stop).encode()).decode() if stop < len(whole.items) else None
        return attrs.evolve(whole, items=whole.items[start:stop], token=token)


@breaks("a_token_of_another_question_is_refused")
class TakesAnyToken(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        try:
            return super().find(kind, query)
        except Malformed:
            return Page(())


@breaks("limit_bounds_a_page")
class KnowsNoLimit(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        return super().find(kind, attrs.evolve(query, limit=None))


@breaks("limit_bounds_a_page")
class PromisesOnePageMore(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        page = super().find(kind, query)
        return attrs.evolve(page, token=page.token or "x") if query.limit == len(page.items) else page


@breaks("count_is_of_all_that_fit")
class CountsThePage(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        page = super().find(kind, query)
        return attrs.evolve(page, count=len(page.items)) if query.count else page


@breaks("count_is_of_all_that_fit")
class CountsUnasked(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        return super().find(kind, attrs.evolve(query, count=True))


@breaks("select_brings_what_was_named")
class SelectsEverything(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        return super().find(kind, attrs.evolve(query, select=None))


@breaks("select_brings_what_was_named")
class SelectsByNameOnly(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        return super().find(kind, attrs.evolve(query, select=query.select and tuple(t for t in query.select if t.name)))


@breaks("deleted_runs_come_only_when_asked_for")
class FindsTheDeleted(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        named = Or((Compare(Term("fields", "deleted"), "is null"), Not(Compare(Term("fields", "deleted"), "is null"))))
        return super().find(kind, attrs.evolve(query, where=And((named, query.where)) if query.where else named))


@breaks("deleted_runs_come_only_when_asked_for")
class NeverFindsTheDeleted(MemoryStore):
    def find(self, kind: str, query: Query) -> Page:
        page = super().find(kind, query)
        items = tuple(each for each in page.items if not each.fields.get("deleted"))
        return attrs.evolve(page, items=items, count=len(items) if query.count else None)


# Stores that give series badly


class Drawing(MemoryStore):
    """Gives series changed."""

    def series(  # type: ignore[override]
        self, kind: str, ids: Sequence[str], keys: Sequence[str] | None = None, **asked: Any
    ) -> dict[SeriesKey, Columns]:
        found = super().series(kind, ids, keys, **self.asked(**asked))
        columns = {key: each.columns.items() for key, each in found.items()}
        return {key: Columns({name: self.column(values) for name, values in each}) for key, each in columns.items()}

    def asked(self, **asked: Any) -> dict[str, Any]:
        return asked

    def column(self, values: Any) -> Any:
        return values


@breaks("rows_come_in_order_of_step_time_and_logging")
class DrawsBySource(MemoryStore):
    def series(self, kind: str, ids: Sequence[str], *args: Any, **asked: Any) -> dict[SeriesKey, Columns]:
        rows: dict[str, list[Any]] = {"step": [], "time": [], "value": []}
        for stored in self.events():
            for name in rows:
                rows[name] += [*stored.batch.records[0].events[0].columns[name]]  # type: ignore[attr-defined]
        order = sorted(range(len(rows["step"])), key=lambda row: rows["step"][row])
        return {(ids[0], "loss", ""): Columns({name: [values[row] for row in order] for name, values in rows.items()})}


@breaks("every_number_survives_exactly")
class DrawsInSinglePrecision(Drawing):
    def column(self, values: Any) -> Any:
        if getattr(values, "dtype", None) != "float64":
            return values
        with numpy.errstate(over="ignore"):
            return values.astype("float32").astype("float64")


@breaks("every_number_survives_exactly")
class DrawsStepsAsFloats(Drawing):
    def column(self, values: Any) -> Any:
        return values.astype("float64").clip(-1e18, 1e18).astype("int64") if values.dtype == "int64" else values


@breaks("every_number_survives_exactly")
class DrawsNoNegativeZero(Drawing):
    def column(self, values: Any) -> Any:
        return values + 0.0 if values.dtype == "float64" else values


@breaks("columns_are_arrays")
class DrawsLists(Drawing):
    def column(self, values: Any) -> Any:
        return list(values)


@breaks("columns_are_arrays")
class DrawsStepsAsText(Drawing):
    def column(self, values: Any) -> Any:
        return values.astype("int32") if values.dtype == "int64" else values


@breaks("contexts_are_apart")
class IgnoresTheContext(Drawing):
    def asked(self, **asked: Any) -> dict[str, Any]:
        return asked | {"context": None}


@breaks("contexts_are_apart")
class TakesNoContextForAll(Drawing):
    def asked(self, **asked: Any) -> dict[str, Any]:
        return asked | {"context": asked.get("context") or None}


@breaks("contexts_are_apart")
class MixesContexts(Telling):
    def event(self, event: Event) -> Event:
        return attrs.evolve(event, context="") if isinstance(event, RowsLogged) else event


@breaks("keys_and_ids_choose")
class DrawsEveryKey(MemoryStore):
    def series(self, kind: str, ids: Sequence[str], keys: Any = None, **asked: Any) -> dict[SeriesKey, Columns]:
        return super().series(kind, ids, None, **asked)


@breaks("keys_and_ids_choose")
class TakesNoKeysForAll(MemoryStore):
    def series(self, kind: str, ids: Sequence[str], keys: Any = None, **asked: Any) -> dict[SeriesKey, Columns]:
        return super().series(kind, ids, keys or None, **asked)


@breaks("columns_choose")
class DrawsEveryColumn(Drawing):
    def asked(self, **asked: Any) -> dict[str, Any]:
        return asked | {"columns": None}


@breaks("columns_choose")
class ReadsTheColumnAlone(MemoryStore):
    def series(self, kind: str, ids: Sequence[str], keys: Any = None, **asked: Any) -> dict[SeriesKey, Columns]:
        found = super().series(kind, ids, keys, **asked)
        if asked.get("columns") != ["value", "no such"]:
            return found
        return {key: Columns({"value": each["value"][::-1]}) for key, each in found.items()}


@breaks("columns_of_anything_come_back")
class DrawsNumbersOnly(MemoryStore):
    def series(self, *args: Any, **asked: Any) -> dict[SeriesKey, Columns]:
        found = super().series(*args, **asked)
        return {
            key: Columns({name: values for name, values in each.columns.items() if hasattr(values, "dtype")})
            for key, each in found.items()
        }


@breaks("columns_of_anything_come_back")
class DrawsWhatAMetricHas(Drawing):
    def asked(self, **asked: Any) -> dict[str, Any]:
        return asked | {"columns": ("step", "time", "value", "text", "level", "more")}


class Thinning(MemoryStore):
    """Thins series in its own way."""

    def thin(self, columns: Columns, bound: int) -> Columns:
        raise NotImplementedError

    def series(self, *args: Any, **asked: Any) -> dict[SeriesKey, Columns]:
        bound = asked.pop("max_points", None)
        found = super().series(*args, **asked)
        return {key: each if bound is None else self.thin(each, bound) for key, each in found.items()}


@breaks("a_thinned_series_keeps_the_extremes")
class TakesEveryNth(Thinning):
    def thin(self, columns: Columns, bound: int) -> Columns:
        return _picked(columns, range(0, len(columns), -(-len(columns) // bound)))


@breaks("a_thinned_series_keeps_the_extremes")
class KeepsTheGreatestOnly(Thinning):
    def thin(self, columns: Columns, bound: int) -> Columns:
        size = -(-len(columns) // bound)
        buckets = [range(start, min(start + size, len(columns))) for start in range(0, len(columns), size)]
        return _picked(columns, [max(bucket, key=lambda row: columns["value"][row]) for bucket in buckets])


@breaks("a_thinned_series_keeps_the_extremes")
class ExceedsTheBound(Thinning):
    def thin(self, columns: Columns, bound: int) -> Columns:
        return columns.sampled(bound + 2)


@breaks("a_thinned_series_keeps_the_extremes")
class KeepsFarTooFew(Thinning):
    def thin(self, columns: Columns, bound: int) -> Columns:
        return columns.sampled(min(bound, 16))


@breaks("a_short_series_is_not_thinned")
class ThinsAtTheBound(Thinning):
    def thin(self, columns: Columns, bound: int) -> Columns:
        return columns.sampled(min(bound, len(columns) - 1))


# Stores whose handles quarrel


@breaks("readers_and_writers_share_a_handle")
class ServesOneAtATime(MemoryStore):
    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self.busy = threading.Lock()

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        if not self.busy.acquire(blocking=False):
            raise StoreError("used in another thread")
        try:
            time.sleep(0.001)
            return super().get(kind, ids)
        finally:
            self.busy.release()


@breaks("a_handle_reads_its_own_writes", "readers_and_writers_share_a_handle")
class LooksNowAndThen(MemoryStore):
    looked = 0.0

    def _catch_up(self) -> None:
        if time.monotonic() - self.looked > 0.05:
            self.looked = time.monotonic()
            super()._catch_up()


@breaks("another_handle_sees_a_write_within_a_second")
class KnowsItsOwnWritesOnly(MemoryStore):
    changed = True

    def append(self, batch: Batch) -> None:
        super().append(batch)
        self.changed = True

    def _catch_up(self) -> None:
        if self.changed:
            self.changed = False
            super()._catch_up()


@breaks("closing_twice_is_fine")
class ClosesOnce(MemoryStore):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise StoreError("closed already")
        self.closed = True


@breaks("closing_a_handle_leaves_the_others_open")
class ClosesForAll(MemoryStore):
    def close(self) -> None:
        self.shelf.stored.clear()


@breaks("closing_a_handle_leaves_the_others_open")
class ClosesTheConnectionOfAll(MemoryStore):
    def close(self) -> None:
        self.shelf.name = ""

    def append(self, batch: Batch) -> None:
        if not self.shelf.name:
            raise StoreError("the connection is closed")
        super().append(batch)


@breaks("the_capabilities_are_declared")
class DeclaresNonsense(MemoryStore):
    capabilities = Capabilities(durability="quite")


@breaks("the_capabilities_are_declared")
class DeclaresNothing(MemoryStore):
    capabilities = None  # type: ignore[assignment]


def _picked(columns: Columns, rows: Iterable[int]) -> Columns:
    chosen = list(rows)
    return Columns({name: [values[row] for row in chosen] for name, values in columns.columns.items()})


def found_out(check: str, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether a check finds fault with a store."""
    monkeypatch.setattr(_checking, "PATIENCE", 0.1)
    shelf = Shelf()
    contract = type("Contract", (StoreContract,), {"capabilities": mutant.capabilities})
    try:
        getattr(contract(), check)(lambda: mutant(shelf))
    except (AssertionError, MlcoreError, pytest.fail.Exception):
        return True
    return False


@pytest.mark.parametrize(("check", "mutant"), MUTANTS, ids=lambda each: getattr(each, "__name__", None))
def test_a_broken_store_is_found_out(check: str, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails on a store that breaks what it guards; where threads race, within a few attempts."""
    assert any(found_out(check, mutant, monkeypatch) for _ in range(5))


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_has_a_broken_store(check: str) -> None:
    """No check is without a store that proves that it bites."""
    assert check in {name for name, _ in MUTANTS}


def test_every_broken_store_names_a_check() -> None:
    """A renamed check does not leave a mutant behind that proves nothing."""
    assert {name for name, _ in MUTANTS} <= set(CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_says_what_it_guards(check: str) -> None:
    """The author of a store who sees a check fail reads in one line what the store promised."""
    text = getattr(StoreContract, check).__doc__
    assert text
    assert len(text.splitlines()) == 1
