"""The three dialects of SQL, and one way to run a statement: by sqlite3 alone, or on a connection of SQLAlchemy.

Reads are plain SQL with ``:name`` binds; writes take rows as tuples. The index needs no SQLAlchemy for either.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

__all__ = [
    "REMEMBER",
    "Binds",
    "Row",
    "Runner",
    "alone",
    "among",
    "among_all",
    "contains",
    "ends",
    "insert",
    "insert_missing",
    "is_like",
    "matches",
    "parts",
    "plain",
    "runner",
    "upsert",
    "without",
]

Row = Sequence[Any]
NO_BINDS: Mapping[str, Any] = {}
REMEMBER = ("sqlite", "postgresql")  # databases that can be made to, see `among_all`
_SHALLOW = 2_000  # bytes of JSON: that many it takes to open and close a thousand levels
_FEW = {"sqlite": 1_000}  # values that are bound one by one, and in other databases at most 100


class Runner(Protocol):
    """Run statements inside a transaction that somebody else began and will end."""

    dialect: str  # sqlite, postgresql or mysql (MariaDB too)

    def rows(self, sql: str, binds: Mapping[str, Any] = NO_BINDS) -> Iterable[Row]:
        """Run a statement with ``:name`` binds and return its rows."""
        ...

    def many(self, sql: str, rows: Sequence[Row]) -> None:
        """Run a statement with ``?`` binds once a row."""
        ...

    def knows(self, name: str, function: Callable[..., Any]) -> bool:
        """Let statements call a function by a name; False where the database runs elsewhere, and cannot."""
        ...


class _Plain:
    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, binds: Mapping[str, Any] = NO_BINDS) -> Iterable[Row]:
        return self._connection.execute(sql, binds)

    def many(self, sql: str, rows: Sequence[Row]) -> None:
        self._connection.executemany(sql, rows)

    def knows(self, name: str, function: Callable[..., Any]) -> bool:
        self._connection.create_function(name, -1, function, deterministic=True)
        return True


class _Pooled:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = "mysql" if connection.dialect.name == "mariadb" else connection.dialect.name

    def rows(self, sql: str, binds: Mapping[str, Any] = NO_BINDS) -> Iterable[Row]:
        return self._connection.execute(_text(sql), dict(binds))

    def many(self, sql: str, rows: Sequence[Row]) -> None:
        if rows:
            self._connection.exec_driver_sql(sql.replace("?", "%s"), [tuple(row) for row in rows])

    def knows(self, name: str, function: Callable[..., Any]) -> bool:  # noqa: ARG002 - it has no use for them
        return False


@lru_cache(maxsize=500)
def _text(sql: str) -> TextClause:
    from sqlalchemy import text

    return text(sql)


def runner(connection: sqlite3.Connection | Connection) -> Runner:
    """Return what runs statements on a connection of sqlite3 or SQLAlchemy, whose transaction must have begun.

    To SQLite we speak without SQLAlchemy, which takes longer to pass a statement on than SQLite to run it.
    """
    if not isinstance(connection, sqlite3.Connection) and connection.dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        return _Plain(cast("sqlite3.Connection", driver))
    return _Plain(connection) if isinstance(connection, sqlite3.Connection) else _Pooled(connection)


def insert(table: str, columns: Sequence[str]) -> str:
    """Return the statement that inserts rows, for `Runner.many`."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def insert_missing(dialect: str, table: str, columns: Sequence[str], unique: Sequence[str]) -> str:
    """Return the statement that inserts rows, and leaves those alone that are there by these columns."""
    if dialect == "mysql":  # IGNORE would ignore more
        return f"{insert(table, columns)} ON DUPLICATE KEY UPDATE {unique[0]} = {unique[0]}"
    return f"{insert(table, columns)} ON CONFLICT ({', '.join(unique)}) DO NOTHING"


def upsert(dialect: str, table: str, columns: Sequence[str], unique: Sequence[str]) -> str:
    """Return the statement that inserts rows, or sets the other columns of those that are there by these."""
    rest = [name for name in columns if name not in unique]
    if dialect == "mysql":
        return f"{insert(table, columns)} ON DUPLICATE KEY UPDATE {', '.join(f'{n} = VALUES({n})' for n in rest)}"
    values = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return f"{insert(table, columns)} ON CONFLICT ({', '.join(unique)}) DO UPDATE SET {values}"


class Binds(dict[str, Any]):
    """Collect the values of a statement, each under a name of its own."""

    def add(self, value: Any) -> str:
        """Bind a value and return its placeholder."""
        name = f"b{len(self)}"
        self[name] = value
        return f":{name}"


def among(dialect: str, column: str, values: Sequence[bytes] | Sequence[int], binds: Binds) -> str:
    """Return the condition that a column is one of these values, however many."""
    if dialect == "sqlite" and len(values) <= _FEW[dialect] and values and isinstance(values[0], int):
        return f"{column} IN ({', '.join(map(str, values))})"  # SQLite looks through all names for each that is bound
    if len(values) <= _FEW.get(dialect, 100) or dialect == "mysql":  # whose driver puts the values into the text
        return f"{column} IN ({', '.join(map(binds.add, values)) or 'NULL'})"
    if dialect == "postgresql":
        return f"{column} = ANY({binds.add(list(values))})"
    if isinstance(values[0], int):
        return f"{column} IN (SELECT value FROM json_each({binds.add(json.dumps(values))}))"
    hexed = json.dumps([each.hex().upper() for each in values if isinstance(each, bytes)])
    return f"hex({column}) IN (SELECT value FROM json_each({binds.add(hexed)}))"


def alone(dialect: str, sql: str) -> str:
    """Return a condition that is looked at row by row: of how few fit PostgreSQL has no idea, and joins by it."""
    return f"({sql}) = TRUE" if dialect == "postgresql" else sql


def among_all(dialect: str, column: str, select: str) -> str:
    """Return the condition that a column is among what is selected: those are remembered, not gone through one by one.

    Without the sign SQLite, and without the comparison PostgreSQL, would take it for a join.
    """
    return f"({column} IN ({select})) = TRUE" if dialect == "postgresql" else f"+{column} IN ({select})"


def ends(dialect: str, column: str, length: int, bind: str) -> str:
    """Return the condition that a column ends with some bytes, of which there are `length`."""
    if dialect != "postgresql":
        return f"substr({column}, -{length:d}) = {bind}"
    return f"substr({column}, length({column}) - {length - 1:d}) = {bind}"


def without(dialect: str, column: str, paths: Sequence[str]) -> str:
    """Return a column of JSON without what is at some paths, where that takes less time than decoding it."""
    if dialect != "sqlite" or not paths:
        return column
    text, gone = f"CAST({column} AS TEXT)", ", ".join(f"'{path}'" for path in paths)
    # what is nested deeper than SQLite follows, a thousand levels at least, comes as it is; so short a text never is
    able = f"length({column}) < {_SHALLOW} OR json_valid({text})"
    return f"CASE WHEN {able} THEN CAST(json_remove({text}, {gone}) AS BLOB) ELSE {column} END"


def contains(dialect: str, column: str, bind: str) -> str:
    """Return the condition that some bytes are in a column."""
    if dialect == "postgresql":
        return f"position({bind} IN {column}) > 0"
    return f"instr({column}, {bind}) > 0"


def plain(dialect: str, column: str) -> str:
    """Return the text of a key, as the database reads it, that is no longer than the key says only if it is plain.

    That is ASCII without NUL, on PostgreSQL without backslashes, too. Empty where the database can read none.
    """
    if dialect == "postgresql":
        return f"encode(substring({column} from 2), 'escape')"
    return f"CAST(substr({column}, 2) AS TEXT)" if dialect == "sqlite" else ""


def matches(dialect: str, op: str, text: str, pattern: str, binds: Binds) -> str:
    """Return the condition that a plain text is like a pattern of ASCII: no database knows all cases there are."""
    if dialect == "postgresql":
        return f"{text} COLLATE \"C\" {op.upper()} {binds.add(pattern)} ESCAPE ''"
    if op == "ilike":
        return f"{text} LIKE {binds.add(pattern)}"
    signs = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return f"{text} GLOB {binds.add(''.join(signs.get(char, char) for char in pattern))}"


def is_like(column: str, pattern: bytes, binds: Binds) -> str:
    """Return the condition that bytes are like a pattern without ``_``, where the database knows LIKE of bytes."""
    return f"{column} LIKE {binds.add(pattern.replace(b'|', b'||'))} ESCAPE '|'"


_Item = TypeVar("_Item")


def parts(items: Sequence[_Item], size: int = 500) -> Iterable[Sequence[_Item]]:
    """Yield items in parts that a statement can hold."""
    return (items[start : start + size] for start in range(0, len(items), size))
