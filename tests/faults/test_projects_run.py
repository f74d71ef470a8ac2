"""``mlcore run`` when things go wrong: nothing is left behind, and the run says what became of it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from faults.processes import environment, finish, reading
from mlcore import Client, Run
from mlcore.errors import NotFound, StoreNotFound

SECONDS = 60
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc: Linux")


@pytest.fixture
def marker() -> Iterator[str]:
    """Return an argument that only processes of this test have, and end those that are left."""
    told = f"marker-{os.urandom(8).hex()}"
    yield told
    for pid in living(told):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def living(marker: str) -> list[int]:
    """Return the processes that have an argument, or a variable, with the marker in it."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and marker.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def gone(marker: str, seconds: float = 30) -> bool:
    """Tell whether no process of the marker is left, now or soon."""
    deadline = time.monotonic() + seconds
    while living(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not living(marker)


def until(path: Path) -> str:
    """Return the content of a file once there is some."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            if text := path.read_text():
                return text
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def start(home: Path, *arguments: object, **settings: str) -> subprocess.Popen[str]:
    """Start ``mlcore run``."""
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "mlcore", "run", *map(str, arguments)],
        cwd=home, env=environment(home, MLCORE_STORE=str(home / "store"), **settings), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def run(home: Path, *arguments: object, status: int = 0, **settings: str) -> str:
    """Run ``mlcore run`` to its end, and return what it printed."""
    return finish(start(home, *arguments, **settings), status)[0]


def reconcile(home: Path) -> list[dict[str, object]]:
    """Run ``mlcore runs reconcile``."""
    done = subprocess.run(
        [sys.executable, "-m", "mlcore", "runs", "reconcile", "--json"], cwd=home, capture_output=True, text=True,
        env=environment(home, MLCORE_STORE=str(home / "store")), timeout=SECONDS, check=True,
    )  # fmt: skip
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def status_of(client: Client, id: str) -> str:
    """Return the status of a run, nothing if it is not open yet."""
    with suppress(NotFound, StoreNotFound):
        return client.get_run(id).status
    return ""


def only(client: Client) -> Run:
    """Return the only run there is."""
    (found,) = client.list_runs("*")
    return found


def output(run: Run, name: str = ".mlcore/output.log") -> str:
    """Return what was kept of a job's output."""
    with run.artifacts.open(name) as file:
        return file.read().decode()


def script(folder: Path, code: str) -> Path:
    """Write a script."""
    folder.mkdir(exist_ok=True)
    path = folder / "job.py"
    path.write_text(textwrap.dedent(code))
    return path


# A job that has children in its group, in another session, and one that is a daemon; none of them ends when asked.
STUBBORN = """
    import os, signal, subprocess, sys, time
    marker, ready = sys.argv[1:]
    def sleep():
        deaf = "import signal, time\\nfor each in (2, 15): signal.signal(each, signal.SIG_IGN)\\n"
        return [sys.executable, "-c", deaf + "print('up', flush=True)\\ntime.sleep(600)", marker]
    for session in (False, True):
        child = subprocess.Popen(sleep(), start_new_session=session, stdout=subprocess.PIPE)
        child.stdout.readline()
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execv(sys.executable, sleep())
        os._exit(0)
    for each in (2, 15):
        signal.signal(each, signal.SIG_IGN)
    print("all are up", flush=True)
    open(ready, "w").write("yes")
    time.sleep(600)
"""


def test_sigkill_of_mlcore_run_leaves_no_process(tmp_path: Path, marker: str) -> None:
    """Guards machines from orphans: whatever a job started ends with the `mlcore run` that it belongs to."""
    job = script(tmp_path, STUBBORN)
    process = start(tmp_path, "--grace", "0.5", "--", "python", job, marker, tmp_path / "ready")
    until(tmp_path / "ready")
    assert len(living(marker)) >= 4
    os.kill(process.pid, signal.SIGKILL)
    finish(process, -signal.SIGKILL)
    assert gone(marker)
    with reading(tmp_path / "store") as client:
        deadline = time.monotonic() + 20
        while only(client).status == "RUNNING" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert only(client).status == "KILLED"
        assert "all are up" in output(only(client))
        assert only(client).context["project.ended"] == "the process that it was submitted from ended"


def test_sigkill_of_the_supervisor_leaves_no_process_and_the_run_is_reconciled(tmp_path: Path, marker: str) -> None:
    """Guards detached jobs whose supervisor is killed for its memory: nothing goes on that nobody knows of."""
    job = script(tmp_path, STUBBORN)
    id = run(tmp_path, "--detach", "--", "python", job, marker, tmp_path / "ready").strip()
    until(tmp_path / "ready")
    with reading(tmp_path / "store") as client:
        assert client.get_run(id).status == "RUNNING"
        handle = client.get_run(id).context["project.handle"]
        until(Path(handle["folder"]) / "output.0")
        os.kill(handle["pid"], signal.SIGKILL)
    assert gone(marker)
    (told,) = reconcile(tmp_path)
    assert told == {"run": id, "status": "FAILED", "reason": "its supervisor was killed", "changed": True}
    with reading(tmp_path / "store") as client:
        assert client.get_run(id).status == "FAILED"
        assert "all are up" in output(client.get_run(id))
    assert reconcile(tmp_path) == []


def test_a_detached_job_returns_at_once_and_ends_by_itself(tmp_path: Path) -> None:
    """Guards --detach: back within two seconds, the job goes on, and its end is written without anybody's help."""
    times, others = [], []
    for _ in range(2):
        began = time.monotonic()
        run(tmp_path, "--help")
        others.append(time.monotonic() - began)
        began = time.monotonic()
        id = run(tmp_path, "--detach", "-q", "--", "sh", "-c", "sleep 1; echo done; exit 7").strip()
        times.append(time.monotonic() - began)
    assert min(times) < max(2, 4 * min(others)), (times, others)  # a machine that is busy starts nothing fast
    assert re.fullmatch("[0-9a-f]{32}", id)
    with reading(tmp_path / "store") as client:
        deadline = time.monotonic() + SECONDS
        while status_of(client, id) in ("", "RUNNING") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status_of(client, id) == "FAILED"
        assert client.get_run(id).context["project.exit_code"] == 7
        assert output(client.get_run(id)) == "done\n"
    assert reconcile(tmp_path) == []


AT_A_TERMINAL = """
    import fcntl, os, sys, termios
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.execv(sys.executable, [sys.executable, "-m", "mlcore", "run", *sys.argv[1:]])
"""


@pytest.mark.parametrize("polite", [True, False])
def test_ctrl_c_ends_the_run_as_killed_with_its_output(polite: bool, tmp_path: Path, marker: str) -> None:
    """Guards Ctrl-C at a terminal: the job is interrupted and may say so, or is killed after its grace."""
    job = script(tmp_path, """
        import sys, time
        print("at it", flush=True)
        open(sys.argv[2], "w").write("yes")
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            print("saved", flush=True)
            sys.exit(0)
    """ if polite else STUBBORN)  # fmt: skip
    ours, theirs = pty.openpty()
    arguments = ["--grace", "30" if polite else "0.3", "--", "python", str(job), marker, str(tmp_path / "ready")]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(AT_A_TERMINAL), *arguments], cwd=tmp_path,
        env=environment(tmp_path, MLCORE_STORE=str(tmp_path / "store")), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    try:
        until(tmp_path / "ready")
        shown = b""
        while (b"at it" if polite else b"all are up") not in shown:  # a terminal drops at Ctrl-C what nobody read yet
            shown += os.read(ours, 4096)
        os.write(ours, b"\x03")
        with suppress(OSError):  # the other end is closed
            while data := os.read(ours, 4096):
                shown += data
        assert process.wait(SECONDS) == 130
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    assert gone(marker)
    with reading(tmp_path / "store") as client:
        assert only(client).status == "KILLED"
        assert only(client).context["project.ended"] == "interrupted"
        kept = output(only(client))
        assert kept == "at it\nsaved\n" if polite else "all are up" in kept
    assert ("saved" if polite else "all are up") in shown.decode()
    assert "Traceback" not in shown.decode()


def test_a_job_that_was_preempted_goes_on_as_the_same_run(tmp_path: Path) -> None:
    """Guards requeued jobs: SIGTERM ends the run as KILLED, and --resume goes on with its project and parameters."""
    script(tmp_path, """
        import sys, time, mlcore
        from pathlib import Path
        done = int(Path("checkpoint").read_text()) if Path("checkpoint").exists() else None
        with mlcore.start_run(rewind_to=done) as run:
            for step in range(0 if done is None else done + 1, 4):
                mlcore.log_metric("loss", 1 / (1 + step), step=step)
                Path("checkpoint").write_text(str(step))
                if step == 1 and done is None:
                    print("preempt me", flush=True)
                    Path("ready").write_text("yes")
                    time.sleep(600)
            print("with", *sys.argv[1:])
    """)  # fmt: skip
    process = start(tmp_path, "job.py", "-P", "lr=0.1", "--env", "system")
    until(tmp_path / "ready")
    process.send_signal(signal.SIGTERM)
    finish(process, 143)
    with reading(tmp_path / "store") as client:
        before = only(client)
        assert before.status == "KILLED"
        assert before.params == {"lr": "0.1"}
    run(tmp_path, "--resume", "@last")
    with reading(tmp_path / "store") as client:
        after = only(client)
        assert (after.id, after.status, after.params) == (before.id, "FINISHED", {"lr": "0.1"})
        assert list(after.series("loss").steps) == [0, 1, 2, 3]
        assert output(after) == "preempt me\n"
        assert output(after, ".mlcore/output-2.log") == "with --lr 0.1\n"


def test_a_key_stands_for_one_run(tmp_path: Path) -> None:
    """Guards job scripts that are the same for the first start and the next: the key decides which it is."""
    for status in (3, 0):
        run(tmp_path, "--key", "night-1", "--", "sh", "-c", f"exit {status}", status=status)
    with reading(tmp_path / "store") as client:
        assert only(client).status == "FINISHED"


def test_what_a_job_leaves_behind_ends_with_it(tmp_path: Path, marker: str) -> None:
    """Guards against daemons that start daemons: all of them end with a job that ended well, and none slows it long."""
    job = script(tmp_path, """
        import os, signal, subprocess, sys, time
        def spread(depth):
            for _ in range(3):
                if not os.fork():
                    os.setsid()
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    if depth:
                        spread(depth - 1)
                    while True:  # as long as there is room it has another child
                        pid = os.fork()
                        if not pid:
                            os.setsid()
                            time.sleep(600)
                        time.sleep(0.2)
        spread(1)
        time.sleep(0.5)
        print("left alone")
    """)  # fmt: skip
    assert "left alone" in run(tmp_path, "--grace", "0.5", "--", "python", job, marker)
    assert gone(marker, 0)
    with reading(tmp_path / "store") as client:
        assert only(client).status == "FINISHED"


def test_100_mb_of_output_are_shown_and_bounded_where_they_are_kept(tmp_path: Path) -> None:
    """Guards disks from jobs that print in a loop: the beginning and the end are kept, and told what is not."""
    job = script(tmp_path, """
        import sys
        print("the beginning")
        for number in range(100):
            sys.stdout.write(f"{number:07}\\n" * 131_072)
        print("the end")
    """)  # fmt: skip
    out = run(tmp_path, "-q", "--", "python", job)
    assert len(out) > 100_000_000
    with reading(tmp_path / "store") as client:
        kept = output(only(client))
        assert 8_000_000 < len(kept) < 13_000_000
        assert kept.startswith("the beginning\n0000000\n")
        assert kept.endswith("0000099\nthe end\n")
        (left_out,) = re.findall(r"\n\.\.\. ([\d,]+) bytes left out \.\.\.\n", kept)
        assert len(kept) - len(f"\n... {left_out} bytes left out ...\n") + int(left_out.replace(",", "")) == len(out)


def test_who_reads_the_output_may_stop(tmp_path: Path) -> None:
    """Guards `mlcore run ... | head -1`: the job goes on to its end."""
    process = start(tmp_path, "--", "python", "-c", "for number in range(200_000): print(number)")
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    process.stdout = None
    finish(process)
    with reading(tmp_path / "store") as client:
        assert only(client).status == "FINISHED"
        assert output(only(client)).endswith("\n199999\n")


def test_a_disk_that_takes_no_output_stops_no_job(tmp_path: Path) -> None:
    """Guards training from a full disk: what fits is kept, the rest shown, and how it ended is known."""
    code = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        sys.argv = ["mlcore", "run", "--", "python", "-c", "for n in range(100_000): print(f'{n:09}')\\nprint('end')"]
        from mlcore.cli import main
        main()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=environment(tmp_path, MLCORE_STORE=str(tmp_path / "store")),
    )  # fmt: skip
    out, err = finish(process)
    assert out.endswith("000099999\nend\n")
    assert re.search(r"[\d,]+ bytes of output could not be kept: File too large", err)
    with reading(tmp_path / "store") as client:
        assert only(client).status == "FINISHED"
        assert output(only(client)).startswith("000000000\n")


def test_a_server_that_is_away_stops_no_job(tmp_path: Path) -> None:
    """Guards spooled stores: the job runs, and its run, with parameters and output, arrives when the server is back."""
    from serving import serving

    with serving(tmp_path / "store") as server:
        port, url = server.port, server.url
        server.stop()
        job = script(tmp_path / "home", "import mlcore\nmlcore.log_metric('loss', 0.5)\nprint('logged')")
        settings = {"MLCORE_SPOOL_WAIT": "0s", "MLCORE_TOKEN": server.token}
        home = tmp_path / "home"
        done = subprocess.run(
            [sys.executable, "-m", "mlcore", "run", job, "-P", "lr=0.1", "--env", "system"], cwd=home, text=True,
            env=environment(home, MLCORE_STORE=url, **settings), capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        server.start()
        assert server.port == port
        known = environment(home, MLCORE_STORE=url, MLCORE_TOKEN=server.token)
        synced = subprocess.run(
            [sys.executable, "-m", "mlcore", "sync"], cwd=home, env=known,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert synced.returncode == 0, synced.stderr
    with reading(tmp_path / "store") as client:
        found = only(client)
        assert (found.status, found.params, found.metrics) == ("FINISHED", {"lr": "0.1"}, {"loss": 0.5})
        assert ".mlcore/output.log" in [each.path for each in found.artifacts.list(".mlcore")]
