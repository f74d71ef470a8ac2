"""The tables that are projected from the history, and can be made anew from it.

What is compared is kept as a key (see `keys`), and text that is not as its UTF-8: as bytes, which have no collation.
What is looked up by name is found by what `keys.distinct` makes of it, as names may be longer than an index holds.
"""

from __future__ import annotations

from typing import Any

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
    text,
)  # fmt: skip
from sqlalchemy.dialects.mysql import LONGBLOB, VARBINARY

from mlcore_sql.keys import LIMIT

__all__ = ["attributes", "documents", "entities", "members", "metrics", "projected", "terms"]

projected = MetaData()
_WITHOUT_ROWID: dict[str, Any] = {"sqlite_with_rowid": False}


def _key(name: str, **options: Any) -> Column[bytes]:
    kind = LargeBinary().with_variant(VARBINARY(LIMIT), "mysql", "mariadb")
    return Column(name, kind, **{"nullable": False} | options)


def _blob(name: str, nullable: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb"), nullable=nullable)


def _number(name: str, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger(), nullable=nullable)


def _small(name: str) -> Column[int]:
    return Column(name, SmallInteger(), nullable=False)


def _counted(name: str, **options: Any) -> Column[int]:
    return Column(name, BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, **options)


# what a value is called: the kind alone, or with a family, a name and a context; `cut`: some key of it was, or a text
terms = Table(
    "terms", projected, _counted("id"), _key("digest"), _blob("kind"), _blob("family"), _blob("name"), _blob("context"),
    _small("cut"), UniqueConstraint("digest", name="terms_digest"),
)  # fmt: skip

# `start` is the key of the tie; `hidden` 1 if deleted, 2 if erased; `revision` new whenever what is shown is
entities = Table(
    "entities", projected, _counted("entity"), _number("kind"), _key("id"), _key("parent"), _number("created"),
    _number("changed"), _key("start"), _key("duration", nullable=True), _small("hidden"), _small("rewound"),
    _number("revision"),
    UniqueConstraint("kind", "id", name="entities_id"),
    Index("entities_start", "kind", text("start DESC"), "id", "hidden"),
    Index("entities_parent", "kind", "parent", text("start DESC"), "id"),
)  # fmt: skip

# apart, so that rows of `entities` are short: `state` is for the next change (see `states`), `shown` for who asks
documents = Table(
    "documents", projected, _counted("entity", autoincrement=False), _blob("state"),
    _blob("shown"),
)  # fmt: skip

# `text` is the key of the value as `str` writes it, where that is another one
attributes = Table(
    "attributes", projected, _number("entity"), _number("term"), _small("type"), _key("value", nullable=True),
    _key("text", nullable=True), PrimaryKeyConstraint("entity", "term"),
    Index("attributes_values", "term", "value", "entity", "type", "text"), **_WITHOUT_ROWID,
)  # fmt: skip

# what objects in a family have under a name, each value once
members = Table(
    "members", projected, _number("entity"), _number("term"), _small("type"), _key("value"),
    PrimaryKeyConstraint("entity", "term", "type", "value"), Index("members_value", "term", "value", "entity"),
    **_WITHOUT_ROWID,
)  # fmt: skip

# `origin` is the order of the event with the last row; `odd` holds values that no float key gives back
metrics = Table(
    "metrics", projected, _number("entity"), _number("term"), _number("count"), _key("low"), _key("high"),
    _key("last"), _number("step"), _number("time"), _blob("origin"), _blob("odd", nullable=True),
    PrimaryKeyConstraint("entity", "term"), Index("metrics_last", "term", "last", "entity"),
    Index("metrics_low", "term", "low", "entity"), Index("metrics_high", "term", "high", "entity"), **_WITHOUT_ROWID,
)  # fmt: skip
