"""The contract of stores, run on the smallest store and on what it may declare differently."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import pytest

import memory_store
from memory_store import MemoryStore, Shelf
from mlcore.errors import NotSupported, PositionLost
from mlcore.store import START, Batch, Capabilities, Erased, Store, Stored, selected
from mlcore.testing import StoreContract
from mlcore.testing._checking import Stores


class TestMemoryStore(StoreContract):
    capabilities = Capabilities(shared_positions=True)

    def open_store(self, tmp_path: Path) -> Stores:
        shelf = Shelf()
        return lambda: MemoryStore(shelf)


class WithoutClaims(MemoryStore):
    capabilities = Capabilities(claims=False)

    def append(self, batch: Batch) -> None:
        if batch.claim is not None:
            raise NotSupported("memory", "claims", "use a store that takes them")
        super().append(batch)

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        mine = f"{id(self)} "
        if not after.startswith(mine) and after != START:
            raise PositionLost(after)
        found = super().events(after.removeprefix(mine), of=of, kinds=kinds, rows=rows)
        return (attrs.evolve(each, position=mine + each.position) for each in found)


class TestAStoreWithoutClaimsAndWithPositionsOfItsHandles(StoreContract):
    """The checks that replace those of claims and shared positions pass on a store that has neither."""

    capabilities = WithoutClaims.capabilities

    def open_store(self, tmp_path: Path) -> Stores:
        shelf = Shelf()
        return lambda: WithoutClaims(shelf)


class Erasing(MemoryStore):
    capabilities = Capabilities(shared_positions=True, erase=True, durability="power")

    def append(self, batch: Batch) -> None:
        super().append(batch)
        with self.shelf.lock:
            every = [event for each in self.shelf.stored for record in each.batch.records for event in record.events]
            gone = {(event.kind, event.id) for event in every if isinstance(event, Erased)}
            self.shelf.stored = [self._without(each, gone) for each in self.shelf.stored]

    def _without(self, stored: Stored, gone: set[tuple[str, str]]) -> Stored:
        records = tuple(
            attrs.evolve(record, events=tuple(
                event for event in record.events if (event.kind, event.id) not in gone or isinstance(event, Erased)
            ))
            for record in stored.batch.records
        )  # fmt: skip
        return attrs.evolve(stored, batch=attrs.evolve(stored.batch, records=records))


class TestAStoreThatErases(StoreContract):
    """The check of erasing passes on a store that does."""

    capabilities = Erasing.capabilities

    def open_store(self, tmp_path: Path) -> Stores:
        shelf = Shelf()
        return lambda: Erasing(shelf)


class Current(MemoryStore):
    """Knows no history: `events` tells of nothing."""

    capabilities = Capabilities(history=False)

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        return iter(())

    def _catch_up(self) -> None:
        for stored in MemoryStore.events(self, self._position):
            self._fold.add(stored.batch)
            self._signs[stored.batch.home] = stored.received_at
            self._position = stored.position


class TestAStoreWithoutHistory(StoreContract):
    """A store that only knows what is current is not asked for its history."""

    capabilities = Current.capabilities

    def open_store(self, tmp_path: Path) -> Stores:
        shelf = Shelf()
        return lambda: Current(shelf)


class Unstated(StoreContract):
    """States no capabilities, and runs no test, as its name does not start with Test."""


def test_a_store_has_the_checks_of_what_it_can_do() -> None:
    """A check that does not concern a store is not there, rather than skipped: what is skipped is soon forgotten."""
    without = TestAStoreWithoutClaimsAndWithPositionsOfItsHandles
    assert (without.test_a_claim_has_one_owner, Unstated.test_a_store_without_claims_refuses_them) == (None, None)
    assert without.test_a_store_without_claims_refuses_them is StoreContract.test_a_store_without_claims_refuses_them
    again = type("Again", (without,), {"capabilities": None})
    assert again.test_a_claim_has_one_owner is StoreContract.test_a_claim_has_one_owner  # type: ignore[attr-defined]


def test_a_store_that_can_do_less_than_was_stated_is_told_what_to_state() -> None:
    """The author who states nothing learns which line is missing, and which checks it is about."""
    with pytest.raises(AssertionError, match=r"state capabilities = .*claims=False.*test_a_claim_has_one_owner"):
        Unstated().test_the_capabilities_are_declared(lambda: WithoutClaims(Shelf()))


def lines_of_code(source: str) -> int:
    """Return how many lines hold code: no blanks, comments or docstrings."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    starts_line = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout and not (token.type == tokenize.STRING and starts_line):
            lines.update(range(token.start[0], token.end[0] + 1))
        starts_line = token.type in layout
    return len(lines)


def test_a_store_fits_in_sixty_lines() -> None:
    """A store is two methods: the smallest one stays small enough to read at a glance."""
    assert lines_of_code(Path(memory_store.__file__).read_text()) <= 60


def test_an_author_writes_at_most_fifteen_lines() -> None:
    """Testing a store takes no more than a class and how to open it."""
    example = str(StoreContract.__doc__ and __import__("mlcore.testing", fromlist=["x"]).__doc__)
    code = example.split("::\n")[1].split("\n\nEvery", maxsplit=1)[0]
    assert "class TestMyStore(StoreContract)" in code
    assert len(code.split("\n")) <= 15


def test_a_store_on_simple_store_is_a_store() -> None:
    """What `SimpleStore` derives has the shape that the protocol asks for."""
    store: Store = MemoryStore(Shelf())
    assert selected(Stored("1", 0, "", Batch("0" * 32, "")), kinds=["run"]) is None
    store.close()
