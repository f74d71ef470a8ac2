"""Read the entry points of group ``mlcore``, and remember them until a distribution is (un)installed.

Asking `importlib.metadata` opens a file a distribution, which costs more than the rest of ``mlcore --help``.
So the answer is kept in the user's cache, under the names and times of the folders of metadata on `sys.path`:
installing or removing a distribution changes them, and what a training writes beside its script does not.
"""

import contextlib
import json
import logging
import os
import sys
import time
import zlib

import attrs

from mlcore.config import user_cache
from mlcore.hookspecs import Provider

_METADATA = (".dist-info", ".egg-info")
_SETTLED_NS = 2_000_000_000  # a folder that changed just now may change again within its clock's tick


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


def entry_points() -> list[Plugin]:
    """Return the plugins that the distributions on `sys.path` declare, sorted by name."""
    changes = [_metadata(path) for path in sys.path]
    key = json.dumps([sys.path, changes])
    file = user_cache() / f"plugins-{zlib.crc32(json.dumps([sys.prefix, sys.path]).encode()):08x}.json"
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
