"""Run a project: fetch it, bind its parameters, make its environment, and give the job to a runner."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore import Client, active_run, config
from mlcore.errors import NotFound, RunStateError, StoreNotFound
from mlcore_local.context import masked
from mlcore_projects.binding import bind, entry_point
from mlcore_projects.downloading import is_remote
from mlcore_projects.environments import Ready, found, kind_of, ready
from mlcore_projects.errors import ParameterError, ProjectError
from mlcore_projects.reading import read_command
from mlcore_projects.recipes import place_of
from mlcore_projects.recording import captured
from mlcore_projects.runners import Handle, Job, Record, Runner, RunnerError, Status, runner_named
from mlcore_projects.sources import fetch
from mlcore_projects.specs import Bound, Project

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["Preview", "Submitted", "preview", "run"]

_Source = str | os.PathLike[str] | Sequence[str] | Project
Said = Callable[[str], None]
LOCK = ".mlcore/project/lock.txt"
_LONG = 6  # characters of a secret that is looked for within arguments: a shorter one is in many words
_MASKS = ("***", "…")  # what stands for a secret, and for the rest of what is too long to be recorded


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
    built: bool = False
    key: str = ""

    def told(self) -> dict[str, Any]:
        """Return it as JSON."""
        source = self.project.source
        told = {
            "project": self.project.name,
            "source": _uri(self.project),
            "version": source.revision,
            "commit": source.commit,
            "folder": str(self.project.folder),
            "entry_point": self.bound.entry,
            "parameters": _params(self.bound),
            "command": _command(self.bound),
            "shell": self.bound.shell,
            "environment": self.environment,
            "built": self.built,
            "key": self.key,
            "runner": self.runner,
        }
        return {
            name: value for name, value in told.items() if value not in ("", {}) and (name, value) != ("shell", False)
        }


@attrs.frozen
class _Asked:
    """Hold what is to be run, whether it is said now, or by the run that goes on."""

    source: _Source
    entry: str | None
    parameters: Mapping[str, Any]
    version: str | None
    kept: Mapping[str, Any] = {}
    folder: Path | None = None
    runner: str | None = None
    environment: str | None = None

    def project(self) -> Project:
        if isinstance(self.source, Project):
            return self.source
        if isinstance(self.source, str | os.PathLike):
            return fetch(os.fspath(self.source), version=self.version)
        return read_command(self.source, self.folder)

    def bound(self, project: Project, *, storage: Path | None, trust: bool) -> Bound:
        """Bind what is said now, and what the run kept: its paths begin in the project's folder."""
        found = entry_point(project, self.entry)
        paths = {each.name for each in found.parameters if each.type == "path"}
        kept = {name: value for name, value in self.kept.items() if name not in self.parameters}
        if unsaid := [name for name, value in kept.items() if _is_masked(value)]:
            raise ParameterError(
                f"the run does not say what {', '.join(unsaid)} was: give it again, with -P NAME=VALUE"
            )
        for name in paths & kept.keys():
            if not is_remote(str(kept[name])):
                kept[name] = str(project.folder / str(kept[name]))
        trust = trust or project.form == "command"  # whoever types it is who would trust it
        return bind(project, self.entry, {**kept, **self.parameters}, storage=storage, trust=trust)


def run(
    source: _Source | None = None,
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
    options: Mapping[str, Any] | None = None,
    store: str | os.PathLike[str] | None = None,
    tell: Said | None = None,
) -> Submitted:
    """Run an entry point of a project as a run, and return when it has ended, or with `detach` once it was started.

    `source` is a folder, a git URL, a script, a project that was read, or an argument list. `resume`, a run's id, or
    the `key` of a run that is there, goes on with that run: its project, parameters and environment, where nothing else
    is said. What the job prints comes out of this process, unless it is detached. If this process is interrupted, so is
    the job, which has `grace` seconds to end; its run is KILLED. `tell` is called with what happens, a line each.
    Raises `ProjectError`, `EnvironmentFailed`, `RunnerError` or another `MlcoreError` before anything was started.
    """
    client = Client(store)
    before = _before(client, resume, key, experiment)
    run_id = before.id if before is not None else client.new_run_id(key, experiment)
    asked = _asked(source, entry, parameters, version, before)
    chosen = runner_named(runner or asked.runner or "local")
    if detach and not chosen.abilities.detached:
        raise RunnerError(f"runner {chosen.name} cannot go on with a job without the process that submitted it")
    setting = _store_for(chosen, client)
    project = asked.project()
    bound = asked.bound(project, storage=config.user_cache() / "parameters" / run_id, trust=trust)
    made = _environment(chosen, project, environment or asked.environment, tell)
    record = Record(
        setting, _experiment(client, before, experiment), name, {"source": _shown_source(project), **(tags or {})},
        _params(bound), _context(project, bound, made, chosen), _files(made), _parent(before), before is not None,
    )  # fmt: skip
    variables = {**_variables(record, run_id, bound), **bound.variables}
    job = Job(
        run_id, bound.argv, bound.folder, record, variables, made, project.environment, grace, options=options or {}
    )
    attached = chosen.abilities.attached and not detach
    if tell and before and made and made.key != before.context.get("project.lock", made.key):
        tell("the environment is another than it was: what the project wants, or what there is of it, has changed")
    if tell:
        tell(f"{bound.entry} of {project.name}, run {run_id}" + (", goes on" if before else ""))
    submitted = Submitted(run_id, chosen.submit(job, attached=attached), chosen, client)
    if not detach:
        _stand_by(submitted, shown=attached)
    return submitted


def preview(
    source: _Source | None = None,
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
    """Return what `run` would run, without building, downloading or starting anything. Raises what it would."""
    before = _before(Client(store), resume, None, None) if resume else None
    asked = _asked(source, entry, parameters, version, before)
    chosen = runner_named(runner or asked.runner or "local")
    project = asked.project()
    bound = asked.bound(project, storage=None, trust=trust)
    if "ready" not in chosen.abilities.environments:
        return Preview(project, bound, chosen.name, "made where it runs")
    kind = kind_of(project.environment, environment or asked.environment)
    there = found(project.environment, kind)
    return Preview(project, bound, chosen.name, kind, there is not None, there.key if there else "")


# What is asked, and what is known of a run that goes on


def _before(client: Client, resume: str | None, key: str | None, experiment: str | None) -> Run | None:
    """Return the run that goes on, None if a new one is started. Raises `NotFound` or `RunStateError`."""
    if resume is not None:
        found = client.get_run(resume)
    elif key is not None:
        try:
            found = client.get_run(client.new_run_id(key, experiment))
        except (NotFound, StoreNotFound):
            return None
    else:
        return None
    if found.status == "RUNNING":
        raise RunStateError(f"run {found.name} ({found.id}) is RUNNING: end it, or wait for it, before it is resumed")
    return found


def _asked(
    source: _Source | None, entry: str | None, parameters: Mapping[str, Any] | None, version: str | None,
    before: Run | None,
) -> _Asked:  # fmt: skip
    told = {} if before is None else before.context
    if before is None or "project.source" not in told:
        if source is None:
            missing = "a source" if before is None else f"a source, as run {before.id} was not started by mlcore run"
            raise ProjectError(f"give {missing}: a folder, a git URL, a script, or -- and a command")
        return _Asked(source, entry, parameters or {}, version)
    kept = _Asked(
        told["project.source"], entry or told.get("project.entry_point"), parameters or {},
        version or told.get("project.commit") or None, told.get("project.parameters", {}),
        runner=told.get("project.runner"), environment=told.get("project.environment"),
    )  # fmt: skip
    if source is not None:
        return attrs.evolve(kept, source=source, version=version)
    if told.get("project.kind") != "command":
        return kept
    command = tuple(told["project.command"])
    if any(map(_is_masked, command)):
        raise ParameterError(f"run {before.id} does not say its whole command: give it again, after --")
    return attrs.evolve(kept, source=command, version=None, folder=Path(told["project.folder"]))


def _experiment(client: Client, before: Run | None, experiment: str | None) -> str:
    """Return the name of the experiment: that of a run that goes on stays."""
    if before is not None:
        return str(client.get_experiment(before.experiment_id).name)
    chosen: str = config.experiment_setting(experiment).value
    return chosen


def _parent(before: Run | None) -> str | None:
    """Return the run that this one is inside of: the active one, or that of the job that this process is part of."""
    if before is not None:
        return None
    active = active_run()
    return active.id if active else os.environ.get("MLCORE_RUN_ID") or None


# What the run, and the job's process, are told


def _params(bound: Bound) -> dict[str, Any]:
    return {name: _masked(name, value) for name, value in bound.parameters.items()}


def _context(project: Project, bound: Bound, made: Ready | None, runner: Runner) -> dict[str, Any]:
    """Return what the run keeps as ``project.*``."""
    source = project.source
    told = {
        "name": project.name,
        "form": project.form,
        "kind": source.kind,
        "source": _uri(project),
        "version": source.revision,
        "commit": source.commit,
        "folder": str(project.folder),
        "place": place_of(project.folder),
        "entry_point": bound.entry,
        "parameters": _params(bound),
        "command": _command(bound),
        "environment": made.kind if made else "",
        "lock": made.key if made else "",
        "runner": runner.name,
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items() if value != ""}


def _uri(project: Project) -> str:
    source = project.source
    return f"{source.uri}#{source.subfolder}" if source.subfolder else source.uri


def _shown_source(project: Project) -> str:
    commit = project.source.commit or project.source.revision
    return f"{_uri(project)}@{commit}" if commit else _uri(project)


def _secrets(bound: Bound) -> list[str]:
    """Return the values of parameters whose names say that they are secret."""
    return [str(value) for name, value in bound.parameters.items() if _masked(name, value) != value]


def _command(bound: Bound) -> list[str]:
    """Return the command as it is recorded: a secret is one wherever it stands, without its name, too."""
    argv = [*bound.argv]
    for secret in _secrets(bound):
        argv = [
            _MASKS[0] if each == secret else each.replace(secret, _MASKS[0]) if len(secret) >= _LONG else each
            for each in argv
        ]
    return list(masked(argv))


def _masked(name: str, value: Any) -> Any:
    if value == "":
        return value
    shown = masked([f"--{name}={value}"])[0].partition("=")[2]
    return value if shown == f"{value}" else shown


def _is_masked(value: Any) -> bool:
    return isinstance(value, str) and any(mask in value for mask in _MASKS)


def _files(made: Ready | None) -> dict[str, str]:
    return {} if made is None or made.lock is None else {LOCK: made.lock.text}


def _variables(record: Record, run_id: str, bound: Bound) -> dict[str, str]:
    """Return what lets the job's process log into the run, and not record its arguments where one is a secret."""
    about = {"MLCORE_STORE": record.store, "MLCORE_RUN_ID": run_id, "MLCORE_EXPERIMENT": str(record.experiment)}
    if _secrets(bound):
        about["MLCORE_CAPTURE"] = ",".join(name for name in captured() if name != "command") or config.OFF
    for name in ("artifacts", "spool"):
        if (said := os.environ.get(variable := f"MLCORE_{name.upper()}")) and said != config.OFF and "://" not in said:
            about[variable] = os.path.abspath(os.path.expanduser(said))
    return about


def _store_for(runner: Runner, client: Client) -> str:
    """Return the store as the job's process finds it. Raises `RunnerError` where it cannot."""
    uri: str = client.setting.value
    if "://" in uri or uri == config.OFF:
        return uri
    if not runner.abilities.folders:
        raise RunnerError(
            f"runner {runner.name} does not see the folder {uri}: use a server or a database as the store"
        )
    return str(Path(uri).expanduser().absolute())


def _environment(runner: Runner, project: Project, chosen: str | Ready | None, tell: Said | None) -> Ready | None:
    if isinstance(chosen, Ready):
        return chosen
    if "ready" not in runner.abilities.environments:
        return None
    return ready(project.environment, chosen, progress=tell)


# While it runs


def _stand_by(submitted: Submitted, *, shown: bool) -> Status:
    """Wait for the end of a job; what ends this process ends the job first."""
    while True:
        try:
            if not shown:
                for piece in submitted.logs(follow=True):
                    sys.stdout.buffer.write(piece)
                    sys.stdout.buffer.flush()
            return submitted.wait()
        except BaseException as error:
            _stop(submitted, error)
            raise


def _stop(submitted: Submitted, error: BaseException) -> None:
    while True:  # another Ctrl-C is no reason to leave the job alone, but to be quicker
        try:
            submitted.cancel(interrupt=isinstance(error, KeyboardInterrupt))
            submitted.wait()
            return
        except (KeyboardInterrupt, SystemExit) as again:
            error = again
