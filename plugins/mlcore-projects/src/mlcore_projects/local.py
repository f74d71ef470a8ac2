"""The runner of this machine: each job has a supervisor, a process of its own that outlives whoever submitted it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import attrs

from mlcore import config, journal
from mlcore_projects import jobs, outputs
from mlcore_projects.runners import Abilities, Handle, Job, Runner, RunnerError, Status

__all__ = ["LocalRunner"]

_OPEN_SECONDS = 60.0  # for a run to be opened
_DETACHED_SECONDS = 1.5  # of which a detached job waits this long for it
# a Python of another environment must not see what was meant for this one
_OF_THIS_PYTHON = ("PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")


class _Process(subprocess.Popen[bytes]):
    def __del__(self) -> None:
        """Warn of nothing: a job may outlive whoever submitted it."""


_children: dict[str, _Process] = {}  # by folder


class LocalRunner(Runner):
    """Run jobs as processes of this machine."""

    name: ClassVar[str] = "local"
    abilities: ClassVar[Abilities] = Abilities(
        folders=True, environments=frozenset({"ready"}), attached=True, detached=True
    )

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or config.user_state() / "jobs"
        self._held: dict[str, int] = {}  # by folder: while it is open, an attached job goes on

    def submit(self, job: Job, *, attached: bool = False) -> dict[str, Any]:
        """See `Runner.submit`."""
        jobs.forget_old(self._root)
        for each in _children.values():
            each.poll()
        reading, answer = os.pipe()
        held, holding = os.pipe() if attached else (-1, -1)
        passed = [fd for fd in (answer, held) if fd >= 0]
        folder = jobs.make(self._root, job.run_id, _content(job, attached, answer, held if attached else None))
        try:
            process = self._start(job, folder, attached, passed)
        except OSError as error:
            raise RunnerError(f"runner local cannot start a process: {error.strerror or error}") from error
        finally:
            for fd in passed:
                os.close(fd)
        _children[str(folder)] = process
        if attached:
            self._held[str(folder)] = holding
        try:
            told = _answer(reading, process, _OPEN_SECONDS if attached else _DETACHED_SECONDS)
        except BaseException:  # Ctrl-C, before there is a handle to cancel by
            os.kill(process.pid, signal.SIGTERM)
            process.wait()
            raise
        if "error" in told:
            process.wait()
            raise RunnerError(str(told["error"]))
        return jobs.handle_of(job.run_id, folder, process.pid)

    def _start(self, job: Job, folder: Path, attached: bool, passed: list[int]) -> _Process:
        quiet = None if attached else os.open(folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if job.environment is not None and (held := job.environment.hold()) is not None:
            passed = [*passed, held]  # as long as the supervisor lives, nobody removes the environment
        try:
            return _Process(
                [sys.executable, "-P", "-m", "mlcore_projects.supervisor", str(folder)],
                stdin=None if attached and not os.isatty(0) else subprocess.DEVNULL,
                stdout=quiet, stderr=quiet, cwd=job.folder, start_new_session=True, pass_fds=passed,
                env={name: each for name, each in os.environ.items() if name != "MLCORE_PROCESS"},
            )  # fmt: skip
        finally:
            if quiet is not None:
                os.close(quiet)

    def status(self, handle: Handle) -> Status:
        """See `Runner.status`."""
        folder = _folder(handle)
        if process := _children.get(str(folder)):
            process.poll()  # so that it is not a zombie
        living = _lives(handle)
        ended = jobs.ended(folder)
        if ended and (ended.get("recorded") or not living):
            return Status(ended["state"], ended.get("exit_code"), ended.get("reason", ""))
        if living is None:
            return Status("running", reason=f"on {handle.get('host')}, which cannot be asked from here")
        if living:
            return Status("running" if "job" in jobs.noted(folder) else "pending")
        return Status("lost", reason=_lost(handle))

    def logs(self, handle: Handle, *, follow: bool = False) -> Iterator[bytes]:
        """See `Runner.logs`."""
        folder = _folder(handle)
        return outputs.follow(folder, lambda: self.status(handle).ended) if follow else outputs.whole(folder)

    def cancel(self, handle: Handle, *, interrupt: bool = False) -> None:
        """See `Runner.cancel`."""
        if _lives(handle):
            with suppress(ProcessLookupError):
                os.kill(int(handle["pid"]), signal.SIGINT if interrupt else signal.SIGTERM)
        elif _lives(handle) is None:
            raise RunnerError(f"the job runs on {handle.get('host')}: cancel it there")

    def wait(self, handle: Handle, timeout: float | None = None) -> Status:
        """See `Runner.wait`."""
        if process := _children.get(str(_folder(handle))):
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
                if (holding := self._held.pop(str(_folder(handle)), None)) is not None:
                    os.close(holding)
            return self.status(handle)
        return super().wait(handle, timeout)


def _content(job: Job, attached: bool, answer: int, submitter: int | None) -> dict[str, Any]:
    own = job.environment is not None and job.environment.kind != "system"
    return {
        "run_id": job.run_id,
        "argv": _argv(job),
        "folder": str(job.folder),
        "variables": (variables := _variables(job)),
        "unset": [name for name in _OF_THIS_PYTHON if own and name not in variables],
        "record": attrs.asdict(job.record),
        "own_python": not own,
        "grace": job.grace,
        "attached": attached,
        "answer": answer,
        "submitter": submitter,
    }


def _argv(job: Job) -> list[str]:
    program, *arguments = job.argv
    if program == "python" and job.environment is not None:
        program = str(job.environment.python)
    return [program, *arguments]


def _variables(job: Job) -> dict[str, str]:
    """Return what the job's process has beside what this one has."""
    own = {} if job.environment is None else dict(job.environment.variables)
    live = {} if "PYTHONUNBUFFERED" in os.environ else {"PYTHONUNBUFFERED": "1"}  # output comes as it is printed
    return {**live, **own, **job.variables}


def _answer(reading: int, process: subprocess.Popen[bytes], patience: float) -> dict[str, Any]:
    """Return what the supervisor says of the run, nothing if that takes longer than there is patience."""
    data, deadline = b"", time.monotonic() + patience
    try:
        while not data.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([reading], [], [], left)[0]:
                return {}
            if not (more := os.read(reading, 1 << 16)):
                return {"error": f"the job's supervisor ended with exit code {process.wait()}"}
            data += more
        found: dict[str, Any] = json.loads(data)
        return found
    finally:
        os.close(reading)


def _folder(handle: Handle) -> Path:
    try:
        return Path(handle["folder"])
    except (KeyError, TypeError):
        raise RunnerError(f"{handle!r:.200} is no handle of runner local") from None


def _lives(handle: Handle) -> bool | None:
    """Tell whether the supervisor runs; None if that cannot be known from this machine."""
    here = journal.this_process()
    if handle.get("host") != here["host"] or (
        handle.get("boot") == here["boot"] and handle.get("pidns") != here["pidns"]
    ):
        return None
    if handle.get("boot") != here["boot"]:
        return False  # it was started anew since
    return bool(handle.get("started")) and journal.started(int(handle["pid"])) == handle["started"]


def _lost(handle: Handle) -> str:
    if handle.get("boot") != journal.this_process()["boot"]:
        return "the machine was started anew"
    return "its supervisor was killed"
