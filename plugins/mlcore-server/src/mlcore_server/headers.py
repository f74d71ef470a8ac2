"""Headers that every answer has, errors included, unless the route gave another value."""

from __future__ import annotations

__all__ = ["DEFAULTS"]

DEFAULTS: tuple[tuple[bytes, bytes], ...] = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
