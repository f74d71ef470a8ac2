"""Read the files that people write: YAML and TOML of bounded size and depth, and check what they hold.

A file of a project may come from anyone. YAML is read by the safe loader, and what its aliases would grow to is counted
before it is built (the "billion laughs" of ten short lines); what is deeper than anybody writes is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mlcore_projects.errors import ProjectError

__all__ = ["line", "lines", "nearest", "only", "parse_toml", "read_text", "read_toml", "read_yaml", "table"]

_SIZE = 1 << 20
_DEPTH = 50
_NODES = 50_000


def read_text(file: Path) -> str:
    """Return the text of a regular file. Raises `ProjectError` if it is none, too large, or not UTF-8."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ProjectError(f"{file} is no regular file")
        if status.st_size > _SIZE:
            raise ProjectError(f"{file} is too large for what it is: {status.st_size:,} bytes, at most {_SIZE:,}")
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ProjectError(f"there is no file {file}") from None
    except OSError as error:
        raise ProjectError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProjectError(f"{file} is not UTF-8: byte {error.start} is wrong") from error


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds. Raises `ProjectError`."""
    return parse_toml(read_text(file), str(file))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return what TOML says; `where` names it in the `ProjectError` that is raised if it is none."""
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{where} is not TOML: {error}") from error


def read_yaml(file: Path) -> Any:
    """Return what a YAML file holds, built of plain values only. Raises `ProjectError`."""
    import yaml

    text = read_text(file)
    try:
        _check_depth(file, text)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(file, node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ProjectError(f"{file} is not YAML: {_reason(error)}") from error
    except (ValueError, RecursionError, TypeError, OverflowError) as error:  # such as a date that is none
        raise ProjectError(f"{file} is not YAML: {error}") from error


def _reason(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    told = " ".join(str(each) for each in (getattr(error, "context", None), getattr(error, "problem", None)) if each)
    return f"{told or error}" + (f", in line {mark.line + 1}" if mark else "")


def _check_depth(file: Path, text: str) -> None:
    """Refuse what is deep before anything that calls itself sees it."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise ProjectError(f"{file} is nested deeper than {_DEPTH} levels")


def _check_size(file: Path, node: Any) -> None:
    """Refuse what its aliases make large or endless; each node is counted once, and added wherever it is meant."""
    import yaml

    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: Any) -> int:
        if id(node) in above:
            raise ProjectError(f"{file}: an alias stands for what it is a part of")
        if id(node) not in sizes:
            above.add(id(node))
            below = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = (part for each in below for part in (each if isinstance(each, tuple) else (each,)))
            sizes[id(node)] = 1 + sum(map(size, parts))
            above.discard(id(node))
        if sizes[id(node)] > _NODES:
            raise ProjectError(f"{file} holds more than {_NODES:,} values once its aliases are written out")
        return sizes[id(node)]

    size(node)


def table(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping whose keys are texts; nothing at all is an empty one. Raises `ProjectError`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ProjectError(f"{where} must be a table of names and values, and is {value!r:.80}")
    for key in value:
        line(key, f"{where}: the name {key!r:.80}")
    return dict(value)


def line(value: Any, where: str) -> str:
    """Return a text of one line that is not empty and does not begin with a dash. Raises `ProjectError`."""
    if not isinstance(value, str):
        raise ProjectError(f"{where} must be some text, and is {value!r:.80}" + _quoted(value))
    if not value.strip() or not value.isprintable():
        raise ProjectError(f"{where} must be one line of text, and is {value!r:.80}")
    if value.startswith("-"):
        raise ProjectError(f"{where} must not begin with a dash, as options do: {value!r:.80}")
    return value


def lines(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of texts, each of one line. Raises `ProjectError`."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ProjectError(f"{where} must be a list of texts, and is {value!r:.80}")
    for each in value:
        if not isinstance(each, str) or not each.strip() or not each.isprintable():
            raise ProjectError(f"{where} must be a list of texts, each of one line, and holds {each!r:.80}")
    return tuple(value)


def _quoted(value: Any) -> str:
    """Remind of the quotes that YAML wants around what looks like a number or a truth."""
    return "; put it in quotes" if isinstance(value, bool | int | float) else ""


def only(value: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse other keys than the known ones. Raises `ProjectError` with the nearest."""
    for key in value:
        if key not in known:
            raise ProjectError(f"{where} has {key!r:.80}, which means nothing there{nearest(key, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error: which of the known names may have been meant, or which there are."""
    names = list(known)
    if close := get_close_matches(name, names, 1) or [each for each in names if each.lower() == name.lower()]:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    return f"; there are {shown}" if len(names) > 1 else f"; there is {shown}" if names else ""
