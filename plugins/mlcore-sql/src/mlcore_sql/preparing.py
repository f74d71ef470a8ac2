"""Make the tables of a store, where there are none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlcore_sql import migrations
from mlcore_sql.engine import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["prepare"]


def prepare(database: Database) -> None:
    """Make the tables, if this is the first use of the database; several clients may try at once.

    Those that are there are changed by nobody who does not ask for it, see `migrations.check`: but for a first use that
    was cut off between two steps, and left no batch.
    """
    if database.exists():
        with database.reading() as connection:
            version = migrations.version_of(connection)
            cut_off = version in migrations.HISTORY[:-1] and not _holds_batches(connection)
            if not cut_off and migrations.check(version, database.name):
                return
    migrations.upgrade(database)


def _holds_batches(connection: Connection) -> bool:
    from sqlalchemy import select

    from mlcore_sql.tables import batches

    return connection.execute(select(batches.c.position).limit(1)).first() is not None
