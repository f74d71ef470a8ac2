"""Checks of handles: threads, several of them at once, and their end."""

from __future__ import annotations

import functools

from mlcore.errors import MlcoreError
from mlcore.store import Query, Updated
from mlcore.testing._builders import Writer, new_id, points, run_batch, run_events
from mlcore.testing._checking import (
    Stores,
    at_once,
    exact_records,
    filled,
    metric,
    one,
    only_if,
    raised,
    soon,
    stored_records,
)


class Sharing:
    """Check handles."""

    @only_if(history=True)
    def test_threads_share_a_handle(self, stores: Stores) -> None:
        """Sixteen threads that append through one handle, each from its own source, lose nothing."""
        store = filled(stores)
        writers = [Writer(new_id()) for _ in range(16)]

        def write(writer: Writer) -> None:
            for number in range(10):
                store.append(writer.batch(points(writer.home, "loss", [1.0], steps=[number])))

        assert raised(at_once([functools.partial(write, writer) for writer in writers])) == []
        assert stored_records(store.events()) == exact_records(writer.cut(1) for writer in writers)

    def test_readers_and_writers_share_a_handle(self, stores: Stores) -> None:
        """Questions asked while others write are answered, and each thread sees what it wrote itself."""
        store = filled(stores)

        def work(writer: Writer) -> None:
            store.append(writer.batch(*run_events(writer.home)))
            for number in range(8):
                store.append(writer.batch(points(writer.home, "loss", [float(number)], steps=[number])))
                store.append(writer.batch(Updated("run", writer.home, {"n": number})))
                assert one(store, writer.home).fields == {"n": number}
                assert writer.home in {each.id for each in store.find("run", Query()).items}
                series = store.series("run", [writer.home]).get((writer.home, "loss", ""))
                assert metric(series, "step") == list(range(number + 1))

        assert raised(at_once([functools.partial(work, Writer(new_id())) for _ in range(6)])) == []

    def test_a_handle_reads_its_own_writes(self, stores: Stores) -> None:
        """What was appended is in the very next answer of the same handle, of every kind."""
        writer = Writer(new_id())
        store = filled(stores, writer.batch(*run_events(writer.home, fields={"n": -1})))
        for number in range(5):
            event = points(writer.home, "loss", [1.0], steps=[number])
            store.append(writer.batch(Updated("run", writer.home, {"n": number}), event))
            assert one(store, writer.home).fields == {"n": number}
            assert [each.fields["n"] for each in store.find("run", Query()).items] == [number]
            assert len(metric(store.series("run", [writer.home])[writer.home, "loss", ""])) == number + 1

    def test_another_handle_sees_a_write_within_a_second(self, stores: Stores) -> None:
        """A handle that has answered before does not go on answering from what it knew."""
        writer = Writer(new_id())
        store, other = filled(stores, writer.batch(*run_events(writer.home, fields={"n": 0}))), stores()
        for number in range(1, 4):
            before = other.get("run", [writer.home])[0]
            assert before is None or before.fields["n"] < number
            store.append(writer.batch(Updated("run", writer.home, {"n": number}), points(writer.home, "loss", [1.0])))

            def answer() -> list[object]:
                entity = other.get("run", [writer.home])[0]
                series = other.series("run", [writer.home]).get((writer.home, "loss", ""))
                found = [each.fields["n"] for each in other.find("run", Query()).items]
                return [entity and entity.fields["n"], found, len(metric(series))]

            wanted: list[object] = [number, [number], number]
            assert soon(answer, wanted) == wanted

    @only_if(history=True)
    def test_handles_continue_each_others_sources(self, stores: Stores) -> None:
        """Records of one source may come through any handle, as behind a load balancer."""
        handles = [filled(stores) for _ in range(3)]
        writer = Writer(new_id())
        for number in range(9):
            handles[number % 3].append(writer.batch(points(writer.home, "loss", [1.0], steps=[number])))
        wanted = exact_records([writer.cut(1)])
        assert soon(lambda: stored_records(handles[0].events()), wanted) == wanted

    def test_closing_twice_is_fine(self, stores: Stores) -> None:
        """A handle that is closed can be closed again, by an exit handler say."""
        store = filled(stores, run_batch())
        store.close()
        store.close()

    def test_closing_a_handle_leaves_the_others_open(self, stores: Stores) -> None:
        """Handles are separate: closing one takes nothing from another."""
        first, second = stores(), filled(stores, run_batch(name := new_id()))
        first.close()
        try:
            assert soon(lambda: [each.id for each in second.find("run", Query()).items], [name]) == [name]
            second.append(run_batch())
        except MlcoreError as error:
            raise AssertionError("closing one handle closed another") from error
