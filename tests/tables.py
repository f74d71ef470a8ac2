"""Entities in tables, filled from batches as an index or a store fills them, and asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from mlcore.store import Batch, Fold, Order, RowsLogged, ordered
from mlcore_sql.dialects import Runner, runner
from mlcore_sql.projection import Projection
from mlcore_sql.reading import Reading
from mlcore_sql.schema import projected


class Tables:
    """Keep what batches make in the tables of a database; rows are kept here, as their keeper is another part."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rows: dict[tuple[str, str], dict[tuple[str, str], list[tuple[Order, RowsLogged]]]] = {}
        self.reading = Reading(self.connect)

    @contextmanager
    def connect(self) -> Iterator[Runner]:
        """Give what runs statements."""
        with self.engine.connect() as connection:
            yield runner(connection)

    def empty(self) -> None:
        """Have tables, and nothing in them."""
        projected.create_all(self.engine)
        with self.engine.begin() as connection:
            for table in projected.sorted_tables:
                connection.execute(table.delete())
        self.rows, self.reading = {}, Reading(self.connect)

    def take(self, *batches: Batch) -> None:
        """Take batches in one transaction."""
        isolation = {} if self.engine.dialect.name == "sqlite" else {"isolation_level": "READ COMMITTED"}
        with self.engine.connect().execution_options(**isolation) as connection, connection.begin():
            projection = Projection(connection)
            for batch in batches:
                projection.take(batch.source, batch.records)
                self._rows(projection, batch)
            projection.flush()

    def _rows(self, projection: Projection, batch: Batch) -> None:
        for record in batch.records:
            for index, event in enumerate(record.events):
                if isinstance(event, RowsLogged):
                    order = (record.stamp, batch.source, record.number, index)
                    self._log(projection, order, event)
        for kind, id in {(event.kind, event.id) for record in batch.records for event in record.events}:
            if rewinds := projection.rewinds(kind, id):
                logged = self.rows.get((kind, id), {})
                projection.replace(kind, id, {name: _summed(each, rewinds) for name, each in logged.items()})

    def _log(self, projection: Projection, order: Order, event: RowsLogged) -> None:
        logged = self.rows.setdefault((event.kind, event.id), {}).setdefault((event.key, event.context), [])
        logged.append((order, event))
        new = _summed([(order, event)])
        if new is None or _summed(logged) is None:
            projection.replace(event.kind, event.id, {(event.key, event.context): _summed(logged)})
        else:
            projection.merge(event.kind, event.id, {(event.key, event.context): new})


def _summed(logged, rewinds=()):
    """Return the summary of rows, and the order of the event with the last one."""
    columns = ordered([(order, event.columns) for order, event in logged], rewinds)
    summary = columns.summary()
    if summary is None:
        return None
    last = max(
        (step, time, order, row)
        for order, event in logged
        for row, (step, time) in enumerate(zip(event.columns["step"], event.columns["time"], strict=True))
        if not any(order < rewind and step > limit for rewind, limit in rewinds)
    )
    return summary, last[2]


def folded(batches: Iterable[Batch]) -> Fold:
    """Return what core makes of batches."""
    fold = Fold()
    for batch in batches:
        fold.add(batch)
    return fold
