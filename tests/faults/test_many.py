"""Many processes at once: nothing of anybody's is lost, and every name has one owner."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.processes import crowd, fsck, reading
from mlcore.errors import AlreadyExists

PROCESSES, CLAIMANTS = 64, 16
POINTS = """
from mlcore import active_run, start_run
together()
with start_run() as run:
    for step in range(1000):
        run.log_metric(f"m{rank % 4}", rank * 1000 + step, step)
    assert run is active_run()
    print("run", run.id, run._opener, flush=True)
    together()  # who comes when the opener has ended opens it again
"""


def logged(home: Path, **settings: str) -> list[list[str]]:
    """Let 64 processes log 1,000 points each at once; return what each printed, which must be no error."""
    texts = crowd(home, POINTS, PROCESSES, **settings)
    lines = [line for text in texts for line in text.splitlines() if "made a store at" not in line]
    assert all(line.startswith("run ") for line in lines), lines
    assert sum("made a store at" in text for text in texts) == 1
    return [line.split()[1:] for line in lines]


def test_sixty_four_processes_log_into_one_run(tmp_path: Path) -> None:
    """Guards data-parallel training: 64 ranks join one run by MLCORE_RUN_ID, and 64,000 points are there."""
    store, id = tmp_path / "store", f"{random.getrandbits(128):032x}"
    lines = logged(tmp_path, MLCORE_STORE=str(store), MLCORE_RUN_ID=id)
    assert {line[0] for line in lines} == {id}
    assert [line[1] for line in lines].count("True") == 1, "one process opens the run"
    with reading(store) as client:
        (back,) = client.list_runs()
        assert back.status == "FINISHED"
        found = []
        for key in sorted(back.metrics):
            series = back.series(key)
            assert list(series.steps) == sorted(series.steps)
            found += [int(value) for value in series.values]
        assert sorted(found) == list(range(PROCESSES * 1000))
    assert fsck(tmp_path, store)["findings"] == []


def test_sixty_four_processes_log_into_runs_of_their_own(tmp_path: Path) -> None:
    """Guards a sweep: 64 runs start in one new store at once, and 64,000 points are there."""
    store = tmp_path / "store"
    lines = logged(tmp_path, MLCORE_STORE=str(store), MLCORE_EXPERIMENT="sweep")
    with reading(store) as client:
        runs = client.list_runs("sweep")
        assert {run.id for run in runs} == {line[0] for line in lines}
        assert len(runs) == PROCESSES
        assert {run.status for run in runs} == {"FINISHED"}
        assert [each.name for each in client.list_experiments()] == ["sweep"]
        found = []
        for run in runs:
            ((key, _),) = run.metrics.items()
            series = run.series(key)
            assert list(series.steps) == list(range(1000))
            found += [int(value) for value in series.values]
        assert sorted(found) == list(range(PROCESSES * 1000))
    assert fsck(tmp_path, store)["findings"] == []


CLAIMS = """
import random
from mlcore import Client
from mlcore.errors import AlreadyExists
from mlcore.store import Batch, Created, Record, clock
store, way = sys.argv[4:]
if way == "without locks":
    import fcntl
    def flock(*_):
        raise OSError(95, "Operation not supported")
    fcntl.flock = flock
client = Client(store)
names = list(range(100))
random.shuffle(names)
together()
for name in names:
    try:
        if way == "experiment":
            client.create_experiment(f"name {name}", tags={"owner": str(rank)})
        else:
            events = (Created("thing", f"{name}", "", {"owner": str(rank)}),)
            record = Record(1, clock.tick(), events)
            client.store.append(Batch(os.urandom(16).hex(), "", (record,), "", f"thing/{name}"))
    except AlreadyExists:
        continue
    os.write(1, f"{name}\\n".encode())
"""


def claim(home: Path, store: Path, way: str, kill: Callable[[list[int]], None] | None = None) -> list[set[int]]:
    """Let 16 processes claim 100 names at once; return what each was given."""
    outs = crowd(home, CLAIMS, CLAIMANTS, store, way, kill=kill)
    return [{int(line) for line in out[: out.rfind("\n") + 1].split() if line.isdigit()} for out in outs]


@pytest.mark.parametrize("way", ["batch", "without locks"])
def test_claimed_names_have_one_owner_each(way: str, tmp_path: Path) -> None:
    """Guards claims: of 16 processes that append the same 100 one is told yes for each, and the store says so, too.

    A network disk may have no locks: there it is the link that lets one of them have it.
    """
    store = tmp_path / "store"
    given = claim(tmp_path, store, way)
    assert sorted(name for each in given for name in each) == list(range(100))
    assert sum(map(bool, given)) > 1, "they took turns"
    with reading(store) as client:
        for rank, names in enumerate(given):
            for name in names:
                (entity,) = client.store.get("thing", [f"{name}"])
                assert entity is not None and entity.fields == {"owner": str(rank)}
    assert fsck(tmp_path, store)["findings"] == []


def test_experiments_have_one_maker_each(tmp_path: Path) -> None:
    """Guards `create_experiment`: of 16 processes one makes each of 100, the others are told that it exists."""
    store = tmp_path / "store"
    given = claim(tmp_path, store, "experiment")
    assert sorted(name for each in given for name in each) == list(range(100))
    with reading(store) as client:
        experiments = client.list_experiments()
        assert sorted(each.name for each in experiments) == sorted(f"name {name}" for name in range(100))
        for each in experiments:
            assert int(each.name.split()[1]) in given[int(each.tags["owner"])]
    assert fsck(tmp_path, store)["findings"] == []


def test_a_kill_leaves_no_claim_without_its_batch(tmp_path: Path) -> None:
    """Guards against orphans: half of 16 claimants are killed; each name taken has its batch, the others are free."""
    store = tmp_path / "store"

    def kill_half(pids: list[int]) -> None:
        while len(list(store.glob("claims/*/*.journal"))) < 10:
            time.sleep(0.001)
        for pid in pids[::2]:
            time.sleep(random.random() * 0.03)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    given = claim(tmp_path, store, "batch", kill_half)
    told = [name for each in given for name in each]
    assert len(told) == len(set(told))
    files = list(store.glob("claims/*/*.journal"))
    with reading(store) as client:
        entities = client.store.get("thing", [f"{name}" for name in range(100)])
        owned = {int(each.id): int(each.fields["owner"]) for each in entities if each is not None}
        assert len(files) == len(owned) == 100, "those who lived on claimed what was left"
        for rank, names in enumerate(given):
            assert all(owned[name] == rank for name in names)
        for name in range(100):
            try:
                client.create_experiment(f"name {name}")
            except AlreadyExists:  # pragma: no cover
                raise AssertionError("nobody made it") from None
    # who is killed right after a claim has it in no journal yet, or in one that has just begun: told of, and mended
    assert {each["severity"] for each in fsck(tmp_path, store)["findings"]} <= {"alone", "torn"}
    fsck(tmp_path, store, "--repair")
    assert fsck(tmp_path, store)["findings"] == []
