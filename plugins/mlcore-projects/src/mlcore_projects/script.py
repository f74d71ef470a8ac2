"""Read one script as a project, with its inline metadata: PEP 723, https://peps.python.org/pep-0723/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlcore_projects.declaring import INTERPRETERS, entry_points, parameters, script_command
from mlcore_projects.documents import only, parse_toml, read_text, table
from mlcore_projects.errors import ProjectError
from mlcore_projects.specs import EntryPoint, Project, Source
from mlcore_projects.wanting import beside, script_environment

__all__ = ["metadata", "read_script"]

# The expression of the standard.
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_TOOL = ("parameters", "entry_points", "environment", "extra")


def metadata(file: Path) -> dict[str, Any] | None:
    """Return what the block ``# /// script`` of a file says, None if there is none. Raises `ProjectError`."""
    text = read_text(file).replace("\r\n", "\n")
    found = [each for each in _BLOCK.finditer(text) if each["type"] == "script"]
    if len(found) > 1:
        raise ProjectError(f"{file} has {len(found)} blocks of metadata, and may have one")
    if not found:
        return None
    lines = found[0]["content"].splitlines()
    return parse_toml("\n".join(each[2:] if each.startswith("# ") else each[1:] for each in lines), f"{file}: metadata")


def read_script(file: Path, source: Source | None = None) -> Project:
    """Return a script as a project, whose one entry point is ``main`` if it declares none. Raises `ProjectError`."""
    if file.suffix not in INTERPRETERS:
        raise ProjectError(f"{file} is no script that mlcore knows how to run: {', '.join(INTERPRETERS)} are")
    source = source or Source(str(file.absolute()), "script")
    said = metadata(file) if file.suffix == ".py" else None
    if said is None:
        entry = EntryPoint("main", script_command(file.name))
        return Project(file.stem, file.parent, "script", {"main": entry}, beside(file.parent), source)
    tool = table(table(said.get("tool"), f"{file}: tool").get("mlcore"), f"{file}: tool.mlcore")
    only(tool, (*_TOOL, "store", "experiment"), f"{file}: tool.mlcore")
    entries = entry_points(tool.get("entry_points"), str(file), lambda declared: script_command(file.name, declared))
    if not entries:
        declared = parameters(tool.get("parameters"), str(file), strict=True)
        extra = tool.get("extra", not declared)
        if not isinstance(extra, bool):
            raise ProjectError(f"{file}: extra must be true or false, and is {extra!r:.40}")
        entries = {"main": EntryPoint("main", script_command(file.name, declared), declared, open=extra)}
    elif "parameters" in tool:
        raise ProjectError(f"{file} has both parameters and entry_points: put the parameters into their entry points")
    environment = script_environment(said, tool.get("environment"), file)
    return Project(file.stem, file.parent, "script", entries, environment, source)
