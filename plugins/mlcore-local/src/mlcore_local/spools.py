"""Where runs are spooled that go to a store which is no folder: one spool a target, in the layout of a folder store.

::

    <MLCORE_SPOOL, or mlcore/spool in the user's folder of state>/<hash of the URI without its password>/
    ├── target.json                          where it goes, without the password
    ├── runs/<last two>/<run id>/            as in a folder store, and beside each journal
    │   ├── <source>.shipped                 how far the target has it, and what it refused
    │   └── kept/                            files that wait to be uploaded
    ├── experiments.json                     what the target said last of experiments
    └── uploaders/                           a locked file for each process that ships its own
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from mlcore import config
from mlcore.errors import ConfigError
from mlcore.folder import Folder

__all__ = ["LATER", "Spool", "bytes_of", "seconds_of", "size_of", "spool_of", "spools", "write_json"]

LATER = "its files are uploaded later"  # why a record has something in its place that was not refused
_NOTE = "target.json"
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@attrs.frozen
class Spool:
    """Know where a spool lies, and the `target` that its runs go to, without the password."""

    root: Path
    target: str

    def run_folder(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.root / "runs" / run_id[-2:] / run_id

    def homes(self) -> list[str]:
        """Return the ids of the runs that are here."""
        found: list[str] = []
        for shard in _listed(self.root / "runs"):
            found += _listed(self.root / "runs" / shard)
        return found

    def make(self) -> Folder:
        """Make it if it is not there, the store in it before anything else. Raises `OSError` or `StoreError`."""
        folder, _ = Folder.create(self.root)
        path = self.root / _NOTE
        if not path.exists():
            write_json(path, {"target": self.target})
        return folder


def _place() -> Path:
    chosen = next(config.settings("spool"), None)
    return config.user_state() / "spool" if chosen is None or chosen.value == config.OFF else Path(chosen.value)


def spool_of(uri: str) -> Spool:
    """Return the spool of runs that go to the store at `uri`, whether it is there or not."""
    target = config.shown(uri)
    where = os.getcwd() if re.match(r"[\w+.-]+:///[^/]", uri) else ""  # a relative path means another file elsewhere
    name = hashlib.sha256(f"{target}\n{where}".encode()).hexdigest()[:16]
    return Spool(_place().expanduser().absolute() / name, target)


def spools() -> Iterator[Spool]:
    """Yield the spools that are there."""
    place = _place().expanduser().absolute()
    for name in _listed(place):
        with suppress(OSError, ValueError, KeyError, TypeError):
            yield Spool(place / name, str(json.loads((place / name / _NOTE).read_bytes())["target"]))


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all. Raises `OSError`."""
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _listed(path: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(path))
    return []


def seconds_of(key: str) -> float:
    """Return what a setting says as a time, such as ``90s``, ``12h`` or ``7d``. Raises `ConfigError`."""
    text = next(config.settings(key)).value
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([smhdw]?)[a-z]*", text.strip().lower())
    if found is None:
        raise ConfigError(f"{key} is a time such as 90s, 12h or 7d, not {text!r:.80}")
    return float(found[1]) * _UNITS[found[2] or "s"]


def bytes_of(key: str) -> int:
    """Return what a setting says as a size, such as ``500MB`` or ``20GB``. Raises `ConfigError`."""
    return size_of(key, next(config.settings(key)).value)


def size_of(key: str, text: str) -> int:
    """Return how many bytes a text means, which `key` says. Raises `ConfigError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgt]?)i?b?", text.strip().lower())
    if found is None:
        raise ConfigError(f"{key} is a size such as 500MB or 20GB, not {text!r:.80}")
    return int(float(found[1]) * _SIZES[found[2]])
