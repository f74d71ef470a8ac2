"""Make a run again: the same tree and environment in a new folder, the same command, and what then differs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore import Client
from mlcore.errors import ArtifactNotFound, InvalidValue
from mlcore_local.code import restore
from mlcore_local.comparing import PARTS, Change, Differences, compare
from mlcore_local.packages import packages_of
from mlcore_projects.checks import Check, CheckResult, parse_check
from mlcore_projects.environments import Progress, Ready, ready
from mlcore_projects.locks import Lock, Pinned, lock_of_packages, normalized, read_lock
from mlcore_projects.recipes import NotReproducible, Recipe, recipe_of
from mlcore_projects.running import LOCK, run as run_project
from mlcore_projects.specs import Wanted

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["RESULTS", "TAG", "NotReproducible", "Prepared", "Reproduced", "prepare", "reproduce"]

TAG = "reproduces"
RESULTS = ("metrics", "models")  # what came out; the rest went in
_NOTE = "mlcore-reproduce.json"


@attrs.frozen
class Prepared:
    """Hold what was made for a run: a folder with its tree, and its environment; `notes` are what a person should know.

    `tree` is git's hash of the tree, empty if the run was made outside of a repository.
    """

    original: Run
    recipe: Recipe
    folder: Path
    tree: str
    environment: Ready
    notes: tuple[str, ...] = ()


@attrs.frozen
class Reproduced:
    """Hold the run that was made, all in which it differs from the original, and what was asked of its metrics."""

    original: Run
    run: Run
    folder: Path
    differences: Differences
    checks: tuple[CheckResult, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def differing(self) -> dict[str, tuple[Change, ...]]:
        """What is not as it must be, by part: of all of them, or with checks of all that went in."""
        parts = [part for part in PARTS if not (self.checks and part in RESULTS)]
        found = {part: tuple(each for each in getattr(self.differences, part) if _counts(each)) for part in parts}
        return {part: changes for part, changes in found.items() if changes}

    @property
    def same(self) -> bool:
        """Whether the run ended as the original did, all that decides is alike, and every check passed."""
        ended = self.run.status == self.original.status
        return ended and not self.differing and all(each.passed for each in self.checks)


def reproduce(
    run: str | Run,
    *,
    folder: str | os.PathLike[str] | None = None,
    check: Sequence[str | Check] = (),
    environment: str | None = None,
    versions: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    runner: str | None = None,
    store: str | os.PathLike[str] | None = None,
    tell: Progress | None = None,
) -> Reproduced:
    """Make a run again, as a new run of its experiment, and compare the two.

    `folder` is a new one, or one that `prepare` made; without it a temporary one is used, and kept only if the two runs
    differ. `environment` is a kind of environments, such as ``"venv"``, and ``"system"`` the Python that runs; by
    default that of the run is made. `versions` of packages, by name, and `parameters` replace those of the run. `check`
    are what metrics must be, such as ``"accuracy +- 0.001"``. Raises `NotReproducible` if the run does not say enough,
    and what making its tree, its environment or the new run raises; then nothing half-made is left.
    """
    client = Client(store)
    original = client.get_run(run) if isinstance(run, str) else run
    checks = [parse_check(each) if isinstance(each, str) else each for each in check]
    for each in checks:
        each.of(original.metrics, original.metrics)  # so that a misspelt one is told before anything is made
    if original.status == "RUNNING":
        raise NotReproducible(f"{original.name} ({original.id}) goes on: reproduce it when it has ended")
    recipe_of(original).check(parameters or {})
    made = prepare(original, folder, environment=environment, versions=versions, store=store, tell=tell)
    try:
        again = _run(made, client, parameters or {}, runner, tell)
    except BaseException:
        if folder is None:
            shutil.rmtree(made.folder, ignore_errors=True)
        raise
    plain = () if "project.entry_point" in original.context else ("command.project.entry_point",)
    found = Reproduced(
        original, again, made.folder, compare(original, again, client=client, ignore=plain),
        tuple(each.of(original.metrics, again.metrics) for each in checks), made.notes,
    )  # fmt: skip
    if found.same and folder is None:
        shutil.rmtree(made.folder, ignore_errors=True)
    return found


def prepare(
    run: str | Run,
    folder: str | os.PathLike[str] | None = None,
    *,
    environment: str | None = None,
    versions: Mapping[str, str] | None = None,
    store: str | os.PathLike[str] | None = None,
    tell: Progress | None = None,
) -> Prepared:
    """Make the tree of a run in a new folder, and its environment, and start nothing.

    A folder that was prepared for the same run before is taken as it is now. Raises what `reproduce` does.
    """
    client = Client(store)
    original = client.get_run(run) if isinstance(run, str) else run
    recipe, tell = recipe_of(original), tell or _silent
    named = folder if folder is not None else tempfile.mkdtemp(prefix=f"mlcore-{original.id[-8:]}-")
    place = Path(os.path.realpath(named))
    note, new = _noted(place, original), not place.exists()
    known = note is not None
    try:
        if note is None:
            tell(f"restoring the code of {original.name} ({original.id[-8:]}) in {place}")
            restored = restore(original, place)
            note = {"run": original.id, "tree": restored.tree, "notes": list(restored.notes)}
        made, remarks = _environment(client, original, recipe, place, environment, versions or {}, tell)
        _note(place).write_text(json.dumps(note))
    except BaseException:
        if not known:  # what was prepared before stays
            _remove(place, itself=new or folder is None)
        raise
    return Prepared(original, recipe, place, note["tree"], made, (*note["notes"], *remarks, *made.notes))


def _silent(text: str) -> None:
    """Say nothing."""


def _note(place: Path) -> Path:
    """Return the file that says for which run a folder was prepared; where there is one, not in the tree of git."""
    return place / ".git" / _NOTE if (place / ".git").is_dir() else place / f".{_NOTE}"


def _noted(place: Path, original: Run) -> dict[str, Any] | None:
    """Return what is noted of a folder, None of a new one. Raises `NotReproducible` if it is of something else."""
    try:
        there = any(place.iterdir())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise NotReproducible(f"{place} is a file: name a new folder") from None
    if not there:
        return None
    with suppress(OSError, ValueError):
        note: dict[str, Any] = json.loads(_note(place).read_bytes())
        if note["run"] == original.id:
            return note
        raise NotReproducible(f"{place} was prepared for run {note['run']}, not for {original.id}: name another folder")
    raise NotReproducible(f"{place} is not empty, and not by mlcore reproduce: name a new folder")


def _remove(place: Path, *, itself: bool) -> None:
    with suppress(OSError):
        for each in place.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink()
        if itself:
            place.rmdir()


def _environment(
    client: Client, original: Run, recipe: Recipe, tree: Path, kind: str | None, versions: Mapping[str, str],
    tell: Progress,
) -> tuple[Ready, tuple[str, ...]]:  # fmt: skip
    """Make the environment of a run, of its lock or of the packages that it saw; return remarks on it, too."""
    folder = tree / recipe.place
    if kind == "system":
        if versions:
            raise InvalidValue("the Python that runs is taken as it is: no version of a package can be chosen for it")
        return ready(Wanted(folder), "system", progress=tell), ()
    kind = kind or (recipe.kind if recipe.kind != "system" else "") or None
    remarks: tuple[str, ...] = ()
    try:
        lock = _found_again(read_lock(original.artifacts.get(LOCK).read_text()), original, folder)
    except ArtifactNotFound:
        lock, remarks = _lock_of_packages(client, original, tree)
    return ready(_with_versions(lock, versions), kind, progress=tell), remarks


def _with_versions(lock: Lock, versions: Mapping[str, str]) -> Lock:
    """Return a lock in which some packages have other versions; all else stays, whatever they require."""
    wanted = {normalized(name): version for name, version in versions.items()}
    if unknown := sorted(wanted.keys() - {normalized(each.name) for each in lock.requirements}):
        near = get_close_matches(unknown[0], lock.packages, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidValue(f"the environment of the run has no package {unknown[0]!r}{hint}")
    pins = (
        Pinned(each.name, wanted[normalized(each.name)]) if normalized(each.name) in wanted else each
        for each in lock.requirements
    )
    return attrs.evolve(lock, requirements=pins)


def _found_again(lock: Lock, original: Run, folder: Path) -> Lock:
    """Return a lock whose local packages are those of the new tree, and where they were if it does not have them."""
    pins = []
    for pin in lock.requirements:
        places = [folder, *([Path(before)] if (before := original.context.get("project.folder")) else [])]
        found = [Path(os.path.normpath(place / pin.source)) for place in places]
        if pin.source:
            there = next((each for each in found if each.exists()), found[0])
            pins.append(attrs.evolve(pin, source=str(there), digest=""))
        else:
            pins.append(pin)
    return attrs.evolve(lock, requirements=pins)


def _lock_of_packages(client: Client, original: Run, tree: Path) -> tuple[Lock, tuple[str, ...]]:
    packages, python = packages_of(client, original), original.context.get("python.version")
    if not packages or not python:
        raise NotReproducible(
            f"run {original.name} ({original.id}) recorded neither a lock nor its packages: choose the environment that"
            " you are in by --env system"
        )
    here = _installed_from_folders()
    local = {
        name: path for name, path in here.items()
        if name in packages and "path" not in packages[name] and (packages[name].get("editable") or _own(name))
    }  # fmt: skip
    remarks = tuple(f"{name} is built from {path}, from where it is installed here" for name, path in local.items())
    return lock_of_packages(packages, tree, python=str(python), local=local), remarks


def _own(name: str) -> bool:
    return name == "mlcore" or name.startswith("mlcore-")


def _installed_from_folders() -> dict[str, Path]:
    """Return the folders that packages of this interpreter were installed from, by their names (PEP 610)."""
    from importlib.metadata import distributions
    from urllib.parse import unquote, urlsplit

    found = {}
    for each in distributions():
        with suppress(ValueError, KeyError, TypeError):
            direct = json.loads(each.read_text("direct_url.json") or "{}")
            if "dir_info" in direct:
                found[each.name.replace("_", "-").lower()] = Path(unquote(urlsplit(direct["url"]).path))
    return found


def _run(
    made: Prepared, client: Client, parameters: Mapping[str, Any], runner: str | None, tell: Progress | None
) -> Run:
    """Run the command of a run in what was prepared, in the same experiment."""
    project, values = made.recipe.project(made.folder, parameters)
    experiment = client.get_experiment(made.original.experiment_id).name
    submitted = run_project(
        project, made.recipe.entry, values, environment=made.environment, runner=runner, experiment=experiment,
        tags={TAG: made.original.id}, store=client.setting.value, tell=tell,
    )  # fmt: skip
    return submitted.run


def _counts(change: Change) -> bool:
    """Tell whether a difference decides: that it was another machine does not."""
    return not change.name.startswith("host.")
