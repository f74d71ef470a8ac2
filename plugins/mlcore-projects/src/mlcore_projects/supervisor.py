"""The process that stands by a job: ``python -m mlcore_projects.supervisor FOLDER``.

It opens the run, lets the job start, keeps what it prints, and ends the run as the job ended. Whoever submitted the job
holds a pipe to it: when that process dies, the job ends, unless it is detached. mlcore is imported after the process
that the job is started from was forked, so that this one has a single thread until then.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlcore_projects import jobs, reaper
from mlcore_projects.outputs import Output, whole

__all__ = ["main"]

_CHUNK = 1 << 16
_PARENT_SECONDS = 1.0
_LAST_GRACE = 5.0  # between the second and the last way of ending a job
_LINGER = 3.0
_STAGES = {"interrupt": (b"I", b"T", b"K"), "terminate": (b"T", b"K")}


def main(arguments: list[str]) -> int:
    """Stand by the job of a folder until it has ended and its run knows."""
    folder = Path(arguments[0])
    job = jobs.read(folder)
    asked: list[str] = []
    woken = _listen_to_signals(asked)
    out, err = os.pipe(), os.pipe()
    variables = {**os.environ, **job["variables"]}
    for name in job["unset"]:
        variables.pop(name, None)
    _, control, report = reaper.fork(
        job["argv"], variables, job["folder"], output=(out[1], err[1]), stdin=0, linger=min(_LINGER, job["grace"])
    )
    from mlcore_local.code import use_folder

    with use_folder(job["folder"]):  # whose code it is, not where this module lies
        return _Supervisor(folder, job, (out[0], err[0]), (control, report), (woken, asked)).run()


def _listen_to_signals(asked: list[str]) -> int:
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, lambda *_: asked.append("interrupt"))
    signal.signal(signal.SIGTERM, lambda *_: asked.append("terminate"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return woken


class _Supervisor:
    def __init__(
        self, folder: Path, job: dict[str, Any], printed: tuple[int, int], reaper: tuple[int, int], signals: Any
    ) -> None:
        self._folder, self._job, self._output = folder, job, Output(folder)
        self._echoes = {fd: _Echo(target) for fd, target in zip(printed, (1, 2), strict=True)}
        self._open = set(printed)
        self._control, self._report = reaper
        self._woken, self._asked = signals
        self._submitter: int | None = job["submitter"]
        self._parent = os.getppid()
        self._told = b""
        self._stages: list[bytes] = []  # ways of ending the job that are left
        self._way = self._reason = ""
        self._stage_at, self._grace = 0.0, float(job["grace"])
        self._code: int | None = None
        self._errno = 0
        self._over = False
        if not job["attached"]:
            for echo in self._echoes.values():
                echo.close()

    def run(self) -> int:
        """Open the run, let the job go, and stay with it."""
        from mlcore_projects import recording
        from mlcore_projects.runners import Record, Status

        job = self._job
        try:
            handle = jobs.handle_of(job["run_id"], self._folder, os.getpid())
            record = Record(**{**job["record"], "context": {**job["record"]["context"], "handle": handle}})
            run = recording.begin(record, job["run_id"])
        except BaseException as error:  # noqa: BLE001 - whoever submitted the job raises it
            self._answer(error=str(error) or repr(error))
            return 1
        jobs.note(self._folder, {"pid": os.getpid(), "started": reaper.start_ticks(os.getpid())})
        self._answer(run=run.id, name=run.name)
        if self._asked:
            self._reason = "asked to end before it started"
            keeping = recording.keep_files(run, record)
        else:
            self._say(b"G")
            keeping = recording.keep_files(run, record)
            self._stand_by()
        os.close(self._control)
        self._output.close()
        ended = self._ended()
        jobs.end(self._folder, {**ended, "recorded": False})
        keeping.join()
        recording.complete(run, own_python=job["own_python"])
        recording.finish(run, Status(**ended), whole(self._folder), self._remark(), anew=not record.resumed)
        jobs.end(self._folder, {**ended, "recorded": True})
        return 0

    def _ended(self) -> dict[str, Any]:
        if self._reason:
            return {"state": "killed", "exit_code": self._code, "reason": self._reason}
        if self._errno:
            reason = f"{self._job['argv'][0]} cannot be started: {os.strerror(self._errno)}"
            return {"state": "failed", "exit_code": 127 if self._errno == 2 else 126, "reason": reason}
        if self._code is None:
            return {"state": "failed", "exit_code": None, "reason": "what watched the job was killed"}
        reason = f"exit code {self._code}" if self._code > 0 else ""
        if self._code < 0:
            with suppress(ValueError):
                reason = f"killed by {signal.Signals(-self._code).name}"
        return {"state": "failed" if self._code else "finished", "exit_code": self._code, "reason": reason}

    def _remark(self) -> str:
        output = self._output
        return f"{output.dropped:,} bytes of output could not be kept: {output.reason}" if output.dropped else ""

    # What happens while the job runs

    def _stand_by(self) -> None:
        """Pass on what is printed and what is asked, until nothing is left of the job."""
        while not self._over or self._unsaid():
            poll = select.poll()
            for fd in (self._report, self._woken, self._submitter):
                if fd is not None and fd >= 0:
                    poll.register(fd, select.POLLIN)
            for fd in self._open:
                echo = self._echoes[fd]
                if echo.pending:  # who reads slowly makes the job wait, as without mlcore
                    poll.register(echo.fd, select.POLLOUT)
                else:
                    poll.register(fd, select.POLLIN)
            self._act({fd for fd, _ in poll.poll(self._patience() * 1000)})
        for fd in tuple(self._open):
            self._take(fd)

    def _unsaid(self) -> bool:
        """Tell whether output is left that somebody waits for."""
        return any(self._echoes[fd].pending for fd in self._open) or any(map(_readable, self._open))

    def _act(self, ready: set[int]) -> None:
        for fd in tuple(self._open):
            echo = self._echoes[fd]
            if echo.pending:
                if echo.fd in ready:
                    echo.flush()
            elif fd in ready:
                self._take(fd)
        if self._report in ready:
            self._hear()
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._submitter in ready and self._submitter is not None:
            self._lose_submitter()
        if self._job["attached"] and self._submitter is not None and os.getppid() != self._parent:
            self._lose_submitter()  # a child of it may hold its end of the pipe
        while self._asked and not self._over:
            self._end(self._asked.pop(0))
        if self._stages and time.monotonic() >= self._stage_at:
            self._next_stage()

    def _patience(self) -> float:
        due = [self._stage_at - time.monotonic()] if self._stages else []
        return max(0.0, min([*due, _PARENT_SECONDS]))

    def _take(self, fd: int) -> None:
        """Read what was printed, keep it, and show it."""
        data = os.read(fd, _CHUNK) if not self._over or _readable(fd) else b""
        if not data:
            if not self._over or fd in self._open:
                self._open.discard(fd)
                os.close(fd)
            return
        self._output.write(data)
        self._echoes[fd].write(data)

    def _lose_submitter(self) -> None:
        """End the job of a process that died, or that has asked for more."""
        assert self._submitter is not None
        if os.getppid() != self._parent or not os.read(self._submitter, 1):
            os.close(self._submitter)
            self._submitter = None
            for echo in self._echoes.values():
                echo.close()
            self._end("terminate", "the process that it was submitted from ended")

    def _end(self, way: str, reason: str = "") -> None:
        """Begin to end the job, or go on to the next way of it at once."""
        if self._code is not None or self._errno:  # it has ended by itself: what it left is in no hurry any more
            return self._say(b"K")
        if not self._reason:
            self._reason = reason or ("interrupted" if way == "interrupt" else "asked to end")
            self._way, self._stages = way, [*_STAGES[way]]
        if self._stages:
            self._next_stage()
        return None

    def _next_stage(self) -> None:
        stage = self._stages.pop(0)
        self._say(stage)
        late = stage == b"T" and self._way == "interrupt"
        self._stage_at = time.monotonic() + (min(self._grace, _LAST_GRACE) if late else self._grace)

    def _say(self, word: bytes) -> None:
        with suppress(OSError):  # what listens has gone with the job
            os.write(self._control, word)

    def _hear(self) -> None:
        data = os.read(self._report, _CHUNK)
        *lines, self._told = (self._told + data).split(b"\n")
        for told in map(json.loads, lines):
            if "pid" in told:
                about = {"pid": os.getpid(), "started": reaper.start_ticks(os.getpid())}
                jobs.note(self._folder, {**about, "job": told})
            self._code = told.get("ended", self._code)
            self._errno = told.get("errno", self._errno)
            if "ended" in told or "errno" in told:
                self._stages, self._stage_at = [], 0.0
        if not data:
            os.close(self._report)
            self._report = -1
            self._over = True

    def _answer(self, **told: Any) -> None:
        """Tell whoever submitted the job what became of its start."""
        with suppress(OSError):
            os.write(self._job["answer"], json.dumps(told).encode() + b"\n")
        os.close(self._job["answer"])


class _Echo:
    """Pass output on to where the submitter's went, and never hang: a terminal may be stopped, a reader may be gone."""

    def __init__(self, target: int) -> None:
        self.fd, self.pending = target, memoryview(b"")
        self._most = _CHUNK
        mode = os.fstat(target).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):  # else a write does not wait for anybody
            self._most = select.PIPE_BUF
            with suppress(OSError):  # opened again, so that nobody else's writes fail for not waiting
                self.fd = os.open(f"/proc/self/fd/{target}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def write(self, data: bytes) -> None:
        if self.fd >= 0:
            self.pending = memoryview(data)
            self.flush()

    def flush(self) -> None:
        while self.pending:
            try:
                done = os.write(self.fd, self.pending[: self._most])
            except BlockingIOError:
                return None
            except OSError:  # nobody reads it any more
                return self.close()
            self.pending = self.pending[done:]
        return None

    def close(self) -> None:
        self.fd, self.pending = -1, memoryview(b"")


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
