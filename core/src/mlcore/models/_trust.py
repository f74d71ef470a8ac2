"""Trust: the one place that imports and unpickles what a model asks for."""

from __future__ import annotations

__all__ = ["Trust"]


class Trust:
    """Hold what the reader of a model trusts."""
