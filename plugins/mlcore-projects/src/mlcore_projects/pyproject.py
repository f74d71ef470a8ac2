"""Read projects that stand in the ``[tool.mlcore]`` of a pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlcore_projects.declaring import entry_points
from mlcore_projects.documents import line, read_toml, table
from mlcore_projects.errors import ProjectError
from mlcore_projects.specs import Project, Source
from mlcore_projects.wanting import from_tables

__all__ = ["has_entry_points", "read_pyproject"]


def has_entry_points(file: Path) -> bool:
    """Tell whether a pyproject.toml is there and has ``[tool.mlcore.entry_points]``. Raises `ProjectError`."""
    return file.is_file() and "entry_points" in _tool(read_toml(file), file)


def read_pyproject(file: Path, source: Source) -> Project:
    """Return the project of a pyproject.toml. Raises `ProjectError`."""
    said = read_toml(file)
    tool, about = _tool(said, file), table(said.get("project"), f"{file}: project")
    entries = entry_points(tool.get("entry_points"), str(file))
    if not entries:
        raise ProjectError(f"{file} declares no entry points: add [tool.mlcore.entry_points.main] with a command")
    name = line(about.get("name", file.parent.resolve().name), f"{file}: name")
    environment = from_tables(about, tool.get("environment"), file)
    return Project(name, file.parent, "pyproject", entries, environment, source)


def _tool(said: dict[str, Any], file: Path) -> dict[str, Any]:
    return table(table(said.get("tool"), f"{file}: tool").get("mlcore"), f"{file}: tool.mlcore")
