"""Read the entry points of group ``mlcore``, and remember them until a distribution is (un)installed.

Asking `importlib.metadata` opens a file a distribution, which costs more than the rest of ``mlcore --help``.
So the answer is kept in the user's cache, under the times at which the folders of `sys.path` last changed:
installing or removing a distribution changes one of them.
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

GROUP = "mlcore"
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
    changes = [_changed(path) for path in sys.path]
    key = [list(sys.path), changes]
    file = user_cache() / f"plugins-{zlib.crc32(json.dumps([sys.prefix, sys.path]).encode()):08x}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no cache, or not ours: it is only a cache
        cached = json.loads(file.read_bytes())
        if cached["key"] == key:
            return [Plugin(name, module, where, version) for name, module, where, version in cached["plugins"]]
    found = _scan()
    if all(time.time_ns() - changed > _SETTLED_NS for changed in changes):
        content = {"key": key, "plugins": [attrs.astuple(each)[:4] for each in found]}
        with contextlib.suppress(OSError):  # a read-only home costs time, nothing else
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(file)
    return found


def _changed(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


def _scan() -> list[Plugin]:
    from importlib.metadata import distributions

    found: dict[tuple[str, str], Plugin] = {}
    for distribution in distributions():
        try:
            points = distribution.entry_points.select(group=GROUP)
            name, version = distribution.name or "", distribution.version or ""
        except Exception:
            logging.getLogger("mlcore").warning("the metadata of %s cannot be read", distribution, exc_info=True)
            continue
        for point in points:
            # the first on sys.path is the one that is imported
            found.setdefault((point.name, name), Plugin(point.name, point.value, name, version))
    return sorted(found.values(), key=lambda each: (each.name, each.distribution))
