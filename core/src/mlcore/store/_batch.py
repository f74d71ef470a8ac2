"""Records and batches: what a writer numbers, and what a store takes in."""

import re
from array import array
from collections.abc import Iterable

import attrs

from mlcore.errors import InvalidValue, Malformed, OutOfOrder, SourceReused
from mlcore.store._events import EVENT_LIMIT, Event, RowsLogged, check_rows, encode_event, to_json

__all__ = ["Batch", "Marks", "Record", "check", "digest"]

_CLAIM = r"[^\x00-\x1f\x7f\ud800-\udfff]{1,1000}"


@attrs.frozen
class Record:
    """Hold the events of one call: `number` counts from 1 in its source, `stamp` is the writer's clock.

    The stamp is a hybrid logical clock in ns since 1970: the wall clock, or one more than the last stamp
    seen where that is higher (Kulkarni et al., "Logical Physical Clocks", 2014).
    """

    number: int
    stamp: int
    events: tuple[Event, ...]


@attrs.frozen
class Batch:
    """Hold a contiguous range of records of one `source`, on their way to or in a store.

    `source` is 32 hex digits, new for every journal; `home` the id of the run it belongs to, or ``""`` for
    the store. `previous` is the digest of the record before the first (``""`` before record 1), see
    `digest`. `claim` is taken with the batch or the batch is refused. No records at all are a sign of life.
    """

    source: str
    home: str
    records: tuple[Record, ...] = ()
    previous: str = ""
    claim: str | None = None

    @property
    def first(self) -> int:
        """The number of the first record, 0 without records."""
        return self.records[0].number if self.records else 0

    @property
    def last(self) -> int:
        """The number of the last record, 0 without records."""
        return self.records[-1].number if self.records else 0


def digest(records: Iterable[Record], previous: str = "") -> str:
    """Return the digest of a source after `records`: SHA-256, as hex, over the one before and the record."""
    import hashlib  # loads OpenSSL, which who writes a journal does not need

    for record in records:
        state = hashlib.sha256(f"{previous} {record.number} {record.stamp}".encode())
        for event in record.events:
            if not isinstance(event, RowsLogged):
                state.update(encode_event(event))
                continue
            state.update(encode_event(attrs.evolve(event, columns={}, raw=None)))
            for name, values in sorted(event.columns.items()):
                state.update(name.encode() + (values.tobytes() if isinstance(values, array) else to_json(values)))
        previous = state.hexdigest()
    return previous


def check(batch: Batch) -> None:
    """Raise `Malformed` if the batch breaks the format."""
    if not re.fullmatch(r"[0-9a-f]{32}", batch.source):
        raise Malformed(f"source {batch.source[:80]!r} is not 32 hex digits")
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", batch.home):
        raise Malformed(f"home {batch.home[:80]!r} is not an id")
    if batch.claim is not None and not (batch.records and re.fullmatch(_CLAIM, batch.claim)):
        raise Malformed(f"claim {batch.claim[:80]!r} is no plain text, or claims nothing")
    if not re.fullmatch(r"[0-9a-f]{64}|", batch.previous):
        raise Malformed(f"source {batch.source}: previous {batch.previous[:80]!r} is no digest")
    number, stamp = batch.first - 1, 0
    for record in batch.records:
        if record.number != number + 1 or record.number < 1:
            raise Malformed(f"source {batch.source}: record {record.number} follows record {number}")
        if not stamp <= record.stamp < 1 << 63 or not record.events:
            raise Malformed(f"source {batch.source}: record {record.number} has no events or a wrong stamp")
        for event in record.events:
            check_rows(event)
            if _size(event) > EVENT_LIMIT:
                raise Malformed(f"source {batch.source}: record {record.number} has an event over 64 kB")
        number, stamp = record.number, record.stamp


def _size(event: Event) -> int:
    try:
        if not isinstance(event, RowsLogged):
            return len(encode_event(event))
        sizes = (8 * len(v) if isinstance(v, array) else len(to_json(v)) for v in event.columns.values())
        return max(sum(sizes), len(event.raw or b"") // 4)
    except InvalidValue as error:
        raise Malformed(str(error)) from error


class Marks:
    """Keep one high-water mark and digest a source, and say what of a batch is new.

    Not thread-safe: a store calls it under its own lock.
    """

    def __init__(self) -> None:
        self._marks: dict[str, tuple[int, str]] = {}

    def get(self, source: str) -> tuple[int, str]:
        """Return the number of the last record known of `source` and the digest after it: 0 and "" if none is."""
        return self._marks.get(source, (0, ""))

    def set(self, source: str, last: int, digest: str) -> None:
        """Remember a source that was read back: the number of its last record, and the digest after it."""
        self._marks[source] = (last, digest)

    def new(self, batch: Batch) -> Batch | None:
        """Return the part of `batch` that is not known yet, or None if all of it is.

        Raises `Malformed`, `OutOfOrder` or `SourceReused`. Nothing is remembered before `advance`.
        """
        check(batch)
        last, known = self.get(batch.source)
        if not batch.records:
            return batch
        if batch.first > last + 1:
            raise OutOfOrder(batch.source, last + 1, batch.first)
        if batch.last < last:
            return None
        overlap = last - batch.first + 1
        if digest(batch.records[:overlap], batch.previous) != known:
            raise SourceReused(f"source {batch.source}: other content is stored up to record {last}")
        fresh = batch.records[overlap:]
        return attrs.evolve(batch, records=fresh, previous=known) if fresh else None

    def advance(self, batch: Batch) -> None:
        """Remember that `batch`, as `new` returned it, is stored."""
        if batch.records:
            self.set(batch.source, batch.last, digest(batch.records, batch.previous))
