"""Check that keys sort as `mlcore.store.find` does, on bytes alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from mlcore.store import Compare, Entity, Query, Sort, Term, find, holds
from mlcore_sql import keys

INF, NAN = math.inf, math.nan
HUGE = 10**400
numbers = st.one_of(
    st.integers(-(1 << 70), 1 << 70), st.integers(-HUGE, HUGE), st.floats(), st.booleans(),
    st.builds(lambda power, more: 2**power + more, st.integers(50, 1030), st.integers(-3, 3)),
    st.builds(lambda power, more: -(2**power) + more, st.integers(50, 1030), st.integers(-3, 3)),
)  # fmt: skip
texts = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("a\x00\uffff\U00010000\U0010ffff")))
values = st.one_of(numbers, texts, st.lists(numbers, max_size=2), st.dictionaries(texts, numbers, max_size=2))
TERM = Term("tags", "x")


def entity(id: str, value: Any) -> Entity:
    """Return an entity with a value."""
    return Entity("run", id, attributes={"tags": {"x": value}})


@given(values, values)
@example(2**53, float(2**53))
@example(2**53 + 1, float(2**53))
@example(-(2**53) - 1, -float(2**53))
@example(10**400, INF)
@example(-(10**400), -INF)
@example(10**400, 10**401)
@example(-(10**400), -(10**401))
@example(0, -0.0)
@example(True, 1.0)
@example("\uffff", "\U00010000")
@example("a", "a\x00")
@example([1], "[1]")
def test_bytes_are_in_the_order_of_values(one: Any, other: Any) -> None:
    """Guards every order by a key, in any database, against core's own."""
    found = [each.id for each in find([entity("0", one), entity("1", other)], Query(order=(Sort(TERM),))).items]
    back = [each.id for each in find([entity("1", one), entity("0", other)], Query(order=(Sort(TERM),))).items]
    a, b = keys.full(one), keys.full(other)
    if a == b:
        assert found == back == ["0", "1"]  # ties, by id
    else:
        assert found == (["0", "1"] if a < b else ["1", "0"])


@given(st.one_of(numbers, texts), st.one_of(numbers, texts))
@example(True, 1)
@example(1, 1.0)
@example(2**53 + 1, float(2**53))
@example(NAN, NAN)
def test_type_and_key_are_the_same_where_values_are_equal(one: Any, other: Any) -> None:
    """Guards ``=``, which knows True from 1 and takes 1 for 1.0; NaN equals nothing."""
    same = keys.kind_of(one) == keys.kind_of(other) and keys.full(one) == keys.full(other) != keys.NAN
    assert holds(Compare(TERM, "=", other), entity("0", one)) == same


@given(st.floats(allow_nan=False))
def test_a_float_comes_back_from_its_key(value: float) -> None:
    """Guards summaries, whose floats are kept as keys."""
    assert keys.float_of(keys.number(value)) == value


def test_nan_comes_back_from_its_key() -> None:
    """Guards the same on databases that have no NaN."""
    assert math.isnan(keys.float_of(keys.number(NAN)))


@given(texts, texts)
def test_what_begins_with_a_text_is_below_what_comes_after_it(head: str, tail: str) -> None:
    """Guards ``like 'x%'`` as a range."""
    low, key = keys.full(head), keys.full(tail)
    assert low <= keys.full(head + tail) < keys.after(low)
    assert (low <= key < keys.after(low)) == tail.startswith(head)


@pytest.mark.parametrize("value", ["x" * 2_000, "\U0001d4b5" * 500, 10**2_000, -(10**2_000), ["x" * 2_000]])
def test_a_long_key_is_cut_where_an_index_ends(value: Any) -> None:
    """Guards MySQL, whose indexes hold 3,072 bytes, and PostgreSQL, whose hold 2,704."""
    kind, key = keys.encode(value)
    assert key is not None
    assert len(key) == keys.LIMIT
    assert keys.full(value).startswith(key)
    assert kind == keys.kind_of(value)


def test_ids_that_begin_alike_have_different_keys() -> None:
    """Guards ids, which must be told from each other however long they are."""
    found = {keys.id_key("x" * size) for size in range(450, 600)}
    assert len(found) == 150
    assert max(map(len, found)) == keys.LIMIT
