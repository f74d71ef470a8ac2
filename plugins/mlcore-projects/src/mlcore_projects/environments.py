"""Environments: what a kind of them has to do, and one made ready, built once and found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs

from mlcore_projects.locks import EnvironmentFailed, Lock
from mlcore_projects.specs import Wanted

__all__ = ["EnvironmentFailed", "Environments", "Making", "Origin", "Progress", "Ready", "ready"]

Progress = Callable[[str], None]


@attrs.frozen
class Origin:
    """Say what a lock depends on beside what is wanted: the same twice, and it need not be resolved again.

    `python` is a full version and `interpreter` the program, if it is there before the environment is; `indexes` are
    where packages come from, without credentials.
    """

    platform: str
    python: str
    indexes: tuple[str, ...] = ()
    interpreter: Path | None = None


@attrs.frozen
class Making:
    """Hold what a kind of environments needs while it makes one; `wheels` is the folder for those of local packages."""

    wanted: Wanted
    origin: Origin
    wheels: Path
    progress: Progress

    def run(self, argv: Sequence[str | Path], *, variables: Mapping[str, str] | None = None) -> str:
        """Run a program in the project's folder and return what it printed.

        It inherits the lock of what is being made, so that nobody makes the same while it lives. Raises
        `EnvironmentFailed` with the last of what it said.
        """
        raise NotImplementedError


class Environments:
    """Make environments of one kind: derive from it, and let `mlcore_projects.testing.EnvironmentContract` check it.

    Only `resolve` and `build` may take long, ask the network, or start programs. What they raise is an
    `EnvironmentFailed`, and whatever they leave behind is removed by who called them.
    """

    name: ClassVar[str]
    kept: ClassVar[bool] = True  # False: there is nothing to build, and no folder

    def origin(self, wanted: Wanted) -> Origin:
        """Return what a lock depends on beside `wanted`, within milliseconds: it is asked before every run."""
        raise NotImplementedError

    def resolve(self, making: Making) -> Lock:
        """Return exact versions, with hashes, of all that has to be installed for ``making.wanted``."""
        raise NotImplementedError

    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        """Install exactly what the lock says into a folder that is new and empty, and stays where it is."""
        raise NotImplementedError

    def python(self, folder: Path) -> Path:
        """Return the interpreter of the environment in this folder."""
        raise NotImplementedError

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Return the variables that a process in this environment needs; ``PATH`` is what comes before the caller's."""
        raise NotImplementedError


@attrs.frozen
class Ready:
    """Hold an environment that is there: its interpreter, and the variables for a process that runs in it.

    `folder` is where it is kept, `reused` whether it was there already, and `notes` what a person should know of it.
    """

    key: str
    kind: str
    python: Path
    variables: Mapping[str, str]
    lock: Lock | None
    reused: bool
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def hold(self) -> int:
        """Return a file descriptor that keeps this from being pruned while it, or a copy that a child has, is open."""
        raise NotImplementedError


def ready(
    wanted: Wanted | Lock, kind: str | None = None, *, progress: Progress | None = None, refresh: bool = False
) -> Ready:
    """Return an environment as it is wanted, built now if there is none.

    `kind` is the name of a plugin, by default what the project says; else ``uv`` if that program is here, or ``venv``;
    and ``system``, the interpreter that runs, if nothing is wanted at all. A `Lock` is built as it is. `refresh`
    resolves again. Raises `EnvironmentFailed`, or `NotInstalled` for a kind that nobody provides.
    """
    raise NotImplementedError
