"""Batches of many threads are committed together, and each of them gets its own answer."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from mlcore.errors import AlreadyExists, Malformed, OutOfOrder, StoreError
from mlcore.store import AttributesSet, Batch, Created, Record, RowsLogged, Updated
from mlcore.testing import Writer
from mlcore.testing._builders import new_id, points, run_batch
from mlcore.testing._checking import at_once, exact_records, raised, stored_records
from mlcore_sql import committing
from mlcore_sql.dialects import runner
from mlcore_sql.store import SqlStore, open_store


def slowed(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Keep the first transaction open until the event that is returned is set."""
    go, first, write = threading.Event(), threading.Event(), committing.write

    def slow(*arguments: Any) -> None:
        write(*arguments)
        if not first.is_set():
            first.set()
            go.wait(20)

    monkeypatch.setattr("mlcore_sql.appending.write", slow)
    return go


def together(store: SqlStore, monkeypatch: pytest.MonkeyPatch, batches: list[Batch]) -> tuple[list[Any], int]:
    """Append batches while a transaction is under way; return what each was answered, and the number of commits."""
    commits: list[Any] = []
    sqlalchemy.event.listen(store._database.engine, "commit", commits.append)
    go = slowed(store, monkeypatch)
    results: list[Any] = []
    first = threading.Thread(target=store.append, args=(run_batch(),))
    first.start()
    rest = threading.Thread(
        target=lambda: results.extend(at_once([functools.partial(store.append, batch) for batch in batches]))
    )
    rest.start()
    while len(store._appender._waiting) < len(batches):
        rest.join(0.01)
    go.set()
    first.join()
    rest.join()
    return results, len(commits)


def test_what_arrives_during_a_commit_is_committed_together(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that a hundred writers cost a few transactions, and that the refused do not harm the others."""
    store = open_store(database)
    store.append(Writer().batch(Created("model", "x"), claim="model/x"))
    good = [run_batch(metrics={"loss": [1.0, 2.0]}) for _ in range(20)]
    bad = [
        Writer().batch(Created("model", "x"), claim="model/x"),
        Batch("A" * 32, "", (Record(1, 1, (Created("run", "y"),)),)),
        Batch(new_id(), "", (Record(7, 1, (Created("run", "y"),)),)),
        Batch(new_id(), "", (Record(1, 1, (Updated("run", "y", {"x": object()}),)),)),
    ]
    results, commits = together(store, monkeypatch, [*good[:10], *bad, *good[10:]])
    assert commits == 2
    assert [type(result) for result in raised(results)] == [AlreadyExists, Malformed, OutOfOrder, Malformed]
    assert results.count(None) == 20
    kept = {record[0] for record in stored_records(store.events())}
    assert {batch.source for batch in good} <= kept
    assert not {batch.source for batch in bad} & kept
    store.close()


def test_one_that_the_database_does_not_take_fails_alone(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that an error that nobody foresaw is told to the one whose batch it is."""
    store = open_store(database)
    poison, take = new_id(), committing.RowWriter.gather

    def gather(self: Any, batch: Batch) -> None:
        if batch.source == poison:
            raise sqlalchemy.exc.DataError("INSERT", None, ValueError("it does not fit"))
        take(self, batch)

    monkeypatch.setattr(committing.RowWriter, "gather", gather)
    good = [run_batch() for _ in range(8)]
    bad = Batch(poison, "", (Record(1, 1, (Created("run", "y"),)),))
    results, _ = together(store, monkeypatch, [*good[:4], bad, *good[4:]])
    (error,) = raised(results)
    assert isinstance(error, StoreError)
    assert "it does not fit" in str(error)
    assert len({record[0] for record in stored_records(store.events())}) == 9
    store.close()


def test_who_is_interrupted_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that Ctrl-C in the thread that writes for others neither hangs them nor tells them that all is well."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    store.append(run_batch())
    write = committing.write

    def interrupted(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("mlcore_sql.appending.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.append(run_batch())
    monkeypatch.setattr("mlcore_sql.appending.write", write)
    store.append(run_batch())
    assert len(stored_records(store.events())) == 2
    store.close()


def test_a_large_batch_is_kept_in_parts(database: str) -> None:
    """Guards that a batch may be longer than what a server takes in one statement."""
    store = open_store(database)
    writer = Writer(new_id())
    for number in range(40):
        tags = AttributesSet("run", writer.home, "tags", {f"note {number % 3}": f"{number}" * 30_000})
        writer.batch(tags, points(writer.home, "loss", [1.0] * 1000, steps=range(number * 1000, number * 1000 + 1000)))
    store.append(writer.cut(1))
    stored = list(store.events())
    assert len(stored) > 1
    assert stored_records(stored) == exact_records([writer.cut(1)])
    for each in stored[1:]:
        assert each.batch.previous == writer.cut(each.batch.first).previous
    assert len(store.series("run", [writer.home])[writer.home, "loss", ""]) == 40_000
    store.append(writer.cut(1))
    assert len(list(store.events())) == len(stored)
    store.close()


def test_points_that_come_through_many_handles_are_joined_too(tmp_path: Path) -> None:
    """Guards that a source whose batches go to whichever server is free does not end in thousands of chunks."""
    writer = Writer(new_id())
    for step in range(100):
        store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
        store.append(writer.batch(points(writer.home, "loss", [step / 3], steps=[step])))
        store.close()
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    assert chunks_of(store) < 40
    assert stored_records(store.events()) == exact_records([writer.cut(1)])
    store.close()


def test_long_lines_are_not_joined_again_and_again(tmp_path: Path) -> None:
    """Guards that what fills a chunk by its bytes, not by its rows, is left alone."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    writer, joined = Writer(new_id()), []
    for number in range(150):
        line = {"time": [number], "text": [f"{number}" * 10_000]}
        store.append(writer.batch(RowsLogged("run", writer.home, "log", line)))
        joined.append(chunks_of(store))
    assert joined[-1] < 50
    counts = store._appender._compaction._counts
    assert sum(counts.values()) < 32
    assert stored_records(store.events()) == exact_records([writer.cut(1)])
    store.close()


def chunks_of(store: SqlStore) -> int:
    """Return how many chunks a store has."""
    with store._database.reading() as connection:
        ((count,),) = runner(connection).rows("SELECT count(*) FROM chunks")
    return int(count)


def test_a_record_that_a_server_does_not_take_is_told_of(mariadb: str) -> None:
    """Guards against trying again for a minute what the server will never take."""
    store = open_store(mariadb)
    note = AttributesSet("run", "a", "tags", {"note": "x" * 65_000})
    with pytest.raises(StoreError, match="max_allowed_packet"):
        store.append(Batch(new_id(), "", (Record(1, 1, (note,) * 300),)))
    store.append(run_batch())
    store.close()


def test_many_keys_go_by_copy(database: str) -> None:
    """Guards that a batch of a thousand keys arrives as it was, by COPY where there is one."""
    store = open_store(database)
    writer = Writer(new_id())
    for start in (0, 5):
        rows = [points(writer.home, f"key {key}", [key / 7] * 5, steps=range(start, start + 5)) for key in range(1_000)]
        store.append(writer.batch(*rows))
    assert stored_records(store.events()) == exact_records([writer.cut(1)])
    found = store.series("run", [writer.home])
    assert {len(columns) for columns in found.values()} == {10}
    (run,) = store.get("run", [writer.home])
    assert run is not None
    assert {summary.count for summary in run.metrics.values()} == {10}
    store.close()


def test_points_that_come_one_by_one_are_joined(database: str) -> None:
    """Guards that a long training leaves some chunks, not one a point, and that joining them changes no event."""
    store = open_store(database)
    writer = Writer(new_id())
    for step in range(100):
        store.append(writer.batch(points(writer.home, "loss", [step / 3], steps=[step])))
    assert chunks_of(store) < 10
    assert stored_records(store.events()) == exact_records([writer.cut(1)])
    middle = [stored.position for stored in store.events()][49]
    assert stored_records(store.events(middle)) == exact_records([writer.cut(51)])
    assert isinstance(next(iter(store.events(middle))).batch.records[0].events[0], RowsLogged)
    store.close()
