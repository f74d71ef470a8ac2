"""Find out what changed in a store's folder without looking at every run."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from mlcore.folder import STORE_HOME
from mlcore.journal.format import SUFFIX
from mlcore_local.notes import Notes

__all__ = ["QUICK", "SETTLED_SECONDS", "Watch"]

QUICK = "quick"  # the group of notes that every look needs
SETTLED_SECONDS = 90  # three signs of life: a run that ended and is silent that long is not being written to
_TICK_NS = 2_000_000_000  # a folder that changed just now may change again within its clock's tick
_LAST = 128  # homes that were opened last, by each log


class Watch:
    """Look at the change log and at the folders of runs and claims; `notes` is what was seen of them.

    `vanished` tells that something is gone that was there, `left` that a limit left something for the next time.
    """

    def __init__(self, root: str, notes: Notes) -> None:
        self._root, self._notes = root, notes
        self.vanished = self.left = False

    def quiet(self) -> bool:
        """Tell whether nothing changed since what is noted."""
        logs = self._notes.get(QUICK, "changes") or {}
        return {name: size for name, size, _ in self._logs()} == logs and not any(
            self._differs(base) for base in ("runs", "claims")
        )

    def claims(self, limit: int | None = None) -> list[tuple[str, str]]:
        """Return shard and name of the claims' files that are new."""
        return self._new("claims", limit)

    def runs(self, limit: int | None = None) -> list[str]:
        """Return the ids of runs whose folder is new."""
        return [name for _, name in self._new("runs", limit)]

    def noted(self) -> Mapping[str, int]:
        """Return how often each home was opened to be written to: a journal may be there only a moment later."""
        known, named, last, sizes = self._notes.get(QUICK, "changes"), list[bytes](), set[bytes](), {}
        logs = [(name, size, time.time() - changed < SETTLED_SECONDS) for name, size, changed in self._logs()]
        # at first all folders are looked at: what matters is who was opened last, if that was just now, and how often
        anew = known is None and any(recent for _, _, recent in logs)
        for name, size, recent in logs:
            start = 0 if anew else size if known is None else known.get(name, 0)
            if start > size:
                start = 0
            text = self._read(name, start, size - start)
            whole = text[: text.rfind(b"\n") + 1]
            named += (lines := whole.splitlines())
            last.update(lines if not anew else lines[-_LAST:] if recent else ())
            sizes[name] = start + len(whole)
        found = Counter(line.decode("ascii", "replace") for line in named if line in last)
        self._notes.set(QUICK, "changes", sizes)
        return {each: count for each, count in found.items() if each == STORE_HOME or _is_id(each)}

    def forget(self, base: str, shard: str, name: str) -> None:
        """Let something be new again the next time."""
        self._notes.set(f"names/{base}", shard, sorted(self._known(base, shard) - {name}))

    def _read(self, name: str, start: int, size: int) -> bytes:
        if size <= 0:
            return b""
        with open(f"{self._root}/changes/{name}", "rb") as file:
            file.seek(start)
            return file.read(size)

    def _logs(self) -> Iterator[tuple[str, int, float]]:
        with suppress(FileNotFoundError), os.scandir(f"{self._root}/changes") as entries:
            for entry in entries:
                status = entry.stat()
                yield entry.name, status.st_size, status.st_mtime

    def _shards(self, base: str) -> Iterator[tuple[str, list[int]]]:
        with suppress(FileNotFoundError), os.scandir(f"{self._root}/{base}") as shards:
            for shard in shards:
                if shard.is_dir():
                    status = shard.stat()
                    # programs that copy set the one and cannot set the other
                    yield shard.name, [status.st_mtime_ns, status.st_ctime_ns]

    def _names(self, base: str, shard: str) -> set[str]:
        with suppress(FileNotFoundError):
            names = os.listdir(f"{self._root}/{base}/{shard}")
            return {each for each in names if (each.endswith(SUFFIX) if base == "claims" else _is_id(each))}
        return set()

    def _differs(self, base: str) -> bool:
        times, seen = self._notes.get(QUICK, base) or {}, set()
        for shard, changed in self._shards(base):
            seen.add(shard)
            if times.get(shard) != changed and self._names(base, shard) != self._known(base, shard):
                return True
        return not seen.issuperset(times)

    def _known(self, base: str, shard: str) -> set[str]:
        return set(self._notes.get(f"names/{base}", shard) or ())

    def _new(self, base: str, limit: int | None) -> list[tuple[str, str]]:
        times: dict[str, Any] = self._notes.get(QUICK, base) or {}
        seen, found = dict[str, Any](), list[tuple[str, str]]()
        for shard, changed in self._shards(base):
            if times.get(shard) == changed:
                seen[shard] = changed
                continue
            if limit is not None and len(found) >= limit:
                self.left, seen[shard] = True, times.get(shard)
                continue
            known, there = self._known(base, shard), self._names(base, shard)
            self.vanished = self.vanished or not there.issuperset(known)
            self._notes.set(f"names/{base}", shard, sorted(there))
            found += [(shard, name) for name in sorted(there - known)]
            seen[shard] = changed if time.time_ns() - changed[1] > _TICK_NS else None
        self.vanished = self.vanished or any(shard not in seen for shard in times)
        self._notes.set(QUICK, base, seen)
        return found


def _is_id(name: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()
