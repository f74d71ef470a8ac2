"""Decide which store and experiment are meant, and say why.

Strongest first: an argument, the environment (``MLCORE_STORE``, ``MLCORE_EXPERIMENT``), ``[tool.mlcore]``
of the project's ``pyproject.toml``, the user's ``config.toml``, and for the store discovery: ``.mlcore`` at
the nearest folder upwards that has ``.mlcore``, ``.git``, ``pyproject.toml`` or ``MLproject``, else here.
The search never passes the home folder, a file-system border or another user's store.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs

from mlcore.errors import ConfigError

__all__ = [
    "OFF",
    "STORE_FOLDER",
    "Setting",
    "experiment_setting",
    "project_root",
    "store_setting",
    "user_cache",
]

OFF = "off"
STORE_FOLDER = ".mlcore"
_MARKS = (".git", "pyproject.toml", "MLproject")
_KEYS = ("store", "experiment")


@attrs.frozen
class Setting:
    """Hold a setting's `value` and, in words, the `reason` why it is that."""

    value: str
    reason: str


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container's user that has no name and no HOME
        return Path(os.devnull)


def user_cache() -> Path:
    """Return the folder for files that may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "mlcore"


def user_config() -> Path:
    """Return the path of the user's ``config.toml``, which may not exist."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "mlcore" / "config.toml"


def project_root(start: Path | None = None) -> tuple[Path, str]:
    """Return the folder that holds or would hold the store, and the reason."""
    here = (start or Path.cwd()).resolve()
    home, device = _home().resolve(), here.stat().st_dev
    for folder in (here, *here.parents):
        if folder.stat().st_dev != device:
            return here, f"no project above {here} on this file system"
        store = folder / STORE_FOLDER
        if store.is_dir():
            if os.name == "posix" and os.geteuid() not in (0, store.stat().st_uid):
                return here, f"{store} belongs to another user"
            return folder, f"found {store}"
        mark = next((mark for mark in _MARKS if (folder / mark).exists()), None)
        if mark:
            return folder, f"{folder} has {mark}"
        if folder == home:
            break
    return here, "no project here or above, so it is the current folder"


def store_setting(argument: str | os.PathLike[str] | None = None) -> Setting:
    """Return the store to use, as a path or URI, or ``"off"``."""
    setting = _setting("store", argument)
    if setting:
        return setting
    folder, reason = project_root()
    return Setting(str(folder / STORE_FOLDER), reason)


def experiment_setting(argument: str | None = None) -> Setting:
    """Return the name of the experiment to use."""
    return _setting("experiment", argument) or Setting("Default", "the default")


def _setting(key: str, argument: str | os.PathLike[str] | None) -> Setting | None:
    if argument is not None:
        return Setting(os.fspath(argument), "given as an argument")
    variable = f"MLCORE_{key.upper()}"
    if os.environ.get(variable):
        return Setting(os.environ[variable], f"environment variable {variable}")
    project = project_root()[0] / "pyproject.toml"
    for file, inside in ((project, ("tool", "mlcore")), (user_config(), ())):
        value = _table(file, inside).get(key)
        if value is not None:
            if key == "store" and value != OFF and "://" not in value:
                value = str(file.parent / Path(value).expanduser())
            return Setting(value, f"{key} in {file}")
    return None


def _table(file: Path, inside: tuple[str, ...]) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except OSError:
        return {}
    if inside and b"tool.mlcore" not in text:
        return {}
    import tomllib  # only when there is something to read

    try:
        table: Any = tomllib.loads(text.decode())
        for name in inside:
            table = table.get(name, {})
        wrong = sorted(key for key, value in table.items() if key not in _KEYS or not isinstance(value, str))
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if wrong:
        raise ConfigError(f"{file}: {', '.join(wrong)}: no setting; there are {' and '.join(_KEYS)}, as text")
    return dict(table)
