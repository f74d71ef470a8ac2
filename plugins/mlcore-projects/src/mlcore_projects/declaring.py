"""Read entry points and their parameters, which MLproject files, pyproject.toml and scripts declare much alike."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlcore_projects.documents import line, nearest, only, table
from mlcore_projects.errors import ProjectError
from mlcore_projects.specs import TYPES, EntryPoint, Parameter
from mlcore_projects.templates import PARAMETER, Word, names, split, words

__all__ = ["INTERPRETERS", "check_slots", "command_words", "described", "entry_points", "parameters", "script_command"]

_ALIASES = {
    "str": "string",
    "text": "string",
    "integer": "int",
    "number": "float",
    "double": "float",
    "boolean": "bool",
}
_PARAMETER = ("type", "default", "help", "choices")
_ENTRY = ("command", "parameters", "help", "extra")
INTERPRETERS = {".py": "python", ".sh": "bash", ".R": "Rscript"}  # by the suffix of a script, as in MLflow


def parameters(raw: Any, where: str, *, strict: bool) -> tuple[Parameter, ...]:
    """Return what a table of parameters declares, each by its type alone or by a table. Raises `ProjectError`.

    If not `strict`, unknown types are texts and unknown keys nothing, as MLflow has it.
    """
    return tuple(_parameter(name, each, where, strict) for name, each in table(raw, f"{where}: parameters").items())


def _parameter(name: str, raw: Any, where: str, strict: bool) -> Parameter:
    if not PARAMETER.fullmatch(name):
        raise ProjectError(f"{where}: {name!r:.80} cannot name a parameter: letters, digits, _, - and . can")
    where = f"{where}: parameter {name!r}"
    said = {"type": raw} if isinstance(raw, str) else table(raw, where)
    if strict:
        only(said, _PARAMETER, where)
    choices = _choices(said.get("choices"), where)
    kind = said.get("type", "choice" if choices else "string")
    kind = _ALIASES.get(kind, kind) if isinstance(kind, str) else kind
    if kind not in TYPES:
        if strict or not isinstance(kind, str):
            raise ProjectError(f"{where}: there is no type {kind!r:.40}{nearest(str(kind), TYPES)}")
        kind = "string"
    if kind == "choice" and not choices:
        raise ProjectError(f"{where} is a choice, and must have choices, a list")
    default, told = _default(said.get("default"), where), said.get("help")
    return Parameter(
        name, kind, default, default is None, choices, "" if told is None else line(told, f"{where}: help")
    )


def _choices(raw: Any, where: str) -> tuple[str, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list) or not raw or not all(isinstance(each, str | int | float) for each in raw):
        raise ProjectError(f"{where}: choices must be a list of texts or numbers, and is {raw!r:.80}")
    return tuple(described(each) for each in raw)


def _default(raw: Any, where: str) -> Any:
    if isinstance(raw, datetime.date | datetime.time):  # YAML and TOML read 2026-01-01 as one
        return raw.isoformat()
    if raw is not None and not isinstance(raw, str | int | float | bool):
        raise ProjectError(f"{where}: default must be a text, a number or a truth, and is {raw!r:.80}")
    return raw


def described(value: Any, *, python: bool = False) -> str:
    """Return a value as the text that a program is given: ``true``, or Python's ``True`` as MLflow does."""
    return str(value).lower() if isinstance(value, bool) and not python else str(value)


def entry_points(
    raw: Any, where: str, command: Callable[[tuple[Parameter, ...]], tuple[str, ...]] | None = None
) -> dict[str, EntryPoint]:
    """Return what ``[tool.mlcore.entry_points]`` declares; `command` makes those that say none.

    Raises `ProjectError`.
    """
    found = {}
    for name, each in table(raw, f"{where}: entry_points").items():
        place = f"{where}: entry point {name!r}"
        said = table(each, place)
        only(said, _ENTRY, place)
        declared = parameters(said.get("parameters"), place, strict=True)
        if "command" not in said and command is None:
            raise ProjectError(f'{place} must have a command, such as ["python", "train.py", "--lr", "{{lr}}"]')
        argv = _argv(said["command"], place) if "command" in said else command(declared)  # type: ignore[misc]
        extra = said.get("extra", False)
        if not isinstance(extra, bool):
            raise ProjectError(f"{place}: extra must be true or false, and is {extra!r:.40}")
        told = said.get("help")
        entry = EntryPoint(name, argv, declared, "" if told is None else line(told, f"{place}: help"), extra)
        check_slots(command_words(entry, place), declared, place)
        found[name] = entry
    return found


def _argv(raw: Any, where: str) -> tuple[str, ...]:
    if isinstance(raw, str):
        template = split(raw, f"{where}: command")
        if template.needs or template.variables:
            what = template.needs[0] if template.needs else next(iter(template.variables)) + "="
            raise ProjectError(
                f"{where}: no shell runs the command, so {what!r} would do nothing: put it into a script of the project"
            )
        return tuple("".join(_written(piece) for piece in word) for word in template.words)
    if not isinstance(raw, list) or not raw or not all(isinstance(each, str) for each in raw):
        raise ProjectError(f"{where}: command must be a list of texts, and is {raw!r:.80}")
    if not raw[0].strip() or any("\0" in each for each in raw):
        raise ProjectError(f"{where}: command must begin with the name of a program, and holds no NUL: {raw!r:.80}")
    return tuple(raw)


def _written(piece: Any) -> str:
    return piece.replace("{", "{{").replace("}", "}}") if isinstance(piece, str) else f"{{{piece.name}}}"


def command_words(entry: EntryPoint, where: str) -> tuple[Word, ...]:
    """Return the words of an entry point's command, assignments before it included. Raises `ProjectError`."""
    if isinstance(entry.command, str):
        template = split(entry.command, f"{where}: command")
        return (*template.variables.values(), *template.words)
    return words(entry.command, f"{where}: command")


def check_slots(found: Iterable[Word], declared: Iterable[Parameter], where: str) -> None:
    """Refuse a command that names what is no parameter. Raises `ProjectError` with the nearest."""
    known = [each.name for each in declared]
    for name in names(found):
        if name not in known:
            raise ProjectError(
                f"{where}: the command names {{{name}}}, and no parameter is called so{nearest(name, known)}"
            )


def script_command(file: str, declared: Iterable[Parameter] = ()) -> tuple[str, ...]:
    """Return the command that runs a script, each declared parameter as ``--name value``."""
    interpreter = INTERPRETERS[Path(file).suffix]
    written = [
        text.replace("{", "{{").replace("}", "}}") for text in (interpreter, f"./{file}" if file[0] == "-" else file)
    ]
    return (*written, *(text for each in declared for text in (f"--{each.name}", f"{{{each.name}}}")))
