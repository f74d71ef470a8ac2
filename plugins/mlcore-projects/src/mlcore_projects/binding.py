"""Bind values to the parameters of an entry point: check them all, and make the argument list that is started.

Values reach the program as they are, each within the one argument that names it: there is no shell, and so nothing that
quotes, spaces, semicolons, ``$()`` or line ends could break out of.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import attrs

from mlcore_projects.composing import compose
from mlcore_projects.declaring import INTERPRETERS, described, script_command
from mlcore_projects.documents import nearest
from mlcore_projects.downloading import download, is_remote, local_path, without_credentials
from mlcore_projects.errors import NeedsTrust, ParameterError, ProjectError
from mlcore_projects.specs import Bound, EntryPoint, Parameter, Project
from mlcore_projects.templates import PARAMETER

__all__ = ["bind", "check_default", "entry_point"]

_TRUTHS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
_INT = re.compile(r"[+-]?[0-9]+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+", re.DOTALL)
_LONGEST = 131_071  # bytes of one argument, as Linux counts them


def entry_point(project: Project, name: str | None = None) -> EntryPoint:
    """Return an entry point by its name, by default ``main`` or the only one; a script of the folder is one as well.

    Raises `ProjectError` with the nearest name.
    """
    known = project.entry_points
    if name is None:
        if "main" in known or len(known) == 1:
            return known.get("main") or next(iter(known.values()))
        raise ProjectError(
            f"{project.name} has no entry point main{nearest('', known)}: name one"
            if known
            else f"{project.folder} has no project file and no script (.py, .sh or .R): there is nothing to run"
        )
    if name in known:
        return known[name]
    if _script(project.folder, name):
        return EntryPoint(name, script_command(PurePath(name).as_posix()))
    raise ProjectError(f"{project.name} has no entry point {name!r:.80}{nearest(name, known)}")


def _script(folder: Path, name: str) -> bool:
    path = PurePath(name)
    if path.suffix not in INTERPRETERS or path.is_absolute() or ".." in path.parts or not name.isprintable():
        return False
    return (folder / path).is_file()


def bind(
    project: Project,
    entry: str | None = None,
    values: Mapping[str, Any] | None = None,
    *,
    storage: Path | None = None,
    base: Path | None = None,
    trust: bool = False,
) -> Bound:
    """Return what to start for an entry point with these values, which are texts, numbers, truths or paths.

    A relative path begins in `base`, by default the current folder; a default's in the project's folder. What a remote
    URI stands for is downloaded into the folder `storage` where a path is wanted; without `storage` it stays a URI.
    `trust` lets a shell have a command that needs one, and then values are variables of it, in quotes.
    Raises `ParameterError` for all parameters that are missing, unknown or of another type at once, `NeedsTrust`,
    and `ProjectError`.
    """
    found = entry_point(project, entry)
    where = f"entry point {found.name!r} of {project.name}"
    if project.environment.kind == "databricks":
        raise ProjectError(f"{project.name} is a job for Databricks, which `mlflow run -b databricks` can run")
    given = dict(values or {})
    taken, wrong = _taken(project, found, given, base or Path.cwd())
    wrong += _unknown(found, given)
    if wrong:
        raise ParameterError(f"{where}: {'; '.join(wrong)}")
    command = compose(found, where)
    if command.needs and not trust:
        raise NeedsTrust(
            f"{where} needs a shell, for {' '.join(map(repr, command.needs))}: put what needs it into a script of the"
            " project, or trust the project with --trust (trust=True)"
        )
    for each in taken:
        if each.remote and storage is not None:
            each.text = str(download(each.text, storage / each.name))
    declared = {each.name for each in found.parameters}
    argv, variables = command.filled({each.name: each.text for each in taken}, declared, where)
    logged = {each.name: each.value for each in taken}
    return Bound(found.name, argv, logged, project.folder, variables, bool(command.needs))


@attrs.define
class _Taken:
    """Hold a value as it goes into the command and as it is logged."""

    name: str
    text: str
    value: Any
    remote: bool = False


def _taken(project: Project, entry: EntryPoint, given: Mapping[str, Any], base: Path) -> tuple[list[_Taken], list[str]]:
    """Return what every parameter is, declared ones first, and what is wrong, in words."""
    taken, wrong = list[_Taken](), list[str]()
    if missing := [each for each in entry.parameters if each.required and each.name not in given]:
        shown = ", ".join(f"{each.name} ({each.type})" + (f": {each.help}" if each.help else "") for each in missing)
        wrong.append(f"no value for {shown}; give each with -P NAME=VALUE")
    extra = [Parameter(name) for name in given if name not in {each.name for each in entry.parameters}]
    for each in (*entry.parameters, *extra):
        if each.name in given or not each.required:
            own = each.name in given
            value = given[each.name] if own else each.default
            try:
                text = _text(value, python=isinstance(entry.command, str))
                taken.append(_typed(each, text, base if own else project.folder, project.folder))
            except ValueError as error:
                wrong.append(f"{each.name} {error}")
    return taken, wrong


def check_default(project: Project, entry: EntryPoint, parameter: Parameter) -> str:
    """Return what is wrong with the default of a parameter, in words; nothing if it has none or it fits."""
    if parameter.required:
        return ""
    try:
        text = _text(parameter.default, python=isinstance(entry.command, str))
        _typed(parameter, text, project.folder, project.folder)
    except ValueError as error:
        return f"{parameter.name} {error}"
    return ""


def _text(value: Any, *, python: bool) -> str:
    """Return a value as a program is given it."""
    if isinstance(value, str | int | float):
        text = described(value, python=python)
    elif isinstance(value, os.PathLike):
        text = os.fspath(value)
    else:
        raise ValueError(f"must be a text, a number, a truth or a path, and is {value!r:.80}")
    if "\0" in text:
        raise ValueError(f"holds a NUL, which no program can be given: {text!r:.80}")
    if len(os.fsencode(text)) > _LONGEST:
        raise ValueError(f"is longer than an argument may be ({len(text):,} characters): write it into a file")
    return text


def _typed(declared: Parameter, text: str, base: Path, folder: Path) -> _Taken:
    """Return a value by its type. Raises `ValueError` with the end of a sentence."""
    name, kind = declared.name, declared.type
    if declared.choices and text not in declared.choices:
        raise ValueError(
            f"must be one of {', '.join(declared.choices)}, and is {text!r:.80}{nearest(text, declared.choices)}"
        )
    if kind == "path":
        return _path(name, text, base, folder)
    if kind == "uri" and not _URI.fullmatch(text):
        raise ValueError(f"must be a URI, such as s3://bucket/data.csv, and is {text!r:.80}")
    return _Taken(
        name, text, {"int": _int, "float": _float, "bool": _bool, "uri": without_credentials}.get(kind, str)(text)
    )


def _int(text: str) -> int:
    if not _INT.fullmatch(text) or len(text) > 400:
        raise ValueError(f"must be an int, and is {text!r:.80}")
    return int(text)


def _float(text: str) -> float:
    try:
        value = float(text) if text.strip() == text and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value) and text.lower().lstrip("+-") != "nan":
        raise ValueError(f"must be a float, and is {text!r:.80}")
    return value


def _bool(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise ValueError(f"must be true or false (or yes, no, 1, 0, on, off), and is {text!r:.80}")
    return _TRUTHS[text.lower()]


def _path(name: str, text: str, base: Path, folder: Path) -> _Taken:
    if is_remote(text):
        return _Taken(name, text, without_credentials(text), remote=True)
    if not (local := local_path(text)):
        raise ValueError("must be a path, and is empty")
    path = Path(os.path.abspath(base / local))
    if not path.exists():
        raise ValueError(f"must be a path, and there is no file or folder {path}")
    here = Path(os.path.abspath(folder))
    return _Taken(name, str(path), path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path))


def _unknown(entry: EntryPoint, given: Mapping[str, Any]) -> list[str]:
    """Say what was given and is not declared, unless the entry point passes it on; what looks like a slip is not."""
    known = [each.name for each in entry.parameters]
    left = [name for name in known if name not in given]
    wrong = []
    for name in given:
        if name in known:
            continue
        if not PARAMETER.fullmatch(name):
            wrong.append(f"{name!r:.80} cannot name a parameter: letters, digits, _, - and . can")
        elif not entry.open:
            wrong.append(f"there is no parameter {name!r}{nearest(name, known) or ': it has none'}")
        elif "did you mean" in (hint := nearest(name, left)):
            wrong.append(f"there is no parameter {name!r}{hint}")
    return wrong
