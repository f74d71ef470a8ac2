"""What migrations are made of: steps that may be taken again after they were cut off anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Column, MetaData, Table

__all__ = ["add_column", "create", "create_all"]


def create_all(metadata: MetaData) -> None:
    """Make tables, see `create`."""
    for table in metadata.sorted_tables:
        create(table)


def create(table: Table) -> None:
    """Make a table and its indexes, as far as they are not there: MySQL commits every statement by itself."""
    from alembic import op
    from sqlalchemy import inspect
    from sqlalchemy.schema import CreateTable

    connection = op.get_bind()
    connection.execute(CreateTable(table, if_not_exists=True))
    there = {each["name"] for each in inspect(connection).get_indexes(table.name)}
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        if index.name not in there:
            index.create(connection)


def add_column(table: str, column: Column[object]) -> None:
    """Add a column to a table, if it has none of that name."""
    from alembic import op
    from sqlalchemy import inspect

    if column.name not in {each["name"] for each in inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)
