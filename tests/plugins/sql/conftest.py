"""Give tests real databases."""

from __future__ import annotations

from servers import database, mariadb, mariadb_server, postgresql, postgresql_server

__all__ = ["database", "mariadb", "mariadb_server", "postgresql", "postgresql_server"]
