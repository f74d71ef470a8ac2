"""Find, load and ask plugins: the door through which everything that is not core comes in."""

import contextlib
import importlib
import json
import logging
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import attrs
import pluggy

from mlcore import config, hookspecs
from mlcore.errors import NotInstalled, PluginError
from mlcore.hookspecs import Provider

__all__ = ["FIRST_PARTY", "Plugin", "conflicts", "installed", "load", "notify", "provided", "register", "unregister"]

PREFIX = "mlcore_"
_METADATA = (".dist-info", ".egg-info")
_SETTLED_NS = 2_000_000_000  # a folder that changed just now may change again within its clock's tick
# What a missing scheme, command or flavor most likely wants, for the one line that tells how to get it.
FIRST_PARTY = {
    "stores": {"file": "local", "http": "remote", "https": "remote", "sqlite": "sql", "mysql": "sql"}
    | {"mariadb": "sql", "postgresql": "sql", "postgres": "sql", "mlflow": "mlflow"},
    "artifact_backends": {"file": "local", "s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"},
    "flavors": {"sklearn": "sklearn", "python_function": "python"},
    "commands": dict.fromkeys(("artifacts", "fsck", "init", "journal", "models", "reindex", "trust", "where"), "local"),
}


@attrs.frozen
class Plugin:
    """Tell of one plugin: where it comes from, what it provides, and `error` if it was set aside."""

    name: str
    module: str
    distribution: str = ""
    version: str = ""
    provides: dict[str, tuple[Provider, ...]] = attrs.field(factory=dict)
    listens: tuple[str, ...] = ()
    error: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}" if self.distribution else self.name


class _Door(pluggy.PluginManager):
    """Keep all plugins; every function whose name starts with ``mlcore_`` is a hook, marked or not."""

    def __init__(self) -> None:
        super().__init__("mlcore")
        self.add_hookspecs(hookspecs)
        self.lock = threading.RLock()
        self.plugins: dict[str, Plugin] = {}
        self.loaded = False

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        options: Any = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith(PREFIX) and callable(getattr(plugin, name, None)):
            options = {}
        if options is not None and not hasattr(self.hook, hook := options.get("specname") or name):
            from difflib import get_close_matches

            known = sorted(vars(self.hook))
            close = get_close_matches(hook, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"the hooks are {', '.join(known)}"
            raise PluginError(f"unknown hook {hook}; {hint}")
        return options

    def parse_hookspec_opts(self, _: object, name: str) -> Any:
        return {} if name.startswith(PREFIX) else None

    def open(self) -> threading.RLock:
        """Load what is installed, once, and return the lock for those who change something."""
        with self.lock:
            if self.loaded:
                return self.lock
            self.loaded = True
            off = {name.strip() for name in os.environ.get("MLCORE_DISABLE_PLUGINS", "").split(",")}
            for plugin in _declared():
                if not {plugin.name, plugin.distribution} & off:
                    try:
                        self.admit(_import(plugin.module), plugin)
                    except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken plugin never breaks the others
                        name = f"{plugin.name} ({plugin.distribution})" if plugin.name in self.plugins else plugin.name
                        self.plugins[name] = attrs.evolve(plugin, name=name, error=_reason(error))
        return self.lock

    def admit(self, module: object, plugin: Plugin) -> Plugin:
        known_as = plugin.name if plugin.name in self.plugins else self.get_name(module)
        if known_as is not None:
            raise PluginError(f"plugin {plugin.name} is loaded already, as {known_as} of {self.plugins[known_as]}")
        try:
            self.register(module, plugin.name)
            provides, listens = self.ask(module)
        except Exception as error:
            self.unregister(name=plugin.name)
            raise PluginError(f"plugin {plugin.name} is broken: {_reason(error)}") from error
        self.plugins[plugin.name] = attrs.evolve(plugin, provides=provides, listens=listens)
        return self.plugins[plugin.name]

    def ask(self, module: object) -> tuple[dict[str, tuple[Provider, ...]], tuple[str, ...]]:
        provides, listens = {}, []
        for caller in self.get_hookcallers(module) or ():
            if caller.spec and caller.spec.argnames:
                listens.append(caller.name)
                continue
            own: list[Callable[..., Any]] = [each.function for each in caller.get_hookimpls() if each.plugin is module]
            records = tuple(record for function in own for record in function())
            if strange := [record for record in records if not isinstance(record, Provider)]:
                raise TypeError(f"{caller.name} returned {strange[0]!r}, which is no Provider record")
            provides[caller.name.removeprefix(PREFIX)] = records
        return provides, tuple(listens)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"


def _import(value: str) -> Any:
    module, _, attribute = value.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


_door = _Door()


def register(module: object, name: str | None = None) -> Plugin:
    """Add a plugin by hand, for tests and notebooks.

    `module` is a module or any object whose attributes are hooks. Raises `PluginError` if a hook is
    misspelt, has wrong arguments, or a plugin of that name is there already.
    """
    title = name or str(getattr(module, "__name__", type(module).__name__))
    with _door.open():
        return _door.admit(module, Plugin(title, title))


def unregister(name: str) -> None:
    """Take a plugin out again; a name that is not there is a `PluginError`."""
    with _door.open():
        if _door.plugins.pop(name, None) is None:
            raise PluginError(f"no plugin named {name} is loaded")
        if _door.has_plugin(name):  # not if it was set aside
            _door.unregister(name=name)


def installed() -> tuple[Plugin, ...]:
    """Return every plugin, those that were set aside included, sorted by name."""
    _door.open()
    return tuple(plugin for _, plugin in sorted(_door.plugins.items()))


def provided(kind: str) -> dict[str, list[tuple[Plugin, Provider]]]:
    """Return what is provided under `kind` (such as ``"stores"``): name -> who provides it.

    More than one provider of a name is a conflict; `load` raises on it, `conflicts` lists it.
    """
    found: dict[str, list[tuple[Plugin, Provider]]] = {}
    for plugin in installed():
        for record in plugin.provides.get(kind, ()):
            found.setdefault(record.name, []).append((plugin, record))
    return found


def conflicts() -> list[str]:
    """Return one sentence for each name that more than one plugin provides."""
    kinds = sorted({kind for plugin in installed() for kind in plugin.provides})
    return [_conflict(kind, name, who) for kind in kinds for name, who in provided(kind).items() if len(who) > 1]


def _conflict(kind: str, name: str, who: list[tuple[Plugin, Provider]]) -> str:
    names = " and ".join(str(plugin) for plugin, _ in who)
    return f"{names} both provide {name!r} under {kind}; uninstall one or set MLCORE_DISABLE_PLUGINS"


def load(kind: str, name: str) -> Callable[..., Any]:
    """Import the implementation of `name` under `kind`.

    Raises `NotInstalled` with the line that would bring it, or `PluginError` when two plugins provide
    it or its import fails.
    """
    who = provided(kind).get(name, [])
    if not who:
        extra, others = FIRST_PARTY.get(kind, {}).get(name), ", ".join(sorted(provided(kind))) or "nothing"
        text = f"nothing installed provides {name!r} under {kind}; "
        text += f"it comes with: pip install mlcore-{extra}" if extra else f"there is: {others}"
        if broken := [f"{plugin} ({plugin.error})" for plugin in installed() if plugin.error]:
            text += f". Set aside because they failed to load: {'; '.join(broken)}"
        raise NotInstalled(text)
    if len(who) > 1:
        raise PluginError(_conflict(kind, name, who))
    plugin, record = who[0]
    try:
        return _import(record.implementation) if isinstance(record.implementation, str) else record.implementation
    except Exception as error:
        where = f"{plugin} provides {name!r} as {record.implementation}"
        raise PluginError(f"{where}, which fails: {_reason(error)}") from error


def notify(event: str, **arguments: Any) -> None:
    """Tell every plugin that listens to `event`; what one of them raises is logged under its name."""
    _door.open()
    for implementation in reversed(getattr(_door.hook, event).get_hookimpls()):
        try:
            implementation.function(*(arguments[name] for name in implementation.argnames))
        except Exception:
            plugin = _door.plugins.get(implementation.plugin_name, implementation.plugin_name)
            logging.getLogger("mlcore").warning("plugin %s failed in %s", plugin, event, exc_info=True)


def _declared() -> list[Plugin]:
    """Return the plugins that the distributions on `sys.path` declare, sorted by name.

    Asking `importlib.metadata` opens a file a distribution, which costs more than the rest of ``mlcore --help``.
    So the answer is kept in the user's cache, under the names and times of the folders of metadata on `sys.path`:
    installing or removing a distribution changes them, and what a training writes beside its script does not.
    """
    changes = [_metadata(path) for path in sys.path]
    key = json.dumps([sys.path, changes])
    file = config.user_cache() / f"plugins-{zlib.crc32(json.dumps([sys.prefix, sys.path]).encode()):08x}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no cache, or not ours: it is only a cache
        cached = json.loads(file.read_bytes())
        if cached["key"] == key:
            return [Plugin(name, module, where, version) for name, module, where, version in cached["plugins"]]
    found = _scan()
    if all(time.time_ns() - changed > _SETTLED_NS for names in changes for _, changed in names):
        content = json.dumps({"key": key, "plugins": [attrs.astuple(each)[:4] for each in found]})
        with contextlib.suppress(OSError):  # a read-only home costs time, nothing else
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(file)
    return found


def _metadata(path: str) -> list[tuple[str, int]]:
    """Return name and time of change of what describes distributions in a folder of `sys.path`, or of an archive."""
    try:
        with os.scandir(path or ".") as entries:
            return sorted((each.name, each.stat().st_mtime_ns) for each in entries if each.name.endswith(_METADATA))
    except OSError:
        return [(path, os.stat(path).st_mtime_ns)] if os.path.isfile(path) else []


def _scan() -> list[Plugin]:
    from importlib.metadata import distributions

    found: dict[tuple[str, str], Plugin] = {}
    for distribution in distributions():
        try:
            for point in distribution.entry_points.select(group="mlcore"):
                plugin = Plugin(point.name, point.value, distribution.name or "", distribution.version or "")
                # the first on sys.path is the one that is imported
                found.setdefault((plugin.name, plugin.distribution), plugin)
        except Exception:
            logging.getLogger("mlcore").warning("the metadata of %s cannot be read", distribution, exc_info=True)
    return sorted(found.values(), key=lambda each: (each.name, each.distribution))
