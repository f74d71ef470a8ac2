"""Run a project: fetch it, bind its parameters, make its environment, and give the job to a runner."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore import Client, active_run, config
from mlcore_projects.binding import bind
from mlcore_projects.environments import Ready, ready
from mlcore_projects.reading import read_command
from mlcore_projects.runners import Handle, Job, Record, Runner, RunnerError, Status, runner_named
from mlcore_projects.sources import fetch
from mlcore_projects.specs import Bound, Project

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["Preview", "Submitted", "preview", "run"]

Said = Callable[[str], None]
LOCK = ".mlcore/project/lock.txt"


@attrs.frozen
class Submitted:
    """Hold on to a job that was submitted: by the run's id, or with the runner's `handle`, others can, too."""

    run_id: str
    handle: Handle
    runner: Runner
    client: Client

    @property
    def run(self) -> Run:
        """The run of the job, as its store has it."""
        return self.client.get_run(self.run_id)

    def status(self) -> Status:
        """Tell what has become of the job."""
        return self.runner.status(self.handle)

    def wait(self, timeout: float | None = None) -> Status:
        """Return how the job ended, or what it does after `timeout` seconds."""
        return self.runner.wait(self.handle, timeout)

    def logs(self, *, follow: bool = False) -> Iterator[bytes]:
        """Yield what the job printed, with `follow` until it has ended."""
        return self.runner.logs(self.handle, follow=follow)

    def cancel(self, *, interrupt: bool = False) -> None:
        """Ask the job to end, as SIGTERM or Ctrl-C does: its run is KILLED, and its output kept."""
        self.runner.cancel(self.handle, interrupt=interrupt)


@attrs.frozen
class Preview:
    """Tell what would be run: nothing was started, built or written for it."""

    project: Project
    bound: Bound
    runner: str
    environment: str
    exists: bool | None
    key: str = ""


@attrs.frozen
class _Asked:
    """Hold what is to be run, whether it was said now or is in the run that is resumed."""

    source: str | os.PathLike[str] | Sequence[str] | Project
    entry: str | None
    parameters: Mapping[str, Any]
    version: str | None
    base: Path | None = None
    resumed: Run | None = None
    environment: str | None = None
    runner: str | None = None

    def project(self) -> Project:
        if isinstance(self.source, Project):
            return self.source
        if isinstance(self.source, str | os.PathLike):
            return fetch(os.fspath(self.source), version=self.version)
        return read_command(self.source, self.base)


def run(
    source: str | os.PathLike[str] | Sequence[str] | Project | None = None,
    entry: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    version: str | None = None,
    runner: str | None = None,
    environment: str | Ready | None = None,
    name: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    detach: bool = False,
    resume: str | None = None,
    key: str | None = None,
    trust: bool = False,
    grace: float = 10.0,
    store: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    tell: Said | None = None,
) -> Submitted:
    """Run an entry point of a project as a run, and return when it has ended, or with `detach` once it was started.

    `source` is a folder, a git URL, a script, a project that was read, or an argument list. `resume`, a run's id, or the
    `key` of a run that is there goes on with that run: its project, parameters and environment, where nothing else is
    said. What the job prints comes out of this process, unless it is detached. If this process is interrupted, the job
    is, too, and has `grace` seconds to end; its run is KILLED. `tell` is called with what happens meanwhile, a line each.
    Raises `ProjectError`, `EnvironmentFailed`, `RunnerError` or another `MlcoreError` before anything was started.
    """
    client = Client(store)
    run_id = resume or client.new_run_id(key, experiment)
    asked = _asked(client, source, entry, parameters, version, resume=run_id if resume or key else None)
    chosen = runner_named(runner or asked.runner or "local")
    detach = detach or not chosen.abilities.attached and detach
    project = asked.project()
    bound = bind(
        project, asked.entry, asked.parameters, storage=_storage(run_id), base=asked.base or Path.cwd(), trust=trust
    )
    _check_store(chosen, client)
    made = _environment(chosen, project, environment or asked.environment, tell)
    record = _record(project, bound, made, chosen, client, asked)
    record = attrs.evolve(
        record, name=name, experiment=experiment, tags={**record.tags, **(tags or {})}, parent=_parent(asked)
    )
    job = Job(
        run_id, bound.argv, bound.folder, record, {**_variables(client, record, run_id), **bound.variables}, made,
        project.environment, grace, options=options or {},
    )  # fmt: skip
    submitted = Submitted(run_id, chosen.submit(job, attached=not detach and chosen.abilities.attached), chosen, client)
    if tell:
        tell(f"run {run_id} of {project.name}, entry point {bound.entry}")
    if not detach:
        _stand_by(submitted, shown=chosen.abilities.attached)
    return submitted


def preview(
    source: str | os.PathLike[str] | Sequence[str] | Project | None = None,
    entry: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    version: str | None = None,
    runner: str | None = None,
    environment: str | None = None,
    resume: str | None = None,
    trust: bool = False,
    store: str | os.PathLike[str] | None = None,
) -> Preview:
    """Return what `run` would run, without building or starting anything. Raises what it would."""
    asked = _asked(Client(store), source, entry, parameters, version, resume=resume)
    chosen = runner_named(runner or asked.runner or "local")
    project = asked.project()
    bound = bind(project, asked.entry, asked.parameters, base=asked.base or Path.cwd(), trust=trust)
    from mlcore_projects.environments import look

    found = look(project.environment, environment or asked.environment)
    return Preview(project, bound, chosen.name, found.kind, found.exists, found.key)


def _asked(
    client: Client, source: Any, entry: str | None, parameters: Mapping[str, Any] | None, version: str | None,
    resume: str | None,
) -> _Asked:  # fmt: skip
    raise NotImplementedError


def _storage(run_id: str) -> Path:
    """Return where files are downloaded to that a parameter names by a URI."""
    return config.user_cache() / "parameters" / run_id
