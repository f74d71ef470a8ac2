"""Make the tables of a store, where there are none yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, insert, inspect, select, text

from mlcore.errors import StoreError
from mlcore_sql.engine import Database
from mlcore_sql.tables import counter, metadata

__all__ = ["prepare"]

_LOCK = 0x6D6C636F7265  # "mlcore"


def prepare(database: Database) -> None:
    """Make the tables, if this is the first use of the database; several clients may try at once."""
    if database.exists():
        with database.reading() as connection:
            if inspect(connection).has_table("counter") and connection.execute(select(counter.c.n)).first():
                return
    with database.writing() as connection, _alone(connection):
        metadata.create_all(connection)
        if connection.execute(select(counter.c.n)).first() is None:
            connection.execute(insert(counter), {"id": 1, "n": 0, "epoch": os.urandom(8).hex().encode()})


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if connection.dialect.name not in ("mysql", "mariadb"):
        yield
        return
    if not connection.execute(text("SELECT get_lock('mlcore', 60)")).scalar():
        raise StoreError("another client makes the tables of this store, and has not ended for a minute")
    try:
        yield
    finally:
        connection.execute(text("SELECT release_lock('mlcore')"))
