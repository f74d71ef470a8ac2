"""What a project says: data that are read once, and passed on unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

__all__ = ["TYPES", "EntryPoint", "Parameter", "Project", "Source", "Wanted"]

TYPES = ("string", "int", "float", "bool", "choice", "path", "uri")


@attrs.frozen
class Parameter:
    """Declare one parameter of an entry point; `type` is one of `TYPES`, and `choices` are what a choice may be."""

    name: str
    type: str = "string"
    default: Any = None
    required: bool = True
    choices: tuple[str, ...] = ()
    help: str = ""


@attrs.frozen
class EntryPoint:
    """Say what to run under one name.

    `command` is an argument list, in which ``{name}`` stands for the whole value of a parameter, or the template of an
    MLproject, a text. What is passed and not declared is appended as ``--name value``.
    """

    name: str
    command: tuple[str, ...] | str
    parameters: tuple[Parameter, ...] = ()
    help: str = ""


@attrs.frozen
class Wanted:
    """Say what environment a project wants: `kind` is empty if it does not say, `folder` is where paths begin.

    `requirements` and `build` are lines as pip reads them, `python` is a version or a specifier such as ``>=3.11``.
    """

    folder: Path
    kind: str = ""
    python: str = ""
    requirements: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    lock: Path | None = None
    conda: Path | None = None
    container: Mapping[str, Any] | None = None


@attrs.frozen
class Source:
    """Say where a project came from: `kind` is folder, git, script or command; a URI never holds credentials."""

    uri: str
    kind: str
    subfolder: str = ""
    revision: str = ""
    commit: str = ""


@attrs.frozen
class Project:
    """Hold a project as it was read: `form` is MLproject, pyproject, script, command or folder."""

    name: str
    folder: Path
    form: str
    entry_points: Mapping[str, EntryPoint]
    environment: Wanted
    source: Source
