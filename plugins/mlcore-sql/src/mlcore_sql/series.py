"""Read series: the chunks of what was asked for, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlcore.store import Columns, SeriesKey
from mlcore_sql.chunks import Chunk
from mlcore_sql.curves import assembled
from mlcore_sql.dialects import Binds, Runner, among, parts, runner
from mlcore_sql.rows import rewinds_of
from mlcore_sql.tables import place

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["read_series"]

_CHUNKS = "SELECT series, source, data FROM chunks WHERE"
_FEW = 100  # keys that are put into a statement


def read_series(
    connection: Connection, kind: str, ids: Sequence[str], keys: Sequence[str] | None, context: str | None
) -> dict[SeriesKey, Columns]:
    """Return whole series of entities by (id, key, context); of erased entities there are none."""
    run = runner(connection)
    owners = {place(kind, id): id for id in ids}
    for erased in _erased(run, list(owners)):
        del owners[erased]
    names = dict(_names(run, owners, keys, context))
    rewinds = rewinds_of(run, list(owners))
    found: defaultdict[bytes, list[Chunk]] = defaultdict(list)
    for id, source, data in _chunks(connection, list(names)):
        found[id].append(Chunk(source.hex(), data))
    return {name: assembled(found[id], rewinds.get(place(kind, name[0]), ())) for id, name in names.items()}


def _erased(run: Runner, owners: Sequence[bytes]) -> set[bytes]:
    erased: set[bytes] = set()
    for some in parts(owners):
        binds = Binds()
        sql = f"SELECT owner FROM cuts WHERE step IS NULL AND {among(run.dialect, 'owner', some, binds)}"
        erased |= {bytes(owner) for (owner,) in run.rows(sql, binds)}
    return erased


def _names(
    run: Runner, owners: Mapping[bytes, str], keys: Sequence[str] | None, context: str | None
) -> Iterator[tuple[bytes, SeriesKey]]:
    wanted = None if keys is None else {_bytes(key) for key in keys}
    for some in parts(list(owners)):
        binds = Binds()
        where = among(run.dialect, "owner", some, binds)
        if wanted is not None and len(wanted) <= _FEW:
            where += f" AND {among(run.dialect, 'name', sorted(wanted), binds)}"
        if context is not None:
            where += f" AND context = {binds.add(_bytes(context))}"
        for id, owner, key, under in run.rows(f"SELECT id, owner, name, context FROM series WHERE {where}", binds):
            if wanted is None or key in wanted:
                yield bytes(id), (owners[bytes(owner)], bytes(key).decode(), bytes(under).decode())


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _chunks(connection: Connection, ids: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    if connection.dialect.name == "postgresql":
        driver: Any = connection.connection.driver_connection
        with driver.cursor(binary=True) as cursor:  # as text every byte takes two, and a look at each
            for some in parts(ids):
                yield from cursor.execute(f"{_CHUNKS} series = ANY(%s)", [list(some)])
        return
    run = runner(connection)
    for some in parts(ids):
        binds = Binds()
        sql = f"{_CHUNKS} {among(run.dialect, 'series', some, binds)}"
        yield from ((id, source, data) for id, source, data in run.rows(sql, binds))
