"""Check a project before it runs: what can be seen without running anything of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from mlcore_projects.binding import check_default
from mlcore_projects.composing import compose
from mlcore_projects.declaring import INTERPRETERS
from mlcore_projects.errors import ProjectError
from mlcore_projects.mlproject import find_mlproject, unknown
from mlcore_projects.specs import EntryPoint, Project, Wanted
from mlcore_projects.templates import fill

__all__ = ["remarks"]


def remarks(project: Project) -> Iterator[tuple[str, str]]:
    """Yield what is wrong or worth knowing, each as (``error`` or ``remark``, text)."""
    if not project.entry_points:
        yield "error", "there is no entry point: no project file, and no script (.py, .sh or .R)"
    if project.form == "MLproject" and (file := find_mlproject(project.folder)):
        yield from (("remark", each) for each in unknown(file))
    for entry in project.entry_points.values():
        for severity, what in _of_entry(project, entry):
            yield severity, f"entry point {entry.name!r}: {what}"
    yield from _of_environment(project.environment)


def _of_entry(project: Project, entry: EntryPoint) -> Iterator[tuple[str, str]]:
    for each in entry.parameters:
        if wrong := check_default(project, entry, each):
            yield "error", f"the default of {wrong}"
    try:
        command = compose(entry, "its command")
    except ProjectError as error:
        yield "error", str(error)
        return
    if command.needs:
        yield "remark", f"it needs a shell, for {' '.join(map(repr, command.needs))}, and so --trust"
    named = [word for word in command.words if all(isinstance(piece, str) for piece in word)]
    for program, file in pairwise(named):
        first, second = fill(program, {}), fill(file, {})
        runs = Path(first).name in (*INTERPRETERS.values(), "python3")
        if runs and Path(second).suffix in INTERPRETERS and not (project.folder / second).is_file():
            yield "error", f"its command runs {second}, and there is no such file in {project.folder}"


def _of_environment(wanted: Wanted) -> Iterator[tuple[str, str]]:
    for each in (*wanted.requirements, *wanted.build):
        option, _, name = each.partition(" ")
        local = option in ("-r", "-c", "--requirement", "--constraint") and "://" not in name
        if local and not (wanted.folder / name.strip()).is_file():
            yield "error", f"the environment names {name.strip()}, and there is no such file in {wanted.folder}"
    if wanted.left_out:
        yield "remark", f"pip cannot install {', '.join(wanted.left_out)}"
