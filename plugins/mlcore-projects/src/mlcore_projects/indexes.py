"""Where packages come from by what the user set for pip and uv, told without credentials.

It is read here, in the order the programs have, and not asked of them, since it is looked at before every run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlcore_projects.requirement_lines import without_credentials

__all__ = ["choices", "pip_indexes", "uv_indexes"]

_PIP = ("index-url", "extra-index-url", "find-links", "no-index")
_UV = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")
# What else decides which versions are chosen.
_CHOOSING = (
    *("PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_PRE", "PIP_PREFER_BINARY", "PIP_UPLOADED_PRIOR_TO"),
    *("UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE", "UV_EXCLUDE_NEWER", "UV_INDEX_STRATEGY", "UV_NO_BINARY"),
    *("UV_NO_BUILD", "UV_NO_SOURCES", "UV_OVERRIDE", "UV_PRERELEASE", "UV_RESOLUTION", "UV_TORCH_BACKEND"),
)


def choices() -> tuple[str, ...]:
    """Return what the user's environment says about which versions are chosen."""
    return tuple(f"{name}={os.environ[name]}" for name in _CHOOSING if os.environ.get(name))


def _clean(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(without_credentials(each) for each in values if each))


def pip_indexes() -> tuple[str, ...]:
    """Return indexes and places of files that pip would ask; none is its own default."""
    told: dict[str, str] = {}
    for file in _pip_files():
        told |= _pip_settings(file)
    variables = {name: os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "") for name in _PIP}
    told |= {name: value for name, value in variables.items() if value}
    none = "no-index" if told.pop("no-index", "").lower() in ("1", "true", "yes", "on") else ""
    return _clean([none, *(word for name in _PIP[:3] for word in told.get(name, "").split())])


def _pip_files() -> Iterator[Path]:
    given = os.environ.get("PIP_CONFIG_FILE")
    if given == os.devnull:
        return
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    library = Path("Library/Application Support/pip/pip.conf")
    system = [Path(each) / "pip/pip.conf" for each in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep)]
    user = [home / ".pip/pip.conf", config / "pip/pip.conf"]
    if sys.platform == "darwin":
        system, user = [Path("/") / library], [home / ".pip/pip.conf", home / library, *user[1:]]
    yield from [*system, Path("/etc/pip.conf"), *user, *([Path(given)] if given else [])]


def _pip_settings(file: Path) -> Mapping[str, str]:
    with suppress(OSError):
        text = file.read_text(encoding="utf-8")
        import configparser

        parser = configparser.RawConfigParser()
        with suppress(configparser.Error):
            parser.read_string(text)
            found = [item for part in ("global", "install") if parser.has_section(part) for item in parser.items(part)]
            return {name: value for name, value in found if name in _PIP}
    return {}


def uv_indexes(folder: Path) -> tuple[str, ...]:
    """Return indexes and places of files that uv would ask in a project's folder; none is its own default."""
    values = [word for name in _UV[:5] for word in os.environ.get(name, "").split()]
    values = [word.partition("=")[2] if "=" in word.partition("://")[0] else word for word in values]  # NAME=URL
    values += ["no-index"] if os.environ.get("UV_NO_INDEX", "").lower() in ("1", "true") else []
    if not os.environ.get("UV_NO_CONFIG"):
        for file in _uv_files(folder):
            values += _uv_settings(file)
    return _clean(values)


def _uv_files(folder: Path) -> Iterator[Path]:
    if given := os.environ.get("UV_CONFIG_FILE"):
        yield Path(given)
        return
    yield folder / ("uv.toml" if (folder / "uv.toml").is_file() else "pyproject.toml")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "uv/uv.toml"
    yield Path("/etc/uv/uv.toml")


def _uv_settings(file: Path) -> list[str]:
    with suppress(OSError):
        content = file.read_bytes()
        if b"index" not in content and b"find-links" not in content:
            return []
        import tomllib

        with suppress(ValueError):
            table: Any = tomllib.loads(content.decode())
            if file.name == "pyproject.toml":
                table = table.get("tool", {}).get("uv", {})
            pip = table.get("pip", {})
            return [value for each in (table, pip) for value in _uv_table(each)]
    return []


def _uv_table(table: Mapping[str, Any]) -> Iterator[str]:
    for key in ("index-url", "extra-index-url", "find-links"):
        value = table.get(key, ())
        yield from map(str, [value] if isinstance(value, str) else value)
    yield from (str(each["url"]) for each in table.get("index", ()) if isinstance(each, dict) and "url" in each)
