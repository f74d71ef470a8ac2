"""Write batches in one transaction: what is new of each, or why it is refused."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from mlcore.errors import AlreadyExists, InvalidValue, Malformed, Refused
from mlcore.store import Batch, Marks, digest as digest_of
from mlcore_sql.compaction import Compaction
from mlcore_sql.dialects import Binds, Runner, among, insert, parts, runner, upsert
from mlcore_sql.projection import Projection
from mlcore_sql.records import split
from mlcore_sql.rows import RowWriter

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Turn", "write"]


_BATCH = ("source", "home", "first", "last", "previous", "actor", "claim", "size", "events")


@attrs.define(eq=False)
class Turn:
    """Hold one batch that waits to be stored: why it was refused, if it was, and what its sender is answered."""

    batch: Batch
    actor: str
    answer: Exception | None = None
    refusal: Refused | None = None
    done: bool = False


def write(connection: Connection, turns: Sequence[Turn], compaction: Compaction) -> None:
    """Store the batches of `turns`, in order; those that are refused are told why. The caller commits.

    Locks are taken in the order sources, claims, owners of rows, entities, counter, homes, and sorted in each, so that
    two writers wait for each other, but never in a circle. The counter is kept until the commit: so positions are
    committed in their order, and no reader passes one that is still to come.
    """
    run = runner(connection)
    holders = _holders(run, turns)  # before the marks: whose claim is seen, of that the batch is known, too
    marks = _known_marks(run, sorted({turn.batch.source for turn in turns}))
    before = {turn.batch.source: marks.get(turn.batch.source)[0] for turn in turns}
    new = _new(turns, marks, holders)
    _write_marks(run, sorted({batch.source for batch, _ in new if batch.records}), before, marks)
    _write_claims(run, [batch for batch, _ in new])
    full = [(batch, actor) for batch, actor in new if batch.records]
    received = None
    if full:
        projection = Projection(connection)
        rows = RowWriter(connection)
        for batch, _ in full:
            projection.take(batch.source, batch.records)
            rows.gather(batch)
        made = rows.write(projection)
        projection.flush()
        compaction.after(connection, made, {name for name, last in before.items() if last})
        received = _write_batches(run, full)
    _write_signs(run, sorted({batch.home for batch, _ in new if batch.home}), received)


def _known_marks(run: Runner, names: Sequence[str]) -> Marks:
    marks = Marks()
    lock = "" if run.dialect == "sqlite" else " FOR UPDATE"
    for some in parts([bytes.fromhex(name) for name in names if _is_hex(name)]):
        binds = Binds()
        where = among(run.dialect, "source", some, binds)
        sql = f"SELECT source, last, digest FROM sources WHERE {where} ORDER BY source{lock}"
        for source, last, digest in run.rows(sql, binds):
            marks.set(source.hex(), last, digest.hex())
    return marks


def _is_hex(name: str) -> bool:
    try:
        return len(bytes.fromhex(name)) == 16
    except ValueError:
        return False  # it will be refused


def _holders(run: Runner, turns: Sequence[Turn]) -> dict[str, str]:
    wanted = sorted({_claim_id(turn.batch.claim) for turn in turns if turn.batch.claim})
    holders: dict[str, str] = {}
    for some in parts(wanted):
        binds = Binds()
        sql = f"SELECT claim, source FROM claims WHERE {among(run.dialect, 'id', some, binds)}"
        holders |= {bytes(claim).decode(): source.hex() for claim, source in run.rows(sql, binds)}
    return holders


def _claim_id(claim: str) -> bytes:
    return hashlib.sha256(claim.encode(errors="surrogatepass")).digest()


def _new(turns: Sequence[Turn], marks: Marks, holders: dict[str, str]) -> list[tuple[Batch, str]]:
    """Return what is new of each batch, and its actor; note why others are refused."""
    new = []
    for turn in turns:
        turn.refusal = None
        try:
            batch = marks.new(turn.batch)
            if batch is None:
                continue
            if batch.claim is not None and batch.claim in holders:
                raise AlreadyExists(batch.claim, holders[batch.claim])
            marks.advance(batch)
        except Refused as error:
            turn.refusal = error
            continue
        except InvalidValue as error:
            turn.refusal = Malformed(str(error))
            continue
        if batch.claim is not None:
            holders[batch.claim] = batch.source
        new.append((batch, turn.actor))
    return new


def _write_marks(run: Runner, names: Sequence[str], before: Mapping[str, int], marks: Marks) -> None:
    new: list[tuple[int, bytes, bytes]] = []
    known: list[tuple[int, bytes, bytes]] = []
    for name in names:
        last, digest = marks.get(name)
        (known if before[name] else new).append((last, bytes.fromhex(digest), bytes.fromhex(name)))
    run.many(insert("sources", ("last", "digest", "source")), new)
    run.many("UPDATE sources SET last = ?, digest = ? WHERE source = ?", known)


def _write_claims(run: Runner, new: Sequence[Batch]) -> None:
    rows = [
        (_claim_id(batch.claim), batch.claim.encode(), bytes.fromhex(batch.source))
        for batch in new
        if batch.claim is not None
    ]
    run.many(insert("claims", ("id", "claim", "source")), sorted(rows))


_NOW = {
    "mysql": "CAST(unix_timestamp(now(3)) * 1000 AS SIGNED)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
    "sqlite": "0",  # there is no other clock than ours
}


def _write_batches(run: Runner, new: Sequence[tuple[Batch, str]]) -> int:
    """Write batches under the next positions; return the database's clock, in ms since 1970."""
    rows: list[tuple[Any, ...]] = []
    for batch, actor in new:
        previous, claim = batch.previous, batch.claim
        for part in split(batch.records):
            rows.append(
                (
                    bytes.fromhex(batch.source), batch.home.encode(), part.records[0].number, part.records[-1].number,
                    bytes.fromhex(previous), actor.encode()[:255], claim and claim.encode(), part.size, part.events,
                )
            )  # fmt: skip
            claim = None
            if part.records[-1] is not batch.records[-1]:
                previous = digest_of(part.records, previous)
    run.many("UPDATE counter SET n = n + ?", [(len(rows),)])
    ((last, now),) = run.rows(f"SELECT n, {_NOW[run.dialect]} FROM counter")
    now = now or time.time_ns() // 1_000_000
    first = last - len(rows) + 1
    columns = ("position", "received_at", *_BATCH)
    run.many(insert("batches", columns), [(at, now, *row) for at, row in enumerate(rows, first)])
    return int(now)


def _write_signs(run: Runner, homes: Sequence[str], seen: int | None) -> None:
    if not homes:
        return
    if seen is None:
        ((seen,),) = run.rows(f"SELECT {_NOW[run.dialect]}")
    seen = seen or time.time_ns() // 1_000_000
    # the clock of a server that took over may be behind: nobody is harmed
    run.many(upsert(run.dialect, "signs", ("home", "seen"), ("home",)), [(home.encode(), seen) for home in homes])
