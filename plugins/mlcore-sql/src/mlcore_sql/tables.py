"""The tables of a team store that no index has: the history, which is the truth, and what keeps it consistent.

Names that come from outside are bytes on every engine, so that no collation takes two for one. Where a name may be
longer than a key may be, its place is taken by a hash, see `place`.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table
from sqlalchemy.dialects import mysql, postgresql

from mlcore.store import to_json

__all__ = [
    "batches",
    "chunks",
    "claims",
    "counter",
    "cuts",
    "metadata",
    "owners",
    "place",
    "series",
    "signs",
    "sources",
]

metadata = MetaData()


def _bytes(size: int) -> Any:
    return LargeBinary().with_variant(mysql.VARBINARY(size), "mysql", "mariadb")


def _blob() -> Any:
    return (
        LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb").with_variant(postgresql.BYTEA(), "postgresql")
    )


_HASH = _bytes(16)
_SOURCE = _bytes(16)
_DIGEST = _bytes(32)
# SQLite counts by itself only what is declared INTEGER
_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

batches = Table(
    "batches", metadata,
    Column("position", _NUMBER, primary_key=True, autoincrement=False),
    Column("received_at", BigInteger, nullable=False),  # ms since 1970, by the database's clock
    Column("source", _SOURCE, nullable=False),
    Column("home", _bytes(64), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("previous", _DIGEST, nullable=False),  # empty before record 1
    Column("actor", _bytes(255), nullable=False),
    Column("claim", _blob()),
    Column("size", BigInteger, nullable=False),  # number of `RowsLogged` and of their rows: what to look for in chunks
    Column("events", _blob(), nullable=False),  # see `mlcore_sql.records`
    Index("batches_of_home", "home", "position"),
    mysql_engine="InnoDB",
)  # fmt: skip

sources = Table(
    "sources", metadata,
    Column("source", _SOURCE, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    mysql_engine="InnoDB",
)  # fmt: skip

claims = Table(
    "claims", metadata,
    Column("id", _DIGEST, primary_key=True),  # SHA-256 of the claim
    Column("claim", _blob(), nullable=False),
    Column("source", _SOURCE, nullable=False),
    mysql_engine="InnoDB",
)  # fmt: skip

signs = Table(
    "signs", metadata,
    Column("home", _bytes(64), primary_key=True),
    Column("seen", BigInteger, nullable=False),
    mysql_engine="InnoDB",
)  # fmt: skip

counter = Table(
    "counter", metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),  # the position that was taken last
    Column("epoch", _bytes(32), nullable=False),  # new in every copy: positions of another one are lost
    mysql_engine="InnoDB",
)  # fmt: skip

# Rows. An owner is an entity that has any, or whose rows were cut; its row is locked while its rows change.
owners = Table(
    "owners", metadata,
    Column("id", _HASH, primary_key=True),
    Column("kind", _blob(), nullable=False),
    Column("entity", _blob(), nullable=False),
    mysql_engine="InnoDB",
)  # fmt: skip

series = Table(
    "series", metadata,
    Column("id", _HASH, primary_key=True),
    Column("owner", _HASH, nullable=False),
    Column("name", _blob(), nullable=False),
    Column("context", _blob(), nullable=False),
    Column("odd", SmallInteger, nullable=False),  # 1 where some rows are no plain metric
    Index("series_of_owner", "owner"),
    mysql_engine="InnoDB",
)  # fmt: skip

chunks = Table(
    "chunks", metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("series", _HASH, nullable=False),
    Column("source", _SOURCE, nullable=False),
    Column("first", BigInteger, nullable=False),  # numbers of records
    Column("last", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),  # rows
    Column("data", _blob(), nullable=False),  # see `mlcore_sql.chunks`
    Index("chunks_of_series", "series", "source", "size"),
    Index("chunks_of_source", "source", "last", "first"),
    mysql_engine="InnoDB",
)  # fmt: skip

cuts = Table(
    "cuts", metadata,
    Column("owner", _HASH, primary_key=True),
    Column("stamp", BigInteger, primary_key=True),
    Column("source", _SOURCE, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("event", BigInteger, primary_key=True),
    Column("step", BigInteger),  # of a rewind; none if the entity was erased
    mysql_engine="InnoDB",
)  # fmt: skip


@lru_cache(16_384)
def place(*names: str) -> bytes:
    """Return the key of an owner (kind, id) or a series (kind, id, key, context): 128 bits of SHA-256."""
    return hashlib.sha256(to_json(names)).digest()[:16]
