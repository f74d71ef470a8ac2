"""Checks of `events`: positions, filters, and what a later version wrote."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlcore.errors import PositionLost
from mlcore.store import START, Batch, Created, RowsLogged, Updated
from mlcore.testing._builders import Writer, new_id, points, run_batch, run_events
from mlcore.testing._checking import (
    Stores,
    at_once,
    exact_event,
    exact_records,
    filled,
    later,
    one,
    only_if,
    raised,
    soon,
    stored_records,
)


def mixed() -> list[Batch]:
    """Return batches of two runs and the store, with several kinds and with rows."""
    first, second, wide = Writer(new_id()), Writer(new_id()), Writer()
    return [
        first.batch(*run_events(first.home, fields={"name": "a"}, metrics={"loss": [1.0, 2.0]})),
        wide.batch(Created("experiment", "1"), Created("model", "m", "1"), RowsLogged("model", "m", "k", {"x": ["y"]})),
        second.batch(*run_events(second.home, fields={"name": "b"})),
        first.batch(points(first.home, "loss", [3.0], steps=[2])),
        second.batch(Updated("run", second.home, {"status": "FINISHED"}), Created("dataset", "d")),
        wide.batch(Updated("model", "m", {"name": "z"})),
    ]


def chosen(batches: list[Batch], **asked: Any) -> list[Any]:
    """Return the records of `batches` that `events` is to yield when it is asked so."""
    of, kinds, rows = asked.get("of"), asked.get("kinds"), asked.get("rows", True)
    found = []
    for batch in batches:
        for record in batch.records:
            events = [
                exact_event(event) for event in record.events
                if (kinds is None or event.kind in kinds) and (rows or not isinstance(event, RowsLogged))
            ]  # fmt: skip
            if events and of in (None, batch.home):
                found.append((batch.source, record.number, batch.home, record.stamp, events))
    return sorted(found, key=lambda each: (each[0], each[1]))


def with_records(records: list[Any]) -> list[Any]:
    """Leave out records in which nothing is left, which a store may yield or not."""
    return [record for record in records if record[4]]


class Listing:
    """Check `events`."""

    @only_if(history=True)
    def test_events_end(self, stores: Stores) -> None:
        """`events` is a look at what is there, not a tail: it ends while others go on appending."""
        store = filled(stores, *mixed())
        writer = Writer(new_id())
        store.append(writer.batch(Created("run", writer.home)))
        for count, _ in enumerate(store.events()):
            assert count < 200, "it yields what was appended after it began, without end"
            store.append(writer.batch(Updated("run", writer.home, {"n": count})))

    @only_if(history=True)
    def test_records_of_a_source_come_in_order(self, stores: Stores) -> None:
        """Within a source the numbers rise one by one, however the batches of sources were mixed."""
        writers = [Writer(new_id()) for _ in range(3)]
        batches = [writer.batch(Updated("run", writer.home, {"n": n})) for n in range(6) for writer in writers]
        store = filled(stores, *batches)
        numbers: dict[str, list[int]] = {}
        for stored in store.events():
            numbers.setdefault(stored.batch.source, []).extend(each.number for each in stored.batch.records)
        assert numbers == {writer.source: [1, 2, 3, 4, 5, 6] for writer in writers}

    @only_if(history=True)
    def test_after_the_last_position_there_is_nothing(self, stores: Stores) -> None:
        """A reader that is up to date is told nothing twice, and then only what is new."""
        store = filled(stores, *mixed())
        position = [stored.position for stored in store.events()][-1]
        assert stored_records(store.events(position)) == []
        batch = run_batch(fields={"name": "new"})
        store.append(batch)
        assert stored_records(store.events(position)) == exact_records([batch])

    @only_if(history=True)
    def test_every_position_can_be_resumed_from(self, stores: Stores) -> None:
        """A reader may stop anywhere: what it has and what follows its position is everything, once."""
        store = filled(stores, *mixed())
        stored = list(store.events())
        wanted = stored_records(stored)
        for index, each in enumerate(stored):
            rest = stored_records(store.events(each.position))
            before = stored_records(stored[: index + 1])
            assert sorted(before + rest, key=lambda record: record[:2]) == wanted

    @only_if(history=True)
    def test_a_position_taken_during_commits_skips_nothing(self, stores: Stores) -> None:
        """A reader that polls while others commit, slowly and fast, has seen everything in the end."""
        handles = [filled(stores) for _ in range(5)]
        reader, writers = handles[0], [Writer(new_id()) for _ in range(8)]
        reader.append(run_batch())  # a store may be made by what is first written
        done = threading.Event()

        def write(index: int) -> list[Any]:
            sent = []
            for number in range(12):
                size = 2_000 if index % 2 else 1
                sent.append(writers[index].batch(points(writers[index].home, "loss", [float(number)] * size)))
                handles[1 + index % 4].append(sent[-1])
            return sent

        def read() -> list[Any]:
            found, position = set(), START
            while True:
                last = done.is_set()
                for stored in reader.events(position):
                    found |= {(stored.batch.source, record.number) for record in stored.batch.records}
                    position = stored.position
                if last:
                    return [found, position]

        def write_all() -> list[Any]:
            try:
                return raised(at_once([functools.partial(write, index) for index in range(8)]))
            finally:
                done.set()

        wrote, seen = at_once([write_all, read])
        assert wrote == []
        assert isinstance(seen, list), repr(seen)
        found: set[tuple[str, int]] = seen[0]
        position: str = seen[1]
        wanted = {(writer.source, number) for writer in writers for number in range(1, 13)}

        def all_found() -> set[tuple[str, int]]:
            more = [each.batch for each in reader.events(position)]
            return found | {(batch.source, record.number) for batch in more for record in batch.records}

        assert wanted - soon(all_found, wanted) == set()

    @only_if(history=True)
    def test_an_unknown_position_is_lost(self, stores: Stores) -> None:
        """A position of another store, or of one since restored, is an error, never a silent gap."""
        store = filled(stores, *mixed())
        for position in ("no such position", "-1", "é\n", "0" * 300, " ", "null", "[]"):
            with pytest.raises(PositionLost):
                list(store.events(position))

    @only_if(history=True)
    def test_positions_of_other_handles_are_as_declared(self, stores: Stores) -> None:
        """A position works in another handle where `shared_positions` says so; elsewhere it works or is lost."""
        store = filled(stores, *mixed())
        stored = list(store.events())
        other = stores()
        wanted = stored_records(stored[3:])
        try:
            assert soon(lambda: stored_records(other.events(stored[2].position)), wanted) == wanted
        except PositionLost:
            assert not store.capabilities.shared_positions

    @only_if(history=True)
    def test_of_asks_for_one_home(self, stores: Stores) -> None:
        """Reading one run costs and shows that run alone; the store's own events are a home as well."""
        batches = mixed()
        store = filled(stores, *batches)
        for home in (batches[0].home, batches[2].home, "", new_id()):
            assert with_records(stored_records(store.events(of=home))) == chosen(batches, of=home)

    @only_if(history=True)
    def test_kinds_asks_for_kinds_of_entities(self, stores: Stores) -> None:
        """Events of other kinds are left out, of records that have both as well."""
        batches = mixed()
        store = filled(stores, *batches)
        for kinds in (["run"], ["model", "dataset"], [], ["no such kind"]):
            assert with_records(stored_records(store.events(kinds=kinds))) == chosen(batches, kinds=kinds)

    @only_if(history=True)
    def test_rows_can_be_left_out(self, stores: Stores) -> None:
        """Without rows everything else still comes, rows of any kind do not."""
        batches = mixed()
        store = filled(stores, *batches)
        assert with_records(stored_records(store.events(rows=False))) == chosen(batches, rows=False)

    @only_if(history=True)
    def test_filters_go_together_and_with_positions(self, stores: Stores) -> None:
        """Any mix of filters means all of them, from START and from any position."""
        batches = mixed()
        store = filled(stores, *batches)
        whole = list(store.events())
        homes: list[str | None] = [None, batches[0].home]
        for of, kinds, rows in itertools.product(homes, (None, ["run"]), (True, False)):
            listed: Callable[..., Iterator[Any]] = functools.partial(store.events, of=of, kinds=kinds, rows=rows)
            assert with_records(stored_records(listed())) == chosen(batches, of=of, kinds=kinds, rows=rows)
            rest = chosen([each.batch for each in whole[3:]], of=of, kinds=kinds, rows=rows)
            assert with_records(stored_records(listed(whole[2].position))) == rest

    @only_if(history=True)
    def test_what_a_later_version_wrote_is_kept_byte_for_byte(self, stores: Stores) -> None:
        """Unknown types, fields, columns and odd spacing pass through a store that does not know them."""
        run = new_id()
        lines = [
            '{ "type":"Teleported" , "kind":"run","id":"RUN","to":[1.50,{"$x":"\\u00e9"}]}',
            '{"later":{"b":1,"a":2},"type":"Created","kind":"run","id":"RUN","parent":"","fields":{"name":"x"}}',
            '{"type":"AttributesSet","kind":"run","id":"RUN","family":"tags","values":{"a":1.0},"later2":null}',
            '{"type":"RowsLogged","kind":"run","id":"RUN","key":"k","later":true,"columns":{"step":[1],"value":[3.0],"x":["w"]}}',
        ]
        writer = Writer(run)
        for line in lines:
            writer.batch(later(line.replace("RUN", run).encode()))
        store = filled(stores, writer.cut(1))
        events = [event for stored in store.events() for record in stored.batch.records for event in record.events]
        assert [event.raw for event in events] == [line.replace("RUN", run).encode() for line in lines]

    def test_what_a_later_version_wrote_changes_nothing_today(self, stores: Stores) -> None:
        """Unknown events make no entity, and unknown fields of an event do not touch the entity."""
        run, ghost = new_id(), new_id()
        writer = Writer(run)
        writer.batch(*run_events(run, fields={"name": "x"}))
        writer.batch(later(b'{"type":"Teleported","kind":"run","id":"%s"}' % ghost.encode()))
        known = b'{"type":"Updated","kind":"run","id":"%s","fields":{"status":"RUNNING"},"later":{"name":"y"}}'
        writer.batch(later(known % run.encode()))
        store = filled(stores, writer.cut(1))
        assert store.get("run", [ghost]) == [None]
        assert one(store, run).fields == {"name": "x", "status": "RUNNING"}
