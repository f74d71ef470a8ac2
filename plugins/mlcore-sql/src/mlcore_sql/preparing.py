"""Make the tables of a store, where there are none yet."""

from __future__ import annotations

from mlcore_sql import migrations
from mlcore_sql.engine import Database

__all__ = ["prepare"]


def prepare(database: Database) -> None:
    """Make the tables, if this is the first use of the database; several clients may try at once.

    Those that are there are changed by nobody who does not ask for it: see `migrations.check`.
    """
    if database.exists():
        with database.reading() as connection:
            if migrations.check(migrations.version_of(connection), database.name):
                return
    migrations.upgrade(database)
