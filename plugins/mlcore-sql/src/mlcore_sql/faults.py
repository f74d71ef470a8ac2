"""Tell what a database's error means: one that passes, so that it is worth trying again, or one that stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, exc

__all__ = ["driver_errors", "passes", "reason"]

_POSTGRESQL = re.compile(r"08...|40001|40P01|53300|55P03|57P0[1-5]|25P0[23]|XX000")
_MYSQL = {
    1040,  # too many connections
    1053,  # the server goes down
    1152,  # the connection was aborted
    1205,  # waited too long for a lock
    1213,  # deadlock
    1927,  # the connection was killed
    2002, 2003, 2006, 2013, 2055,  # it cannot be reached, or went away
}  # fmt: skip
_SQLITE = ("locked", "busy", "schema has changed")


def passes(error: BaseException) -> bool:
    """Tell whether what failed may succeed when the whole transaction is tried again.

    So it is for deadlocks and serialization failures, for rows that another one inserted first, and wherever the
    connection was lost: whether the commit arrived is not known then, and the source's mark tells the next time.
    """
    if isinstance(error, exc.IntegrityError | exc.TimeoutError):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    cause = error.orig
    if hasattr(cause, "sqlstate"):
        state = cause.sqlstate
        return isinstance(cause, _interface(error)) if state is None else _POSTGRESQL.fullmatch(state) is not None
    if type(cause).__module__.startswith("pymysql"):
        return bool(cause and cause.args and cause.args[0] in _MYSQL)
    return isinstance(error, exc.OperationalError) and any(word in str(cause) for word in _SQLITE)


def _interface(error: exc.DBAPIError) -> tuple[type[BaseException], ...]:
    import psycopg

    return (psycopg.OperationalError, psycopg.InterfaceError)


@contextmanager
def driver_errors(connection: Connection) -> Iterator[Any]:
    """Yield psycopg's own connection, for what SQLAlchemy has no words for, and raise its errors as SQLAlchemy would."""
    import psycopg

    try:
        yield connection.connection.driver_connection
    except psycopg.Error as error:
        lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
        raise exc.DBAPIError("COPY", None, error, connection_invalidated=lost) from error


def reason(error: BaseException) -> str:
    """Return what a database said, in one line and without what SQLAlchemy adds."""
    cause = getattr(error, "orig", None) or error
    if type(cause).__module__.startswith("pymysql") and len(cause.args) > 1:
        return str(cause.args[1])
    lines = [line.strip() for line in str(cause).splitlines()]
    return " ".join(line for line in lines if line) or type(cause).__name__
