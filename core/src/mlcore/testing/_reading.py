"""Checks of `get`, of erasing and of signs of life."""

from __future__ import annotations

import time

from mlcore.store import Created, Erased, Query, Store, Updated, encode_event
from mlcore.testing._builders import Writer, new_id, points, run_batch, run_events
from mlcore.testing._checking import (
    Stores,
    exact_entity,
    exact_records,
    filled,
    folded,
    one,
    only_if,
    soon,
    stored_records,
)


class Reading:
    """Check `get`."""

    def test_get_answers_in_the_order_of_the_ids(self, stores: Stores) -> None:
        """There is one answer for each id asked for, in that order, None where there is nothing."""
        runs = [new_id() for _ in range(3)]
        store = filled(stores, *(run_batch(run, fields={"name": run}) for run in runs))
        asked = [runs[2], new_id(), runs[0], runs[2], "", runs[1]]
        found = [each and each.id for each in store.get("run", asked)]
        assert found == [runs[2], None, runs[0], runs[2], None, runs[1]]
        assert store.get("run", []) == []

    def test_get_brings_all_of_an_entity(self, stores: Stores) -> None:
        """What comes back is what the fold makes: parent, fields, attributes, sums of metrics, first and last stamp."""
        writer = Writer(new_id())
        made = run_events(writer.home, parent="7", fields={"name": "x"}, params={"lr": 0.5}, tags={"a": [1]})
        writer.batch(*made, points(writer.home, "loss", [3.0, float("nan"), 1.0]), points(writer.home, "acc", [0.5]))
        writer.batch(points(writer.home, "loss", [9.0], context="eval"))
        store = filled(stores, writer.cut(1))
        assert exact_entity(one(store, writer.home)) == exact_entity(folded([writer.cut(1)]).entity("run", writer.home))

    def test_kinds_have_ids_of_their_own(self, stores: Stores) -> None:
        """A model and an experiment of the same id are two things."""
        writer = Writer()
        writer.batch(Created("experiment", "7", fields={"name": "e"}), Created("model", "7", fields={"name": "m"}))
        store = filled(stores, writer.cut(1))
        names = [one(store, "7", kind).fields["name"] for kind in ("experiment", "model")]
        assert names == ["e", "m"]
        assert store.get("run", ["7"]) == [None]
        assert [each.fields["name"] for each in store.find("model", Query()).items] == ["m"]

    def test_get_takes_more_ids_than_a_database_takes_parameters(self, stores: Stores) -> None:
        """Forty thousand ids are a question like any other."""
        run = new_id()
        store = filled(stores, run_batch(run))
        found = store.get("run", [*(f"{n:032x}" for n in range(40_000)), run])
        assert len(found) == 40_001
        assert [each.id for each in found if each is not None] == [run]

    def test_get_brings_what_was_deleted(self, stores: Stores) -> None:
        """Deleting is a field: who knows the id still gets the entity, to show or restore it."""
        writer = Writer(new_id())
        writer.batch(*run_events(writer.home, fields={"name": "x"}))
        writer.batch(Updated("run", writer.home, {"deleted": True}))
        store = filled(stores, writer.cut(1))
        assert one(store, writer.home).fields == {"name": "x", "deleted": True}

    def test_what_was_erased_never_comes_back(self, stores: Stores) -> None:
        """Erasing wins over everything, later events and late arrivals included, in every answer."""
        run, other = new_id(), new_id()
        before, eraser, after = Writer(run), Writer(run), Writer(run)
        batches = [
            before.batch(*run_events(run, fields={"name": "x"}, metrics={"loss": [1.0]}), stamp=100),
            eraser.batch(Erased("run", run), stamp=200),
            after.batch(*run_events(run, fields={"name": "y"}, metrics={"loss": [2.0]}), stamp=300),
            before.batch(points(run, "loss", [3.0]), stamp=150),
            run_batch(other),
        ]
        store = filled(stores, *batches)
        assert [each and each.id for each in store.get("run", [run, other])] == [None, other]
        assert [each.id for each in store.find("run", Query()).items] == [other]
        assert store.series("run", [run]) == {}

    @only_if(erase=True, history=True)
    def test_what_was_erased_is_gone_where_that_is_declared(self, stores: Stores) -> None:
        """With `erase` nothing of the entity is left in the history, while the rest of it is."""
        run, other = new_id(), new_id()
        writer, keeper = Writer(run), Writer(other)
        secret = writer.batch(*run_events(run, fields={"name": "secret"}, params={"key": "secret"}))
        kept = keeper.batch(*run_events(other, fields={"name": "kept"}))
        store = filled(stores, secret, kept)
        store.append(writer.batch(Erased("run", run)))

        def traces() -> bool:
            stored = [event for each in store.events() for record in each.batch.records for event in record.events]
            return any(b"secret" in encode_event(event) for event in stored)

        assert soon(traces, wanted=False) is False
        rest = stored_records(store.events(of=other))
        assert rest == exact_records([kept])

    def test_an_empty_batch_is_a_sign_of_life(self, stores: Stores) -> None:
        """A writer that has nothing to say shows that it lives: `seen` of its run moves, in every handle."""
        writer = Writer(new_id())
        store = filled(stores, writer.batch(*run_events(writer.home)))
        other = stores()
        before = seen(store, writer.home)
        time.sleep(0.02)
        store.append(writer.life_sign())
        assert seen(store, writer.home) > before
        assert soon(lambda: seen(other, writer.home) > before, wanted=True)
        assert seen(store, writer.home) <= time.time() * 1000 + 1000

    def test_an_empty_batch_is_no_event(self, stores: Stores) -> None:
        """A sign of life changes no entity, makes none, and uses up no number."""
        writer, nobody = Writer(new_id()), Writer(new_id())
        batch = writer.batch(*run_events(writer.home, fields={"name": "x"}))
        store = filled(stores, batch)
        before = exact_entity(one(store, writer.home))
        for each in (writer.life_sign(), nobody.life_sign()):
            store.append(each)
        assert exact_entity(one(store, writer.home)) == before
        assert store.get("run", [nobody.home]) == [None]
        assert [each.id for each in store.find("run", Query()).items] == [writer.home]
        store.append(writer.batch(Updated("run", writer.home, {"name": "y"})))
        assert one(store, writer.home).fields == {"name": "y"}


def seen(store: Store, run: str) -> int:
    """Return when a run was last seen, in ms since 1970."""
    found = one(store, run).seen
    assert found is not None, f"run {run} was written to and has no sign of life"
    return found
