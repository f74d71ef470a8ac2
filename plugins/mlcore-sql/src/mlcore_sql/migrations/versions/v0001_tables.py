"""Make the tables: the history, its rows, and what is projected from it."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    UniqueConstraint,
    insert,
    select,
    text,
)  # fmt: skip
from sqlalchemy.dialects import mysql

from mlcore_sql.migrations import new_epoch
from mlcore_sql.migrations.steps import create_all

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0001"
down_revision = None


def _bytes(name: str, size: int, **options: Any) -> Column[bytes]:
    kind = LargeBinary().with_variant(mysql.VARBINARY(size), "mysql", "mariadb")
    return Column(name, kind, **{"nullable": False} | options)


def _blob(name: str, nullable: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"), nullable=nullable)


def _key(name: str, nullable: bool = False) -> Column[bytes]:
    return _bytes(name, 480, nullable=nullable)


def _number(name: str, **options: Any) -> Column[int]:
    return Column(name, BigInteger(), **{"nullable": False} | options)


def _small(name: str) -> Column[int]:
    return Column(name, SmallInteger(), nullable=False)


def _counted(name: str, **options: Any) -> Column[int]:
    return Column(name, BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, **options)


def _history(tables: MetaData) -> Table:
    Table(
        "batches", tables, _counted("position", autoincrement=False), _number("received_at"), _bytes("source", 16),
        _bytes("home", 64), _number("first"), _number("last"), _bytes("previous", 32), _bytes("actor", 255),
        _blob("claim", nullable=True), _number("size"), _blob("events"), Index("batches_of_home", "home", "position"),
        mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "sources", tables, _bytes("source", 16, primary_key=True), _number("last"), _bytes("digest", 32),
        mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "claims", tables, _bytes("id", 32, primary_key=True), _blob("claim"), _bytes("source", 16),
        mysql_engine="InnoDB",
    )  # fmt: skip
    Table("signs", tables, _bytes("home", 64, primary_key=True), _number("seen"), mysql_engine="InnoDB")
    return Table(
        "counter", tables, Column("id", Integer(), primary_key=True, autoincrement=False), _number("n"),
        _bytes("epoch", 32), mysql_engine="InnoDB",
    )  # fmt: skip


def _rows(tables: MetaData) -> None:
    Table(
        "owners", tables, _bytes("id", 16, primary_key=True), _blob("kind"), _blob("entity"), mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "series", tables, _bytes("id", 16, primary_key=True), _bytes("owner", 16), _blob("name"), _blob("context"),
        _small("odd"), Index("series_of_owner", "owner"), mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "chunks", tables, _counted("id"), _bytes("series", 16), _bytes("source", 16), _number("first"), _number("last"),
        _number("size"), _blob("data"), Index("chunks_of_series", "series", "source", "size"),
        Index("chunks_of_source", "source", "last", "first"), mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "cuts", tables, _bytes("owner", 16, primary_key=True), _number("stamp", primary_key=True),
        _bytes("source", 16, primary_key=True), _number("number", primary_key=True),
        _number("event", primary_key=True), _number("step", nullable=True), mysql_engine="InnoDB",
    )  # fmt: skip


def _projected(tables: MetaData) -> None:
    narrow: dict[str, Any] = {"sqlite_with_rowid": False, "mysql_engine": "InnoDB"}
    Table(
        "terms", tables, _counted("id"), _key("digest"), _blob("kind"), _blob("family"), _blob("name"),
        _blob("context"), _small("cut"), UniqueConstraint("digest", name="terms_digest"), mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "entities", tables, _counted("entity"), _number("kind"), _key("id"), _key("parent"), _number("created"),
        _number("changed"), _key("start"), _key("duration", nullable=True), _small("hidden"), _small("rewound"),
        _number("revision"), UniqueConstraint("kind", "id", name="entities_id"),
        Index("entities_start", "kind", text("start DESC"), "id", "hidden"),
        Index("entities_parent", "kind", "parent", text("start DESC"), "id"), mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "documents", tables, _counted("entity", autoincrement=False), _blob("state"), _blob("shown"),
        mysql_engine="InnoDB",
    )  # fmt: skip
    Table(
        "attributes", tables, _number("entity"), _number("term"), _small("type"), _key("value", nullable=True),
        _key("text", nullable=True), PrimaryKeyConstraint("entity", "term"),
        Index("attributes_value", "term", "value", "entity", "type"), **narrow,
    )  # fmt: skip
    Table(
        "members", tables, _number("entity"), _number("term"), _small("type"), _key("value"),
        PrimaryKeyConstraint("entity", "term", "type", "value"), Index("members_value", "term", "value", "entity"),
        **narrow,
    )  # fmt: skip
    Table(
        "metrics", tables, _number("entity"), _number("term"), _number("count"), _key("low"), _key("high"),
        _key("last"), _number("step"), _number("time"), _blob("origin"), _blob("odd", nullable=True),
        PrimaryKeyConstraint("entity", "term"), Index("metrics_last", "term", "last", "entity"),
        Index("metrics_low", "term", "low", "entity"), Index("metrics_high", "term", "high", "entity"), **narrow,
    )  # fmt: skip


def upgrade() -> None:
    """Make the tables, and let positions begin at 0."""
    tables = MetaData()
    counter = _history(tables)
    _rows(tables)
    _projected(tables)
    create_all(tables)
    connection = op.get_bind()
    if connection.execute(select(counter.c.n)).first() is None:
        connection.execute(insert(counter), {"id": 1, "n": 0, "epoch": new_epoch()})
