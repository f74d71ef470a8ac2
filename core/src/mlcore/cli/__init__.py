"""The ``mlcore`` program: a group whose commands plugins provide."""

from __future__ import annotations

from mlcore.cli._program import main, program

__all__ = ["main", "program"]
