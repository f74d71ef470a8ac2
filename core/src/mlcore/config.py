"""Decide which store and experiment are meant, and say why.

Strongest first: an argument, the environment (``MLCORE_STORE``, ``MLCORE_EXPERIMENT``), ``[tool.mlcore]`` in the
repository's pyproject.toml, the user's config.toml, and for the store discovery: ``.mlcore`` at the nearest folder
upwards that has ``.mlcore``, ``.git``, ``pyproject.toml`` or ``MLproject``, else here. The search never passes the
home folder, a file-system border or another user's store. Files of runs lie in the store, unless
``MLCORE_ARTIFACTS``, the user's file or an argument says where else.
"""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import attrs

from mlcore import _log
from mlcore._value import Value
from mlcore.errors import ConfigError

__all__ = ["KEYS", "OFF", "STORE_FOLDER", "Setting", "artifacts_setting", "experiment_setting", "parse", "project_file"]
__all__ += ["project_root", "settings", "shown", "store_setting", "user_cache", "user_config", "user_file"]
__all__ += ["user_state"]

OFF = "off"
STORE_FOLDER = ".mlcore"
_DEFAULTS = {"experiment": "Default", "capture": "all", "spool_keep": "7d", "spool_limit": "20GB", "spool_wait": "10s"}
_DEFAULTS["cache_limit"] = "20GB"
_SHARED = ("store", "experiment", "capture")  # what a repository's file may say, which others wrote, and no more
KEYS = (
    *_SHARED, "artifacts", "spool", "spool_keep", "spool_limit", "spool_wait", "cache_limit", "registry_log",
    "registry_command", "require_signature",
)  # fmt: skip
_PATHS = ("store", "artifacts", "spool", "registry_log", "require_signature")
_TABLES = ("entry_points", "environment")  # of a project: they belong to who runs it
_PROJECT = "pyproject.toml"
_MARKS = (".git", _PROJECT, "MLproject")
_warn_once = lru_cache(_log.warning)


@attrs.frozen(eq=False, repr=False)
class Setting(Value):
    """Hold a setting's `value` and, in words, the `reason` why it is that."""

    value: str
    reason: str


def shown(uri: str) -> str:
    """Return a URI as it may be shown: without its password."""
    return re.sub(r"(://[^:/@?]*:)[^@]*(?=@)|([?&]password=)[^&]*", r"\1\2***", uri)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container's user that has no name and no HOME
        return Path(os.devnull)


def user_cache() -> Path:
    """Return the folder for files that may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "mlcore"


def user_state() -> Path:
    """Return the folder for what must last on this machine: files of the user's that wait to be sent."""
    return Path(os.environ.get("XDG_STATE_HOME") or _home() / ".local" / "state") / "mlcore"


def user_config() -> Path:
    """Return the folder of what the user decided; nothing but the user writes there."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "mlcore"


def user_file() -> Path:
    """Return the user's file of settings, there or not."""
    return user_config() / "config.toml"


def project_file() -> Path | None:
    """Return the nearest pyproject.toml in this repository that has ``[tool.mlcore]``, unless it is another user's."""
    for folder in _upwards(Path.cwd().resolve()):
        file = folder / _PROJECT
        if os.path.isfile(file) and b"tool.mlcore" in file.read_bytes():
            if (owner := file.lstat().st_uid) == 0 or not _foreign(owner):  # of a link: who made the link
                return file
            _warn_once("%s belongs to another user: what it sets is ignored", file)
            break
        if (folder / ".git").exists():
            break
    return None


def _foreign(owner: int) -> bool:
    return os.name == "posix" and os.geteuid() not in (0, owner)


def _upwards(here: Path) -> Iterator[Path]:
    home, device = _home().resolve(), here.stat().st_dev
    for folder in (here, *here.parents):
        if folder.stat().st_dev != device:
            return
        yield folder
        if folder == home:
            return


def project_root(start: Path | None = None) -> tuple[Path, str]:
    """Return the folder that holds or would hold the store, and the reason."""
    here = (start or Path.cwd()).resolve()
    for folder in _upwards(here):
        store = folder / STORE_FOLDER
        if store.is_dir():
            if _foreign(store.stat().st_uid):
                return here, f"{store} belongs to another user"
            return folder, f"found {store}"
        if mark := next((mark for mark in _MARKS if (folder / mark).exists()), None):
            return folder, f"{folder} has {mark}"
    return here, "no project here or above on this file system, so it is the current folder"


def settings(key: str, argument: str | os.PathLike[str] | None = None) -> Iterator[Setting]:
    """Yield what is said of one of `KEYS`, the strongest first: that one counts. Raises `ConfigError`."""
    if argument is not None:
        yield Setting(os.fspath(argument), "given as an argument")
    variable = f"MLCORE_{key.upper()}"
    if value := os.environ.get(variable):
        yield Setting(value, f"environment variable {variable}")
    for file in (project_file() if key in _SHARED else None, user_file()):
        if file and os.path.isfile(file) and key in (found := parse(file, file.read_bytes())):
            yield Setting(found[key], f"set in {file}")
    if key == "store":
        folder, reason = project_root()
        yield Setting(str(folder / STORE_FOLDER), reason)
    elif key in _DEFAULTS:
        yield Setting(_DEFAULTS[key], "the default")


def store_setting(argument: str | os.PathLike[str] | None = None) -> Setting:
    """Return the store to use, as a path or URI, or ``"off"``. Raises `ConfigError`."""
    return next(settings("store", argument))


def experiment_setting(argument: str | None = None) -> Setting:
    """Return the name of the experiment to use. Raises `ConfigError`."""
    return next(settings("experiment", argument))


def artifacts_setting(argument: str | os.PathLike[str] | None = None) -> Setting | None:
    """Return the root below which runs keep their files, as an absolute path or URI; None if none was given."""
    setting = next(settings("artifacts", argument), None)
    if setting is None or "://" in setting.value:
        return setting
    return Setting(str(Path(setting.value).expanduser().absolute()), setting.reason)


@lru_cache(16)
def parse(file: Path, content: bytes) -> dict[str, str]:
    """Return what the content of a file of settings says, paths absolute. Raises `ConfigError`.

    `file` says whose it is, a repository's if it is called pyproject.toml, and where relative paths begin: in its
    folder, for the user's in the home folder. Nothing is expanded but the ``~`` of the user's own.
    """
    import tomllib

    shared = file.name == _PROJECT
    known, base = (_SHARED, file.parent) if shared else (KEYS, _home())
    try:
        found = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    for name in ("tool", "mlcore") if shared else ():
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise ConfigError(f"{file}: {name!r} must be a table, as in [tool.mlcore]")
    found = {key: each for key, each in found.items() if key not in _TABLES or not isinstance(each, dict)}
    if isinstance(names := found.get("capture"), list):
        found["capture"] = ",".join(map(str, names)) or OFF
    if isinstance(words := found.get("registry_command"), list):
        from shlex import join

        found["registry_command"] = join(map(str, words))
    if isinstance(keys := found.get("require_signature"), list):
        found["require_signature"] = os.pathsep.join(map(str, keys))
    for key, value in found.items():
        if key not in known:
            raise ConfigError(f"{file} sets {key!r:.80}, and may set only {', '.join(known)}")
        if not isinstance(value, str) or not value or "\0" in value or (shared and value.startswith("~")):
            tail = ", not beginning with ~" if shared else ""
            raise ConfigError(f"{file}: {key} must be some text in quotes{tail}")
        if key in _PATHS and "://" not in value and value != OFF:
            paths = value.split(os.pathsep) if key == "require_signature" else [value]
            found[key] = os.pathsep.join(os.path.abspath(base / os.path.expanduser(each)) for each in paths)
    return found
