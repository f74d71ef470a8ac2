"""Decide which store and experiment are meant, and say why.

Strongest first: an argument, the environment (``MLCORE_STORE``, ``MLCORE_EXPERIMENT``), and for the store
discovery: ``.mlcore`` at the nearest folder upwards that has ``.mlcore``, ``.git``, ``pyproject.toml`` or
``MLproject``, else here. The search never passes the home folder, a file-system border or another user's store.
Files of runs lie in the store, unless ``MLCORE_ARTIFACTS`` or an argument says where else.
"""

import os
from pathlib import Path

import attrs

__all__ = ["OFF", "STORE_FOLDER", "Setting", "artifacts_setting", "experiment_setting", "project_root"]
__all__ += ["store_setting", "user_cache", "user_config"]

OFF = "off"
STORE_FOLDER = ".mlcore"
_MARKS = (".git", "pyproject.toml", "MLproject")


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
    """Return the folder of what the user decided; nothing but the user writes there."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "mlcore"


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
        if mark := next((mark for mark in _MARKS if (folder / mark).exists()), None):
            return folder, f"{folder} has {mark}"
        if folder == home:
            break
    return here, "no project here or above, so it is the current folder"


def store_setting(argument: str | os.PathLike[str] | None = None) -> Setting:
    """Return the store to use, as a path or URI, or ``"off"``."""
    if setting := _given("MLCORE_STORE", argument):
        return setting
    folder, reason = project_root()
    return Setting(str(folder / STORE_FOLDER), reason)


def experiment_setting(argument: str | None = None) -> Setting:
    """Return the name of the experiment to use."""
    return _given("MLCORE_EXPERIMENT", argument) or Setting("Default", "the default")


def artifacts_setting(argument: str | os.PathLike[str] | None = None) -> Setting | None:
    """Return the root below which runs keep their files, as an absolute path or URI; None if none was given."""
    setting = _given("MLCORE_ARTIFACTS", argument)
    if setting is None or "://" in setting.value:
        return setting
    return Setting(str(Path(setting.value).expanduser().absolute()), setting.reason)


def _given(variable: str, argument: str | os.PathLike[str] | None) -> Setting | None:
    if argument is not None:
        return Setting(os.fspath(argument), "given as an argument")
    value = os.environ.get(variable)
    return Setting(value, f"environment variable {variable}") if value else None
