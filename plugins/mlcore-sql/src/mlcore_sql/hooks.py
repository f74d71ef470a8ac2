"""What mlcore-sql brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider

_OPEN = "mlcore_sql.store:open_store"


def mlcore_stores() -> Iterable[Provider]:
    """Provide a store for a team in a database, by the scheme of its URI."""
    return [
        Provider("mariadb", _OPEN, "runs of a team in MariaDB"),
        Provider("mysql", _OPEN, "runs of a team in MySQL"),
        Provider("postgresql", _OPEN, "runs of a team in PostgreSQL"),
        Provider("sqlite", _OPEN, "runs in one file of SQLite"),
    ]


def mlcore_commands() -> Iterable[Provider]:
    """Provide the commands that look after a team store."""
    return [Provider("db", "mlcore_sql.db_commands:group", "Upgrade, check, rebuild and back up a team's database.")]


def mlcore_indexes() -> Iterable[Provider]:
    """Provide an index in a SQLite file."""
    return [Provider("sqlite", "mlcore_sql.index:open_index", "what a folder store holds, in a SQLite file")]
