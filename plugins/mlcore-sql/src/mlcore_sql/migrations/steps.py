"""What migrations are made of: steps that may be taken again after they were cut off anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Column, MetaData, Table

__all__ = ["add_column", "add_index", "create", "create_all", "drop_index"]


def create_all(metadata: MetaData) -> None:
    """Make tables, see `create`."""
    for table in metadata.sorted_tables:
        create(table)


def create(table: Table) -> None:
    """Make a table and its indexes, as far as they are not there: MySQL commits every statement by itself."""
    from alembic import op
    from sqlalchemy.schema import CreateTable

    connection = op.get_bind()
    connection.execute(CreateTable(table, if_not_exists=True))
    there = _indexes(table.name)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        if index.name not in there:
            index.create(connection)


def add_column(table: str, column: Column[object]) -> None:
    """Add a column to a table, if it has none of that name."""
    from alembic import op
    from sqlalchemy import inspect

    if column.name not in {each["name"] for each in inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def add_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Add an index to a table, if it has none of that name."""
    from alembic import op

    if name not in _indexes(table):
        op.create_index(name, table, list(columns))


def drop_index(name: str, table: str) -> None:
    """Remove an index from a table, if it has one of that name."""
    from alembic import op

    if name in _indexes(table):
        op.drop_index(name, table)


def _indexes(table: str) -> set[str | None]:
    from alembic import op
    from sqlalchemy import inspect

    return {each["name"] for each in inspect(op.get_bind()).get_indexes(table)}
