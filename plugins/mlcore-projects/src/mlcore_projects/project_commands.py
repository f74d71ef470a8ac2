"""``mlcore projects``: look at a project and check it, without running anything of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import click

from mlcore.cli import Group
from mlcore.errors import MlcoreError
from mlcore_local import terminal
from mlcore_projects.checking import remarks
from mlcore_projects.sources import fetch
from mlcore_projects.specs import Project

__all__ = ["projects", "show", "validate"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_version = click.option("--version", metavar="REV", help="A branch, a tag or a commit of a git repository.")
_source = click.argument("source", default=".")


@click.group(cls=Group, no_args_is_help=True)
def projects() -> None:
    """Look at projects and check them, without running anything.

    SOURCE is a folder with an MLproject or a pyproject.toml, a script, or a git repository: a path or a URL, with
    #SUBFOLDER and @REV where they are meant.
    """


@projects.command(epilog="Example: mlcore projects show https://example.com/digits.git#train@v2")
@_source
@_version
@_as_json
def show(source: str, version: str | None, as_json: bool) -> None:
    """Show the entry points of SOURCE, their parameters, and the environment it wants."""
    with _fetched(source, version) as project:
        terminal.show(terminal.as_json(_described(project)) if as_json else _page(project))


@projects.command(epilog="Example: mlcore projects validate .")
@_source
@_version
@_as_json
def validate(source: str, version: str | None, as_json: bool) -> None:
    """Check SOURCE: exit code 1 if something in it cannot run."""
    try:
        with _fetched(source, version) as project:
            found = list(remarks(project))
    except MlcoreError as error:
        if not as_json:
            raise
        found = [("error", str(error))]
    wrong = sum(severity == "error" for severity, _ in found)
    if as_json:
        told = [{"severity": severity, "what": what} for severity, what in found]
        terminal.show(terminal.as_json({"valid": not wrong, "remarks": told}))
    else:
        counted = terminal.counted(wrong, "error"), terminal.counted(len(found) - wrong, "remark")
        lines = [terminal.printable(f"{severity}: {what}") for severity, what in found]
        terminal.show([*lines, ", ".join(counted)])
    sys.exit(1 if wrong else 0)


@contextmanager
def _fetched(source: str, version: str | None) -> Iterator[Project]:
    """Give a project, and remove what was fetched for it alone."""
    with tempfile.TemporaryDirectory(prefix="mlcore-") as folder:
        yield fetch(source, version=version, folder=Path(folder) / "tree")


def _described(project: Project) -> dict[str, Any]:
    """Return a project as plain values, as JSON holds them."""

    def plain(_: type, __: Any, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    told = attrs.asdict(project, value_serializer=plain)
    told["entry_points"] = [attrs.asdict(each, value_serializer=plain) for each in project.entry_points.values()]
    if project.source.kind == "git":  # its tree is gone when this is read
        told["folder"] = told["environment"]["folder"] = None
    return told


def _page(project: Project) -> Iterator[str]:
    source, wanted = project.source, project.environment
    place = source.uri + (f"#{source.subfolder}" if source.subfolder else "")
    facts = {
        "project": f"{project.name} ({project.form})",
        "source": place,
        "revision": " ".join(each for each in (source.revision, source.commit) if each),
        "environment": wanted.kind,
        "python": wanted.python,
        "requirements": ", ".join(wanted.requirements),
        "build": ", ".join(wanted.build),
        "lock": wanted.lock and wanted.lock.name,
        "conda": wanted.conda and wanted.conda.name,
        "image": wanted.container and wanted.container.get("image"),
        "left out": ", ".join(wanted.left_out),
    }
    yield from (f"{key + ':':13} {terminal.printable(value)}" for key, value in facts.items() if value)
    for entry in project.entry_points.values():
        command = entry.command if isinstance(entry.command, str) else " ".join(entry.command)
        yield ""
        yield terminal.printable(f"{entry.name}" + (f": {entry.help}" if entry.help else ""))
        yield f"  {terminal.printable(command)}"
        for each in entry.parameters:
            kind = f"one of {', '.join(each.choices)}" if each.choices else each.type
            default = "" if each.required else f", by default {each.default!r}"
            yield terminal.printable(f"  -P {each.name}=  {kind}{default}" + (f"  {each.help}" if each.help else ""))
        if entry.open:
            yield "  other parameters are appended as --name value"
