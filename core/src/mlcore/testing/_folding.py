"""Checks that a store's state is what core's fold makes of the set of its batches, and no other."""

from __future__ import annotations

import random
from typing import Any

from mlcore.store import (
    AttributesRemoved,
    AttributesSet,
    Batch,
    Created,
    Erased,
    Event,
    Query,
    Rewound,
    RowsLogged,
    Store,
    Updated,
)
from mlcore.testing._builders import Writer, points
from mlcore.testing._checking import Stores, exact_columns, exact_entity, filled, folded, one

RUN = "0" * 31 + "1"


def arriving(stores: Stores, *events: tuple[int, Event]) -> Store:
    """Return a store in which each event arrived in this order, by a source of its own, with its stamp."""
    batches = [Writer(RUN, source=f"{n:032x}").batch(event, stamp=stamp) for n, (stamp, event) in enumerate(events)]
    return filled(stores, *batches)


def tag(value: Any) -> AttributesSet:
    """Return the event that sets a tag."""
    return AttributesSet("run", RUN, "tags", {"t": value})


def param(value: Any, *, once: bool = True) -> AttributesSet:
    """Return the event that sets a param."""
    return AttributesSet("run", RUN, "params", {"p": value}, once=once)


def history(seed: int) -> list[Batch]:
    """Return batches by four sources with every type of event, in an order in which they may arrive."""
    chance = random.Random(seed)  # noqa: S311
    writers = [Writer(RUN, source=f"{chance.getrandbits(128):032x}") for _ in range(4)]
    stamps = [1] * 4

    def event() -> Event:
        name, value = chance.choice("ab"), chance.choice((1, 1.0, True, "x", float("nan"), None, [1]))
        kind, id = ("run", RUN) if chance.random() < 0.8 else ("model", chance.choice("mn"))
        rows = points(RUN, name, [chance.random() for _ in range(3)], steps=[chance.randrange(9) for _ in range(3)])
        choices: list[Event] = [
            Created(kind, id, chance.choice("pq"), {name: value}), Updated(kind, id, {name: value}),
            AttributesSet(kind, id, "tags", {name: value}), AttributesSet(kind, id, "params", {name: value}, once=True),
            AttributesRemoved(kind, id, chance.choice(("tags", "params")), [name]), rows,
            RowsLogged(kind, id, name, {"time": [chance.randrange(9)], "text": [name]}, chance.choice(("", "eval"))),
        ]  # fmt: skip
        if chance.random() < 0.1:
            choices = [Rewound(kind, id, chance.randrange(9)), Erased("model", "n")]
        return chance.choice(choices)

    batches = []
    for _ in range(40):
        index = chance.randrange(4)
        stamps[index] += chance.randrange(4)
        events = [event() for _ in range(chance.randrange(1, 4))]
        batches.append(writers[index].batch(*events, stamp=stamps[index]))
    return batches


class Folding:
    """Check the state against the fold."""

    def test_state_is_what_the_fold_makes_of_the_batches(self, stores: Stores) -> None:
        """Whatever arrives in whatever order, entities and series are those of core's fold."""
        batches = [batch for seed in range(3) for batch in history(seed)]
        store = filled(stores, *batches)
        fold = folded(batches)
        for kind in ("run", "model"):
            wanted = {each.id: exact_entity(each) for each in fold.entities(kind)}
            assert {each.id: exact_entity(each) for each in store.find(kind, Query()).items} == wanted
            assert {id: exact_entity(one(store, id, kind)) for id in wanted} == wanted
        series = {key[1:]: exact_columns(columns) for key, columns in store.series("run", [RUN]).items()}
        assert series == {key: exact_columns(columns) for key, columns in fold.series("run", RUN).items()}

    def test_the_last_write_wins_by_stamp(self, stores: Stores) -> None:
        """A tag or field has the value of the highest stamp, though older ones arrive later."""
        events = [(300, tag("new")), (100, tag("old")), (200, Updated("run", RUN, {"status": "new"}))]
        store = arriving(stores, *events, (150, Updated("run", RUN, {"status": "old"})))
        found = one(store, RUN)
        assert (found.attributes.get("tags"), found.fields) == ({"t": "new"}, {"status": "new"})

    def test_equal_stamps_are_ordered_by_source(self, stores: Stores) -> None:
        """Two writes of one moment have one winner everywhere: that of the greater source."""
        low, high = Writer(RUN, source="1" * 32), Writer(RUN, source="f" * 32)
        store = filled(stores, high.batch(tag("high"), stamp=100), low.batch(tag("low"), stamp=100))
        assert one(store, RUN).attributes.get("tags") == {"t": "high"}

    def test_of_what_is_set_once_the_first_wins(self, stores: Stores) -> None:
        """A param keeps its first value by stamp; others that differ are kept as conflicts, with their source."""
        store = arriving(stores, (300, param(3)), (100, param(1)), (200, param(1)), (400, param(1.0)))
        found = one(store, RUN)
        assert found.attributes.get("params") == {"p": 1}
        assert type(found.attributes["params"]["p"]) is int
        conflicts = [(each.family, each.name, each.value, each.source) for each in found.conflicts]
        assert conflicts == [("params", "p", 3, f"{0:032x}"), ("params", "p", 1.0, f"{3:032x}")]

    def test_a_plain_write_corrects_what_was_set_once(self, stores: Stores) -> None:
        """A correction wins over what came before it and settles its conflicts; a later try loses to it."""
        store = arriving(stores, (100, param(1)), (300, param(9, once=False)), (200, param(2)), (400, param(4)))
        found = one(store, RUN)
        assert found.attributes.get("params") == {"p": 9}
        assert [each.value for each in found.conflicts] == [4]

    def test_what_was_removed_is_gone_until_set_again(self, stores: Stores) -> None:
        """A removal is a write like any other: it wins by stamp, and a later value wins over it."""
        removed = AttributesRemoved("run", RUN, "tags", ["t", "u"])
        store = arriving(stores, (200, removed), (100, tag("old")), (50, AttributesSet("run", RUN, "tags", {"u": 1})))
        assert one(store, RUN).attributes.get("tags", {}) == {}
        store.append(Writer(RUN).batch(tag("new"), stamp=300))
        assert one(store, RUN).attributes.get("tags") == {"t": "new"}

    def test_an_update_wins_over_creation(self, stores: Stores) -> None:
        """Fields of a creation are first values, the earliest of them, whenever it arrives or says it was."""
        store = arriving(
            stores,
            (300, Created("run", RUN, "late", {"name": "late", "a": 2})),
            (100, Updated("run", RUN, {"name": "updated"})),
            (200, Created("run", RUN, "early", {"name": "early", "a": 1, "b": 3})),
        )
        found = one(store, RUN)
        assert (found.fields, found.parent) == ({"name": "updated", "a": 1, "b": 3}, "early")

    def test_created_and_changed_are_the_first_and_last_stamp(self, stores: Stores) -> None:
        """An entity knows when it began and last changed by its writers' clocks, whatever arrived when."""
        found = one(arriving(stores, (200, tag(1)), (300, tag(2)), (100, tag(3))), RUN)
        assert (found.created, found.changed) == (100, 300)
