"""Processes that write to one store at once, are killed, or lose their server: what was acknowledged is there, once."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

from faults.processes import crowd, finish, start
from mlcore.store import Store
from mlcore_sql.store import open_store
from servers import own_server

SECONDS = float(os.environ.get("MLCORE_TEST_SECONDS", "5"))  # 20 is what the store promises

# Appends batches of one to three points, and tells of each when it is acknowledged.
WRITER = """
    import sys, time
    from mlcore.testing._builders import Writer, new_id, points, run_events
    from mlcore_sql.store import open_store
    uri, seconds = sys.argv[-2:]
    store, writer = open_store(uri), Writer(new_id())
    globals().get("together", bool)()
    deadline = time.monotonic() + float(seconds)
    store.append(writer.batch(*run_events(writer.home, fields={"n": -1})))
    print(writer.source, 1, 0, flush=True)
    previous, step, longest = writer.records[-1], 0, 0.0
    from mlcore.store import Batch, Record, Updated, digest
    state, number = digest(writer.records), 1
    while time.monotonic() < deadline:
        number += 1
        steps = range(3 * number, 3 * number + 1 + number % 3)
        rows = points(writer.home, "loss", [1.0] * len(steps), steps=steps)
        record = Record(number, time.time_ns(), (rows, Updated("run", writer.home, {"n": number})))
        began = time.monotonic()
        store.append(Batch(writer.source, writer.home, (record,), state))
        print(writer.source, number, time.monotonic() - began, flush=True)
        state = digest((record,), state)
    store.close()
"""

READER = """
    import sys, time
    from mlcore.store import START, Query
    from mlcore_sql.store import open_store
    uri, seconds = sys.argv[-2:]
    store, position, seen, longest = open_store(uri), START, {}, 0.0
    store.find("run", Query())
    together()
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline:
        for stored in store.events(position):
            for record in stored.batch.records:
                assert record.number == seen.get(stored.batch.source, 0) + 1, (stored.position, record.number)
                seen[stored.batch.source] = record.number
            position = stored.position
        began = time.monotonic()
        runs = [each.id for each in store.find("run", Query(limit=5)).items]
        longest = max(longest, time.monotonic() - began)
        store.series("run", runs, ["loss"])
        time.sleep(0.01)
    print(sum(seen.values()), longest)
    store.close()
"""


def acknowledged(lines: list[str]) -> dict[str, int]:
    """Return the last record of each source that a writer was told is stored."""
    found: dict[str, int] = {}
    for line in lines:
        source, _, rest = line.partition(" ")
        if len(source) == 32 and " " in rest:  # the last line of who was killed may be cut
            found[source] = max(int(rest.split()[0]), found.get(source, 0))
    return found


def check(store: Store, known: dict[str, int], *, unheard: int = 1) -> None:
    """Check that all of what was acknowledged is there, each once, and hardly more."""
    numbers: dict[str, list[int]] = {}
    for stored in store.events():
        numbers.setdefault(stored.batch.source, []).extend(record.number for record in stored.batch.records)
    homes = {stored.batch.source: stored.batch.home for stored in store.events(rows=False)}
    for source, last in known.items():
        found = numbers.get(source, [])
        assert found == list(range(1, len(found) + 1)), f"source {source} has records {found[-5:]}"
        assert last <= len(found) <= last + unheard, f"{last} were acknowledged, {len(found)} are there"
        (run,) = store.get("run", [homes[source]])
        assert run is not None
        rows = sum(1 + number % 3 for number in range(2, len(found) + 1))
        columns = store.series("run", [run.id]).get((run.id, "loss", ""))
        assert (0 if columns is None else len(columns)) == rows
        assert rows == 0 or run.metrics["loss", ""].count == rows
        assert run.fields["n"] == (len(found) if len(found) > 1 else -1)


def test_eight_writers_and_four_readers_share_a_file(tmp_path: Path) -> None:
    """Guards against "database is locked", which MLflow's users know, and against writers that wait for ever."""
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    open_store(uri)._prepare()
    code = f"{WRITER_OR_READER}"
    texts = crowd(tmp_path, code, 12, WRITER, READER, uri, SECONDS)
    lines = [line for text in texts[:8] for line in text.splitlines()]
    waits = [float(line.split()[2]) for line in lines]
    store = open_store(uri)
    check(store, acknowledged(lines), unheard=0)
    store.close()
    counts = Counter(line.split()[0] for line in lines)
    print(f"{len(lines) / SECONDS:.0f} appends/s, longest wait {max(waits):.3f} s, {sorted(counts.values())} a writer")
    print("readers:", *(text.strip() for text in texts[8:]))
    assert max(waits) < 1
    assert max(float(text.split()[1]) for text in texts[8:]) < 1
    assert min(counts.values()) > max(counts.values()) / 4


WRITER_OR_READER = """
    import textwrap
    exec(textwrap.dedent(sys.argv[4] if rank < 8 else sys.argv[5]))
"""


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql", "mariadb"])
def test_killing_writers_loses_nothing_that_was_acknowledged(
    scheme: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Guards that a batch is there as a whole or not at all, and that no lock outlives who held it."""
    uri = f"sqlite:///{tmp_path / 'store.db'}" if scheme == "sqlite" else request.getfixturevalue(scheme)
    store = open_store(uri)
    store._prepare()
    known: dict[str, int] = {}
    deadline = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < deadline or rounds < 2:
        rounds += 1
        writers = [start(tmp_path, WRITER, uri, 60) for _ in range(3)]
        begun = [writer.stdout.readline() for writer in writers if writer.stdout is not None]
        time.sleep(random.random())
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        for first, writer in zip(begun, writers, strict=True):
            known |= acknowledged([first, *finish(writer, code=None)[0].splitlines()])
    print(f"{rounds} rounds, {sum(known.values())} batches acknowledged")
    assert sum(known.values()) > 3 * rounds
    check(store, known)
    store.close()
    if scheme == "sqlite":
        connection = sqlite3.connect(tmp_path / "store.db")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_server_that_crashes_under_load_loses_and_doubles_nothing(kind: str, tmp_path: Path) -> None:
    """Guards that clients wait for a server that comes back, and send again what it may not have heard."""
    with own_server(kind, durable=True) as server, server.database() as uri:
        store = open_store(uri)
        store._prepare()
        writers = [start(tmp_path, WRITER, uri, SECONDS + 6) for _ in range(4)]
        begun = [writer.stdout.readline() for writer in writers if writer.stdout is not None]
        for _ in range(2):
            time.sleep(1)
            server.stop(immediate=True)
            time.sleep(0.5)
            server.start()
        known: dict[str, int] = {}
        waits = []
        for first, writer in zip(begun, writers, strict=True):
            lines = [first, *finish(writer)[0].splitlines()]
            known |= acknowledged(lines)
            waits += [float(line.split()[2]) for line in lines]
        print(f"{sum(known.values())} batches acknowledged, longest wait {max(waits):.2f} s")
        check(store, known, unheard=0)
        store.close()


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql", "mariadb"])
def test_processes_race_for_a_claim(scheme: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Guards that one name has one owner, whoever asks, and that the others are told who."""
    uri = f"sqlite:///{tmp_path / 'store.db'}" if scheme == "sqlite" else request.getfixturevalue(scheme)
    code = """
        import json
        from mlcore.errors import AlreadyExists
        from mlcore.store import Created
        from mlcore.testing._builders import Writer
        from mlcore_sql.store import open_store
        store, answers = open_store(sys.argv[-1]), []
        for round in range(10):
            writer = Writer()
            batch = writer.batch(Created("model", f"{round}", fields={"by": rank}), claim=f"model/{round}")
            together()
            try:
                store.append(batch)
                answers.append([writer.source, writer.source])
            except AlreadyExists as error:
                answers.append([writer.source, error.holder])
        print(json.dumps(answers))
    """
    answers = [json.loads(text) for text in crowd(tmp_path, code, 6, uri)]
    store = open_store(uri)
    kept = {stored.batch.claim: stored.batch.source for stored in store.events()}
    for number, asked in enumerate(zip(*answers, strict=True)):
        holders = {holder for _, holder in asked}
        assert holders == {kept[f"model/{number}"]}
        assert sum(mine == holder for mine, holder in asked) == 1
    assert len(kept) == 10
    store.close()


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql", "mariadb"])
def test_a_handle_can_be_used_in_a_fork(scheme: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Guards that a child does not speak on its parent's connection, nor wait for a lock of a thread it has not."""
    uri = f"sqlite:///{tmp_path / 'store.db'}" if scheme == "sqlite" else request.getfixturevalue(scheme)
    code = """
        import os, sys, threading, time
        from mlcore.testing._builders import Writer, new_id, points, run_batch
        from mlcore.store import Query
        from mlcore_sql.store import open_store
        store = open_store(sys.argv[-1])
        store.append(run_batch())
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                store.append(run_batch())
        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads: thread.start()
        pids = []
        for _ in range(5):
            time.sleep(0.1)
            pid = os.fork()
            if not pid:
                for number in range(5):
                    store.append(run_batch(fields={"child": True}))
                found = store.find("run", Query()).items
                os._exit(0 if sum(bool(each.fields.get("child")) for each in found) >= 5 else 1)
            pids.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        stop.set()
        for thread in threads: thread.join()
        print(codes, sum(bool(each.fields.get("child")) for each in store.find("run", Query()).items))
        store.close()
    """
    out, err = finish(start(tmp_path, code, uri))
    assert out.strip() == "[0, 0, 0, 0, 0] 25", err


def test_a_server_that_does_not_come_back_is_told_of() -> None:
    """Guards that trying again ends, with an error that names the store and not the password."""
    from mlcore.errors import StoreError
    from mlcore.testing._builders import run_batch

    with own_server("postgresql") as server:
        uri = server.uri("postgres")
        store = open_store(uri)
        store.patience = 1.0
        store.append(run_batch())
        server.stop(immediate=True)
        began = time.monotonic()
        for call in (lambda: store.append(run_batch()), lambda: store.get("run", ["x"])):
            with pytest.raises(StoreError) as told:
                call()
            assert "mlpw" not in str(told.value)
            assert "postgresql://ml:***@127.0.0.1" in str(told.value)
        assert time.monotonic() - began < 20
        server.start()
        store.append(run_batch())
        store.close()
