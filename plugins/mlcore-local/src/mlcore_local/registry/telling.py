"""Tell others what changed in the registry: a line of JSON in a file, or a command that is run."""

from __future__ import annotations

from mlcore.registry import Change

__all__ = ["tell"]


def tell(event: Change) -> None:
    """Tell of a change where the user's settings say so."""
