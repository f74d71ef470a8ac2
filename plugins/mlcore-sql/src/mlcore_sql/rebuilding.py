"""Make what is projected from the history anew: entities, what they are searched by, and the summaries of metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, delete, exc, func, select, text

from mlcore_sql.appending import retried
from mlcore_sql.chunks import Chunk
from mlcore_sql.curves import summed
from mlcore_sql.dialects import parts, runner
from mlcore_sql.engine import Database
from mlcore_sql.projection import Projection
from mlcore_sql.records import decoded
from mlcore_sql.rows import Name, RowWriter, rewinds_of
from mlcore_sql.schema import projected
from mlcore_sql.tables import batches, chunks, owners, series, sources

__all__ = ["Progress", "rebuild", "replay", "silent"]

Progress = Callable[[int, int | None], None]
_PAGE = 100  # batches
_EVENTS = 20_000  # before they are written: an entity that changes often is written seldom
_OWNERS = 200


def silent(done: int, total: int | None) -> None:
    """Show no progress."""


def rebuild(database: Database, progress: Progress = silent) -> None:
    """Empty the projected tables and fill them from the history, in one transaction: readers see the old or the new.

    Whoever appends waits until it has ended. Raises `StoreError`; then, and when it is killed, nothing has changed.
    """

    def once() -> None:
        with _alone(database) as connection:
            for table in reversed(projected.sorted_tables):
                connection.execute(delete(table))
            replay(connection, connection, progress)

    try:
        retried(database, once)
    except exc.SQLAlchemyError as error:
        raise database.error("cannot be rebuilt", error) from error


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """Yield a connection that keeps all who append waiting, at the first thing they do, and no reader."""
    if database.dialect == "mysql":  # REPEATABLE READ, where the locks of what is read keep new rows out
        with database.engine.connect() as connection, connection.begin():
            connection.execute(select(sources.c.source).with_for_update()).all()
            yield connection
        return
    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(text("LOCK TABLE sources IN EXCLUSIVE MODE"))
        yield connection


def replay(source: Connection, target: Connection, progress: Progress = silent) -> None:
    """Project the history that one connection reads into the empty tables that another writes, or the same."""
    last = source.execute(select(func.max(batches.c.position))).scalar() or 0
    many = source.execute(select(func.count()).select_from(owners)).scalar_one()
    projection = Projection(target)
    for at in _take(source, projection):
        progress(at, last + many)
    projection.flush()
    for done in _sum_up(source, projection):
        progress(last + done, last + many)
        projection.flush()


def _take(source: Connection, projection: Projection) -> Iterator[int]:
    at = taken = 0
    asked = select(batches.c.position, batches.c.source, batches.c.events).order_by(batches.c.position).limit(_PAGE)
    while page := source.execute(asked.where(batches.c.position > at)).all():
        for position, name, events in page:
            records = decoded(bytes(events), _no_rows)
            projection.take(name.hex(), records)
            taken += sum(len(record.events) for record in records)
            at = position
        if taken > _EVENTS:
            projection.flush()
            taken = 0
        yield at


def _no_rows(number: int, index: int) -> Mapping[str, Sequence[Any]]:  # noqa: ARG001 - by these they are looked up
    """Return no columns: of a `RowsLogged` only the entity and the stamp are asked for."""
    return {}


def _sum_up(source: Connection, projection: Projection) -> Iterator[int]:
    """Tell `projection` the summaries of all rows, owner by owner."""
    done, at = 0, b""
    asked = select(owners).order_by(owners.c.id).limit(_OWNERS)
    while page := source.execute(asked.where(owners.c.id > at)).all():
        names = _names(source, [row.id for row in page])
        cut = rewinds_of(runner(source), [row.id for row in page])
        for row in page:
            _sum_up_one(
                source, projection, (row.kind.decode(), row.entity.decode()), names[row.id], cut.get(row.id, [])
            )
        done, at = done + len(page), page[-1].id
        yield done


def _names(source: Connection, ids: Sequence[bytes]) -> dict[bytes, dict[bytes, tuple[Name, bool]]]:
    """Return the series of owners by their ids: what they are called, and whether they are odd."""
    found: defaultdict[bytes, dict[bytes, tuple[Name, bool]]] = defaultdict(dict)
    for some in parts(ids):
        for row in source.execute(select(series).where(series.c.owner.in_(some)).order_by(series.c.id)):
            found[row.owner][row.id] = (row.name.decode(), row.context.decode()), bool(row.odd)
    return found


def _sum_up_one(
    source: Connection, projection: Projection, owner: tuple[str, str], names: dict[bytes, tuple[Name, bool]],
    rewinds: Sequence[Any],
) -> None:  # fmt: skip
    whole = {name for name, odd in names.values() if odd or rewinds}
    if whole:
        projection.replace(*owner, RowWriter(source).whole(*owner, whole, rewinds))
    plain = [id for id, (name, _) in names.items() if name not in whole]
    for some in parts(plain):
        asked = select(chunks.c.series, chunks.c.source, chunks.c.data).where(chunks.c.series.in_(some))
        for id, name, data in source.execute(asked.order_by(chunks.c.series, chunks.c.id)):
            events = list(Chunk(name.hex(), bytes(data)).events())
            projection.merge(*owner, {names[id][0]: summed(events, name.hex())})
