"""Processes that die: what had been logged is there, and the run is LOST as soon as that is known."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mlcore
from faults.processes import finish, fsck, reading, run, start

# Tells of every call after it returned, by one write to a pipe, so that what was told had returned.
WRITER = """
import os, sys, mlcore
store, mark = sys.argv[1:]
client = mlcore.Client(store)
active = client.start_run(name=mark)
def tell(text):
    os.write(1, (text + "\\n").encode())
tell("id " + active.id)
count = 0
while True:
    count += 1
    active.log_metric("m", count); tell(f"m {count}")
    active.log_metrics({"a": count, "b": -count}, step=count); tell(f"ab {count}")
    if count % 3 == 0:
        active.log_param(f"p{count}", f"{mark} {count}"); tell(f"p {count}")
    if count % 5 == 0:
        active.log_points("c", range(count * 100, count * 100 + 100), [count] * 100); tell(f"c {count}")
    if count % 50 == 0:
        active.log_metric(f"new{count}", count, step=7); tell(f"new {count}")
"""


def told(process: subprocess.Popen[str], delay: float) -> tuple[str, Counter[tuple[str, int]]]:
    """Kill a writer `delay` after it began to log; return its run's id and the calls that had returned."""
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        first = process.stdout.readline()
        assert first.startswith("id "), first + process.stderr.read()
        killer = threading.Timer(delay, process.kill)
        killer.start()
        out = process.stdout.read()
        killer.join()
    assert process.returncode == -signal.SIGKILL
    lines = out[: out.rfind("\n") + 1].splitlines()
    return first.split()[1], Counter((name, int(count)) for name, count in map(str.split, lines))


def test_writers_killed_at_random_lose_nothing_that_had_returned(tmp_path: Path) -> None:
    """Guards the promise: of 20 writers killed at random moments every call that returned is read back, once."""
    store, chance = tmp_path / "store", random.Random()
    processes = [start(tmp_path, WRITER, store, f"writer {each}") for each in range(20)]
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(told, processes, [chance.random() * 0.5 for _ in processes]))
    calls = 0
    with reading(store) as client:
        for id, returned in found:
            back = client.get_run(id)
            assert back.status == "LOST"
            read: Counter[tuple[str, int]] = Counter()
            steps: dict[str, list[int]] = {}
            for key in back.metrics:
                series = back.series(key)
                steps[key] = list(series.steps)
                read.update((key.rstrip("0123456789"), int(value)) for value in series.values)
            read.update(("p", int(key[1:])) for key in back.params)
            assert set(read.values()) <= {1, 100}
            for (name, count), times in returned.items():
                assert times == 1
                key = {"ab": "a"}.get(name, name)
                assert read[key, count] == (100 if key == "c" else 1), (name, count)
                if name == "ab":
                    assert read["b", -count] == 1
            assert {count for name, count in read if name == "a"} == {-count for name, count in read if name == "b"}
            # what is there beyond: the call that the kill broke off, or that had returned but was not told yet
            names = {("ab" if name == "a" else name, count) for name, count in read if name != "b"}
            assert len(names - returned.keys()) <= 1, names - returned.keys()
            assert steps.get("m", []) == list(range(len(steps.get("m", []))))
            calls += len(returned)
    assert calls > 1_000
    report = fsck(tmp_path, store)
    torn = Counter(Path(each["path"]).parent.name for each in report["findings"])
    assert {each["severity"] for each in report["findings"]} <= {"torn"}
    assert set(torn.values()) <= {1}
    assert report["journals"] == 20
    fsck(tmp_path, store, "--repair")
    assert fsck(tmp_path, store)["findings"] == []


WAITING = """
import sys, mlcore
active = mlcore.Client(sys.argv[1]).start_run()
active.log_metric("m", 1)
print(active.id, flush=True)
sys.stdin.read()
"""


def test_a_run_is_lost_as_soon_as_its_process_is_known_dead(tmp_path: Path) -> None:
    """Guards LOST on this host: RUNNING while the process runs, LOST the moment it is killed."""
    store = tmp_path / "store"
    process = start(tmp_path, WAITING, store)
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    with reading(store) as client:
        back = client.get_run(id)
        assert back.status == "RUNNING"
        process.send_signal(signal.SIGKILL)
        finish(process, -signal.SIGKILL)
        assert back.status == "RUNNING"  # as it was read
        back.refresh()
        assert back.status == "LOST"
        assert client.get_run(id).status == "LOST"
        assert abs(back.last_seen - time.time() * 1000) < 60_000
        assert back.end_time is None


def elsewhere() -> dict[str, object]:
    """Describe a writer of which nothing can be known from here."""
    return {"host": "elsewhere", "boot": "b", "pidns": 1, "pid": 1, "started": "1", "user": "u"}


def test_a_silent_run_of_another_host_is_lost_until_the_next_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the grace of five minutes, and that LOST is never stored: one sign of life undoes it."""
    monkeypatch.setattr("mlcore.journal._writer.this_process", elsewhere)
    store = tmp_path / "store"
    client = mlcore.Client(store)
    live = client.start_run()
    live.log_metric("m", 1)
    (path,) = store.glob("runs/*/*/*.journal")

    def status(age: float) -> str:
        os.utime(path, (time.time() - age, time.time() - age))
        with reading(store) as other:
            assert client.get_run(live.id).status == other.get_run(live.id).status
            assert other.list_runs()[0].status == other.get_run(live.id).status
            return other.get_run(live.id).status

    assert status(0) == "RUNNING"
    assert status(290) == "RUNNING"
    assert status(310) == "LOST"
    assert live.status == "LOST"
    live._sink.sign()  # type: ignore[union-attr]
    assert live.status == "RUNNING"
    assert status(310) == "LOST"
    live.log_metric("m", 2)
    assert client.get_run(live.id).status == "RUNNING"
    assert status(310) == "LOST"
    live.end()
    assert status(310) == "FINISHED"
    client.close()


def test_a_resumed_run_is_lost_when_its_last_process_dies(tmp_path: Path) -> None:
    """Guards LOST after an end: a run that was finished and sealed, resumed, and killed before it logged a row."""
    store = tmp_path / "store"
    run(tmp_path, "import mlcore\nwith mlcore.start_run(key='k'): mlcore.log_metric('m', 1)", MLCORE_STORE=str(store))
    code = """
        import sys, mlcore
        active = mlcore.start_run(key="k", resume="must")
        print(active.id, flush=True)
        sys.stdin.read()
    """
    process = start(tmp_path, code, MLCORE_STORE=str(store))
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    with reading(store) as client:
        assert client.get_run(id).status == "RUNNING"
        process.kill()
        finish(process, None)
        assert client.get_run(id).status == "LOST"
    with reading(store) as client:
        assert client.get_run(id).status == "LOST"
        assert client.get_run(id).metrics == {"m": 1.0}


def test_a_process_id_that_was_given_again_is_not_taken_for_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against reuse: the process of that number started at another time than the writer."""
    from mlcore.journal import this_process

    monkeypatch.setattr("mlcore.journal._writer.this_process", lambda: {**this_process(), "started": "12345"})
    client = mlcore.Client(tmp_path / "store")
    live = client.start_run()
    live.log_metric("m", 1)
    assert client.get_run(live.id).status == "LOST"
    live.end()
    client.close()
