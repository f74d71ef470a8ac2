"""Environments: what a kind of them has to do, and one made ready, built once and found again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import attrs

from mlcore import plugins
from mlcore_projects import shelf
from mlcore_projects.indexes import choices
from mlcore_projects.local_packages import SOURCE_DATE, build_wheel, digest
from mlcore_projects.locks import EnvironmentFailed, Lock, Pinned, normalized
from mlcore_projects.reasons import reason
from mlcore_projects.requirement_lines import Asked, Local, check, read_lines, without_credentials
from mlcore_projects.specs import Wanted

__all__ = ["EnvironmentFailed", "Environments", "Making", "Origin", "Progress", "Ready", "found", "kind_of"]
__all__ += ["lock_of", "ready"]

Progress = Callable[[str], None]
_STOP_SECONDS = 5
# What would lead an installer to another environment, or into another folder, than the one that is made.
_MISLEADING = (
    *("CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
    *("PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_REPORT", "PIP_REQUIREMENT", "PIP_REQUIRE_VIRTUALENV", "PIP_ROOT"),
    *("PIP_TARGET", "PIP_USER", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON"),
    *("UV_WORKING_DIRECTORY", "UV_WORKING_DIR"),
)
_CALM = {
    "GIT_TERMINAL_PROMPT": "0", "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off", "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", "SOURCE_DATE_EPOCH": SOURCE_DATE,
    "UV_NO_PROGRESS": "1",
}  # fmt: skip


@attrs.frozen
class Origin:
    """Say what a lock depends on beside what is wanted: the same twice, and it need not be resolved again.

    `python` is a full version and `interpreter` the program, if it is there before the environment is; `markers` are
    its values of environment markers. `indexes` are where packages come from, without credentials.
    """

    platform: str
    python: str
    indexes: tuple[str, ...] = ()
    interpreter: Path | None = None
    markers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class Making:
    """Hold what a kind of environments needs while it makes one.

    `asked` are the lines of ``wanted.requirements`` with the files read that they name, `build` those of
    ``wanted.build``; `local` are the packages of this machine among them, built already. `scratch` is a folder for
    anything that is needed only now, `wheels` the one for those of local packages.
    """

    wanted: Wanted
    asked: Asked
    build: Asked
    origin: Origin
    progress: Progress
    scratch: Path = Path()
    wheels: Path = Path()
    local: tuple[Pinned, ...] = ()
    locks: tuple[int, ...] = ()

    def lines(self) -> list[str]:
        """Return what is to be resolved as lines of requirements, local packages as addresses of their wheels."""
        hashed = any(
            "--hash" in line or "--require-hashes" in line for line in (*self.asked.lines, *self.asked.options)
        )
        local = [
            f"{pin.name}{f'[{each.extras}]' if each.extras else ''} @ {self._address(pin)}"
            + (f" ; {each.marker}" if each.marker else "")
            + (f" --hash={pin.hashes[0]}" if hashed else "")
            for each, pin in zip(self.asked.local, self.local, strict=True)
        ]
        return [*self.asked.options, *self.asked.lines, *local]

    def pinned(self, pins: Iterable[Pinned]) -> tuple[list[str], list[str]]:
        """Return lines that install these: first those whose hashes are known, then the others."""
        known, unknown = list[str](), list[str]()
        for pin in pins:
            line = f"{pin.name} @ {self._address(pin)}" if pin.wheel else pin.line
            if pin.url:
                line = f"{pin.name} @ {self.asked.with_credentials(pin.url)}"
            if pin.hashes:
                known.append(" ".join([line, *(f"--hash={each}" for each in pin.hashes)]))
            else:
                unknown.append(line)
        return known, unknown

    def _address(self, pin: Pinned) -> str:
        return (self.wheels / pin.wheel).as_uri()

    def write(self, name: str, lines: Iterable[str]) -> Path:
        """Write lines to a file in `scratch`, which is gone afterwards: it may hold what lets in."""
        file = self.scratch / name
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return file

    def run(self, argv: Sequence[str | Path], *, variables: Mapping[str, str] | None = None) -> str:
        """Run a program in the project's folder and return what it printed, errors included.

        It inherits the lock of what is being made, so that nobody makes the same while it lives. Raises
        `EnvironmentFailed` with the last of what it said.
        """
        environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
        command, said = [str(each) for each in argv], list[str]()
        with subprocess.Popen(
            command, cwd=self.wanted.folder, env=environment | _CALM | dict(variables or {}), pass_fds=self.locks,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    said.append(line)
                    self.progress(f"  {without_credentials(line.strip())}")
                process.wait()
            except BaseException:
                _stop(process)
                raise
        if process.returncode:
            raise EnvironmentFailed(reason("".join(said)))
        return "".join(said)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


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

    def wheel(self, source: Path, folder: Path, making: Making) -> None:
        """Build the package in `source` to a wheel in `folder`, which is not there yet."""
        raise NotImplementedError

    def build(self, lock: Lock, folder: Path, making: Making) -> None:
        """Install exactly what the lock says into `folder`, which is not there yet, and stays where it is."""
        raise NotImplementedError

    def python(self, folder: Path) -> Path:
        """Return the interpreter of the environment in this folder."""
        raise NotImplementedError

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Return the variables of a process in this environment; ``PATH`` is what comes before the caller's."""
        raise NotImplementedError

    def notes(self, wanted: Wanted, lock: Lock) -> tuple[str, ...]:
        """Return what a person should know of what is wanted and will not be there."""
        return ()


@attrs.frozen
class Ready:
    """Hold an environment that is there: its interpreter, and the variables for a process that runs in it.

    `folder` is where it is kept, `reused` whether it was there already, and `notes` what a person should know of it.
    It is kept from being pruned until this process ends.
    """

    key: str
    kind: str
    python: Path
    variables: Mapping[str, str]
    lock: Lock
    reused: bool
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def hold(self) -> int | None:
        """Return a descriptor that keeps this from being pruned while it, or the copy of a child, is open."""
        return None if self.folder is None else shelf.held(self.key)


def kind_of(wanted: Wanted | Lock, kind: str | None = None) -> str:
    """Return the kind of environment that is meant, which an argument says, or the project, or what there is."""
    if kind or (isinstance(wanted, Wanted) and wanted.kind):
        return kind or (wanted.kind if isinstance(wanted, Wanted) else "")
    if isinstance(wanted, Wanted) and wanted.container:
        raise EnvironmentFailed("the project wants a container: choose another kind by --env, such as venv or system")
    if isinstance(wanted, Wanted) and not any(
        (wanted.python, wanted.requirements, wanted.build, wanted.lock, wanted.conda)
    ):
        return "system"
    from mlcore_projects.uv import program

    return "uv" if program() else "venv"


def ready(
    wanted: Wanted | Lock, kind: str | None = None, *, progress: Progress | None = None, refresh: bool = False
) -> Ready:
    """Return an environment as it is wanted, built now if there is none.

    `kind` is the name of a plugin, by default what the project says; else ``uv`` if that program is here, or ``venv``;
    and ``system``, the interpreter that runs, if nothing is wanted at all. A `Lock` is built as it is. `refresh`
    resolves again. Raises `EnvironmentFailed`, or `NotInstalled` for a kind that nobody provides.
    """
    maker, making, given = _begun(wanted, kind, progress)
    with _told_plainly(making):
        if not maker.kept:
            return _finished(maker, maker.resolve(making), making.wanted, Path(), reused=True)
        return _kept(maker, making, given, refresh=refresh)


def lock_of(wanted: Wanted, kind: str | None = None, *, progress: Progress | None = None) -> Lock:
    """Return what `ready` would install, and install nothing; it is remembered, so that `ready` installs just that."""
    maker, making, _ = _begun(wanted, kind, progress)
    with _told_plainly(making):
        if not maker.kept:
            return maker.resolve(making)
        name = _memo(maker.name, making, None)
        lock = shelf.noted(name)
        if lock is None or _stale(lock, making.wanted):
            with shelf.scratch() as (folder, handle):
                making = attrs.evolve(making, scratch=folder, wheels=folder / "wheels", locks=(handle,))
                lock = _resolved(maker, making, None)
                shelf.note(name, lock.key(maker.name), lock)
        return lock


def found(wanted: Wanted | Lock, kind: str | None = None) -> Ready | None:
    """Return what `ready` would without building or asking anything, None if it would have to."""
    maker, making, given = _begun(wanted, kind, None)
    with _told_plainly(making):
        if not maker.kept:
            return _finished(maker, given or maker.resolve(making), making.wanted, Path(), reused=True)
        lock = shelf.noted(_memo(maker.name, making, given))
        return None if lock is None else _found(maker, lock, making.wanted)


def _begun(
    wanted: Wanted | Lock, kind: str | None, progress: Progress | None
) -> tuple[Environments, Making, Lock | None]:
    maker: Environments = plugins.load("environments", kind_of(wanted, kind))()
    given = wanted if isinstance(wanted, Lock) else None
    asked_for = wanted if isinstance(wanted, Wanted) else Wanted(Path.cwd(), python=wanted.python)
    asked, build = (read_lines(each, asked_for.folder) for each in (asked_for.requirements, asked_for.build))
    if build.local:
        raise EnvironmentFailed(f"{build.local[0].said} cannot be built before what builds: name it as a requirement")
    return maker, Making(asked_for, asked, build, maker.origin(asked_for), progress or _silent), given


@contextmanager
def _told_plainly(making: Making) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailed(reason(str(error))) from error
    finally:
        making.progress("")


def _silent(text: str) -> None:
    """Say nothing."""


def _kept(maker: Environments, making: Making, given: Lock | None, *, refresh: bool) -> Ready:
    name = _memo(maker.name, making, given)
    lock = None if refresh else shelf.noted(name)
    if lock is not None and (found := _found(maker, lock, making.wanted)):
        return found
    shelf.root().mkdir(parents=True, exist_ok=True)
    shelf.sweep()
    memo = shelf.root() / "resolved" / f"{name}.lock"
    with shelf.locked(memo, lambda: making.progress("waiting for another process that makes it")) as first:
        lock = None if refresh else shelf.noted(name)
        if lock is not None and (found := _found(maker, lock, making.wanted)):
            return found
        with shelf.scratch() as (folder, second):
            making = attrs.evolve(making, scratch=folder, wheels=folder / "wheels", locks=(first, second))
            if lock is None or any(each.wheel for each in lock.requirements):  # wheels go with their environment
                lock = _resolved(maker, making, lock or given)
            done = _found(maker, lock, making.wanted) or _build(maker, lock, making)
            shelf.note(name, done.key, lock)
            return done


def _resolved(maker: Environments, making: Making, given: Lock | None) -> Lock:
    """Return the lock, with the wheels of local packages built: those asked for first, then those it names."""

    def build(source: Path, folder: Path) -> None:
        maker.wheel(source, folder, making)

    def wheel(local: Local) -> Pinned:
        making.progress(f"building {local.said}")
        try:
            return build_wheel(local, making.wheels, making.wanted.folder, build)
        except EnvironmentFailed as error:
            raise EnvironmentFailed(f"{local.said} cannot be built: {error}") from error

    check(making.asked)
    check(making.build)
    if given is None:
        making = attrs.evolve(making, local=tuple(map(wheel, making.asked.local)))
        lock = maker.resolve(making)
    else:
        lock = given
    built, pins = {each.name: each for each in making.local}, list[Pinned]()
    for pin in lock.requirements:
        pins.append(built.get(normalized(pin.name), pin))
        if pins[-1].source and not (making.wheels / pins[-1].wheel).is_file():
            path = Path(os.path.normpath(making.wanted.folder / pin.source))
            if not path.exists():
                raise EnvironmentFailed(f"{pin.name} {pin.version} was built from {path}, which is not there")
            pins[-1] = attrs.evolve(wheel(Local(path, pin.source)), digest=digest(path))
    return attrs.evolve(lock, requirements=pins)


def _memo(kind: str, making: Making, given: Lock | None) -> str:
    """Return the name under which is remembered what came of this: nothing in it can be told from it."""
    wanted, asked, origin = making.wanted, making.asked, making.origin
    said = [*asked.lines, "", *asked.constraints, "", *asked.options, ""]
    said += [*making.build.lines, "", *making.build.constraints, "", *making.build.options, "", *choices()]
    files = [] if wanted.lock is None else [wanted.lock, wanted.lock.parent / "pyproject.toml"]
    told = [
        *(kind, origin.platform, origin.python, *origin.indexes, wanted.python),
        *map(without_credentials, said),
        *(f"{each.said} {each.extras} {each.marker} {digest(each.path)}" for each in asked.local),
        *(hashlib.sha256(each.read_bytes()).hexdigest() for each in files if each.is_file()),
        given.as_dict() if given else None,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _found(maker: Environments, lock: Lock, wanted: Wanted) -> Ready | None:
    """Return an environment that is complete, kept for this process; None if it is to be built."""
    key = lock.key(maker.name)
    folder = shelf.root() / key / "env"
    if _stale(lock, wanted) or shelf.told(key) is None:
        return None
    shelf.hold(key)  # it may have been removed meanwhile
    if shelf.told(key) is None or not maker.python(folder).exists():  # the interpreter it was made from may be gone
        shelf.let_go(key)
        return None
    shelf.touch(key)
    return _finished(maker, lock, wanted, folder, reused=True)


def _stale(lock: Lock, wanted: Wanted) -> bool:
    """Tell whether a local package that is named by a lock, and by nothing else, is another than it was."""
    named = {wanted.folder / each.source: each.digest for each in lock.requirements if each.digest}
    return any(not path.exists() or digest(path) != before for path, before in named.items())


def _finished(maker: Environments, lock: Lock, wanted: Wanted, folder: Path, *, reused: bool) -> Ready:
    variables = dict(maker.variables(folder))
    if "PATH" in variables:
        variables["PATH"] = os.pathsep.join(filter(None, [variables["PATH"], os.environ.get("PATH", "")]))
    left = (f"not installed: {', '.join(wanted.left_out)}",) if wanted.left_out else ()
    place = folder.parent if maker.kept else None
    return Ready(
        lock.key(maker.name),
        maker.name,
        maker.python(folder),
        variables,
        lock,
        reused,
        place,
        (*left, *maker.notes(wanted, lock)),
    )


def _build(maker: Environments, lock: Lock, making: Making) -> Ready:
    key = lock.key(maker.name)
    place = shelf.root() / key
    with shelf.locked(shelf.root() / f"{key}.lock", lambda: making.progress("waiting for another build")) as handle:
        if shelf.told(key) is None or not maker.python(place / "env").exists():
            shelf.clear(key)
            try:
                place.mkdir(parents=True)
                if making.wheels.is_dir():
                    making.wheels.rename(place / "wheels")
                making = attrs.evolve(making, wheels=place / "wheels", locks=(*making.locks, handle))
                maker.build(lock, place / "env", making)
                shelf.mark(key, maker.name, lock)
            except BaseException:
                shelf.clear(key)
                raise
    found = _found(maker, lock, making.wanted)
    if found is None:
        raise EnvironmentFailed(f"environment {key} was made, and is gone again or has no interpreter")
    return attrs.evolve(found, reused=False)
