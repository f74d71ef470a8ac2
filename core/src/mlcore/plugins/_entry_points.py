"""Read the entry points of group ``mlcore``, and remember them until a distribution is (un)installed.

Asking `importlib.metadata` opens a file a distribution, which costs more than the rest of ``mlcore --help``.
So the answer is kept in the user's cache, under the times at which the folders of `sys.path` last changed:
installing or removing a distribution changes one of them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import zlib

import attrs

from mlcore.config import user_cache

GROUP = "mlcore"
_SETTLED_NS = 2_000_000_000  # a folder that changed just now may change again within its clock's tick


@attrs.frozen
class EntryPoint:
    """Name a plugin as its distribution declares it: `value` is the module to import."""

    name: str
    value: str
    distribution: str = ""
    version: str = ""


def entry_points() -> list[EntryPoint]:
    """Return the plugins that the distributions on `sys.path` declare, sorted by name."""
    changes = [_changed(path) for path in sys.path]
    key = [list(sys.path), changes]
    file = user_cache() / f"plugins-{zlib.crc32(json.dumps([sys.prefix, sys.path]).encode()):08x}.json"
    try:
        cached = json.loads(file.read_bytes())
        if cached["key"] == key:
            return [EntryPoint(*row) for row in cached["plugins"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or not ours: it is only a cache
    found = _scan()
    if all(time.time_ns() - changed > _SETTLED_NS for changed in changes):
        _remember(file, {"key": key, "plugins": [attrs.astuple(each) for each in found]})
    return found


def _changed(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


def _scan() -> list[EntryPoint]:
    from importlib.metadata import distributions

    found: dict[tuple[str, str], EntryPoint] = {}
    for distribution in distributions():
        try:
            points = [(point, distribution.name or "") for point in distribution.entry_points.select(group=GROUP)]
        except Exception:
            logging.getLogger("mlcore").warning("the metadata of %s cannot be read", distribution, exc_info=True)
            continue
        for point, name in points:
            # the first on sys.path is the one that is imported
            entry = EntryPoint(point.name, point.value, name, distribution.version or "")
            found.setdefault((point.name, name), entry)
    return sorted(found.values(), key=lambda each: (each.name, each.distribution))


def _remember(file: os.PathLike[str], content: object) -> None:
    temporary = f"{os.fspath(file)}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as handle:
            json.dump(content, handle)
        os.replace(temporary, file)
    except OSError:
        pass  # a read-only home costs time, nothing else
