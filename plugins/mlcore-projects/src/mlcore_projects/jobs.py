"""The folder of a job on this machine: what was to run, what it printed, and how it ended."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["ROOM", "end", "ended", "folders", "forget_old", "handle_of", "make", "note", "noted", "read"]

ROOM = 2_048  # bytes that how a job ended may take: they are there before it starts, should the disk be full then
_JOB, _NOTE, _END = "job.json", "supervisor.json", "end.json"
_KEPT_SECONDS = 24 * 3600


def make(root: Path, run_id: str, job: Mapping[str, Any]) -> Path:
    """Make the folder of a job, which nobody else may read, as variables are in it."""
    folder = root / f"{run_id}-{os.urandom(4).hex()}"
    folder.mkdir(mode=0o700, parents=True)
    _write(folder / _JOB, job)
    (folder / _END).write_bytes(b" " * ROOM)
    return folder


def read(folder: Path) -> dict[str, Any]:
    """Return what was to run."""
    found: dict[str, Any] = json.loads((folder / _JOB).read_bytes())
    return found


def note(folder: Path, about: Mapping[str, Any]) -> None:
    """Keep what a supervisor says of itself and of the job's process."""
    with suppress(OSError):
        _write(folder / _NOTE, about)


def noted(folder: Path) -> dict[str, Any]:
    """Return what a supervisor said of itself, nothing if it did not come that far."""
    return _content(folder / _NOTE)


def end(folder: Path, about: Mapping[str, Any]) -> None:
    """Keep how a job ended: `state`, `exit_code`, `reason`, and whether its run knows (`recorded`).

    It is written over the room that was made for it, so that a full disk takes it, too.
    """
    text = json.dumps({**about, "reason": str(about.get("reason", ""))[:300], "time": int(time.time() * 1000)})
    with suppress(OSError), open(folder / _END, "rb+", buffering=0) as file:
        file.write(text.encode()[:ROOM].ljust(ROOM))


def ended(folder: Path) -> dict[str, Any]:
    """Return how a job ended, nothing if that is not known."""
    return _content(folder / _END)


def folders(root: Path) -> Iterator[Path]:
    """Yield the folders of all jobs that are remembered."""
    with suppress(OSError):
        yield from sorted(path for path in root.iterdir() if (path / _JOB).exists())


def forget_old(root: Path) -> None:
    """Remove the folders of jobs that ended over a day ago, and of which the run knows all."""
    for folder in folders(root):
        known = ended(folder)
        if known.get("recorded") and time.time() - known.get("time", 0) / 1000 > _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def handle_of(run_id: str, folder: Path, pid: int) -> dict[str, Any]:
    """Return the handle of a job of this machine whose supervisor is the process `pid`."""
    from mlcore import journal

    here = journal.this_process()
    about = {name: here[name] for name in ("host", "boot", "pidns")}
    return {
        "runner": "local",
        "run": run_id,
        "folder": str(folder),
        **about,
        "pid": pid,
        "started": journal.started(pid),
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that nobody else may read, whole or not at all. Raises `OSError`."""
    beside = path.with_suffix(".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    beside.replace(path)


def _content(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
