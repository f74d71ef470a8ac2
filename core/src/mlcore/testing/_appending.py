"""Checks of `append`: exactly once, in order, whole or not at all."""

from __future__ import annotations

import contextlib
import time

import attrs
import pytest

from mlcore.errors import Malformed, NotSupported, OutOfOrder, Refused, SourceReused
from mlcore.store import EVENT_LIMIT, AttributesSet, Batch, Created, Erased, Record, Rewound, RowsLogged, Updated
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore.testing._checking import Stores, at_once, exact_records, filled, only_if, raised, soon, stored_records


def writer_of(count: int) -> Writer:
    """Return a writer of a run with `count` records."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": "x"}, params={"lr": 0.1}))
    for number in range(1, count):
        writer.batch(points(writer.home, "loss", [1 / number], steps=[number]))
    return writer


def malformed() -> dict[str, Batch]:
    """Return batches that break the format, each in one way, by what is wrong."""
    source, run = new_id(), new_id()
    made = (Created("run", run),)

    def batch(*records: Record) -> Batch:
        return Batch(source, run, records)

    good = batch(Record(1, 1, made))
    large = AttributesSet("run", run, "tags", {"note": "x" * EVENT_LIMIT})
    uneven = RowsLogged("run", run, "loss", {"step": [1, 2], "time": [1], "value": [1.0]})
    text = RowsLogged("run", run, "loss", {"step": ["a"], "time": [1], "value": [1.0]})
    return {
        "a source of capitals": attrs.evolve(good, source="A" * 32),
        "a short source": attrs.evolve(good, source="ab"),
        "a home with a slash": attrs.evolve(good, home="../x"),
        "a claim with a line break": attrs.evolve(good, claim="a\nb"),
        "an empty claim": attrs.evolve(good, claim=""),
        "a claim of nothing": Batch(source, run, claim="name/x"),
        "a previous that is no digest": attrs.evolve(good, previous="x"),
        "a record numbered 0": batch(Record(0, 1, made)),
        "a gap inside": batch(Record(1, 1, made), Record(3, 1, made)),
        "a number twice": batch(Record(1, 1, made), Record(1, 1, made)),
        "a record without events": batch(Record(1, 1, ())),
        "stamps that fall": batch(Record(1, 5, made), Record(2, 4, made)),
        "a negative stamp": batch(Record(1, -1, made)),
        "a stamp over 63 bits": batch(Record(1, 1 << 63, made)),
        "an event over 64 kB": batch(Record(1, 1, (large,))),
        "a value that is no JSON": batch(Record(1, 1, (Updated("run", run, {"name": object()}),))),
        "a rewind to no step": batch(Record(1, 1, (Rewound("run", run, "now"),))),  # type: ignore[arg-type]
        "columns of two lengths": batch(Record(1, 1, (uneven,))),
        "a step that is no number": batch(Record(1, 1, (text,))),
    }


class Appending:
    """Check `append`."""

    @only_if(history=True)
    def test_what_was_appended_comes_back(self, stores: Stores) -> None:
        """A store keeps every record as it was: source, number, stamp, home, and each of its events."""
        run, store_wide = writer_of(3), Writer()
        run.batch(Updated("run", run.home, {"name": "y"}), Erased("model", "m"))
        store_wide.batch(Created("experiment", "7", fields={"name": "e"}))
        batches = [run.cut(1, 2), store_wide.cut(1), run.cut(3)]
        store = filled(stores, *batches)
        assert stored_records(store.events()) == exact_records(batches)

    @only_if(history=True)
    def test_every_value_survives_exactly(self, stores: Stores) -> None:
        """A value comes back as what it was: no float for an int, no null for a NaN, no lost sign or digit."""
        values = {
            "nan": float("nan"), "infinite": float("-inf"), "zero": -0.0, "tiny": 5e-324, "float": 1.0, "int": 1,
            "true": True, "null": None, "huge": 10**40, "digits": 0.1 + 0.2, "text": "ß 漢 😀 \u2028 \x00 '\"\\",
            "empty": ["", [], {}], "deep": {"a": [{"b": [1, 2.0, None]}]}, "escaped": {"$float": "NaN", "$x": 1},
        }  # fmt: skip
        writer = Writer(new_id())
        writer.batch(AttributesSet("run", writer.home, "params", values))
        store = filled(stores, writer.cut(1))
        assert stored_records(store.events()) == exact_records([writer.cut(1)])

    @only_if(history=True)
    def test_a_batch_appended_again_is_stored_once(self, stores: Stores) -> None:
        """A writer that did not hear the answer sends again, and nothing is doubled."""
        writer = writer_of(2)
        store = filled(stores, writer.cut(1), writer.cut(1), writer.cut(1, 1))
        assert stored_records(store.events()) == exact_records([writer.cut(1)])

    @only_if(history=True)
    def test_an_overlap_is_trimmed_to_what_is_new(self, stores: Stores) -> None:
        """A batch that starts before the mark and ends behind it adds what is behind, once."""
        writer = writer_of(5)
        store = filled(stores, writer.cut(1, 3), writer.cut(2, 5))
        assert stored_records(store.events()) == exact_records([writer.cut(1)])

    @only_if(history=True)
    def test_a_gap_is_out_of_order(self, stores: Stores) -> None:
        """A batch whose predecessors are missing is refused, with the number that is expected, and not kept."""
        writer = writer_of(4)
        store = filled(stores, writer.cut(1, 1))
        with pytest.raises(OutOfOrder) as refusal:
            store.append(writer.cut(3))
        assert (refusal.value.source, refusal.value.expected, refusal.value.given) == (writer.source, 2, 3)
        with pytest.raises(OutOfOrder):
            store.append(writer_of(2).cut(2))
        assert stored_records(store.events()) == exact_records([writer.cut(1, 1)])

    @only_if(history=True)
    def test_other_content_under_a_known_range_is_refused(self, stores: Stores) -> None:
        """Two writers that share a source, as a copied virtual machine makes them, are noticed."""
        writer, twin = writer_of(3), writer_of(3)
        twin.source = writer.source
        store = filled(stores, writer.cut(1, 2))
        for batch in (twin.cut(1, 2), twin.cut(1, 3), twin.cut(2, 3), twin.cut(3)):
            with pytest.raises(SourceReused):
                store.append(batch)
        assert stored_records(store.events()) == exact_records([writer.cut(1, 2)])

    @only_if(history=True)
    def test_a_malformed_batch_is_refused(self, stores: Stores) -> None:
        """What breaks the format never gets in, whichever rule it breaks."""
        store = filled(stores)
        for reason, batch in malformed().items():
            takes = batch.claim is None or store.capabilities.claims
            refusals = (Malformed,) if takes else (NotSupported, Refused)
            with contextlib.suppress(*refusals):
                store.append(batch)
                pytest.fail(f"a batch with {reason} was taken")
        assert stored_records(store.events()) == []

    @only_if(history=True)
    def test_a_refused_batch_leaves_the_source_as_it_was(self, stores: Stores) -> None:
        """After a refusal the right next batch is taken as if nothing had happened."""
        writer, twin = writer_of(4), writer_of(4)
        twin.source = writer.source
        store = filled(stores, writer.cut(1, 2))
        broken = attrs.evolve(writer.cut(3), records=(*writer.records[2:], Record(9, 1 << 62, ())))
        for batch in (writer.cut(4), twin.cut(2, 4), broken):
            with pytest.raises((OutOfOrder, SourceReused, Malformed)):
                store.append(batch)
        store.append(writer.cut(3))
        assert stored_records(store.events()) == exact_records([writer.cut(1)])

    @only_if(history=True)
    def test_many_batches_at_once_are_stored_or_refused_each_for_itself(self, stores: Stores) -> None:
        """What many sent is answered one by one: who is refused takes nothing from the others, before or after."""
        writer, other = writer_of(4), writer_of(2)
        store = filled(stores)
        batches = [
            writer.cut(1, 2), writer.cut(4), other.cut(1), malformed()["a negative stamp"], writer.cut(3), other.cut(1),
        ]  # fmt: skip
        answers = store.append_all(batches, ["alice", "alice", "bob", "bob", "alice", "bob"])
        assert [type(each) for each in answers] == [type(None), OutOfOrder, type(None), Malformed, *[type(None)] * 2]
        assert stored_records(store.events()) == exact_records([writer.cut(1), other.cut(1)])

    @only_if(history=True)
    def test_handles_that_append_the_same_batch_at_once_store_it_once(self, stores: Stores) -> None:
        """A retry that overtakes the first attempt, on another connection, doubles nothing."""
        writer = writer_of(40)
        handles = [filled(stores) for _ in range(8)]
        for first, last in ((1, 20), (11, 40)):
            batch = writer.cut(first, last)
            results = at_once([lambda store=store, batch=batch: store.append(batch) for store in handles])  # type: ignore[misc]
            assert raised(results) == []
        wanted = exact_records([writer.cut(1)])
        assert soon(lambda: stored_records(handles[0].events()), wanted) == wanted

    @only_if(history=True)
    def test_the_mark_of_a_source_is_shared_and_outlives_handles(self, stores: Stores) -> None:
        """A handle opened later trims, continues and refuses as the one that is gone would have."""
        writer, twin = writer_of(4), writer_of(4)
        twin.source = writer.source
        first = filled(stores, writer.cut(1, 2))
        first.close()
        store = filled(stores, writer.cut(1, 2), writer.cut(2, 3))
        with pytest.raises(SourceReused):
            store.append(twin.cut(3))
        with pytest.raises(OutOfOrder):
            store.append(attrs.evolve(writer.cut(4), records=(attrs.evolve(writer.records[3], number=9),)))
        assert stored_records(store.events()) == exact_records([writer.cut(1, 3)])

    @only_if(history=True)
    def test_the_store_says_when_it_received_a_batch(self, stores: Stores) -> None:
        """`received_at` is the store's clock in ms since 1970, not the writer's."""
        writer = writer_of(2)
        writer.records = [attrs.evolve(record, stamp=record.number) for record in writer.records]
        store = filled(stores, writer.cut(1, 1), writer.cut(2))
        received = [stored.received_at for stored in store.events() if stored.batch.records]
        now = time.time() * 1000
        assert received
        assert [each for each in received if abs(now - each) > 600_000] == []
