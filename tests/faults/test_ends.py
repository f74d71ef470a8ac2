"""How runs end with their processes, blocks, threads and tasks."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

import mlcore
from faults.processes import finish, reading, run, start
from mlcore.errors import InvalidValue, ParamConflict, RunStateError

BLOCK = "with mlcore.start_run(): mlcore.log_metric('m', 1); "
OPEN = "mlcore.start_run(); mlcore.log_metric('m', 1); "
AUTO = "mlcore.log_metric('m', 1); "
INTERRUPT = "import signal; signal.raise_signal(signal.SIGINT)"
WORKER = """
import multiprocessing
def work(fail):
    mlcore.log_metric('m', 1)
    if fail: raise ValueError('expected')
process = multiprocessing.get_context('fork').Process(target=work, args=({fail},))
process.start(); process.join()
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "status"),
    [
        (BLOCK, 0, "FINISHED"),
        (OPEN, 0, "FINISHED"),
        (AUTO, 0, "FINISHED"),
        (OPEN + "mlcore.end_run('KILLED')", 0, "KILLED"),
        (BLOCK + "1/0", 1, "FAILED"),
        (OPEN + "1/0", 1, "FAILED"),
        (AUTO + "1/0", 1, "FAILED"),
        (BLOCK + INTERRUPT, None, "KILLED"),
        (OPEN + INTERRUPT, None, "KILLED"),
        (AUTO + INTERRUPT, None, "KILLED"),
        (BLOCK + "raise SystemExit", 0, "FINISHED"),
        (BLOCK + "sys.exit(0)", 0, "FINISHED"),
        (BLOCK + "sys.exit(3)", 3, "FAILED"),
        (BLOCK + "sys.exit('no data')", 1, "FAILED"),
        (OPEN + "sys.exit(0)", 0, "FINISHED"),
        (AUTO + "sys.exit(0)", 0, "FINISHED"),
        (BLOCK + "os._exit(0)", 0, "LOST"),
        (OPEN + "os.kill(os.getpid(), 15)", -15, "LOST"),
        (OPEN + "threading.Thread(target=lambda: 1/0).start()", 0, "FINISHED"),
        (AUTO + "import logging; logging.disable()", 0, "FINISHED"),
        (WORKER.format(fail=False), 0, "FINISHED"),
        # since 3.13 nobody is told how a worker ended; `with start_run()` knows
        (WORKER.format(fail=True), 0, "FAILED" if sys.version_info < (3, 13) else "FINISHED"),
    ],
)
def test_a_run_ends_as_its_process_does(code: str, exit_code: int | None, status: str, tmp_path: Path) -> None:
    """Guards the status of each way out: end, error, interrupt, exit code, `os._exit`, a signal, a worker process."""
    store = tmp_path / "store"
    run(tmp_path, f"import os, sys, threading, mlcore\n{code}", status=exit_code, MLCORE_STORE=str(store))
    with reading(store) as client:
        (back,) = client.list_runs()
        assert (back.status, back.metrics) == (status, {"m": 1.0})
        assert (back.end_time is None) == (status == "LOST")


def test_an_interrupt_from_outside_kills_the_run(tmp_path: Path) -> None:
    """Guards Ctrl-C amid logging: the process ends, the run is KILLED, and every call that returned is there."""
    store = tmp_path / "store"
    code = """
        import os, mlcore
        step = 0
        while True:
            mlcore.log_metric("m", step)
            step += 1
            if step == 100: os.write(1, b"go\\n")
    """
    process = start(tmp_path, code, MLCORE_STORE=str(store))
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(2)
    finish(process, None)
    with reading(store) as client:
        (back,) = client.list_runs()
        assert back.status == "KILLED"
        assert list(back.series("m").values) == list(range(len(back.series("m"))))


def test_an_error_in_an_interactive_session_was_not_the_last_word(tmp_path: Path) -> None:
    """Guards the REPL: an error that was typed earlier does not make the run of the session FAILED."""
    store = tmp_path / "store"
    run(
        tmp_path,
        "import sys, mlcore\nsys.ps1 = '>>> '\nsys.last_value = ValueError()\n" + AUTO,
        MLCORE_STORE=str(store),
    )
    with reading(store) as client:
        assert client.list_runs()[0].status == "FINISHED"


def test_a_run_that_ended_can_be_described_and_not_added_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards what is over: tags and notes may be added, points and params not, and a second end is one warning."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run(tags={"a": 1}) as live:
        live.log_metric("m", 1)
    live.end()
    assert [record.getMessage() for record in caplog.records][-1] == f"run {live.id} has ended already"
    for each in (live, client.get_run(live.id)):
        for _ in range(2):
            for call in (
                lambda: each.log_metric("m", 2),  # noqa: B023
                lambda: each.log_metrics({"m": 2}),  # noqa: B023
                lambda: each.log_points("m", [1], [2]),  # noqa: B023
                lambda: each.log_params({"x": 2}),  # noqa: B023
            ):
                with pytest.raises(RunStateError, match="is FINISHED: resume it"):
                    call()
            each.set_tag("after", 2)
            each.set_note("done")
    back = client.get_run(live.id)
    assert (back.status, back.tags, back.note, back.metrics) == ("FINISHED", {"a": 1, "after": 2}, "done", {"m": 1.0})
    with pytest.raises(InvalidValue, match="a run ends as FINISHED, FAILED, KILLED, not 'DONE'"):
        live.end("DONE")
    client.close()


def test_describing_many_ended_runs_holds_no_files_open(tmp_path: Path) -> None:
    """Guards bulk edits: 300 runs of a listing are tagged by a process that may open 100 files."""
    store = tmp_path / "store"
    code = """
        import resource, mlcore
        client = mlcore.Client("store")
        for number in range(300):
            client.start_run(name=f"{number}").end()
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        runs = client.list_runs()
        for run in runs:
            run.set_tag("x", 1)
        assert len(runs) == 300
    """
    run(tmp_path, code)
    with reading(store) as client:
        assert [each.tags for each in client.list_runs()] == [{"x": 1}] * 300


def test_a_parameter_has_one_value(tmp_path: Path) -> None:
    """Guards `log_param`: the same again is nothing, another an error that names both, a correction wins."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run() as live:
        live.log_param("lr", 0.1)
        live.log_param("lr", 0.1)
        for other in (0.2, "0.1", 1, True, None):
            with pytest.raises(ParamConflict, match=r"param 'lr' is 0\.1, not .*; correct=True replaces it"):
                live.log_param("lr", other)
        live.log_params({"lr": 0.3}, correct=True)
        live.log_param("lr", 0.3)
        assert live.params == {"lr": 0.3}
    client.close()


def test_each_thread_and_task_has_its_own_active_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the context: threads and tasks with a run each do not log into each other's."""
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    client = mlcore.set_store()
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with mlcore.start_run(name=f"thread {number}") as live:
                for _ in range(50):
                    mlcore.log_metric("m", number)
                    assert mlcore.active_run() is live
                with mlcore.start_run(nested=True) as inner:
                    mlcore.log_metric("inner", number)
                    assert inner.parent_run_id == live.id
                assert mlcore.active_run() is live
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            failed.append(error)

    async def task(number: int) -> None:
        with mlcore.start_run(name=f"task {number}"):
            for _ in range(20):
                mlcore.log_metric("m", number)
                await asyncio.sleep(0)

    async def tasks() -> None:
        await asyncio.gather(*map(task, range(8)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(tasks())
    assert failed == []
    assert mlcore.active_run() is None
    for back in client.list_runs():
        if back.parent_run_id is None:
            kind, number = back.name.split()
            assert set(back.series("m").values) == {float(number)}
            assert len(back.series("m")) == (50 if kind == "thread" else 20)
    assert len(client.list_runs()) == 24


def test_threads_without_a_run_share_the_one_that_logging_starts(tmp_path: Path) -> None:
    """Guards the first call: of 16 threads that log at once one starts the run, and all log into it."""
    store = tmp_path / "store"
    code = """
        import sys, threading, mlcore
        sys.setswitchinterval(1e-6)
        barrier = threading.Barrier(16)
        def work():
            barrier.wait()
            for _ in range(20):
                mlcore.log_metric("m", 1)
        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """
    _, err = run(tmp_path, code, MLCORE_STORE=str(store))
    assert "Traceback" not in err
    with reading(store) as client:
        (back,) = client.list_runs()
        assert list(back.series("m").steps) == list(range(320))


def test_a_thread_that_could_mean_several_runs_is_told_so(tmp_path: Path) -> None:
    """Guards against guessing: with one open run a new thread logs into it, with two it must say which."""
    client = mlcore.Client(tmp_path / "store")
    found: list[object] = []

    def ask() -> None:
        try:
            found.append(mlcore.active_run())
        except RunStateError as error:
            found.append(str(error))

    def in_thread() -> object:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return found.pop()

    with client.start_run() as one:
        assert in_thread() is one
        with pytest.raises(RunStateError, match="is active: end it, or start this one inside it"):
            client.start_run()
        with client.start_run(nested=True):
            assert "several runs are open" in str(in_thread())
        assert in_thread() is one
    assert in_thread() is None
    client.close()
