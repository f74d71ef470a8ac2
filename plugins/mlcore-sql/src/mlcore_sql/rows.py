"""Write rows: chunks of points, and what they change in the summaries of metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from mlcore.store import Batch, Erased, Order, Rewind, Rewound, RowsLogged
from mlcore_sql.chunks import Chunk, Logged, pack
from mlcore_sql.curves import Summed, assembled, summed
from mlcore_sql.dialects import Binds, Runner, among, insert, parts, runner
from mlcore_sql.tables import place

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["CHUNK_ROWS", "Made", "Name", "RowWriter", "Summaries", "insert_chunks", "portions", "rewinds_of"]

Name = tuple[str, str]  # key and context
Made = tuple[bytes, str, int, int]  # a chunk: series, source, number of rows and of bytes
Owner = tuple[str, str]  # kind and id
_COPY = 200  # rows that are worth it
_CHUNK = ("series", "source", "first", "last", "size", "data")
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
        self._connection, self._run = connection, runner(connection)
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

    def write(self, summaries: Summaries) -> list[Made]:
        """Write all, and tell `summaries`; return the new chunks."""
        if not self._owners:
            return []
        self._lock_owners()
        odd = self._write_series()
        self._write_cuts()
        rewinds = rewinds_of(self._run, [place(*owner) for owner in self._owners])
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
        lock = "" if self._run.dialect == "sqlite" else " FOR UPDATE"
        for some in parts(sorted(ids)):
            binds = Binds()
            sql = f"SELECT id FROM owners WHERE {among(self._run.dialect, 'id', some, binds)} ORDER BY id{lock}"
            known |= {bytes(id) for (id,) in self._run.rows(sql, binds)}
        new = [(id, *(name.encode() for name in ids[id])) for id in sorted(ids.keys() - known)]
        self._run.many(insert("owners", ("id", "kind", "entity")), new)

    def _write_series(self) -> set[bytes]:
        """Note series that are new, or odd from now on; return those that are odd."""
        wanted = {
            place(*owner, *name): (owner, name, any(not each.is_points for some in logged.values() for each in some))
            for owner, gathered in self._owners.items()
            for name, logged in gathered.rows.items()
        }
        known: dict[bytes, bool] = {}
        for some in parts(sorted(wanted)):
            binds = Binds()
            sql = f"SELECT id, odd FROM series WHERE {among(self._run.dialect, 'id', some, binds)}"
            known |= {bytes(id): bool(odd) for id, odd in self._run.rows(sql, binds)}
        new = [
            (id, place(*owner), name.encode(), context.encode(), int(odd))
            for id, (owner, (name, context), odd) in sorted(wanted.items())
            if id not in known
        ]
        self._run.many(insert("series", ("id", "owner", "name", "context", "odd")), new)
        odd = {id for id, (*_, odd) in wanted.items() if odd}
        self._run.many(
            "UPDATE series SET odd = 1 WHERE id = ?", [(id,) for id in sorted(odd) if known.get(id) is False]
        )
        return odd | {id for id, odd in known.items() if odd}

    def _write_cuts(self) -> None:
        rows = [
            (place(*owner), stamp, bytes.fromhex(source), number, event, step)
            for owner, gathered in self._owners.items()
            for (stamp, source, number, event), step in [
                *gathered.rewinds,
                *((order, None) for order in gathered.erased),
            ]
        ]
        self._run.many(insert("cuts", ("owner", "stamp", "source", "number", "event", "step")), rows)

    def _write_chunks(self) -> list[Made]:
        made = [
            (place(*owner, *name), source, part)
            for owner, gathered in self._owners.items()
            for name, logged in gathered.rows.items()
            for source, events in logged.items()
            for part in portions(events)
        ]
        return insert_chunks(self._connection, made)

    def _names(self, owner: bytes) -> set[Name]:
        found = self._run.rows("SELECT name, context FROM series WHERE owner = :owner", {"owner": owner})
        return {(bytes(key).decode(), bytes(context).decode()) for key, context in found}

    def whole(self, kind: str, id: str, names: Iterable[Name], cut: Sequence[Rewind]) -> dict[Name, Summed | None]:
        """Return the summaries of all rows of metrics."""
        found: dict[Name, Summed | None] = {}
        for name in names:
            binds = {"series": place(kind, id, *name)}
            rows = self._run.rows("SELECT source, data FROM chunks WHERE series = :series", binds)
            chunks = [Chunk(source.hex(), bytes(data)) for source, data in rows]
            summary = assembled(chunks, cut).summary()
            found[name] = None if summary is None else (summary, _last(chunks))
        return found


def _last(chunks: Sequence[Chunk]) -> Order:
    return max((e.stamp, chunk.source, e.number, e.index) for chunk in chunks for e in chunk.events())


def rewinds_of(run: Runner, owners: Sequence[bytes]) -> dict[bytes, list[Rewind]]:
    """Return the rewinds of owners that have any."""
    found: defaultdict[bytes, list[Rewind]] = defaultdict(list)
    for some in parts(owners):
        binds = Binds()
        where = f"step IS NOT NULL AND {among(run.dialect, 'owner', some, binds)}"
        sql = f"SELECT owner, stamp, source, number, event, step FROM cuts WHERE {where}"
        for owner, stamp, source, number, event, step in run.rows(sql, binds):
            found[bytes(owner)].append(((stamp, source.hex(), number, event), step))
    return found


def portions(events: Sequence[Logged]) -> Iterator[list[Logged]]:
    """Yield events in order, as many together as a chunk has room for."""
    taken: list[Logged] = []
    size = 0
    for event in events:
        weight = event.weight
        if taken and size + weight > CHUNK_ROWS:
            yield taken
            taken, size = [], 0
        taken.append(event)
        size += weight
    if taken:
        yield taken


def insert_chunks(connection: Connection, made: Sequence[tuple[bytes, str, Sequence[Logged]]]) -> list[Made]:
    """Insert chunks of series, source and events, by COPY where they are many and the database has it."""
    rows = [
        (id, bytes.fromhex(source), events[0].number, events[-1].number, sum(map(len, events)), pack(events))
        for id, source, events in made
    ]
    if connection.dialect.name != "postgresql" or len(rows) < _COPY:
        runner(connection).many(insert("chunks", _CHUNK), rows)
    else:
        _copy(connection, rows)
    return [(id, source, size, len(data)) for (id, source, _), (*_, size, data) in zip(made, rows, strict=True)]


def _copy(connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
    driver: Any = connection.connection.driver_connection
    into = f"COPY chunks ({', '.join(_CHUNK)}) FROM STDIN (FORMAT BINARY)"
    with driver.cursor() as cursor, cursor.copy(into) as copy:
        copy.set_types(["bytea", "bytea", "int8", "int8", "int8", "bytea"])
        for row in rows:
            copy.write_row(row)
