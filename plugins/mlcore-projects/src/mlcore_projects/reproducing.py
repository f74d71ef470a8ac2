"""Make a run again: the same tree and environment in a new folder, the same command, and what then differs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore import Client
from mlcore_local.comparing import PARTS, Change, Differences, compare
from mlcore_projects.checks import Check, CheckResult, parse_check
from mlcore_projects.environments import Progress, Ready
from mlcore_projects.recipes import NotReproducible, Recipe, recipe_of

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["RESULTS", "TAG", "Prepared", "Reproduced", "prepare", "reproduce"]

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
    parameters: Mapping[str, Any] | None = None,
    runner: str | None = None,
    store: str | os.PathLike[str] | None = None,
    tell: Progress | None = None,
) -> Reproduced:
    """Make a run again, as a new run of its experiment, and compare the two.

    `folder` is a new one, or one that `prepare` made; without it a temporary one is used, and kept only if the two runs
    differ. `environment` is a kind of environments, such as ``"venv"``, and ``"system"`` the Python that runs; by default
    that of the run is made. `parameters` replace those of the run. `check` are what metrics must be, such as
    ``"accuracy +- 0.001"``. Raises `NotReproducible` if the run does not say enough, and what making its tree, its
    environment or the new run raises; then nothing half-made is left.
    """
    client = Client(store)
    original = client.get_run(run) if isinstance(run, str) else run
    checks = [parse_check(each) if isinstance(each, str) else each for each in check]
    for each in checks:
        each.of(original.metrics, original.metrics)  # so that a misspelt one is told before anything is made
    made = prepare(original, folder, environment=environment, store=store, tell=tell)
    again = _run(made, client, parameters or {}, runner, tell)
    found = Reproduced(
        original, again, made.folder, compare(original, again, client=client),
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
    store: str | os.PathLike[str] | None = None,
    tell: Progress | None = None,
) -> Prepared:
    """Make the tree of a run in a new folder, and its environment, and start nothing.

    A folder that was prepared for the same run before is taken as it is now. Raises what `reproduce` does.
    """
    client = Client(store)
    original = client.get_run(run) if isinstance(run, str) else run
    recipe = recipe_of(original)
    place = Path(tempfile.mkdtemp(prefix=f"mlcore-{original.id[-8:]}-") if folder is None else folder).absolute()
    note = _noted(place)
    if note is not None and note["run"] != original.id:
        raise NotReproducible(f"{place} was prepared for run {note['run']}, not for {original.id}")
    if note is None and place.exists() and any(place.iterdir()):
        raise NotReproducible(f"{place} is not empty, and was not made by mlcore reproduce: name a new folder")
    try:
        if note is None:
            note = _restored(client, original, place)
        made = _environment(client, original, recipe, place, environment, tell)
    except BaseException:
        if folder is None or _noted(place) is None or not before:
            shutil.rmtree(place, ignore_errors=True)
        raise
    return Prepared(original, recipe, place, note["tree"], made, (*note["notes"], *made.notes))
