"""Give tests real databases."""

from __future__ import annotations

from poolers import pgbouncer, pgbouncer_port
from servers import database, mariadb, mariadb_server, postgresql, postgresql_server

__all__ = ["database", "mariadb", "mariadb_server", "pgbouncer", "pgbouncer_port", "postgresql", "postgresql_server"]
