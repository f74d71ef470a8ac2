"""Tell what a database's error means: one that passes, so that it is worth trying again, or one that stays."""

from __future__ import annotations

import re

from sqlalchemy import exc

__all__ = ["passes", "reason"]

_POSTGRESQL = re.compile(r"08...|40001|40P01|53300|55P03|57P0[1-5]|25P0[23]")
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
    library = type(cause).__module__.partition(".")[0]
    if library == "psycopg":
        state = getattr(cause, "sqlstate", None)
        lost = type(error) in (exc.OperationalError, exc.InterfaceError)  # it had no answer from the server
        return lost if state is None else _POSTGRESQL.fullmatch(state) is not None
    if library == "pymysql":
        return bool(cause and cause.args and cause.args[0] in _MYSQL)
    return isinstance(error, exc.OperationalError) and any(word in str(cause) for word in _SQLITE)


def reason(error: BaseException) -> str:
    """Return what a database said, in one line and without what SQLAlchemy adds."""
    cause = getattr(error, "orig", None) or error
    if type(cause).__module__.startswith("pymysql") and len(cause.args) > 1:
        return str(cause.args[1])
    lines = [line.strip() for line in str(cause).splitlines()]
    return " ".join(line for line in lines if line) or type(cause).__name__
