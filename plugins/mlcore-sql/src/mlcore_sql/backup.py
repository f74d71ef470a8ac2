"""Copy a team store while it is used: into a file of SQLite, or into the empty database of another server.

The copy is of one moment. It has an epoch of its own, so that a position of one is never taken for one of the other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import Connection, Table, exc, func, insert, select, text, update

from mlcore.errors import StoreError
from mlcore_sql import migrations
from mlcore_sql.engine import Database
from mlcore_sql.rebuilding import Progress, silent
from mlcore_sql.schema import projected
from mlcore_sql.tables import batches, counter, metadata

__all__ = ["Copied", "backup", "renew"]

_ROWS = 500
_BYTES = 4 << 20


@attrs.frozen
class Copied:
    """Tell what was copied: batches of the history, and rows of all tables."""

    batches: int
    rows: int


def backup(database: Database, uri: str, progress: Progress = silent) -> Copied:
    """Copy a store to a database that has none: the URI of one, or a path for a file of SQLite.

    A file appears when it is whole; on a server nothing is seen before all is. Raises `StoreError`.
    """
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") or "://" not in uri else None
    if path is None:
        target = Database(uri)
        try:
            return _copy(database, target, progress)
        finally:
            target.close()
    if path.exists():
        raise StoreError(f"{path} is there already: a backup makes a new file")
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    target = Database(f"sqlite:///{temporary}")
    try:
        copied = _copy(database, target, progress)
        with target.engine.connect() as connection:
            connection.connection.driver_connection.execute("PRAGMA journal_mode=DELETE")  # type: ignore[union-attr]
        target.close()
        _publish(temporary, path)
    finally:
        target.close()
        for rest in path.parent.glob(f"{temporary.name}*"):
            rest.unlink(missing_ok=True)
    return copied


def _publish(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.link(temporary, path)  # which does not replace what somebody else put there meanwhile


def _copy(database: Database, target: Database, progress: Progress) -> Copied:
    with database.reading() as source:
        if not migrations.check(migrations.version_of(source), database.name):
            raise StoreError(f"store {database.name} is empty: there is nothing to copy")
    try:
        migrations.upgrade(target)
        with target.writing() as into:
            if into.execute(select(counter.c.n)).scalar_one() or into.execute(select(batches.c.position)).first():
                raise StoreError(f"{target.name} has a store already: copy to an empty database")
            with database.reading() as source:
                return _copy_tables(source, into, progress)
    except exc.SQLAlchemyError as error:
        raise target.error("cannot be written to", error) from error


def _copy_tables(source: Connection, target: Connection, progress: Progress) -> Copied:
    tables = [table for table in (*metadata.sorted_tables, *projected.sorted_tables) if table is not counter]
    total = sum(source.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
    done = 0
    for table in tables:
        for rows in _pages(source, table):
            target.execute(insert(table), rows)
            done += len(rows)
            progress(done, total)
        _count_on(target, table)
    last = source.execute(select(counter.c.n)).scalar_one()
    target.execute(update(counter).values(n=last, epoch=migrations.new_epoch()))
    many = source.execute(select(func.count()).select_from(batches)).scalar_one()
    return Copied(many, done)


def _pages(source: Connection, table: Table) -> Any:
    """Yield rows of a table, a few MB at a time."""
    rows: list[dict[str, Any]] = []
    size = 0
    streamed = source.execution_options(stream_results=True, max_row_buffer=_ROWS)
    for row in streamed.execute(select(table)):
        rows.append(dict(row._mapping))  # noqa: SLF001 - so that SQLAlchemy's names do not meet those of columns
        size += sum(len(value) for value in row if isinstance(value, bytes))
        if len(rows) >= _ROWS or size > _BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _count_on(target: Connection, table: Table) -> None:
    """Let PostgreSQL give new rows numbers after those that were copied, as the others do by themselves."""
    column = table.autoincrement_column
    if target.dialect.name == "postgresql" and column is not None:
        sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
        target.execute(
            text(f"SELECT setval({sequence}, (SELECT coalesce(max({column.name}), 0) + 1 FROM {table.name}))")
        )


def renew(database: Database) -> None:
    """Give a store a new epoch, as is right after it was put back from a dump: who reads on starts over."""
    with database.writing() as connection:
        connection.execute(update(counter).values(epoch=migrations.new_epoch()))
