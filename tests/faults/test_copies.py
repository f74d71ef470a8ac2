"""Copies of a store answer as the original does, whenever and however they were made."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import mlcore
from faults.processes import answers, finish, fsck, reading, run, start
from mlcore_local.seal import NAME

LOGGING = """
import os, sys, time, mlcore
store, key = sys.argv[1:]
active = mlcore.Client(store).start_run(name="copied", key=key or None, experiment="späßchen")
print(active.id, flush=True)
step = 0
deadline = time.time() + 200
while time.time() < deadline and not os.path.exists("stop"):
    active.log_metrics({"a": step, "b": float("nan")}, step)
    active.log_metric("c", -step)
    active.log_points("d", range(step * 10, step * 10 + 10), range(10))
    active.log_param(f"p{step}", [step, None, 1.0])
    step += 1
    time.sleep(0.002)
active.set_tag("done", True)
active.end()
"""


def copy(source: Path, target: Path) -> None:
    """Copy as people do, onto what is there."""
    target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-r", f"{source}/.", str(target)], check=True)


def test_a_store_copied_while_it_is_written_and_again_later_answers_alike(tmp_path: Path) -> None:
    """Guards backups: copies of a live store can be read, and `cp -r` once more makes them equal the original."""
    store, other, id = tmp_path / "store", tmp_path / "copy", ""
    old = mlcore.Client(store)
    with old.start_run() as first:
        first.log_metric("x", 1)
    old.close()
    writers = [start(tmp_path, LOGGING, store, key) for key in ("", "job 7")]
    ids = []
    for writer in writers:
        assert writer.stdout is not None
        ids.append(writer.stdout.readline().strip())
    live = mlcore.Client(other)  # a handle that is open all the time
    for _ in range(4):
        time.sleep(random.random() * 0.2)
        copy(store, other)
        for id in ids:
            back = live.get_run(id)
            assert back.status == "RUNNING"
            assert abs(back.last_seen - time.time() * 1000) < 60_000
            if back.metrics:
                steps = list(back.series("a").steps)
                assert steps == list(range(len(steps)))
        found = fsck(tmp_path, other)["findings"]
        assert {each["severity"] for each in found} <= {"torn"}
    (tmp_path / "stop").touch()
    for writer in writers:
        finish(writer)
    for id in ids:
        # the process is gone, and in the copy that says nothing
        assert live.get_run(id).status == "RUNNING"
        os.utime(next((other / "runs" / id[-2:] / id).glob("*.journal")), (1, 1))
        assert live.get_run(id).status == "RUNNING"
    copy(store, other)
    expected = answers(store)
    assert answers(other) == expected
    assert {live.get_run(id).status for id in ids} == {"FINISHED"}
    assert fsck(tmp_path, other)["findings"] == []
    live.close()
    # and without what can be made anew
    for path in other.glob(f"runs/*/*/{NAME}"):
        path.unlink()
    assert answers(other) == expected


def test_run_folders_copied_into_another_store_bring_their_runs_along(tmp_path: Path) -> None:
    """Guards merging by `cp -r` of run folders: the other store answers for them, and keeps its own."""
    one, two = tmp_path / "one", tmp_path / "two"
    for number in range(3):
        code = """
            import mlcore, sys
            number = int(sys.argv[1])
            with mlcore.start_run(experiment=f"e{number % 2}", key=f"k{number}", tags={"n": number}) as active:
                active.log_param("p", number)
                for step in range(50):
                    active.log_metric("m", step * number)
        """
        run(tmp_path, code, number, MLCORE_STORE=str(one))
    code = "import mlcore\nwith mlcore.start_run(experiment='e0', key='k0', rewind_to=9): mlcore.log_metric('m', .5)"
    run(tmp_path, code, MLCORE_STORE=str(one))
    with mlcore.Client(two).start_run() as own:
        own.log_metric("m", 7)
    expected = answers(one) | answers(two)
    live = mlcore.Client(two)
    assert len(live.list_runs("*")) == 1
    for folder in one.glob("runs/*/*"):
        target = two / folder.relative_to(one).parent
        target.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", str(folder), str(target)], check=True)
    assert answers(two) == expected
    assert len(live.list_runs("*")) == 4, "an open handle sees them, too"
    assert [each.tags["n"] for each in reversed(live.list_runs("e1"))] == [1]
    live.close()
    assert fsck(tmp_path, two)["findings"] == []
    # a run that was merged is resumed where it was left
    code = """
        import mlcore
        with mlcore.start_run(experiment="e1", key="k1", resume="must") as active:
            active.log_metric("m", 1)
            assert active.series("m").steps[-1] == 50, active.series("m").steps
    """
    run(tmp_path, code, MLCORE_STORE=str(two))


def test_a_moved_or_zipped_store_answers_alike(tmp_path: Path) -> None:
    """Guards against absolute paths: moved away, and through a zip file, a store says the same."""
    store = tmp_path / "store"
    for code in ("with mlcore.start_run(): mlcore.log_metric('m', 1)", "mlcore.create_experiment('x', tags={'a': 1})"):
        run(tmp_path, f"import mlcore\n{code}", MLCORE_STORE=str(store))
    expected = answers(store)
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", store)
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    store.rename(tmp_path / "moved")
    assert answers(tmp_path / "unpacked") == expected
    assert answers(tmp_path / "moved") == expected
    with reading(tmp_path / "unpacked") as client:
        client.create_experiment("y")
        assert client.get_experiment("x").tags == {"a": 1}
