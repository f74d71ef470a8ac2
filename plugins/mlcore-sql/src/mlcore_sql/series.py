"""Read series: the chunks of what was asked for, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, select

from mlcore.store import Columns, SeriesKey
from mlcore_sql.chunks import Chunk
from mlcore_sql.curves import assembled
from mlcore_sql.faults import driver_errors
from mlcore_sql.rows import few, rewinds_of
from mlcore_sql.tables import chunks, cuts, place, series

__all__ = ["read_series"]


def read_series(
    connection: Connection, kind: str, ids: Sequence[str], keys: Sequence[str] | None, context: str | None
) -> dict[SeriesKey, Columns]:
    """Return whole series of entities by (id, key, context); of erased entities there are none."""
    owners = {place(kind, id): id for id in ids}
    for erased in _erased(connection, list(owners)):
        owners.pop(erased, None)
    names = dict(_names(connection, owners, keys, context))
    rewinds = rewinds_of(connection, list(owners))
    found: defaultdict[bytes, list[Chunk]] = defaultdict(list)
    for id, source, data in _chunks(connection, list(names)):
        found[id].append(Chunk(source.hex(), data))
    return {name: assembled(found[id], rewinds.get(place(kind, name[0]), ())) for id, name in names.items()}


def _erased(connection: Connection, owners: Sequence[bytes]) -> set[bytes]:
    erased: set[bytes] = set()
    for some in few(owners):
        asked = select(cuts.c.owner).where(cuts.c.owner.in_(some), cuts.c.step.is_(None))
        erased |= {owner for (owner,) in connection.execute(asked)}
    return erased


def _names(
    connection: Connection, owners: dict[bytes, str], keys: Sequence[str] | None, context: str | None
) -> Iterator[tuple[bytes, SeriesKey]]:
    for some in few(list(owners)):
        asked = select(series.c.id, series.c.owner, series.c.name, series.c.context).where(series.c.owner.in_(some))
        wanted = None if keys is None else {_bytes(key) for key in keys}
        if wanted is not None and len(wanted) < 100:
            asked = asked.where(series.c.name.in_(wanted))
        if context is not None:
            asked = asked.where(series.c.context == _bytes(context))
        for id, owner, key, under in connection.execute(asked):
            if wanted is None or key in wanted:
                yield id, (owners[owner], key.decode(), under.decode())


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _chunks(connection: Connection, ids: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    if connection.dialect.name == "postgresql":
        with (
            driver_errors(connection) as driver,
            driver.cursor(binary=True) as cursor,
        ):  # as text every byte takes two, and a look at each
            for some in few(ids):
                yield from cursor.execute(
                    "SELECT series, source, data FROM chunks WHERE series = ANY(%s)", [list(some)]
                )
        return
    for some in few(ids):
        asked = select(chunks.c.series, chunks.c.source, chunks.c.data).where(chunks.c.series.in_(some))
        yield from ((id, source, bytes(data)) for id, source, data in connection.execute(asked))
