"""The ``mlcore`` program: a group whose commands plugins provide."""

from mlcore.cli._program import main, program

__all__ = ["main", "program"]
