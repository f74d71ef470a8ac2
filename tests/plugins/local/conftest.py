"""Give tests real databases."""

from __future__ import annotations

from servers import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]
