"""Bring runs up to date with the jobs behind them: what ended, or died, while nobody looked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from mlcore import Client, Run
from mlcore.errors import MlcoreError
from mlcore_projects.recording import finish
from mlcore_projects.runners import runner_named

__all__ = ["Reconciled", "reconcile"]


@attrs.frozen
class Reconciled:
    """Tell of a run that goes on or did: the `status` it has now, and why; `changed` if it had another one."""

    run: Run
    status: str
    reason: str
    changed: bool

    def told(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"run": self.run.id, "status": self.status, "reason": self.reason, "changed": self.changed}


def reconcile(store: str | os.PathLike[str] | None = None) -> list[Reconciled]:
    """End every run of a store whose job has ended, as that did, with what it printed kept.

    Every runner is asked by the handle that the run keeps. What is not known from here is told of, and left alone.
    """
    client = Client(store)
    found = client.search_runs("status in ('RUNNING', 'LOST')", experiment="*", include_deleted=True)
    try:
        return [told for run in found if (handle := run.context.get("project.handle")) and (told := _one(run, handle))]
    finally:
        client.close()


def _one(run: Run, handle: Mapping[str, Any]) -> Reconciled | None:
    try:
        runner = runner_named(str(run.context.get("project.runner", handle.get("runner"))))
        status = runner.status(handle)
    except MlcoreError as error:
        return Reconciled(run, run.status, str(error), changed=False)
    if not status.ended:
        return Reconciled(run, run.status, status.reason, changed=False) if status.reason else None
    finish(run, status, runner.logs(handle))
    run.refresh()
    return Reconciled(run, run.status, status.reason, changed=True)
