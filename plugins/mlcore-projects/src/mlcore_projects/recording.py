"""How the run of a job is opened and ended, for whatever process stands by the job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlcore import Client, config, plugins
from mlcore.errors import MlcoreError
from mlcore.store import AttributesSet
from mlcore_projects.outputs import shortened

if TYPE_CHECKING:
    from mlcore import Run
    from mlcore_projects.runners import Record, Status

__all__ = ["LOG", "STATUSES", "begin", "captured", "complete", "finish", "keep_files"]

LOG = ".mlcore/output.log"
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "lost": "FAILED"}
# what the job's own process knows better: it takes these on when it joins the run
_OF_THE_JOB = ("command", "packages", "python", "script", "seeds")
_LITTLE = 32_768  # bytes of the beginning and of the end of an output, if there is no room for more
_log = logging.getLogger("mlcore")


def begin(record: Record, run_id: str) -> Run:
    """Open the run of a job, new or to be resumed, with all that its record says. Raises `MlcoreError`."""
    run = Client(record.store).start_run(
        run_id=run_id, name=record.name, experiment=record.experiment, tags=record.tags, parent=record.parent,
        resume="must" if record.resumed else "allow",
        capture=[name for name in captured() if name not in _OF_THE_JOB],
    )  # fmt: skip
    _tell(run, "project", record.context)
    run.log_params(record.params)
    return run


def captured() -> list[str]:
    """Return what settings allow to be captured."""
    chosen = {name.strip() for name in next(config.settings("capture")).value.split(",")}
    return [name for name in plugins.provided("context") if "all" in chosen or name in chosen]


def keep_files(run: Run, record: Record) -> threading.Thread:
    """Begin to keep the files of a record, beside the job: it does not wait for where they go."""
    thread = threading.Thread(target=_keep_files, args=(run, record.files), daemon=True)
    thread.start()
    return thread


def _keep_files(run: Run, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        try:
            run.log_text(text, name)
        except (MlcoreError, OSError) as error:
            _log.warning("run %s: %s could not be kept: %s", run.id, name, error)


def complete(run: Run, *, own_python: bool) -> None:
    """Record of a job that did not join its run what it would have: its command, and a Python that was ours as well."""
    taken = run.context.get("captured", ())
    left = [name for name in captured() if name in _OF_THE_JOB and name not in taken]
    if "command" in left:
        _tell(run, "command", {"kind": "command", "argv": run.context.get("project.command"), "folder": ""})
    for name in ("python", "packages"):
        if name in left and own_python:
            with suppress(Exception):  # as in any other capture
                _tell(run, name, plugins.load("context", name)(run))


def finish(run: Run, ended: Status, output: Iterable[bytes], remark: str = "", *, anew: bool = False) -> None:
    """Keep what a job printed and how it ended, and end its run likewise; what cannot be kept is warned of.

    A run that began `anew` has no other output already.
    """
    if remark:
        _log.warning("run %s: %s", run.id, remark)
    _tell(run, "project", {"exit_code": ended.exit_code, "ended": ended.reason or ended.state})
    if data := b"".join(output):
        _keep(run, data, LOG if anew else _free(LOG, {each.path for each in run.artifacts.list(".mlcore")}))
    run.end(STATUSES[ended.state])


def _keep(run: Run, data: bytes, name: str) -> None:
    """Keep an output, or at least some of it where there is little room."""
    for most in (len(data), _LITTLE):
        try:
            return run.log_bytes(shortened(data, most), name)
        except (MlcoreError, OSError) as error:
            log = _log.warning if most == _LITTLE else _log.debug
            log("run %s: its output could not be kept: %s", run.id, error)
    return None


def _tell(run: Run, name: str, values: Any) -> None:
    for key, value in values.items():  # an event each: none is too large
        run.log_events(AttributesSet("run", run.id, "context", {f"{name}.{key}": value}))


def _free(name: str, taken: set[str]) -> str:
    """Return a name for one more output: a run that is resumed keeps that of before."""
    stem, dot, ending = name.rpartition(".")
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{stem}-{number}{dot}{ending}"
    return free
