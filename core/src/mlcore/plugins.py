"""Find, load and ask plugins: the door through which everything that is not core comes in."""

import importlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

import attrs
import pluggy

from mlcore import _log, hookspecs
from mlcore._value import Value
from mlcore.errors import NotInstalled, PluginError
from mlcore.hookspecs import FlavorProvider, Provider

__all__ = ["FIRST_PARTY", "Plugin", "conflicts", "installed", "load", "nearest", "notify", "provided"]
__all__ += ["register", "unregister"]

PREFIX = "mlcore_"
# What a missing scheme, command or flavor most likely wants, for the one line that tells how to get it.
FIRST_PARTY = {
    "stores": {"file": "local", "http": "remote", "https": "remote", "http+unix": "remote", "mlflow": "mlflow"}
    | dict.fromkeys(("sqlite", "mysql", "mariadb", "postgresql", "postgres"), "sql"),
    "artifact_backends": {"file": "local", "s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"},
    "flavors": {"sklearn": "sklearn", "python_function": "python", "pytorch": "torch"},
    "environments": dict.fromkeys(("system", "uv", "venv"), "projects") | {"conda": "conda"},
    "verifiers": {"model.sig": "signing"},
    "runners": {"local": "projects", "docker": "docker", "kubernetes": "kubernetes", "ray": "ray"},
    "datasets": dict.fromkeys(
        ("builtins", "numpy", "pandas", "pathlib", "polars", "pyarrow", "scipy", "sklearn"), "local"
    ),
    "commands": dict.fromkeys(("models keygen", "models require", "models sign", "models verify"), "signing")
    | {"db": "sql", "login": "remote", "logout": "remote", "server": "server"}
    | dict.fromkeys(("envs", "projects", "reproduce", "run"), "projects")
    | dict.fromkeys(("artifacts", "completion", "doctor", "experiments", "fsck", "history", "init"), "local")
    | dict.fromkeys(
        ("journal", "lineage", "models", "plugins", "registry", "reindex", "runs", "sync", "trust", "where"), "local"
    ),
}


@attrs.frozen(eq=False, repr=False)
class Plugin(Value):
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
        if name.startswith("_"):  # what every module has, and no hook is called: to ask pluggy takes long
            return None
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


def nearest(kind: str, thing: Any) -> str:
    """Return the name of what takes, under `kind`, the nearest of the classes that `thing` derives from.

    They are compared by name, so that nothing is imported. Raises `NotInstalled` if nothing takes any of them, and
    `PluginError` if two take the same.
    """
    takes = {
        name: {each for _, record in who if isinstance(record, FlavorProvider) for each in record.types}
        for name, who in provided(kind).items()
    }
    for base in type(thing).__mro__:
        found = sorted(name for name, types in takes.items() if f"{base.__module__}.{base.__qualname__}" in types)
        if len(found) > 1:
            raise PluginError(f"{' and '.join(found)} both take {base.__name__}: set flavor= or MLCORE_DISABLE_PLUGINS")
        if found:
            return found[0]
    which = f"{type(thing).__module__}.{type(thing).__qualname__}"
    hint = FIRST_PARTY[kind].get(which.partition(".")[0])
    brings = f"pip install mlcore-{hint}" if hint and hint not in _door.plugins else "a plugin for it"
    there = ", ".join(sorted(takes)) or "none"
    raise NotInstalled(f"no {kind[:-1]} takes a {which}: it needs {brings}; there is: {there}")


def notify(event: str, /, **arguments: Any) -> None:
    """Tell every plugin that listens to `event`; what one of them raises is logged under its name."""
    _door.open()
    for implementation in reversed(getattr(_door.hook, event).get_hookimpls()):
        try:
            implementation.function(*(arguments[name] for name in implementation.argnames))
        except Exception:  # noqa: BLE001 - which is told, with its traceback
            plugin = _door.plugins.get(implementation.plugin_name, implementation.plugin_name)
            _log.warning("plugin %s failed in %s", plugin, event, exc_info=True)


def _declared() -> list[Plugin]:
    """Return the plugins that the distributions on `sys.path` declare, sorted by name.

    Their metadata are read here: to import `importlib.metadata` takes longer than all the rest of ``mlcore --help``.
    """
    found: dict[tuple[str, str], Plugin] = {}
    for points, about in chain.from_iterable(map(_metadata, sys.path)):
        told = dict(re.findall(r"^(Name|Version): *(.*?) *$", about.partition("\n\n")[0], re.MULTILINE))
        section = re.split(r"^\[", points.partition("[mlcore]")[2], maxsplit=1, flags=re.MULTILINE)[0]
        for name, module in re.findall(r"^ *([^#;=\s][^=]*?) *= *(.+?) *$", section, re.MULTILINE):
            plugin = Plugin(name, module, told.get("Name", ""), told.get("Version", ""))
            # the first on sys.path is the one that is imported
            found.setdefault((plugin.name, plugin.distribution), plugin)
    return sorted(found.values(), key=lambda each: (each.name, each.distribution))


def _metadata(path: str) -> Iterator[tuple[str, str]]:
    """Yield entry points and description of the distributions in a folder or archive that have points of ours."""
    readers: list[Callable[[str], str | None]] = []
    if os.path.isfile(path):
        from importlib.metadata import distributions

        readers = [each.read_text for each in distributions(path=[path])]
    with suppress(OSError):  # not there, no folder, or not for us to read
        names = [name for name in os.listdir(path or ".") if name.endswith((".dist-info", ".egg-info", "EGG-INFO"))]
        readers = [partial(_read, os.path.join(path, name)) for name in sorted(names)]
    for read in readers:
        points = read("entry_points.txt") or ""
        if "[mlcore]" in points:
            yield points, read("METADATA") or read("PKG-INFO") or ""


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), "rb", buffering=0) as file:  # a text file takes twice as long
            return file.read().decode(errors="replace").replace("\r\n", "\n")
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            _log.warning("the metadata of %s cannot be read: %s", folder, error)
        return ""
