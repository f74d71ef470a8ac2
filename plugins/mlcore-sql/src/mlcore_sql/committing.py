"""Write batches in one transaction: what is new of each, or why it is refused."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import attrs
from sqlalchemy import Connection, bindparam, insert, select, text, update

from mlcore.errors import AlreadyExists, InvalidValue, Malformed, Refused
from mlcore.store import Batch, Marks
from mlcore.store import digest as digest_of
from mlcore_sql.compaction import Compaction
from mlcore_sql.projection import Projection
from mlcore_sql.records import Part, parts
from mlcore_sql.rows import RowWriter, few
from mlcore_sql.tables import batches, claims, counter, signs, sources

__all__ = ["Turn", "write"]


@attrs.define(eq=False)
class Turn:
    """Hold one batch that waits to be stored, and what became of it."""

    batch: Batch
    actor: str
    done: bool = False
    error: BaseException | None = None


def write(connection: Connection, turns: Sequence[Turn], compaction: Compaction) -> None:
    """Store the batches of `turns`, in order; those that are refused get their error. The caller commits.

    Locks are taken in the order sources, claims, owners of rows, entities, homes, counter, and sorted in each, so that
    two writers wait for each other, but never in a circle. The counter is the last, and kept until the commit: so
    positions are committed in their order, and no reader passes one that is still to come.
    """
    marks = _known_marks(connection, sorted({turn.batch.source for turn in turns}))
    before = {turn.batch.source: marks.get(turn.batch.source) for turn in turns}
    new = _new(turns, marks, _holders(connection, turns))
    changed = sorted({batch.source for batch, _ in new if batch.records})
    _write_marks(connection, changed, before, marks)
    _write_claims(connection, [batch for batch, _ in new])
    with_records = [(batch, actor) for batch, actor in new if batch.records]
    if with_records:
        projection = Projection(connection)
        rows = RowWriter(connection)
        for batch, _ in with_records:
            projection.take(batch.source, batch.records)
            rows.gather(batch)
        made = rows.write(projection)
        projection.flush()
        compaction.after(connection, made)
    homes = {batch.home for batch, _ in new if batch.home}
    if homes:
        _write_signs(connection, sorted(homes))
    if with_records:
        _write_batches(connection, with_records)


def _known_marks(connection: Connection, names: Sequence[str]) -> Marks:
    marks = Marks()
    for some in few(names):
        asked = select(sources).where(sources.c.source.in_([bytes.fromhex(each) for each in some if _is_hex(each)]))
        for source, last, digest in connection.execute(asked.order_by(sources.c.source).with_for_update()):
            marks.set(source.hex(), last, digest.hex())
    return marks


def _is_hex(name: str) -> bool:
    try:
        return len(bytes.fromhex(name)) == 16
    except ValueError:
        return False  # it will be refused


def _holders(connection: Connection, turns: Sequence[Turn]) -> dict[str, str]:
    wanted = sorted({_claim_id(turn.batch.claim) for turn in turns if turn.batch.claim})
    holders: dict[str, str] = {}
    for some in few(wanted):
        asked = select(claims.c.claim, claims.c.source).where(claims.c.id.in_(some))
        holders |= {claim.decode(): source.hex() for claim, source in connection.execute(asked)}
    return holders


def _claim_id(claim: str) -> bytes:
    return hashlib.sha256(claim.encode(errors="surrogatepass")).digest()


def _new(turns: Sequence[Turn], marks: Marks, holders: dict[str, str]) -> list[tuple[Batch, str]]:
    """Return what is new of each batch, and its actor; note why others are refused."""
    new = []
    for turn in turns:
        turn.error = None
        try:
            batch = marks.new(turn.batch)
            if batch is None:
                continue
            if batch.claim is not None and batch.claim in holders:
                raise AlreadyExists(batch.claim, holders[batch.claim])
            marks.advance(batch)
        except Refused as error:
            turn.error = error
            continue
        except InvalidValue as error:
            turn.error = Malformed(str(error))
            continue
        if batch.claim is not None:
            holders[batch.claim] = batch.source
        new.append((batch, turn.actor))
    return new


def _write_marks(
    connection: Connection, names: Sequence[str], before: dict[str, tuple[int, str]], marks: Marks
) -> None:
    rows = []
    for name in names:
        last, digest = marks.get(name)
        rows.append({"source": bytes.fromhex(name), "last": last, "digest": bytes.fromhex(digest)})
    new = [row for name, row in zip(names, rows, strict=True) if before[name][0] == 0]
    if new:
        connection.execute(insert(sources), new)
    known = [{f"new_{key}": value for key, value in row.items()} for row in rows if row not in new]
    if known:
        marked = update(sources).where(sources.c.source == bindparam("new_source"))
        connection.execute(marked.values(last=bindparam("new_last"), digest=bindparam("new_digest")), known)


def _write_claims(connection: Connection, new: Sequence[Batch]) -> None:
    rows = [
        {"id": _claim_id(batch.claim), "claim": batch.claim.encode(), "source": bytes.fromhex(batch.source)}
        for batch in new if batch.claim is not None
    ]  # fmt: skip
    if rows:
        connection.execute(insert(claims), sorted(rows, key=lambda row: row["id"]))


_SIGN = "INSERT INTO signs (home, seen) VALUES (:home, :seen) "
_SEEN_AGAIN = {
    "mysql": _SIGN + "ON DUPLICATE KEY UPDATE seen = greatest(seen, VALUES(seen))",
    "postgresql": _SIGN + "ON CONFLICT (home) DO UPDATE SET seen = greatest(signs.seen, excluded.seen)",
    "sqlite": _SIGN + "ON CONFLICT (home) DO UPDATE SET seen = max(signs.seen, excluded.seen)",
}
_NOW = {
    "mysql": "SELECT CAST(unix_timestamp(now(3)) * 1000 AS SIGNED)",
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
}


def now(connection: Connection) -> int:
    """Return the database's clock, in ms since 1970."""
    asked = _NOW.get(_dialect(connection))
    return time.time_ns() // 1_000_000 if asked is None else int(connection.execute(text(asked)).scalar_one())


def _dialect(connection: Connection) -> str:
    return connection.dialect.name.replace("mariadb", "mysql")


def _write_signs(connection: Connection, homes: Sequence[str]) -> None:
    seen = now(connection)
    connection.execute(text(_SEEN_AGAIN[_dialect(connection)]), [{"home": h.encode(), "seen": seen} for h in homes])


def _write_batches(connection: Connection, new: Sequence[tuple[Batch, str]]) -> None:
    rows: list[dict[str, Any]] = []
    for batch, actor in new:
        previous = batch.previous
        for index, part in enumerate(parts(batch.records)):
            rows.append(_row(batch, part, previous, actor) | {"claim": None})
            if index == 0 and batch.claim is not None:
                rows[-1]["claim"] = batch.claim.encode()
            if part.records[-1] is not batch.records[-1]:
                previous = digest_of(part.records, previous)
    connection.execute(update(counter).values(n=counter.c.n + len(rows)))
    last = connection.execute(select(counter.c.n)).scalar_one()
    received = now(connection)
    for position, row in enumerate(rows, last - len(rows) + 1):
        row |= {"position": position, "received_at": received}
    connection.execute(insert(batches), rows)


def _row(batch: Batch, part: Part, previous: str, actor: str) -> dict[str, Any]:
    return {
        "source": bytes.fromhex(batch.source), "home": batch.home.encode(), "actor": actor.encode()[:255],
        "first": part.records[0].number, "last": part.records[-1].number, "previous": bytes.fromhex(previous),
        "size": part.size, "events": part.events,
    }  # fmt: skip
