"""Events as JSON: strict on the way out, suspicious on the way in, and nothing lost between."""

from __future__ import annotations

import json
import math
from array import array
from typing import Any

import attrs
import numpy
import pytest
from hypothesis import given, strategies as st

from mlcore.errors import InvalidValue, Malformed
from mlcore.store import (
    EVENT_LIMIT,
    AttributesRemoved,
    AttributesSet,
    Created,
    Erased,
    Event,
    Rewound,
    RowsLogged,
    Unknown,
    Updated,
    decode_event,
    encode_event,
    from_json,
    to_json,
)
from mlcore.testing._checking import exact

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = texts | st.sampled_from(["$float", "$dict", "$", "$x", "type"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
int64s = st.integers(-(2**63), 2**63 - 1)
columns = st.integers(0, 5).flatmap(
    lambda size: st.fixed_dictionaries(
        {},
        optional={
            "step": st.lists(int64s, min_size=size, max_size=size),
            "time": st.lists(int64s, min_size=size, max_size=size),
            "value": st.lists(st.floats(), min_size=size, max_size=size),
            "text": st.lists(values, min_size=size, max_size=size),
        },
    )
)
dicts = st.dictionaries(keys, values, max_size=3)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Created, texts, texts, texts, dicts),
    st.builds(Updated, texts, texts, dicts),
    st.builds(AttributesSet, texts, texts, texts, dicts, st.booleans()),
    st.builds(AttributesRemoved, texts, texts, texts, st.lists(texts, max_size=3)),
    st.builds(RowsLogged, texts, texts, texts, columns, texts),
    st.builds(Rewound, texts, texts, int64s),
    st.builds(Erased, texts, texts),
)


def refuse(constant: str) -> None:
    """Fail on what a strict parser does not know."""
    raise AssertionError(f"{constant} is no JSON")


def content(event: Event) -> Any:
    """Return the fields of an event to compare."""
    return {field.name: exact(getattr(event, field.name)) for field in attrs.fields(type(event)) if field.name != "raw"}


@given(values)
def test_any_json_value_survives_the_round_trip(value: Any) -> None:
    """Types, NaN, signs of zero, huge numbers and keys that look like our escapes come back as they were."""
    assert exact(from_json(to_json(value))) == exact(value)


@given(values)
def test_what_is_written_is_strict_json_in_one_line(value: Any) -> None:
    """Browsers and databases, which know no NaN, can read everything that we write."""
    written = to_json(value)
    assert b"\n" not in written
    json.loads(written, parse_constant=refuse)


@given(events)
def test_every_event_survives_the_round_trip(event: Event) -> None:
    """An event that is read back is the one that was written, and is written the same again."""
    line = encode_event(event)
    back = decode_event(line)
    assert type(back) is type(event)
    assert content(back) == content(event)
    assert encode_event(back) == line
    assert encode_event(attrs.evolve(back, raw=None)) == line


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_random_bytes_are_malformed(line: bytes) -> None:
    """Whatever arrives from outside, decoding it raises one kind of error."""
    try:
        event = decode_event(line)
    except Malformed:
        return
    assert isinstance(event, Event)


@given(st.data(), events)
def test_events_with_anything_in_a_field_are_malformed_or_can_be_used(data: st.DataObject, event: Event) -> None:
    """A field of the wrong type is found when it arrives, not when a reader folds it."""
    fields = json.loads(encode_event(event))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(values)
    try:
        changed = decode_event(to_json(fields))
    except Malformed:
        return
    assert encode_event(changed) == to_json(fields)
    assert isinstance(changed.kind + changed.id, str)


@pytest.mark.parametrize(
    "line",
    [
        b"[]", b"1", b"null", b'"x"', b"", b"\xff", b"\x00", b"[" * 100_000,
        b'{"type":"Created"}', b'{"type":["x"],"kind":"r","id":"1"}',
        b'{"type":"Later","kind":1,"id":"1"}', b'{"type":"Later","kind":"r","id":["1"]}',
        b'{"type":"Created","kind":"r","id":"1","fields":{"a":NaN}}', b'{"type":"Created",\n"kind":"r","id":"1"}',
        b'{"type":"Created","kind":"r","id":"1","fields":[1]}', b'{"type":"Updated","kind":"r","id":"1"}',
        b'{"type":"Created","kind":"r","id":"1","fields":{"a":"\\ud800"}}',
        b'{"type":"Created","kind":"r","id":"1","fields":{"$dict":[[1,2]]}}',
        b'{"type":"Created","kind":"r","id":"1","fields":{"a":{"$float":{}}}}',
        b'{"type":"AttributesRemoved","kind":"r","id":"1","family":"tags","names":[["a"]]}',
        b'{"type":"AttributesRemoved","kind":"r","id":"1","family":"tags","names":"abc"}',
        b'{"type":"RowsLogged","kind":"r","id":"1","key":"k","columns":{"step":1}}',
        b'{"type":"RowsLogged","kind":"r","id":"1","key":"k","columns":{"text":"abc"}}',
        b'{"type":"RowsLogged","kind":"r","id":"1","key":"k","columns":{"step":["a"]}}',
        b'{"type":"RowsLogged","kind":"r","id":"1","key":"k","columns":{"step":[1.5]}}',
        b'{"type":"RowsLogged","kind":"r","id":"1","key":"k","columns":{"time":[9223372036854775808]}}',
        b'{"type":"RowsLogged","kind":"r","id":"1","key":"k","columns":{"step":[1],"value":[1.0,2.0]}}',
        b'{"type":"Rewound","kind":"r","id":"1","step":1.5}',
    ],
)  # fmt: skip
def test_what_no_fold_could_take_is_malformed(line: bytes) -> None:
    """Each of these would be stored and then break every reader, if it were let in."""
    with pytest.raises(Malformed):
        decode_event(line)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"x", "\ud800", {"\udfff": 1}, ["a", {"b": "\ud800"}], {("a",): 1}, 10**5000, 1j, float],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_is_an_invalid_value(value: Any) -> None:
    """A value that could not be read back is refused where it is logged."""
    with pytest.raises(InvalidValue):
        to_json(value)


def test_nesting_without_end_is_an_invalid_value() -> None:
    """Deep and circular values are an error with a name, not a RecursionError."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["self"] = circle
    for value in (deep, circle, [math.nan, deep], [math.nan, circle]):
        with pytest.raises(InvalidValue):
            to_json(value)


def test_keys_that_are_no_text_become_text_with_and_without_nan() -> None:
    """A dict with numbers as keys is written the same whatever its values are."""
    assert from_json(to_json({1: 2.0, False: None})) == {"1": 2.0, "false": None}
    assert to_json({2: math.inf, None: 1}) == b'{"2":{"$float":"Infinity"},"null":1}'
    assert from_json(to_json({2: 1, "$x": 3})) == {"2": 1, "$x": 3}


def test_numpy_and_arrays_are_written_as_what_they_hold() -> None:
    """Scalars and arrays of numpy need no conversion by the user, NaN included."""
    value = {"a": numpy.float32(0.5), "b": numpy.array([1, 2]), "c": array("d", [math.nan]), "d": numpy.float64("inf")}
    assert exact(from_json(to_json(value))) == exact({"a": 0.5, "b": [1, 2], "c": [math.nan], "d": math.inf})


def test_columns_of_numbers_are_arrays_whatever_they_came_as() -> None:
    """Lists, ranges, numpy and other arrays make the same event, so the same digest."""
    for steps in ([1, 2], (1, 2), range(1, 3), numpy.array([1, 2], "int32"), array("i", [1, 2])):
        assert RowsLogged("run", "1", "k", {"step": steps}).columns == {"step": array("q", [1, 2])}
    for mixed in ([1, 2.0], [2**63], [True], ["a", None]):
        assert RowsLogged("run", "1", "k", {"x": mixed}).columns == {"x": mixed}


def test_an_unknown_event_is_carried_untouched() -> None:
    """A later version's event keeps its bytes, and shows its type, kind and id."""
    line = b'{ "id":"1", "kind":"run", "type":"Later", "x":[1.50] }'
    event = decode_event(line)
    assert event == Unknown("run", "1", type="Later")
    assert encode_event(event) == line


def test_an_event_over_the_limit_is_refused_by_name() -> None:
    """Too large a value is an error that says whose, how large, and what to do."""
    with pytest.raises(InvalidValue, match=r"run 7: one Updated of 65,597 bytes .* as files"):
        encode_event(Updated("run", "7", {"note": "x" * EVENT_LIMIT}))


def test_rows_of_the_full_size_can_be_written_as_json() -> None:
    """The limit counts eight bytes a number, so what a journal took in can be shipped as JSON."""
    size = EVENT_LIMIT // 24
    rows = {"step": [-(2**63)] * size, "time": [2**63 - 1] * size, "value": [-2.2250738585072014e-308] * size}
    line = encode_event(RowsLogged("run", "7", "loss", rows))
    assert len(line) > EVENT_LIMIT
    assert len(decode_event(line).columns["value"]) == size  # type: ignore[attr-defined]
