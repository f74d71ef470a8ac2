"""Events, as JSON one object in one line, its ``type`` the class's name; records and batches, in which they travel.

What this version does not know, types and fields alike, is kept byte for byte in `raw` and passed on as it came.
"""

import json
import math
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import attrs

from mlcore._value import Value
from mlcore.errors import InvalidValue, Malformed, OutOfOrder, SourceReused

__all__ = ["AttributesRemoved", "AttributesSet", "Batch", "Created", "Erased", "Event", "Marks", "Record", "Rewound"]
__all__ += ["EVENT_LIMIT", "RowsLogged", "Unknown", "Updated", "check", "column", "decode_event", "digest"]
__all__ += ["encode_event", "from_json", "to_json"]

EVENT_LIMIT = 65_536  # of rows it counts eight bytes a number; as JSON a number takes up to three times that
_HEX = "0123456789abcdef"
_CLAIM = r"[^\x00-\x1f\x7f\ud800-\udfff]{1,1000}"


def column(values: Sequence[Any]) -> Sequence[Any]:
    """Return `values` as ``array('q')`` if all are int64, ``array('d')`` if all are float, else as a list."""
    if isinstance(values, array) and values.typecode in "qd":
        return values
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    kinds = {type(value) for value in values}
    with suppress(OverflowError):
        if kinds in ({int}, {float}):
            return array("q" if kinds == {int} else "d", values)
    return values


def _columns(columns: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    return {name: column(values) for name, values in columns.items()}


@attrs.frozen(eq=False, repr=False)
class Event(Value):
    """Stand above all events; `kind` and `id` name the entity that changed."""

    kind: str
    id: str
    raw: bytes | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)


@attrs.frozen(eq=False, repr=False)
class Created(Event):
    """Make an entity. Its fields are first values: any `Updated` wins over them, and the earliest do."""

    parent: str = ""
    fields: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(eq=False, repr=False)
class Updated(Event):
    """Set fields; the last one wins."""

    fields: Mapping[str, Any]


@attrs.frozen(eq=False, repr=False)
class AttributesSet(Event):
    """Set values of a family such as params or tags; with `once`, the first wins and others conflict."""

    family: str
    values: Mapping[str, Any]
    once: bool = False


@attrs.frozen(eq=False, repr=False)
class AttributesRemoved(Event):
    """Remove values of a family by name."""

    family: str
    names: Sequence[str]


@attrs.frozen(eq=False, repr=False)
class RowsLogged(Event):
    """Log rows under a key and a context, as columns of one length.

    A metric has the columns ``step`` (int64), ``time`` (int64, ms since 1970) and ``value`` (float64); other
    rows may lack them. Columns of int64 or of floats are kept as `array.array`, whatever they came as.
    """

    key: str
    columns: Mapping[str, Sequence[Any]] = attrs.field(converter=_columns)
    context: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


@attrs.frozen(eq=False, repr=False)
class Rewound(Event):
    """Forget the rows with a step above `step` that were logged before this event."""

    step: int


@attrs.frozen(eq=False, repr=False)
class Erased(Event):
    """Remove the entity for good; nothing brings it back."""


@attrs.frozen(eq=False, repr=False)
class Unknown(Event):
    """Carry an event of a later version, untouched."""

    type: str = ""


_KNOWN = (AttributesRemoved, AttributesSet, Created, Erased, Rewound, RowsLogged, Updated)
_TYPES: dict[str, type[Event]] = {each.__name__: each for each in _KNOWN}
_FIELDS = {name: [f for f in attrs.fields(cls) if f.name != "raw"] for name, cls in _TYPES.items()}
_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("kind", "id", "parent", "family", "key", "context"), lambda it: isinstance(it, str)),
    **dict.fromkeys(("fields", "values"), lambda it: isinstance(it, Mapping)),
    "columns": lambda it: isinstance(it, Mapping) and all(isinstance(values, list | array) for values in it.values()),
    "names": lambda it: isinstance(it, list | tuple) and all(isinstance(name, str) for name in it),
    "once": lambda it: isinstance(it, bool),
    "step": lambda it: isinstance(it, int) and not isinstance(it, bool),
}
_COMPACT: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}


def encode_event(event: Event) -> bytes:
    """Return the event as one line of JSON, without its newline.

    Raises `InvalidValue` when a value is no JSON or the event is larger than 64 kB.
    """
    if event.raw is not None:
        return event.raw
    name = type(event).__name__
    fields = ((field, getattr(event, field.name)) for field in _FIELDS[name])
    given = {f.name: value for f, value in fields if f.default is attrs.NOTHING or value not in (f.default, {})}
    if wrong := _wrong(given):
        raise InvalidValue(f"{event.kind} {event.id}: {name} has a {wrong} of the wrong type")
    line = to_json({"type": name, **given})
    if len(line) > EVENT_LIMIT * (4 if isinstance(event, RowsLogged) else 1):
        limit = f"the limit of {EVENT_LIMIT:,}; keep large values as files and log where they are"
        raise InvalidValue(f"{event.kind} {event.id}: one {name} of {len(line):,} bytes is over {limit}")
    return line


def decode_event(line: bytes) -> Event:
    """Return the event in a line of JSON; an unknown type comes back as `Unknown`.

    Raises `Malformed` when it is no event at all.
    """
    try:
        content = from_json(line)
        name, kind, id = content["type"], content["kind"], content["id"]
        if b"\n" in line or not all(isinstance(each, str) for each in (name, kind, id)):
            raise ValueError("type, kind and id must be text, all in one line")
        if name not in _TYPES:
            return Unknown(kind=kind, id=id, type=name, raw=line)
        given = {field.name: content[field.name] for field in _FIELDS[name] if field.name in content}
        if wrong := _wrong(given):
            raise ValueError(f"{name} has a {wrong} of the wrong type")
        event: Event = _TYPES[name](**given, raw=line)  # a TypeError if a field is missing
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"not an event: {line[:80]!r}: {error}") from error
    check_rows(event)
    return event


def _wrong(given: Mapping[str, Any]) -> str:
    return next((key for key, value in given.items() if not _CHECKS[key](value)), "")


def check_rows(event: Event) -> None:
    """Raise `Malformed` if the event has rows that cannot be put in order."""
    columns = event.columns if isinstance(event, RowsLogged) else {}
    orders = [columns[name] for name in ("step", "time") if columns.get(name)]
    if len({len(values) for values in columns.values()}) > 1:
        raise Malformed(f"{event.kind} {event.id}: rows with columns of different lengths")
    if not all(isinstance(values, array) and values.typecode == "q" for values in orders):
        raise Malformed(f"{event.kind} {event.id}: rows with a step or time that is no int64")


def to_json(value: Any) -> bytes:
    """Return strict JSON; NaN and the infinities become ``{"$float": "NaN"}``. Raises `InvalidValue`."""
    try:
        with suppress(ValueError):  # a number that JSON has not
            text = json.dumps(value, allow_nan=False, default=_plain, **_COMPACT)
            if '"$' not in text:
                return text.encode()
        return json.dumps(_escape(value), **_COMPACT).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"not a JSON value: {error}") from error


def from_json(text: bytes) -> Any:
    """Return what `to_json` was given. Raises `ValueError`."""
    try:
        # one byte is soon looked for, two take half as long as decoding does
        value = (_ESCAPED if b"$" in text and b'"$' in text else _PLAIN).decode(text.decode())
        if b"\\" in text and (b"\\ud" in text or b"\\uD" in text):
            to_json(value)  # half a surrogate could never be written again
        return value
    except (RecursionError, TypeError) as error:
        raise ValueError(f"nested too deeply, or a wrong escape: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # array.array and numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _escape(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list | tuple):
        return [_escape(each) for each in value]
    if not isinstance(value, Mapping):
        return _escape(_plain(value))
    escaped = {key if isinstance(key, str) else json.dumps(key): _escape(each) for key, each in value.items()}
    return {"$dict": list(escaped.items())} if any(key.startswith("$") for key in escaped) else escaped


def _unescape(value: dict[str, Any]) -> Any:
    if value.keys() == {"$float"}:
        return float(value["$float"])
    if value.keys() == {"$dict"}:
        return {"" + key: each for key, each in value["$dict"]}  # a key that is no text is a TypeError
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_PLAIN = json.JSONDecoder(parse_constant=_refuse)
_ESCAPED = json.JSONDecoder(parse_constant=_refuse, object_hook=_unescape)


@attrs.frozen(eq=False, repr=False)
class Record(Value):
    """Hold the events of one call: `number` counts from 1 in its source, `stamp` is the writer's clock.

    The stamp is a hybrid logical clock in ns since 1970: the wall clock, or one more than the last stamp
    seen where that is higher (Kulkarni et al., "Logical Physical Clocks", 2014).
    """

    number: int
    stamp: int
    events: tuple[Event, ...]


@attrs.frozen(eq=False, repr=False)
class Batch(Value):
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
        for event in cast("tuple[Any, ...]", record.events):  # rows have more than others
            rows = isinstance(event, RowsLogged)
            state.update(_head(event.kind, event.id, event.key, event.context) if rows else encode_event(event))
            for name, values in sorted(event.columns.items()) if rows else ():
                state.update(name.encode() + (values.tobytes() if isinstance(values, array) else to_json(values)))
        previous = state.hexdigest()
    return previous


_head = lru_cache(4096)(lambda kind, id, key, context: encode_event(RowsLogged(kind, id, key, {}, context)))


def check(batch: Batch) -> None:
    """Raise `Malformed` if the batch breaks the format."""
    if len(batch.source) != 32 or batch.source.strip(_HEX):
        raise Malformed(f"source {batch.source[:80]!r} is not 32 hex digits")
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", batch.home):
        raise Malformed(f"home {batch.home[:80]!r} is not an id")
    if batch.claim is not None and not (batch.records and re.fullmatch(_CLAIM, batch.claim)):
        raise Malformed(f"claim {batch.claim[:80]!r} is no plain text, or claims nothing")
    if len(batch.previous) not in (0, 64) or batch.previous.strip(_HEX):
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
        return batch if not overlap else attrs.evolve(batch, records=fresh, previous=known) if fresh else None

    def advance(self, batch: Batch) -> None:
        """Remember that `batch`, as `new` returned it, is stored."""
        if batch.records:
            self.set(batch.source, batch.last, digest(batch.records, batch.previous))
