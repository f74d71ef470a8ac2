"""Run real processes on a store, and look at what they left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlcore import Client

SECONDS = 240  # for a machine that is busy with other tests, too


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Return an environment in which `home` is the home folder, and nothing of whoever runs the tests is set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLCORE_", "XDG_"))}
    places = {"CACHE": "cache", "CONFIG": "config", "STATE": "state"}
    folders = {"HOME": str(home)} | {f"XDG_{name}_HOME": str(home / place) for name, place in places.items()}
    return {**kept, **folders, **settings}


def start(home: Path, code: str, *arguments: object, **settings: str) -> subprocess.Popen[str]:
    """Start a Python process that runs `code` in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=home, env=environment(home, **settings), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int | None = 0, text: str = "") -> tuple[str, str]:
    """Wait for the end of a process; return what it printed on stdout and stderr."""
    try:
        out, err = process.communicate(text, timeout=SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and what it forked
    assert code is None or process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def run(home: Path, code: str, *arguments: object, status: int | None = 0, **settings: str) -> tuple[str, str]:
    """Run `code` to its end; return what it printed on stdout and stderr."""
    return finish(start(home, code, *arguments, **settings), status)


def mlcore(home: Path, *arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m mlcore``."""
    return subprocess.run(
        [sys.executable, "-m", "mlcore", *map(str, arguments)],
        cwd=home, env=environment(home, **settings), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def fsck(home: Path, store: Path, *options: str) -> dict[str, Any]:
    """Return what ``mlcore fsck --json`` says, which must not be that anything is damaged."""
    done = mlcore(home, "fsck", "--store", store, "--json", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def reading(store: Path) -> Iterator[Client]:
    """Open a client for a store, and close it."""
    client = Client(store)
    yield client
    client.close()


def answers(store: Path) -> dict[str, Any]:
    """Return all that a store answers, but for the signs of life of the moment."""
    with reading(store) as client:
        found: dict[str, Any] = {}
        for each in client.list_experiments(include_deleted=True):
            found[f"experiment {each.id}"] = (each.name, each.deleted, each.tags)
        for run in client.list_runs("*", include_deleted=True):
            series = client.store.series("run", [run.id])
            found[f"run {run.id}"] = {
                "name": run.name,
                "status": run.status,
                "experiment": run.experiment_id,
                "times": (run.start_time, run.end_time),
                "deleted": run.deleted,
                "note": run.note,
                "params": {key: (type(value).__name__, repr(value)) for key, value in run.params.items()},
                "tags": run.tags,
                "metrics": {key: repr(value) for key, value in run.metrics.items()},
                "conflicts": [(each.family, each.name, repr(each.value)) for each in run.conflicts],
                "series": {
                    key[1:]: [bytes(memoryview(columns[name])) for name in ("step", "time", "value")]  # type: ignore[arg-type]
                    for key, columns in series.items()
                },
            }
        return found


# Imports once and forks, as starting 64 interpreters is not what the tests are about.
_CROWD = """
import os, sys, multiprocessing, mlcore, mlcore.tracking, mlcore_local.store, mlcore_local.seal
for name in os.environ.get("IMPORTS", "").split():
    __import__(name)
code, count, folder = compile(sys.argv[1], "crowd", "exec"), int(sys.argv[2]), sys.argv[3]
together = multiprocessing.get_context("fork").Barrier(count).wait
pids = []
for rank in range(count):
    pid = os.fork()
    if not pid:
        os.dup2(os.open(f"{folder}/{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        exec(code)
        break
    pids.append(pid)
else:
    print(*pids, flush=True)
    print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""


def crowd(home: Path, code: str, count: int, *arguments: object, kill: Any = None, **settings: str) -> list[str]:
    """Run `code` in `count` processes at once, which know their `rank`, and `together`, a barrier; return their output.

    `kill` is called with their ids, and may end some. The setting ``IMPORTS`` names what else is imported before.
    """
    folder = home / f"crowd-{os.urandom(4).hex()}"
    folder.mkdir(parents=True)
    process = start(home, _CROWD, textwrap.dedent(code), count, folder, *arguments, **settings)
    assert process.stdout is not None
    pids = [int(each) for each in process.stdout.readline().split()]
    if kill is not None:
        kill(pids)
    out, err = finish(process)
    texts = [(folder / str(rank)).read_text() if (folder / str(rank)).exists() else "" for rank in range(count)]
    assert kill or set(out.split()) == {"0"}, "".join(texts) + err
    return texts
