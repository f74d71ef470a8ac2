"""Where a job runs: what every runner is given, what it answers, and what it promises.

A runner takes a `Job` and returns a *handle*: JSON that says enough for another process, hours later, to ask what
became of the job. A runner on another machine can keep a job's name and namespace there, one of a scheduler its job id.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from mlcore import plugins
from mlcore.errors import MlcoreError

if TYPE_CHECKING:
    from mlcore_projects.environments import Ready
    from mlcore_projects.specs import Wanted

__all__ = ["ENDED", "STATES", "Abilities", "Handle", "Job", "Record", "Resources", "Runner", "RunnerError", "Status"]
__all__ += ["runner_named"]

STATES = ("pending", "running", "finished", "failed", "killed", "lost")
ENDED = STATES[2:]
Handle = Mapping[str, Any]
_POLL_SECONDS = 0.05
_POLL_LIMIT = 5.0


class RunnerError(MlcoreError):
    """Say why a job cannot be submitted, or asked about, and to which runner."""


@attrs.frozen
class Resources:
    """Say what a job needs; what a runner cannot give is not asked of it (see `Abilities.resources`).

    `memory` is in bytes, `seconds` the longest it may take, `nodes` how many machines start the command.
    """

    cpus: float | None = None
    memory: int | None = None
    gpus: int | None = None
    seconds: float | None = None
    nodes: int | None = None


@attrs.frozen
class Record:
    """Say what the run of a job tells of itself: `params` as raw, typed values, `context` as ``project.*`` keys.

    `files` are texts that are kept with the run by name, `parent` is the run that this one is inside of, and `resumed`
    says that it is there already.
    """

    store: str
    experiment: str | None = None
    name: str | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict)
    params: Mapping[str, Any] = attrs.field(factory=dict)
    context: Mapping[str, Any] = attrs.field(factory=dict)
    files: Mapping[str, str] = attrs.field(factory=dict)
    parent: str | None = None
    resumed: bool = False


@attrs.frozen
class Job:
    """Say what to run: an argument list, in `folder`, with `variables` set beside those that the runner brings.

    `environment` was made on this machine, for a runner that takes those; another one makes what is `wanted`, or takes
    the image that ``wanted.container`` names. An ``argv[0]`` of ``python`` is the environment's. `grace` is how many
    seconds a job has between being asked to end and being killed. `options` are the runner's own, such as a namespace
    or a partition.
    """

    run_id: str
    argv: tuple[str, ...]
    folder: Path
    record: Record
    variables: Mapping[str, str] = attrs.field(factory=dict)
    environment: Ready | None = None
    wanted: Wanted | None = None
    grace: float = 10.0
    resources: Resources = Resources()
    options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Status:
    """Tell what became of a job: one of `STATES`; `exit_code` is below zero after a signal, as in `subprocess`.

    A job is *killed* if mlcore was asked to end it, *failed* however else it ended badly, and *lost* if whoever knew
    how it ended is gone.
    """

    state: str
    exit_code: int | None = None
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED


@attrs.frozen
class Abilities:
    """Declare what a runner can do; what it cannot is an error before anything is submitted.

    `folders`: it sees the folders of this machine, so that a store in a folder can be logged to, and the project need
    not be sent. `environments`: how it takes them: ``"ready"`` as made on this machine, ``"wanted"``, ``"image"``.
    `resources`: the fields of `Resources` that it heeds. `attached`: it can show a job's output as it comes, and end
    the job with the process that submitted it. `detached`: jobs go on without that process.
    """

    folders: bool = False
    environments: frozenset[str] = frozenset({"wanted"})
    resources: frozenset[str] = frozenset()
    attached: bool = False
    detached: bool = True


class Runner:
    """Run jobs somewhere: derive from it, and let `mlcore_projects.testing.RunnerContract` check what you made.

    `submit` sees to it that the run of the job is opened with what its `Record` says, that its process finds the
    run by ``MLCORE_RUN_ID``, and that the run ends as the job does, with its output kept as a file of it:
    `mlcore_projects.recording` has functions for that. Handles are JSON; every method that takes one works in
    another process, too, and in one that was started after the job had ended.
    """

    name: ClassVar[str]
    abilities: ClassVar[Abilities] = Abilities()

    def submit(self, job: Job, *, attached: bool = False) -> dict[str, Any]:
        """Start a job and return its handle, when its run is open, or within two seconds if that takes long.

        `attached` (only if the runner declares it): what it prints comes out of this process, and it ends with this
        process, however that ends. Raises `RunnerError`.
        """
        raise NotImplementedError

    def status(self, handle: Handle) -> Status:
        """Tell what has become of a job; asking changes nothing."""
        raise NotImplementedError

    def logs(self, handle: Handle, *, follow: bool = False) -> Iterator[bytes]:
        """Yield what a job printed, stdout and stderr in one, as it came; with `follow` until it has ended."""
        raise NotImplementedError

    def cancel(self, handle: Handle, *, interrupt: bool = False) -> None:
        """Ask a job to end, by SIGTERM or as Ctrl-C does, and return at once; after its grace it is killed.

        The run then is KILLED, whatever the exit code. Again, it is killed sooner. One that has ended is no error.
        """
        raise NotImplementedError

    def wait(self, handle: Handle, timeout: float | None = None) -> Status:
        """Return the status once the job has ended, or what it is after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _POLL_SECONDS
        while not (found := self.status(handle)).ended:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _POLL_LIMIT)
        return found


def runner_named(name: str) -> Runner:
    """Return the runner of that name. Raises `NotInstalled` with the line that would bring it."""
    runner: Runner = plugins.load("runners", name)()
    return runner
