"""Queries in Python: the meaning that every store has to agree with."""

from __future__ import annotations

import base64
import math
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from mlcore.errors import Malformed
from mlcore.store import And, Compare, Entity, Not, Or, Page, Query, Sort, Summary, Term, find

X, DELETED = Term("tags", "x"), Term("fields", "deleted")
values = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=2) | st.just([1])


def runs(*given: Any) -> list[Entity]:
    """Return runs that differ in the tag x, missing where that is None."""
    return [
        Entity("run", f"{n:032x}", attributes={"tags": {} if each is None else {"x": each}}, created=n)
        for n, each in enumerate(given)
    ]


def tags(page: Page) -> list[Any]:
    """Return the tag x of each run of a page."""
    return [each.attributes["tags"].get("x") for each in page.items]


def chosen(op: str, value: Any, *given: Any) -> list[Any]:
    """Return those of the given tags that compare so, in their order."""
    page = find(runs(*given), Query(Compare(X, op, value), order=(Sort(Term("", "id")),)))
    return tags(page)


@given(st.lists(values, max_size=12), st.integers(1, 5), st.booleans())
def test_pages_are_a_partition_of_the_whole(given: list[Any], limit: int, descending: bool) -> None:
    """Whatever is ordered by, infinities and mixed types included, pages bring each run once and in order."""
    entities, query = runs(*given), Query(order=(Sort(X, descending),))
    whole = [each.id for each in find(entities, query).items]
    found, token = [], None
    for _ in range(len(given) + 1):
        page = find(entities[::-1], attrs.evolve(query, limit=limit, token=token))
        found += [each.id for each in page.items]
        token = page.token
        if token is None:
            break
    assert found == whole


@given(st.lists(values, max_size=12))
def test_descending_is_ascending_turned_round_but_for_what_is_last(given: list[Any]) -> None:
    """NaN, then what is missing, stand last in both directions."""
    up, down = (tags(find(runs(*given), Query(order=(Sort(X, down),)))) for down in (False, True))
    for found in (up, down):
        last = [2 if each is None else 1 if isinstance(each, float) and math.isnan(each) else 0 for each in found]
        assert last == sorted(last)
    numbers = [
        [each for each in found if isinstance(each, int | float) and not math.isnan(each)] for found in (up, down)
    ]
    assert numbers[0] == sorted(numbers[0])
    assert numbers[1] == sorted(numbers[1], reverse=True)


@given(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "is null"]), values, st.lists(values, max_size=8))
def test_not_is_the_rest(op: str, value: Any, given: list[Any]) -> None:
    """A comparison and its negation part the runs in two, missing ones included."""
    where = Compare(X, op, value)
    parts = [{each.id for each in find(runs(*given), Query(part)).items} for part in (where, Not(where))]
    assert parts[0] | parts[1] == {each.id for each in runs(*given)}
    assert not parts[0] & parts[1]


@pytest.mark.parametrize(
    ("op", "value", "wanted"),
    [
        ("=", 1, [1, 1.0]),
        ("=", "1", ["1"]),
        ("!=", 1, ["1", "a", 2.5, [1]]),
        ("<", 2, [1, 1.0]),
        (">", "1", ["a"]),
        (">=", 1, [1, 1.0, 2.5]),
        ("<", [2], []),
        ("in", ("a", 1), [1, 1.0, "a"]),
        ("in", (), []),
        ("like", "1", ["1"]),
        ("is null", None, [None]),
        ("=", None, []),
        ("not in", (1, "a"), ["1", 2.5, [1]]),
        ("not like", "a", [1, 1.0, "1", 2.5, [1]]),
    ],
)
def test_comparisons_mind_types(op: str, value: Any, wanted: list[Any]) -> None:
    """Text and numbers are unequal and in no order, and what is missing compares to nothing."""
    assert chosen(op, value, 1, 1.0, "1", "a", 2.5, [1], None) == wanted


def test_nan_equals_nothing() -> None:
    """NaN is in no order, and unequal to itself."""
    assert chosen("=", math.nan, math.nan, 1.0) == []
    assert len(chosen("!=", math.nan, math.nan, 1.0)) == 2
    assert chosen(">=", -math.inf, math.nan, 1.0, -math.inf) == [1.0, -math.inf]


@pytest.mark.parametrize(
    ("op", "pattern", "wanted"),
    [
        ("like", "a%", ["ab", "a.b", "a\nb"]),
        ("ilike", "A%", ["ab", "AB", "a.b", "a\nb"]),
        ("like", "a_b", ["a.b", "a\nb"]),
        ("like", "a.b", ["a.b"]),
        ("like", "b", []),
        ("like", "%", ["ab", "AB", "a.b", "a\nb", ""]),
    ],
)
def test_like_knows_two_wildcards(op: str, pattern: str, wanted: list[str]) -> None:
    """Percent stands for anything, underscore for one character, all else for itself, line breaks included."""
    assert chosen(op, pattern, "ab", "AB", "a.b", "a\nb", "", 1, None) == wanted


def test_a_term_names_any_value_of_an_entity() -> None:
    """Own names, fields, attributes and every function of a metric in its context can be asked for."""
    entity = Entity(
        "run", "7", "1", {"name": "n"}, {"params": {"lr": 0.5}}, {("loss", "eval"): Summary(3, 1.0, 5.0, 9, 80, 2.0)}
    )
    wanted = {
        Term("", "id"): "7", Term("", "parent"): "1", Term("fields", "name"): "n", Term("params", "lr"): 0.5,
        Term("metrics", "loss", context="eval"): 2.0, Term("metrics", "loss", "min", "eval"): 1.0,
        Term("metrics", "loss", "max", "eval"): 5.0, Term("metrics", "loss", "count", "eval"): 3,
        Term("metrics", "loss", "step", "eval"): 9, Term("metrics", "loss", "time", "eval"): 80,
    }  # fmt: skip
    for term, value in wanted.items():
        assert len(find([entity], Query(Compare(term, "=", value))).items) == 1, term
    for term in (Term("metrics", "loss"), Term("no such", "x"), Term("fields", "x"), Term("", "x")):
        assert len(find([entity], Query(Compare(term, "is null"))).items) == 1, term


@pytest.mark.parametrize("where", [Compare(DELETED, "=", True), Not(Not(Or((And((Compare(DELETED, "=", True),)),))))])
def test_deleted_runs_come_when_they_are_named(where: Any) -> None:
    """Naming the field, at whatever depth, is asking for them."""
    gone = Entity("run", "1", fields={"deleted": True})
    kept = Entity("run", "2", fields={"deleted": False})
    assert find([gone, kept], Query()).items == (kept,)
    assert find([gone, kept], Query(where)).items == (gone,)


@pytest.mark.parametrize(
    "ranks",
    [b"[]", b"1", b"null", b"x", b"[[0,1]]", b'[[0,"a"],[0,0],[1,"id"]]', b'[[1,0],[0,0],[1,"id"]]', b"[" * 9999],
)
def test_a_token_that_was_changed_is_malformed(ranks: bytes) -> None:
    """A token comes from outside: whatever is in it, the answer is one kind of error."""
    token = base64.urlsafe_b64encode(ranks).decode()
    with pytest.raises(Malformed):
        find(runs(1, 2), Query(order=(Sort(X),), limit=1, token=token))
