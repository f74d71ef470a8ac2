"""Remember between two syncs what a store has of another, in a file that may be deleted at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from mlcore import config
from mlcore.errors import StoreError
from mlcore.store import Batch, Store
from mlcore_local.outgoing import Mark

__all__ = ["Remembered", "place_of"]

_FORMAT = 1
_WITNESSES, _CANDIDATES = 20, 100


def place_of(source: str, target: str) -> Path:
    """Return where to remember what `target` has of `source`, both as absolute paths or URIs."""
    pair = hashlib.sha256(f"{source}\n{target}".encode()).hexdigest()
    return config.user_cache() / "sync" / f"{pair[:32]}.json"


@attrs.define
class Remembered:
    """Hold how far a sync came.

    `journals` tells of each source what its files were like and up to which mark they were sent, `claims` of the file
    of each claim its source and home, `position` how far the events of a store were read whose positions last, and
    `again` the homes of what was refused then. `witnesses` are the entities that were sent last, and when they changed.
    """

    journals: dict[str, tuple[str, Mark]] = attrs.field(factory=dict)
    claims: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    position: str = ""
    again: list[str] = attrs.field(factory=list)
    witnesses: deque[tuple[str, str, int]] = attrs.field(factory=lambda: deque(maxlen=_CANDIDATES))

    @classmethod
    def load(cls, path: Path | None) -> Remembered:
        """Read what is remembered: nothing, if the file is missing or no such file."""
        found = cls()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content: dict[str, Any] = json.loads(path.read_bytes()) if path else {}
            if content.get("format") == _FORMAT:
                found.journals = {
                    id: (str(state), (int(n), str(d))) for id, (state, n, d) in content["journals"].items()
                }
                found.claims = {name: (str(id), str(home)) for name, (id, home) in content["claims"].items()}
                found.witnesses.extend((str(kind), str(id), int(stamp)) for kind, id, stamp in content["witnesses"])
                found.position, found.again = str(content["position"]), [str(home) for home in content["again"]]
                return found
        return cls()

    def save(self, path: Path) -> None:
        """Write it down, whole or not at all; that it cannot be written is no reason to fail."""
        content: Mapping[str, Any] = {
            "format": _FORMAT,
            "position": self.position,
            "again": self.again,
            "witnesses": list(self.witnesses),
            "claims": self.claims,
            "journals": {id: (state, *mark) for id, (state, mark) in self.journals.items()},
        }
        temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def note(self, batch: Batch) -> None:
        """Remember a batch that arrived: the entity that it is about last."""
        record = batch.records[-1]
        self.witnesses.append((record.events[-1].kind, record.events[-1].id, record.stamp))

    def holds(self, target: Store) -> bool:
        """Tell whether `target` has what was sent last: not if it was made anew, or put back to an older state."""
        return bool(self.witnesses) and self._found(target) == list(self.witnesses)

    def settle(self, target: Store) -> None:
        """Keep no witness that `target` does not show, such as what was erased since."""
        self.witnesses = deque(self._found(target)[-_WITNESSES:], self.witnesses.maxlen)

    def _found(self, target: Store) -> list[tuple[str, str, int]]:
        changed: dict[tuple[str, str], int] = {}
        with contextlib.suppress(StoreError):
            for kind in {kind for kind, _, _ in self.witnesses}:
                ids = sorted({id for each, id, _ in self.witnesses if each == kind})
                changed |= {(kind, each.id): each.changed for each in target.get(kind, ids) if each is not None}
        return [each for each in self.witnesses if changed.get(each[:2], -1) >= each[2]]
