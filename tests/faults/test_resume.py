"""A requeued job is the same run: found by its key, opened by one, gone on with where it was left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import mlcore
from faults.processes import crowd, finish, fsck, reading, run, start
from mlcore.errors import InvalidValue, NotFound, RunStateError

JOB = """
    import sys, mlcore
    active = mlcore.start_run(key="job 1", {options})
    first = int(sys.argv[1])
    for step in range(first, first + 10):
        active.log_metric("m", step + 0.5)
    active.log_params({{"lr": 0.1, f"by{{first}}": first}})
    print(active.id, active._opener, flush=True)
    {end}
"""


def job(home: Path, first: int, options: str = "", end: str = "active.end()") -> str:
    """Return the code of a job."""
    return JOB.format(options=options, end=end)


def test_a_job_that_was_killed_and_requeued_is_the_same_run(tmp_path: Path) -> None:
    """Guards `key=`: after SIGKILL the next process opens the run again, its steps go on, and nothing is repeated."""
    store = tmp_path / "store"
    process = start(tmp_path, job(tmp_path, 0, end="sys.stdin.read()"), 0, MLCORE_STORE=str(store))
    assert process.stdout is not None
    id, opener = process.stdout.readline().split()
    process.kill()
    finish(process, -signal.SIGKILL)
    out, _ = run(tmp_path, job(tmp_path, 10), 10, MLCORE_STORE=str(store))
    assert (opener, out.split()) == ("True", [id, "True"])
    out, _ = run(tmp_path, job(tmp_path, 20), 20, MLCORE_STORE=str(store))
    assert out.split() == [id, "True"], "after a normal end, too"
    with reading(store) as client:
        (back,) = client.list_runs()
        assert (back.id, back.status) == (id, "FINISHED")
        assert list(back.series("m").steps) == list(range(30))
        assert list(back.series("m").values) == [step + 0.5 for step in range(30)]
        assert back.params == {"lr": 0.1, "by0": 0, "by10": 10, "by20": 20}
        assert back.conflicts == ()
    assert fsck(tmp_path, store)["findings"] == []


def test_rows_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    """Guards `rewind_to`: what was logged after that step is gone, and the next step is the one after it."""
    store = tmp_path / "store"
    run(tmp_path, job(tmp_path, 0), 0, MLCORE_STORE=str(store))
    code = """
        import mlcore
        with mlcore.start_run(key="job 1", rewind_to=4, resume="must") as active:
            active.log_metric("m", 100)
            active.log_metric("new", 1)
    """
    run(tmp_path, code, MLCORE_STORE=str(store))
    with reading(store) as client:
        (back,) = client.list_runs()
        assert list(back.series("m").steps) == [0, 1, 2, 3, 4, 5]
        assert list(back.series("m").values) == [0.5, 1.5, 2.5, 3.5, 4.5, 100]
        assert back.metrics == {"m": 100, "new": 1}


def test_of_jobs_that_arrive_at_once_one_opens_the_run(tmp_path: Path) -> None:
    """Guards fencing: 8 processes with one key make one run, one of them opens it, and the others only log."""
    store = tmp_path / "store"
    code = """
        import mlcore
        together()
        with mlcore.start_run(key="job 1", name="shared") as run:
            run.log_metric("m", rank, rank)
            print(run.id, run._opener)
            together()
    """
    lines = [text.split("\n")[-2].split() for text in crowd(tmp_path, code, 8, MLCORE_STORE=str(store))]
    assert len({id for id, _ in lines}) == 1
    assert sorted(opener for _, opener in lines) == ["False"] * 7 + ["True"]
    with reading(store) as client:
        (back,) = client.list_runs()
        assert (back.name, back.status) == ("shared", "FINISHED")
        assert list(back.series("m").values) == list(range(8))
    assert fsck(tmp_path, store)["findings"] == []


def test_a_run_is_open_until_its_opener_ends_it(tmp_path: Path) -> None:
    """Guards ranks that end early: a process that joined leaves the run RUNNING."""
    store = tmp_path / "store"
    opener = mlcore.Client(store).start_run(key="job 1")
    out, _ = run(tmp_path, job(tmp_path, 0), 0, MLCORE_STORE=str(store))
    assert out.split() == [opener.id, "False"]
    assert opener.status == "RUNNING"
    opener.end("FAILED")
    assert opener.status == "FAILED"
    assert len(opener.series("m")) == 10


@pytest.mark.parametrize("moment", ["claimed", "journal"])
def test_a_job_killed_while_it_starts_can_be_started_again(moment: str, tmp_path: Path) -> None:
    """Guards the moments between claim and journal: the next process has a run with a name and an experiment."""
    store = tmp_path / "store"
    place = {"claimed": "mlcore.tracking._backend.Backend.sink", "journal": "mlcore.tracking._thing.Thing._write"}[
        moment
    ]
    code = f"""
        import os, mlcore, mlcore.tracking._backend, mlcore.tracking._thing
        {place} = lambda *_: os.kill(os.getpid(), 9)
        mlcore.start_run(key="job 1", name="mine", experiment="e")
    """
    run(tmp_path, code, status=-9, MLCORE_STORE=str(store))
    code = "import mlcore\nwith mlcore.start_run(key='job 1', name='mine', experiment='e'): mlcore.log_metric('m', 1)"
    run(tmp_path, code, MLCORE_STORE=str(store))
    with reading(store) as client:
        (back,) = client.list_runs("e")
        assert (back.name, back.status, back.metrics) == ("mine", "FINISHED", {"m": 1.0})
    assert fsck(tmp_path, store)["findings"] == []


def test_resume_must_and_never_mean_it(tmp_path: Path) -> None:
    """Guards `resume`: "must" asks for a run that is there, "never" for one that is not."""
    client = mlcore.Client(tmp_path / "store")
    with pytest.raises(NotFound, match=r"there is no run .* to resume"):
        client.start_run(key="a", resume="must")
    with client.start_run(key="a", resume="never") as first:
        pass
    with pytest.raises(RunStateError, match=r"exists already .*resume='never'"):
        client.start_run(key="a", resume="never")
    with pytest.raises(InvalidValue, match=r"resume is 'allow', 'must' or 'never', not 'maybe'"):
        client.start_run(key="a", resume="maybe")
    with client.start_run(key="a", resume="must") as second:
        assert second.id == first.id
    with client.start_run(key="a", experiment="other") as third:
        assert third.id != first.id, "a key counts within its experiment"
    with client.start_run(run_id=first.id, resume="must", experiment="other") as fourth:
        assert fourth.id == first.id
    assert mlcore.active_run() is None
    client.close()


@pytest.mark.parametrize("id", ["x", "A" * 32, "0" * 31, "../" * 10 + "00", "0" * 32 + "\n"])
def test_an_invalid_run_id_is_told_of(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards MLCORE_RUN_ID, which becomes the name of a folder."""
    monkeypatch.setenv("MLCORE_RUN_ID", id)
    with pytest.raises(InvalidValue, match="is not 32 lower-case hex digits"):
        mlcore.Client(tmp_path / "store").start_run()
    assert not (tmp_path / "store").exists()


def test_an_empty_run_id_in_the_environment_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards job scripts that export MLCORE_RUN_ID="": a new run, without asking the store or claiming anything."""
    monkeypatch.setenv("MLCORE_RUN_ID", "")
    with mlcore.Client(tmp_path / "store").start_run() as active:
        assert active._opener
    assert list((tmp_path / "store" / "claims").iterdir()) == []
    with pytest.raises(InvalidValue, match="is not 32 lower-case hex digits"):
        mlcore.Client(tmp_path / "store").start_run(run_id="")
