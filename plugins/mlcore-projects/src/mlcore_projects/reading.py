"""Read a project, whatever form it has: MLproject, pyproject.toml, one script, a command, or a folder of scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from mlcore_projects.declaring import INTERPRETERS, script_command
from mlcore_projects.errors import ProjectError
from mlcore_projects.mlproject import find_mlproject, read_mlproject
from mlcore_projects.pyproject import has_entry_points, read_pyproject
from mlcore_projects.script import read_script
from mlcore_projects.specs import EntryPoint, Project, Source
from mlcore_projects.wanting import beside

__all__ = ["read_command", "read_project", "read_script"]


def read_project(path: Path, source: Source | None = None) -> Project:
    """Return the project at a path: a folder, its MLproject or pyproject.toml, or a script. Raises `ProjectError`.

    In a folder an MLproject comes first, then ``[tool.mlcore.entry_points]`` in pyproject.toml; without both every
    script in it is an entry point.
    """
    path = path.absolute()
    try:
        if path.is_dir():
            return _folder(path, source or Source(str(path), "folder"))
        if not path.is_file():
            raise ProjectError(f"there is no folder or file {path}")
    except OSError as error:
        raise ProjectError(f"cannot read {path}: {error.strerror}") from error
    if path.name.lower() == "mlproject":
        return read_mlproject(path, source or Source(str(path.parent), "folder"))
    if path.name == "pyproject.toml":
        return read_pyproject(path, source or Source(str(path.parent), "folder"))
    return read_script(path, source)


def read_command(argv: Sequence[str], folder: Path | None = None) -> Project:
    """Return a command as a project: run as it is, in the environment that is there unless another is asked for.

    What the folder says of an environment is there for who asks. Raises `ProjectError` if there is no program.
    """
    if not argv or not argv[0].strip():
        raise ProjectError("there is no command: give a program and its arguments, as in -- python train.py --lr 0.1")
    folder = (folder or Path.cwd()).absolute()
    literal = tuple(each.replace("{", "{{").replace("}", "}}") for each in argv)
    name = Path(argv[0]).name or argv[0]
    environment = attrs.evolve(beside(folder), kind="system")
    return Project(
        name, folder, "command", {"main": EntryPoint("main", literal)}, environment, Source(str(folder), "command")
    )


def _folder(folder: Path, source: Source) -> Project:
    if file := find_mlproject(folder):
        return read_mlproject(file, source)
    if has_entry_points(file := folder / "pyproject.toml"):
        return read_pyproject(file, source)
    scripts = sorted(each.name for each in folder.iterdir() if each.suffix in INTERPRETERS and each.is_file())
    entries = {name: EntryPoint(name, script_command(name)) for name in scripts}
    return Project(folder.resolve().name or str(folder), folder, "folder", entries, beside(folder), source)
