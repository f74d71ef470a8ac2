"""Find out what changed in a store's folder without looking at every run."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from mlcore.folder import Folder
from mlcore.journal.format import SUFFIX

__all__ = ["Watch"]

_SETTLED_NS = 2_000_000_000  # a folder that changed just now may change again within its clock's tick


class Watch:
    """Remember which runs and claims are known, and which lines of the change log were read."""

    def __init__(self, folder: Folder) -> None:
        self._changes = folder.root / "changes"
        self._runs = _Shards(folder.root / "runs")
        self._claims = _Shards(folder.root / "claims")
        self._read: dict[str, int] = {}
        self.changed_runs()  # what is noted so far is found in the folders

    def new_claims(self) -> list[Path]:
        """Return the files of claims that were not there the last time."""
        return [Path(folder, name) for folder, name in self._claims.new() if name.endswith(SUFFIX)]

    def changed(self) -> set[str]:
        """Return the ids of runs that are new, or were opened to be written to, since the last time."""
        return self.changed_runs() | {name for _, name in self._runs.new()}

    def changed_runs(self) -> set[str]:
        """Return the ids that the change log names since the last time."""
        found: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            for entry in sorted(os.listdir(self._changes)):
                start = self._read.get(entry, 0)
                with open(self._changes / entry, "rb") as file:
                    if os.fstat(file.fileno()).st_size > start:
                        file.seek(start)
                        text = file.read()
                        whole = text[: text.rfind(b"\n") + 1]
                        self._read[entry] = start + len(whole)
                        found.update(line.decode("ascii", "replace") for line in whole.splitlines())
        return {each for each in found if each.replace("-", "").replace("_", "").isalnum()}


class _Shards:
    """Watch a folder of folders by the times at which they changed."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._times: dict[str, int] = {}
        self._known: dict[str, set[str]] = {}

    def new(self) -> list[tuple[str, str]]:
        found = list[tuple[str, str]]()
        with contextlib.suppress(FileNotFoundError), os.scandir(self._base) as shards:
            for shard in shards:
                changed = shard.stat().st_mtime_ns
                if self._times.get(shard.name) == changed or not shard.is_dir():
                    continue
                known = self._known.setdefault(shard.name, set())
                names = set(os.listdir(shard.path)) - known
                known |= names
                found += [(shard.path, name) for name in sorted(names)]
                if time.time_ns() - changed > _SETTLED_NS:
                    self._times[shard.name] = changed
        return found
