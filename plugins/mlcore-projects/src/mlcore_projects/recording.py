"""How the run of a job is opened and ended, for whatever process stands by the job."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from mlcore import Client, plugins
from mlcore.errors import MlcoreError
from mlcore.hookspecs import Provider
from mlcore_projects.runners import Record, RunnerError

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["LOG", "STATUSES", "begin", "finish"]

LOG = ".mlcore/output.log"
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "lost": "FAILED"}
# what the job's own process knows better: it takes these on when it joins the run
_OF_THE_JOB = ("command", "packages", "python", "script", "seeds")


@attrs.frozen
class _Told:
    """Be a plugin that tells, of the run of this process, what `Record` does."""

    context: Mapping[str, Any]

    def mlcore_context(self) -> list[Provider]:
        """Provide ``project.*``."""
        return [Provider("project", lambda run: dict(self.context), "what was run, and where")]


def begin(record: Record, run_id: str) -> Run:
    """Open the run of a job, new or to be resumed, with all that its record says. Raises `MlcoreError`."""
    plugins.register(_Told(record.context), "mlcore-job")
    client = Client(record.store)
    run = client.start_run(
        run_id=run_id, name=record.name, experiment=record.experiment, tags=record.tags, parent=record.parent,
        resume="must" if record.resumed else "allow", capture=_captured(),
    )  # fmt: skip
    run.log_params(record.params)
    for name, text in record.files.items():
        run.log_text(text, name)
    return run


def _captured() -> list[str]:
    """Return what is captured here: what settings allow and the job does not know better, and always the project."""
    from mlcore import config

    chosen = {name.strip() for name in next(config.settings("capture")).value.split(",")}
    there = [name for name in plugins.provided("context") if "all" in chosen or name in chosen]
    return ["project", *(name for name in there if name not in (*_OF_THE_JOB, "project"))]


def finish(run: Run, state: str, output: Iterable[bytes], remark: str = "") -> None:
    """Keep what a job printed and end its run as it ended, one of `STATES`; what cannot be kept is warned of."""
    log = logging.getLogger("mlcore")
    if remark:
        log.warning("run %s: %s", run.id, remark)
    try:
        if data := b"".join(output):
            run.log_bytes(data, _free(LOG, {each.path for each in run.artifacts.list(".mlcore")}))
    except (MlcoreError, OSError) as error:
        log.warning("run %s: its output could not be kept: %s", run.id, error)
    run.end(STATUSES[state])


def _free(name: str, taken: set[str]) -> str:
    """Return a name for one more output: a run that is resumed keeps that of before."""
    stem, dot, ending = name.rpartition(".")
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{dot}{ending}"
    return name


def check_new(run: Run) -> None:
    """Refuse to resume a run that goes on. Raises `RunnerError`."""
    if run.status == "RUNNING":
        raise RunnerError(f"run {run.name} ({run.id}) is RUNNING: cancel it, or wait for its end, before it is resumed")
