"""Make the tables of a store, where there are none yet."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import Connection, insert, select, text

from mlcore_sql.engine import Database
from mlcore_sql.tables import counter, metadata

__all__ = ["prepare"]


def prepare(database: Database) -> None:
    """Make the tables, if this is the first use of the database."""
    with database.writing() as connection:
        metadata.create_all(connection)
        if connection.execute(select(counter.c.n)).first() is None:
            connection.execute(insert(counter), {"id": 1, "n": 0, "epoch": os.urandom(8).hex().encode()})
