"""Check that a state keeps what matters of an entity's events, whatever comes later, and no more."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from mlcore.store import (
    AttributesRemoved,
    AttributesSet,
    Created,
    Entity,
    Erased,
    Event,
    Fold,
    Record,
    Rewound,
    RowsLogged,
    Unknown,
    Updated,
)  # fmt: skip
from mlcore.testing._checking import exact_entity
from mlcore_sql.states import State

NAMES = st.sampled_from("ab")
VALUES = st.one_of(st.sampled_from([1, True, 1.0, "1", None, -0.0]), st.lists(st.integers(), max_size=1))
SOME = st.dictionaries(NAMES, VALUES, min_size=1)
FAMILIES = st.sampled_from(["params", "tags"])


def event(make: Any, *parts: Any) -> st.SearchStrategy[Event]:
    """Return events of a type, of one entity."""
    return st.builds(make, st.just("run"), st.just("r"), *parts)


EVENTS = st.one_of(
    event(Created, st.sampled_from(["", "1", "2"]), SOME), event(Updated, SOME),
    event(AttributesSet, FAMILIES, SOME, st.booleans()), event(AttributesSet, FAMILIES, SOME, st.just(value=True)),
    event(AttributesRemoved, FAMILIES, st.lists(NAMES)), event(Rewound, st.integers(0, 5)), event(Unknown),
    event(RowsLogged, NAMES, st.just({"value": [1.0]})),
)  # fmt: skip
SOURCES = st.sampled_from(["0" * 32, "1" * 32])
HISTORIES = st.lists(st.tuples(st.integers(1, 4), SOURCES, st.lists(EVENTS, min_size=1, max_size=4)), max_size=12)


def arrived(history: list[tuple[int, str, list[Event]]], order: list[int]) -> list[tuple[str, Record]]:
    """Return the records of a history, each with its source, in the order they arrive."""
    records, numbers = [], {"0" * 32: 0, "1" * 32: 0}
    for stamp, source, events in history:
        numbers[source] += 1
        records.append((source, Record(numbers[source], stamp, tuple(events))))
    return [records[place] for place in order]


def shown(entity: Entity | None) -> Any:
    """Return all of an entity but its rows, types included."""
    return entity and exact_entity(entity)


@given(st.data(), HISTORIES, st.sampled_from([0, 0, 0, 1]))
def test_the_fold_of_what_is_left_and_what_comes_is_the_fold_of_everything(
    data: st.DataObject, history: list[tuple[int, str, list[Event]]], erased: int
) -> None:
    """Guards pruning: it must not depend on what arrived first, nor lose what only a later event lets matter."""
    if erased:
        history.append((1, "0" * 32, [Erased("run", "r")]))
    records = arrived(history, data.draw(st.permutations(range(len(history)))))
    fold, saved, stamps = Fold(), None, []
    for place, (source, record) in enumerate(records):
        fold.add_record(source, record)
        state = State("run", "r", saved)
        for index, each in enumerate(record.events):
            if not isinstance(each, Unknown):
                stamps.append(record.stamp)
                if not isinstance(each, RowsLogged):
                    state.add(each, (record.stamp, source, record.number, index))
        saved = state.saved()
        if stamps:
            wanted = fold.entity("run", "r")
            assert shown(State("run", "r", saved).entity(min(stamps), max(stamps))) == shown(wanted), place
            rewinds = fold.rewinds("run", "r") if wanted else ()
            for order, step in [((s, "0" * 32, n, 0), step) for s in range(6) for n in (0, 2) for step in range(7)]:
                dropped = any(order < other and step > limit for other, limit in rewinds)
                assert not wanted or dropped == any(order < other and step > limit for other, limit in state.rewinds)


def test_the_first_values_that_every_run_brings_along_are_kept_once() -> None:
    """Guards an experiment of 100,000 runs, each of which names it."""
    state = State("experiment", "1")
    sizes = []
    for number in range(1, 200):
        made = Created("experiment", "1", "", {"name": "exp", "n": number})
        state.add(made, (1_000 - number, f"{number:032x}", 1, 0))
        sizes.append(len(state.saved()))
    assert max(sizes) < 120


def test_what_was_overwritten_is_not_kept() -> None:
    """Guards tags that change every minute."""
    state = State("run", "1")
    for number in range(200):
        state.add(AttributesSet("run", "1", "tags", {"a": number}), (number, "0" * 32, number, 0))
        state.add(AttributesSet("run", "1", "tags", {"a": number}, once=True), (number // 2, "1" * 32, number, 0))
    assert len(state.saved()) < 120


def test_nothing_of_what_was_erased_is_kept() -> None:
    """Guards that erasing takes the values away."""
    state = State("run", "1")
    state.add(Created("run", "1", "", {"name": "secret"}), (1, "0" * 32, 1, 0))
    state.add(Erased("run", "1"), (2, "0" * 32, 2, 0))
    assert b"secret" not in state.saved()
    assert State("run", "1", state.saved()).entity(1, 2) is None
