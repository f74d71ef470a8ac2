"""List the history: batches by position, with their rows from chunks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from mlcore.errors import PositionLost, StoreError
from mlcore.store import START, Batch, Stored, selected
from mlcore_sql.chunks import Chunk
from mlcore_sql.engine import Database
from mlcore_sql.records import Rows, decoded
from mlcore_sql.tables import batches, chunks, counter

__all__ = ["Listing", "end"]

_PAGE = 2_000  # batches
_PAGE_ROWS = 200_000
_PAGE_BYTES = 16 << 20
Columns = Mapping[str, Sequence[Any]]


class Listing:
    """Read the history page by page, each in a transaction of its own."""

    def __init__(self, database: Database, of: str | None, kinds: Iterable[str] | None, rows: bool) -> None:
        self._database = database
        self._of, self._kinds, self._rows = of, None if kinds is None else set(kinds), rows

    def begin(self, position: str) -> tuple[int, int]:
        """Return the numbers of a position and of the last there is. Raises `PositionLost`."""
        with self._database.reading() as connection:
            epoch, last = end(connection)
        return _number(position, epoch, last), last

    def latest(self) -> str:
        """Return the last position there is."""
        with self._database.reading() as connection:
            epoch, last = end(connection)
        return f"{epoch}-{last}"

    def page(self, at: int, last: int) -> tuple[int, list[Stored]]:
        """Return the next batches after number `at`, and the number of the last of them."""
        with self._database.reading() as connection:
            epoch, _ = end(connection)
            taken = self._taken(connection, at, last)
            rows = _rows(connection, taken) if self._rows else {}
        found = (self._stored(f"{epoch}-{each.position}", each, rows) for each in taken)
        return taken[-1].position if taken else last, [stored for stored in found if stored is not None]

    def _taken(self, connection: Connection, at: int, last: int) -> list[Row[Any]]:
        where = [batches.c.position > at, batches.c.position <= last]
        if self._of is not None:
            where.append(batches.c.home == self._of.encode(errors="surrogatepass"))
        sizes = select(batches.c.position, batches.c.size, func.length(batches.c.events)).where(*where)
        stop, rows, length = at, 0, 0
        for position, size, bytes_ in connection.execute(sizes.order_by(batches.c.position).limit(_PAGE)):
            rows, length = rows + size, length + bytes_
            if stop > at and (rows > _PAGE_ROWS or length > _PAGE_BYTES):
                break
            stop = position
        asked = select(batches).where(*where, batches.c.position <= stop).order_by(batches.c.position)
        return list(connection.execute(asked))

    def _stored(
        self, position: str, row: Row[Any], rows: Mapping[str, Mapping[tuple[int, int], Columns]]
    ) -> Stored | None:
        source, claim = row.source.hex(), row.claim
        of_source = rows.get(source, {})
        columns: Rows | None = (lambda number, index: of_source[number, index]) if self._rows else None
        try:
            records = decoded(bytes(row.events), columns)
        except KeyError as error:
            where = f"record {error.args[0][0]} of source {source}"
            raise StoreError(
                f"store {self._database.name}: the rows of {where} are missing: `mlcore db check`"
            ) from None
        batch = Batch(source, row.home.decode(), records, row.previous.hex(), None if claim is None else claim.decode())
        return selected(
            Stored(position, row.received_at, row.actor.decode(errors="replace"), batch), None, self._kinds, self._rows
        )


def end(connection: Connection) -> tuple[str, int]:
    """Return the epoch of the store's positions, and the last of them."""
    epoch, last = connection.execute(select(counter.c.epoch, counter.c.n)).one()
    return epoch.decode(), last


def _number(position: str, epoch: str, last: int) -> int:
    if position == START:
        return 0
    known, _, number = position.partition("-")
    if known != epoch or not (number.isascii() and number.isdigit()) or len(number) > 19 or int(number) > last:
        raise PositionLost(f"position {position[:40]!r} is not one of this store")
    return int(number)


def _rows(connection: Connection, taken: Sequence[Row[Any]]) -> dict[str, dict[tuple[int, int], Columns]]:
    """Return the columns of all events of some batches, by source and by number and index."""
    ranges: dict[bytes, tuple[int, int]] = {}
    for row in taken:
        if row.size:
            first, last = ranges.get(row.source, (row.first, row.last))
            ranges[row.source] = (min(first, row.first), max(last, row.last))
    found: defaultdict[str, dict[tuple[int, int], Columns]] = defaultdict(dict)
    items = list(ranges.items())
    for start in range(0, len(items), 50):
        each = [
            and_(chunks.c.source == s, chunks.c.last >= f, chunks.c.first <= n)
            for s, (f, n) in items[start : start + 50]
        ]
        for source, data in connection.execute(select(chunks.c.source, chunks.c.data).where(or_(*each))):
            first, last = ranges[source]
            for event in Chunk(source.hex(), bytes(data)).events(first, last):
                found[source.hex()][event.number, event.index] = event.columns
    return found
