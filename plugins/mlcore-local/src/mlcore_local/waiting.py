"""Tell what waits in a spool, from what lies there alone."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from mlcore import Client
from mlcore.errors import MlcoreError
from mlcore.journal.format import SUFFIX
from mlcore_local.keeping import pending
from mlcore_local.spools import LATER, Spool

__all__ = ["Waiting", "as_dict", "described", "spooled", "waiting"]


@attrs.frozen
class Waiting:
    """Count what waits in a spool: `runs`, `size` in bytes of their records, and `files`.

    `set_aside` has a line for each record that the target refused, `kept` counts all runs that are here.
    """

    runs: int = 0
    size: int = 0
    files: int = 0
    kept: int = 0
    set_aside: tuple[str, ...] = ()


def waiting(spool: Spool) -> Waiting:
    """Look into a spool."""
    homes, runs, size, files, aside = spool.homes(), 0, 0, 0, list[str]()
    for home in homes:
        folder = spool.run_folder(home)
        left, kept = _left(folder, home, aside), len(pending(folder))
        runs, size, files = runs + bool(left or kept), size + left, files + kept
    return Waiting(runs, size, files, len(homes), tuple(aside))


def spooled(uri: str | None) -> tuple[Spool, Waiting] | None:
    """Return the spool of a store, and what waits in it; None if runs are written there directly."""
    with suppress(MlcoreError, OSError):
        uploader = Client(uri).spool
        return None if uploader is None else (uploader.spool, waiting(uploader.spool))
    return None


def described(found: Waiting) -> str:
    """Say what waits in a few words."""
    if not found.kept:
        return "empty"
    files = f" and {found.files:,} files" if found.files else ""
    wait = f"{found.size:,} bytes{files} of {found.runs:,} runs wait" if found.runs else "nothing waits"
    aside = f", {len(found.set_aside):,} records were refused" if found.set_aside else ""
    return f"{wait}{aside}, {found.kept:,} runs are kept"


def as_dict(spool: Spool, found: Waiting) -> dict[str, Any]:
    """Return the same as JSON."""
    return {"root": str(spool.root), **attrs.asdict(found)}


def _left(folder: Path, home: str, aside: list[str]) -> int:
    """Return how many bytes of a run's journals were not sent, and add what was set aside."""
    left = 0
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if not entry.name.endswith(SUFFIX):
                continue
            sent = 0
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                found = json.loads(Path(entry.path).with_suffix(".shipped").read_bytes())
                sent = int(found["size"])
                source = entry.name.removesuffix(SUFFIX)
                refused = [*found["aside"].items(), *found["gone"].items()]
                refused = [each for each in refused if each[1] != LATER]
                aside += [f"run {home}, journal {source}, record {n}: {why}" for n, why in refused]
                if found["refused"]:
                    aside.append(f"run {home}, journal {source}, all that follows: {found['refused']}")
                    sent = entry.stat().st_size
            left += max(0, entry.stat().st_size - max(sent, 0))
    return left
