"""Write rows: chunks of points, and what they change in the summaries of metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
from sqlalchemy import Connection, insert, select, update

from mlcore.store import Batch, Erased, Order, Rewind, Rewound, RowsLogged, Summary
from mlcore_sql.chunks import Chunk, Logged, pack
from mlcore_sql.curves import Summed, assembled, summed
from mlcore_sql.faults import driver_errors
from mlcore_sql.tables import chunks, cuts, owners, place, series

__all__ = ["Name", "RowWriter", "Summaries", "few", "rewinds_of"]

Name = tuple[str, str]  # key and context
Owner = tuple[str, str]  # kind and id
_MANY = 500  # values in one statement: SQLite takes 32,766, and none plans more of them well
CHUNK_ROWS = 1 << 15
_INT64 = 1 << 63


class Summaries(Protocol):
    """Take in what rows sum up to: a `Projection`."""

    def merge(self, kind: str, id: str, metrics: Mapping[Name, Summed]) -> None:
        """Add summaries of new rows."""

    def replace(self, kind: str, id: str, metrics: Mapping[Name, Summed | None]) -> None:
        """Set summaries of all rows."""


@attrs.define
class _Gathered:
    """Hold what batches say of the rows of one entity."""

    rows: defaultdict[Name, defaultdict[str, list[Logged]]]
    rewinds: list[Rewind]
    erased: list[Order]


class RowWriter:
    """Write the rows of the batches of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._owners: dict[Owner, _Gathered] = {}

    def gather(self, batch: Batch) -> None:
        """Take the rows of a batch, its rewinds, and what it erases."""
        for record in batch.records:
            for index, event in enumerate(record.events):
                order = (record.stamp, batch.source, record.number, index)
                match event:
                    case RowsLogged():
                        logged = Logged(record.number, index, record.stamp, event.columns)
                        self._of(event.kind, event.id).rows[event.key, event.context][batch.source].append(logged)
                    case Rewound():
                        step = max(-_INT64, min(event.step, _INT64 - 1))
                        self._of(event.kind, event.id).rewinds.append((order, step))
                    case Erased():
                        self._of(event.kind, event.id).erased.append(order)

    def _of(self, kind: str, id: str) -> _Gathered:
        if (kind, id) not in self._owners:
            self._owners[kind, id] = _Gathered(defaultdict(lambda: defaultdict(list)), [], [])
        return self._owners[kind, id]

    def write(self, summaries: Summaries) -> list[tuple[bytes, str, int]]:
        """Write all, and tell `summaries`; return series, source and number of rows of each new chunk."""
        if not self._owners:
            return []
        self._lock_owners()
        odd = self._write_series()
        self._write_cuts()
        rewinds = rewinds_of(self._connection, [place(*owner) for owner in self._owners])
        made = self._write_chunks()
        for (kind, id), gathered in self._owners.items():
            names = list(gathered.rows)
            cut = rewinds.get(place(kind, id), [])
            whole = {name for name in names if cut or place(kind, id, *name) in odd}
            if gathered.rewinds:
                whole |= self._names(place(kind, id))
            if whole:
                summaries.replace(kind, id, self.whole(kind, id, whole, cut))
            for name in (each for each in names if each not in whole):
                for source, events in gathered.rows[name].items():
                    summaries.merge(kind, id, {name: summed(events, source)})
        return made

    def _lock_owners(self) -> None:
        """Let no one else change these entities' rows until the end of the transaction."""
        ids = {place(*owner): owner for owner in self._owners}
        known: set[bytes] = set()
        for some in few(sorted(ids)):
            asked = select(owners.c.id).where(owners.c.id.in_(some)).order_by(owners.c.id).with_for_update()
            known |= {id for (id,) in self._connection.execute(asked)}
        new = [
            {"id": id, "kind": ids[id][0].encode(), "entity": ids[id][1].encode()} for id in sorted(ids.keys() - known)
        ]
        _insert(self._connection, owners, new)

    def _write_series(self) -> set[bytes]:
        """Note series that are new, or odd from now on; return those that are odd."""
        wanted = {
            place(*owner, *name): (owner, name, any(not each.is_points for some in logged.values() for each in some))
            for owner, gathered in self._owners.items()
            for name, logged in gathered.rows.items()
        }
        known: dict[bytes, bool] = {}
        for some in few(sorted(wanted)):
            asked = select(series.c.id, series.c.odd).where(series.c.id.in_(some))
            known |= {id: bool(odd) for id, odd in self._connection.execute(asked)}
        new = [
            {"id": id, "owner": place(*owner), "name": name.encode(), "context": context.encode(), "odd": int(odd)}
            for id, (owner, (name, context), odd) in sorted(wanted.items()) if id not in known
        ]  # fmt: skip
        _insert(self._connection, series, new)
        odd = {id for id, (*_, odd) in wanted.items() if odd}
        for some in few(sorted(id for id in odd if known.get(id) is False)):
            self._connection.execute(update(series).where(series.c.id.in_(some)).values(odd=1))
        return odd | {id for id, odd in known.items() if odd}

    def _write_cuts(self) -> None:
        rows = [
            {"owner": place(*owner), "stamp": s, "source": bytes.fromhex(source), "number": n, "event": i, "step": step}
            for owner, gathered in self._owners.items()
            for (s, source, n, i), step in [*gathered.rewinds, *((order, None) for order in gathered.erased)]
        ]
        _insert(self._connection, cuts, rows)

    def _write_chunks(self) -> list[tuple[bytes, str, int]]:
        made = [
            (place(*owner, *name), source, part)
            for owner, gathered in self._owners.items()
            for name, logged in gathered.rows.items()
            for source, events in logged.items()
            for part in portions(events)
        ]
        insert_chunks(self._connection, [row_of(id, source, part) for id, source, part in made])
        return [(id, source, sum(map(len, part))) for id, source, part in made]

    def _names(self, owner: bytes) -> set[Name]:
        asked = select(series.c.name, series.c.context).where(series.c.owner == owner)
        return {(key.decode(), context.decode()) for key, context in self._connection.execute(asked)}

    def whole(self, kind: str, id: str, names: Iterable[Name], cut: Sequence[Rewind]) -> dict[Name, Summed | None]:
        """Return the summaries of all rows of metrics."""
        found: dict[Name, Summed | None] = {}
        for name in names:
            asked = select(chunks.c.source, chunks.c.data).where(chunks.c.series == place(kind, id, *name))
            parts = [Chunk(source.hex(), bytes(data)) for source, data in self._connection.execute(asked)]
            summary = assembled(parts, cut).summary()
            found[name] = None if summary is None else (summary, _last(parts))
        return found


def _last(parts: Sequence[Chunk]) -> Order:
    return max((e.stamp, part.source, e.number, e.index) for part in parts for e in part.events())


def rewinds_of(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, list[Rewind]]:
    """Return the rewinds of owners that have any."""
    found: defaultdict[bytes, list[Rewind]] = defaultdict(list)
    for some in few(sorted(ids)):
        asked = select(cuts).where(cuts.c.owner.in_(some), cuts.c.step.is_not(None))
        for owner, stamp, source, number, event, step in connection.execute(asked):
            found[owner].append(((stamp, source.hex(), number, event), step))
    return found


def portions(events: Sequence[Logged]) -> Iterator[list[Logged]]:
    """Yield events in order, as many together as a chunk has rows for, and of one form."""
    taken: list[Logged] = []
    size = 0
    for event in events:
        weight = event.weight
        if taken and (size + weight > CHUNK_ROWS or event.is_points != taken[0].is_points):
            yield taken
            taken, size = [], 0
        taken.append(event)
        size += weight
    if taken:
        yield taken


def row_of(id: bytes, source: str, events: Sequence[Logged]) -> dict[str, Any]:
    """Return the row of a chunk."""
    first, last = events[0].number, events[-1].number
    size = sum(map(len, events))
    data = pack(events)
    return {"series": id, "source": bytes.fromhex(source), "first": first, "last": last, "size": size, "data": data}


def insert_chunks(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert chunks, by COPY where there are many and the database has it."""
    if connection.dialect.name != "postgresql" or len(rows) < _MANY:
        _insert(connection, chunks, rows)
        return
    names = list(rows[0])
    into = f"COPY chunks ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
    with driver_errors(connection) as driver, driver.cursor() as cursor, cursor.copy(into) as copy:
        copy.set_types(["bytea", "bytea", "int8", "int8", "int8", "bytea"])
        for row in rows:
            copy.write_row([row[name] for name in names])


def _insert(connection: Connection, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def few(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield values, as many at a time as one statement takes."""
    for start in range(0, len(values), _MANY):
        yield values[start : start + _MANY]
