"""What a project says: data that are read once, and passed on unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

__all__ = ["TYPES", "Bound", "EntryPoint", "Parameter", "Project", "Source", "Wanted"]

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

    `command` is an argument list, in which ``{name}`` stands for the whole value of a parameter and ``{{`` for a brace,
    or the template of an MLproject, a text, in which it does, too. If `open`, what is passed and not declared is
    appended as ``--name value``; else it is an error.
    """

    name: str
    command: tuple[str, ...] | str
    parameters: tuple[Parameter, ...] = ()
    help: str = ""
    open: bool = True


@attrs.frozen
class Wanted:
    """Say what environment a project wants: `kind` is empty if it does not say, `folder` is where paths begin.

    `requirements` and `build` are lines as pip reads them, each of one line, ``-r file`` among them; `python` is a
    version such as ``3.11`` or ``3.11.7``, or a specifier such as ``>=3.11``. `lock` is a uv.lock, a pylock.toml, or
    the lock of a script. `conda` is a conda.yaml, whose pip part and Python are in the fields above and whose other
    packages are in `left_out`. `container` is the ``docker_env`` of an MLproject, or its ``databricks_spark_job`` if
    `kind` is databricks.
    """

    folder: Path
    kind: str = ""
    python: str = ""
    requirements: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    lock: Path | None = None
    conda: Path | None = None
    container: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()


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


@attrs.frozen
class Bound:
    """Hold what is to be started in `folder`: an argument list, and what was bound to which parameter.

    If ``argv[0]`` is ``python``, it is the Python of the environment, whatever the project called it (``python3``);
    every other program is found on the environment's path first. `parameters` are typed, for the run to log: a path
    that lies in the project's folder is relative to it, what was a URI stays one. `variables` are to be set for the
    process beside the environment's. `shell` tells that the user let a shell have it, as ``["bash", "-c", ...]``.
    """

    entry: str
    argv: tuple[str, ...]
    parameters: Mapping[str, Any]
    folder: Path
    variables: Mapping[str, str] = attrs.field(factory=dict)
    shell: bool = False
