"""Batches and rows as bytes: a head in JSON, events as the lines they are kept as, columns as little-endian numbers.

``docs/reference/wire-format.md`` describes every byte. What is read here may come from anybody: it is bounded before
memory is taken for it, and whatever is wrong with it is `Malformed`.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

from mlcore.errors import Malformed, MlcoreError, NewerFormat, StoreError
from mlcore.store import (
    Batch,
    Columns,
    Event,
    Record,
    RowsLogged,
    SeriesKey,
    Stored,
    column,
    decode_event,
    encode_event,
    from_json,
    to_json,
)
from mlcore_remote.faults import error_entry, error_of_entry

__all__ = ["DEPTH", "HEAD_BYTES", "MESSAGE_BYTES", "MESSAGE_EVENTS", "document", "frame", "message"]
__all__ += ["pack_batches", "pack_series", "pack_stored", "unpack_batches", "unpack_series", "unpack_stored"]

MESSAGE_BYTES = 64 << 20  # one record may hold the 2^20 rows of one call: 24 MB
MESSAGE_EVENTS = 100_000  # an event of sixteen bytes takes half a kB of memory
HEAD_BYTES = 1 << 20
DEPTH = 200  # of lists and objects in each other
_STEPS, _NO_BRACKETS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff"), bytes(set(range(256)) - set(b"[{]}"))

_BATCHES, _SERIES = b"mlcb\x01\0\0\0", b"mlcs\x01\0\0\0"
_SIZES = struct.Struct("<II")  # of a head, of its body
_RECORD = struct.Struct("<QQI")  # number, stamp, events
_WORD = struct.Struct("<I")
_ROWS = 1 << 31  # in the word before an event: its columns follow, by the table of the head; else it is a line
_KEYS = ("kind", "id", "key", "context")
_PREVIOUS = re.compile(rb'(\{"source":"[0-9a-f]{32}","home":"[A-Za-z0-9_-]*"),"previous":"([0-9a-f]{64})"')
_SHORT = 512  # bytes of a head that is worth to be remembered
_SWAP = sys.byteorder == "big"
_WRONG = (struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)

Table = dict[tuple[str, ...], int]


def document(text: bytes, limit: int = MESSAGE_BYTES) -> Any:
    """Return what is in a JSON document from elsewhere. Raises `Malformed`, also if it is nested too deeply."""
    if len(text) > limit:
        raise Malformed(f"{len(text):,} bytes of JSON are over the limit of {limit:,}")
    if text.count(b"[") + text.count(b"{") > DEPTH and _too_deep(text):
        raise Malformed(f"JSON is nested more than {DEPTH} levels deep")
    try:
        return from_json(text)
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from error


def _too_deep(text: bytes) -> bool:
    """Tell whether a text is nested too deeply, without a step of Python for each of its bytes."""
    outside = b"".join(text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])  # of quotes
    return any(map(DEPTH.__lt__, accumulate(array("b", outside.translate(_STEPS, _NO_BRACKETS)))))


# Batches


def pack_batches(batches: Iterable[Batch]) -> bytes:
    """Return batches as one message. Raises `Malformed` if one cannot be written down at all; see `check` for more."""
    return message(map(frame, batches))


def message(frames: Iterable[bytes]) -> bytes:
    """Return the message that holds frames."""
    return b"".join([_BATCHES, *frames])


def frame(batch: Batch) -> bytes:
    """Return one batch as a part of a message. Raises `Malformed`."""
    return _frame(batch, {})


def unpack_batches(data: bytes, limit: int = MESSAGE_BYTES) -> list[Batch]:
    """Return the batches of a message, not yet looked at by `check`. Raises `Malformed`."""
    if len(data) > limit:
        raise Malformed(f"a message of {len(data):,} bytes is over the limit of {limit:,}: send it in parts")
    _check_start(data, _BATCHES)
    found, at, left = [], len(_BATCHES), MESSAGE_EVENTS
    while at < len(data):
        head, body, at = _parts(data, at)
        batch, events = _batch(head, body, left)
        left -= max(events, 1)
        found.append(batch)
        if left < 0:
            raise Malformed(f"a message holds more than {MESSAGE_EVENTS:,} events and batches: send it in parts")
    return found


def _check_start(data: bytes, start: bytes) -> None:
    if data.startswith(start):
        return
    if data[:4] == start[:4] and len(data) >= 8 and data[4] > start[4]:
        raise NewerFormat(
            f"what came is written in version {data[4]} of its format, newer than {start[4]}: upgrade mlcore"
        )
    raise Malformed(f"not what was to come: it begins with {bytes(data[:8])!r}")


def _frame(batch: Batch, head: dict[str, Any]) -> bytes:
    table: Table = {}
    try:
        body = b"".join([part for record in batch.records for part in _record(record, table)])
        head |= {"source": batch.source, "home": batch.home}
        if batch.previous:
            head["previous"] = batch.previous
        if batch.claim is not None:
            head["claim"] = batch.claim
        if table:
            head["rows"] = [[*key[:4], dict(zip(key[4::2], key[5::2], strict=True))] for key in table]
        text = to_json(head)
        return _SIZES.pack(len(text), len(body)) + text + body
    except (*_WRONG, MlcoreError) as error:
        raise Malformed(f"source {batch.source!r:.80}: a record cannot be sent: {error}") from error


def _record(record: Record, table: Table) -> Iterator[bytes]:
    yield _RECORD.pack(record.number, record.stamp, len(record.events))
    for event in record.events:
        if isinstance(event, RowsLogged) and event.columns and _plain(event):
            yield from _rows(event, table)
        else:
            line = encode_event(event)
            yield _WORD.pack(len(line))
            yield line


def _plain(event: RowsLogged) -> bool:
    """Tell whether an event is all that its columns say: what a later version wrote may have more in it."""
    return event.raw is None or event.raw == encode_event(
        RowsLogged(event.kind, event.id, event.key, event.columns, event.context)
    )


def _rows(event: RowsLogged, table: Table) -> Iterator[bytes]:
    size, codes = len(event), []
    for name, values in event.columns.items():
        if len(values) != size:
            raise ValueError(f"{event.kind} {event.id}: rows with columns of different lengths")
        codes += [name, values.typecode if isinstance(values, array) else "j"]
    key = (event.kind, event.id, event.key, event.context, *codes)
    yield _SIZES.pack(_ROWS | table.setdefault(key, len(table)), size)
    for values in event.columns.values():
        if isinstance(values, array):
            yield _little(values).tobytes()
        else:
            text = to_json(values)
            yield _WORD.pack(len(text))
            yield text


def _little(values: array[Any]) -> array[Any]:
    if _SWAP:
        values = values[:]
        values.byteswap()
    return values


def _parts(data: bytes, at: int) -> tuple[Mapping[str, Any], bytes, int]:
    """Return the head and the body of the frame at an offset, and where the next begins."""
    try:
        head, body = _SIZES.unpack_from(data, at)
    except struct.error as error:
        raise Malformed(f"a message ends within a frame: {error}") from error
    middle = at + _SIZES.size + head
    if middle + body > len(data):
        raise Malformed(f"a message ends {middle + body - len(data):,} bytes too early")
    return _head(data[at + _SIZES.size : middle]), data[middle : middle + body], middle + body


def _head(text: bytes) -> Mapping[str, Any]:
    """Return the head of a frame, its rows as what reads them."""
    fit = _PREVIOUS.match(text) if len(text) <= _SHORT else None
    if fit is None:
        return _parsed(text)
    return {"previous": str(fit[2], "ascii"), **_known(fit[1] + text[fit.end() :])}


def _parsed(text: bytes) -> Mapping[str, Any]:
    head = document(text, HEAD_BYTES)
    if not isinstance(head, dict):
        raise Malformed("the head of a frame is no JSON object")
    try:
        return {**head, "rows": [_reader(*each) for each in head.get("rows", ())]}
    except _WRONG as error:
        raise Malformed(f"a batch cannot be read: {type(error).__name__}: {error}") from error


_known = lru_cache(1_024)(_parsed)  # who logs a point now and then sends the same head but for `previous`


def _batch(head: Mapping[str, Any], body: bytes, limit: int) -> tuple[Batch, int]:
    try:
        source, home = head["source"], head["home"]
        previous, claim = head.get("previous", ""), head.get("claim")
        if not (type(source) is type(home) is type(previous) is str and isinstance(claim, str | None)):
            raise ValueError("source, home, previous and claim are text")
        readers, records, at, events = head["rows"], [], 0, 0
        while at < len(body):
            number, stamp, count = _RECORD.unpack_from(body, at)
            events += max(count, 1)
            if events > limit:
                raise ValueError(f"a message holds more than {MESSAGE_EVENTS:,} events: send it in parts")
            found, at = _events(body, at + _RECORD.size, count, readers)
            records.append(Record(number, stamp, found))
        return Batch(source, home, tuple(records), previous, claim), events
    except _WRONG as error:
        raise Malformed(f"a batch cannot be read: {type(error).__name__}: {error}") from error


Reader = Callable[[bytes, int, int], tuple[Event, int]]


def _events(body: bytes, at: int, count: int, readers: Sequence[Reader]) -> tuple[tuple[Event, ...], int]:
    found: list[Event] = []
    for _ in range(count):
        (word,) = _WORD.unpack_from(body, at)
        if word & _ROWS:
            (size,) = _WORD.unpack_from(body, at + 4)
            event, at = readers[word ^ _ROWS](body, at + 8, size)
        else:
            line = body[at + 4 : at + 4 + word]
            at += 4 + word
            if at > len(body):
                raise ValueError("a line goes on after the end")
            event = _line(line)
        found.append(event)
    return tuple(found), at


def _line(line: bytes) -> Event:
    if line.count(b"[") + line.count(b"{") > DEPTH and _too_deep(line):
        raise Malformed(f"an event is nested more than {DEPTH} levels deep: {line[:80]!r}")
    return decode_event(line)


def _reader(kind: str, id: str, key: str, context: str, codes: Mapping[str, str]) -> Reader:
    """Return what reads rows of these columns from a body, at an offset."""
    if not all(isinstance(each, str) for each in (kind, id, key, context)) or not codes:
        raise ValueError("rows need a kind, an id, a key, a context and columns")
    if not set(codes.values()) <= {"q", "d", "j"}:
        raise ValueError("a column is of type q, d or j")
    columns = list(codes.items())

    def read(body: bytes, at: int, size: int) -> tuple[Event, int]:
        found: dict[str, Sequence[Any]] = {}
        for name, code in columns:
            found[name], at = _column(body, at, size, code)
        return RowsLogged(kind, id, key, found, context), at

    return read


def _column(body: bytes, at: int, size: int, code: str) -> tuple[Sequence[Any], int]:
    if code == "j":
        (length,) = _WORD.unpack_from(body, at)
        end = at + 4 + length
        values = document(body[at + 4 : end])
        if end > len(body) or not isinstance(values, list) or len(values) != size:
            raise ValueError("a column of other length than said")
        return values, end
    end = at + 8 * size
    if end > len(body):
        raise ValueError("a column goes on after the end")
    return _little(array(code, body[at:end])), end


# What is stored, as a stream


def pack_stored(stored: Iterable[Stored]) -> Iterator[bytes]:
    """Yield what is stored as it goes over the wire, with its end, or with what the store raised instead of it."""
    yield _BATCHES
    try:
        for each in stored:
            about = {"position": each.position, "received_at": each.received_at, "actor": each.actor}
            yield _frame(each.batch, about)
    except MlcoreError as error:
        yield _note({"error": error_entry(error)})
    else:
        yield _note({"end": True})


def _note(head: dict[str, Any]) -> bytes:
    text = to_json(head)
    return _SIZES.pack(len(text), 0) + text


def unpack_stored(chunks: Iterable[bytes]) -> Iterator[Stored]:
    """Yield what is stored from the chunks of a stream, cut anywhere; none is kept longer than it takes.

    Raises what the store raised, `Malformed`, and `StoreError` if the stream was cut off before its end.
    """
    buffer, at, begun = bytearray(), 0, False
    for chunk in chunks:
        del buffer[:at]
        buffer += chunk
        at = 0
        if not begun:
            if len(buffer) < len(_BATCHES) and _BATCHES.startswith(buffer):
                continue
            _check_start(bytes(buffer[:8]), _BATCHES)
            begun, at = True, len(_BATCHES)
        while (end := _whole(buffer, at)) is not None:
            head, body, at = _parts(bytes(buffer[at:end]), 0)
            at = end
            if "end" in head:
                return
            if "error" in head:
                raise error_of_entry(head["error"])
            yield _stored(head, body)
    raise StoreError("the stream of what is stored was cut off: ask again from the last position")


def _whole(buffer: bytearray, at: int) -> int | None:
    """Return where the frame at an offset ends, None as long as it is not all there."""
    if len(buffer) < at + _SIZES.size:
        return None
    head, body = _SIZES.unpack_from(buffer, at)
    if head > HEAD_BYTES or body > MESSAGE_BYTES:
        raise Malformed(f"a frame of {head:,} and {body:,} bytes is over the limit")
    end = int(at + _SIZES.size + head + body)
    return end if end <= len(buffer) else None


def _stored(head: Mapping[str, Any], body: bytes) -> Stored:
    position, received_at, actor = head.get("position"), head.get("received_at"), head.get("actor")
    if not (type(position) is type(actor) is str and type(received_at) is int):
        raise Malformed("what is stored has a position, a received_at and an actor")
    return Stored(position, received_at, actor, _batch(head, body, MESSAGE_BYTES)[0])


# Series


def pack_series(found: Mapping[SeriesKey, Columns]) -> bytes:
    """Return series as one message."""
    heads: list[Any] = []
    parts: list[bytes] = []
    for (id, key, context), series in found.items():
        codes: dict[str, str] = {}
        for name, values in series.columns.items():
            codes[name], data = _packed(values)
            parts += [data] if codes[name] != "j" else [_WORD.pack(len(data)), data]
        heads.append([id, key, context, len(series), codes])
    text = to_json(heads)
    return b"".join([_SERIES, _SIZES.pack(len(text), len(heads)), text, *parts])


def _packed(values: Any) -> tuple[str, bytes]:
    code = {"int64": "q", "float64": "d"}.get(str(getattr(values, "dtype", "")))
    if code is not None:
        return code, values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    values = column(values)
    return (values.typecode, _little(values).tobytes()) if isinstance(values, array) else ("j", to_json(values))


def unpack_series(data: bytes) -> dict[SeriesKey, Columns]:
    """Return the series of a message. Raises `Malformed`."""
    _check_start(data, _SERIES)
    try:
        length, count = _SIZES.unpack_from(data, len(_SERIES))
        at = len(_SERIES) + _SIZES.size + length
        heads = document(data[at - length : at], len(data))
        if at > len(data) or not isinstance(heads, list) or len(heads) != count:
            raise ValueError("a table of other length than said")
        found = {}
        for id, key, context, size, codes in heads:
            if not (type(id) is type(key) is type(context) is str and type(size) is int and size >= 0):
                raise ValueError("a series has an id, a key, a context and a number of rows")
            columns: dict[str, Sequence[Any]] = {}
            for name, code in codes.items():
                if code not in ("q", "d", "j"):
                    raise ValueError("a column is of type q, d or j")
                columns[name], at = _column(data, at, size, code)
            found[id, key, context] = Columns(columns).as_numpy()
        if at != len(data):
            raise ValueError(f"{len(data) - at:,} bytes too many")
        return found
    except _WRONG as error:
        raise Malformed(f"series cannot be read: {type(error).__name__}: {error}") from error
