"""The tracking API, which users find in `mlcore` itself."""

from __future__ import annotations

__all__: list[str] = []
