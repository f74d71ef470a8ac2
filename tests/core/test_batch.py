"""Batches: what is well formed, what a digest covers, and what is new of a batch."""

from __future__ import annotations

from array import array

import attrs
import pytest
from hypothesis import given, strategies as st

from mlcore.errors import Malformed, OutOfOrder, SourceReused
from mlcore.store import (
    EVENT_LIMIT,
    Batch,
    Marks,
    Record,
    RowsLogged,
    Updated,
    check,
    decode_event,
    digest,
    encode_event,
)
from mlcore.testing import Writer, new_id, points
from mlcore.testing._appending import malformed


def writer_of(count: int) -> Writer:
    """Return a writer of a run with `count` records."""
    writer = Writer(new_id())
    for number in range(count):
        writer.batch(Updated("run", writer.home, {"n": number}), points(writer.home, "loss", [0.5]))
    return writer


@pytest.mark.parametrize("reason", malformed())
def test_each_way_to_break_the_format_is_malformed(reason: str) -> None:
    """`check` raises Malformed and nothing else, whatever is wrong."""
    with pytest.raises(Malformed):
        check(malformed()[reason])


@pytest.mark.parametrize("claim", ["\ud800", "a\x7f", "x" * 1001])
def test_a_claim_is_plain_text(claim: str) -> None:
    """A claim can be written as UTF-8, in one line, of bounded length."""
    with pytest.raises(Malformed):
        check(attrs.evolve(writer_of(1).cut(1), claim=claim))


def test_good_batches_pass() -> None:
    """What a journal writes is well formed: whole, cut, claiming, of the store, empty, and of the full size."""
    writer = writer_of(3)
    size = EVENT_LIMIT // 24
    full = points("r", "loss", [0.1 + 0.2] * size)
    for batch in (
        writer.cut(1), writer.cut(2, 3), writer.cut(1, 1, claim="model/漢 x"), Writer().batch(Updated("m", "m", {})),
        writer.life_sign(), Writer("r").batch(full), Writer("r").batch(decode_event(encode_event(full))),
    ):  # fmt: skip
        check(batch)


def test_the_digest_of_rows_is_that_of_their_content() -> None:
    """A repeat is recognised though a store kept rows in columns, or read them back from JSON."""
    event = RowsLogged("run", "1", "k", {"step": [1, 2], "value": [1.0, float("nan")], "text": ["a", None]})
    again = decode_event(encode_event(event))
    same = {"text": ("a", None), "value": array("d", event.columns["value"]), "step": [1, 2]}
    other = attrs.evolve(event, columns=same)
    digests = {digest([Record(1, 1, (each,))]) for each in (event, again, other)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    "other",
    [
        Record(2, 5, (Updated("run", "1", {"n": 1}),)),
        Record(1, 6, (Updated("run", "1", {"n": 1}),)),
        Record(1, 5, (Updated("run", "1", {"n": 1.0}),)),
        Record(1, 5, (Updated("run", "1", {"n": 1}), Updated("run", "1", {}))),
    ],
)
def test_the_digest_minds_number_stamp_and_events(other: Record) -> None:
    """Two records that differ in anything have different digests."""
    assert digest([other]) != digest([Record(1, 5, (Updated("run", "1", {"n": 1}),))])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12))
def test_whatever_is_sent_again_every_record_is_new_once(ranges: list[tuple[int, int]]) -> None:
    """Any sequence of cuts stores a prefix of the source, each record once, and only gaps are refused."""
    writer, marks, stored = writer_of(9), Marks(), []
    for first, length in ranges:
        batch = writer.cut(first, min(9, first + length))
        if first > len(stored) + 1:
            with pytest.raises(OutOfOrder) as refusal:
                marks.new(batch)
            assert (refusal.value.expected, refusal.value.given) == (len(stored) + 1, first)
            continue
        fresh = marks.new(batch)
        if fresh is not None:
            assert fresh.previous == digest(stored)
            marks.advance(fresh)
            stored += fresh.records
    assert stored == writer.records[: len(stored)]


def test_other_content_is_noticed_where_it_meets_what_is_known() -> None:
    """A twin that shares the source is refused whether it repeats, overlaps or continues."""
    writer, twin = writer_of(4), writer_of(4)
    twin.source = writer.source
    marks = Marks()
    marks.advance(writer.cut(1, 3))
    for batch in (twin.cut(1, 3), twin.cut(2, 4), twin.cut(4)):
        with pytest.raises(SourceReused):
            marks.new(batch)
    assert marks.new(writer.cut(4)) == writer.cut(4)


def test_nothing_is_remembered_before_advance() -> None:
    """A store that fails between asking and storing may be asked again."""
    writer, marks = writer_of(2), Marks()
    assert marks.new(writer.cut(1)) == marks.new(writer.cut(1)) == writer.cut(1)
    assert marks.new(writer.life_sign()) == Batch(writer.source, writer.home)
    marks.advance(writer.cut(1))
    assert marks.new(writer.cut(1)) is None
