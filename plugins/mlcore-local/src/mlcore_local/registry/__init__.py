"""The model registry from the command line: what is in it, how it came about, and what hangs together."""

from __future__ import annotations

__all__: list[str] = []
