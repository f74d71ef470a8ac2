"""The three dialects of SQL, and one way to run a statement: by sqlite3 alone, or on a connection of SQLAlchemy.

Reads are plain SQL with ``:name`` binds; writes take rows as tuples. The index needs no SQLAlchemy for either.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Runner", "runner"]

Row = Sequence[Any]
NO_BINDS: Mapping[str, Any] = {}


class Runner(Protocol):
    """Run statements inside a transaction that somebody else began and will end."""

    dialect: str  # sqlite, postgresql or mysql (MariaDB too)

    def rows(self, sql: str, binds: Mapping[str, Any] = NO_BINDS) -> Iterable[Row]:
        """Run a statement with ``:name`` binds and return its rows."""
        ...

    def many(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement with ``?`` binds once a row."""
        ...


class _Plain:
    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, binds: Mapping[str, Any] = NO_BINDS) -> Iterable[Row]:
        return self._connection.execute(sql, binds)

    def many(self, sql: str, rows: Sequence[Row]) -> None:
        self._connection.executemany(sql, rows)


class _Pooled:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = "mysql" if connection.dialect.name == "mariadb" else connection.dialect.name

    def rows(self, sql: str, binds: Mapping[str, Any] = NO_BINDS) -> Iterable[Row]:
        from sqlalchemy import text

        return self._connection.execute(text(sql), dict(binds))

    def many(self, sql: str, rows: Sequence[Row]) -> None:
        if rows:
            marked = sql if self.dialect == "sqlite" else sql.replace("?", "%s")
            self._connection.exec_driver_sql(marked, [tuple(row) for row in rows])


def runner(connection: sqlite3.Connection | Connection) -> Runner:
    """Return what runs statements on a connection of sqlite3 or SQLAlchemy."""
    return _Plain(connection) if isinstance(connection, sqlite3.Connection) else _Pooled(connection)
