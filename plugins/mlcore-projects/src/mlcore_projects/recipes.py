"""How a run was started, by what it recorded of itself: an entry point of a project, or a command, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore_local.code.places import find
from mlcore_local.code.secrets import MASK
from mlcore_projects.binding import entry_point
from mlcore_projects.downloading import is_remote
from mlcore_projects.errors import ProjectError
from mlcore_projects.reading import read_command, read_project
from mlcore_projects.specs import Project

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["NotReproducible", "Recipe", "place_of", "recipe_of", "with_parameters"]

_CUT = "…"  # what stands for the rest of a command line that is too long to keep
_AGAIN = {"script", "module", "command"}  # ways to start a process that can be gone again


class NotReproducible(ProjectError):
    """Say what a run did not record, or what of it is not there any more, so that it cannot be made again."""


@attrs.frozen
class Recipe:
    """Say how to start a run again: by the entry point of a project, or, if `argv` is there, by a command.

    `place` is the folder it starts in, seen from the root of its tree; `file` is the project's file in it, if it is not
    the one that is read by default. `kind` is that of its environment, empty if nothing made one for it.
    """

    place: str
    file: str = ""
    entry: str | None = None
    parameters: Mapping[str, Any] = attrs.field(factory=dict)
    argv: tuple[str, ...] = ()
    kind: str = ""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise `NotReproducible` if something was not recorded as it looked secret, and is not given now."""
        if MASK in "".join(argv := with_parameters(self.argv, parameters) if self.argv else ()):
            raise NotReproducible(
                f"the run does not say all of its command, as it looked secret: {' '.join(argv)}; give what is missing"
                f" by -P NAME=VALUE, for --NAME {MASK}"
            )
        if masked := [name for name, value in self.parameters.items() if value == MASK and name not in parameters]:
            raise NotReproducible(
                f"the run does not say what {', '.join(masked)} was, as it looked secret: give it by -P"
            )

    def project(self, tree: Path, parameters: Mapping[str, Any]) -> tuple[Project, dict[str, Any]]:
        """Return the project in a tree, and what to bind to its entry point. Raises `ProjectError`."""
        folder = tree / self.place
        if not folder.is_dir():
            raise NotReproducible(f"the run was started in {self.place!r}, a folder that its code does not have")
        if self.argv:
            return read_command(with_parameters(self.argv, parameters), folder), {}
        project = read_project(folder / self.file if self.file else folder)
        paths = {each.name for each in entry_point(project, self.entry).parameters if each.type == "path"}
        kept = {name: value for name, value in self.parameters.items() if name not in parameters}
        for name in paths & kept.keys():
            if not is_remote(str(kept[name])):
                kept[name] = str(folder / str(kept[name]))
        return project, {**kept, **parameters}


def recipe_of(run: Run) -> Recipe:
    """Return how a run was started. Raises `NotReproducible` if it does not tell."""
    told = run.context
    if told.get("project.kind") == "command":
        return Recipe(
            told.get("project.place", ""), argv=_whole(run, told["project.command"]), kind=told["project.environment"]
        )
    if "project.entry_point" in told:
        form, uri = told["project.form"], str(told["project.source"])
        file = os.path.basename(uri) if told["project.kind"] == "script" else ""
        return Recipe(
            told.get("project.place", ""), "pyproject.toml" if form == "pyproject" else file,
            told["project.entry_point"], told.get("project.parameters", {}), kind=told.get("project.environment", ""),
        )  # fmt: skip
    kind = told.get("command.kind")
    if kind is None:
        raise NotReproducible(
            f"run {run.name} ({run.id}) did not record what was started: see the setting capture, and log such runs"
            " anew"
        )
    if kind not in _AGAIN:
        raise NotReproducible(
            f"run {run.name} ({run.id}) was made in {'a notebook' if kind == 'notebook' else 'an interactive Python'},"
            " and nobody knows which cells ran: put the code into a script, or run the notebook by a command"
        )
    argv = _whole(run, told["command.argv"])
    if os.path.basename(argv[0]).startswith("python"):
        argv = ("python", *argv[1:])
    place, entry = told.get("command.folder", ""), told.get("command.entry", "")
    if "git.tree" not in told and kind == "script":  # then the script's own folder is all that was kept
        place, argv = "", tuple(entry if os.path.basename(each) == entry else each for each in argv)
    return Recipe(place, argv=argv)


def _whole(run: Run, argv: Sequence[str]) -> tuple[str, ...]:
    if not argv or argv[-1] == _CUT or any(each.endswith(_CUT) for each in argv):
        raise NotReproducible(f"run {run.name} ({run.id}) did not record its whole command, which is too long to keep")
    return tuple(argv)


def with_parameters(argv: Sequence[str], parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a command line in which options have other values; those that it does not have come at its end."""
    words = list(argv)
    for name, value in parameters.items():
        option, text = f"--{name}", str(value)
        if option in words[:-1]:
            words[words.index(option) + 1] = text
        elif at := [number for number, word in enumerate(words) if word.startswith(f"{option}=")]:
            words[at[-1]] = f"{option}={text}"
        else:
            words += [option, text]
    return tuple(words)


def place_of(folder: Path) -> str:
    """Return a folder as it is seen from the top of the repository that it is in, empty without one."""
    found, here = find(folder), folder.resolve()
    return "" if found is None or here == found.root else here.relative_to(found.root).as_posix()
