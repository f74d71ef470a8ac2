"""Rows in order: merging, rewinding, summaries and thinning."""

from __future__ import annotations

import itertools
import math
import random
import sys
from array import array
from typing import Any

import numpy
import pytest
from hypothesis import given, strategies as st

from mlcore.store import Columns, Order, ordered


def at(stamp: int, source: str = "a", number: int = 1, event: int = 0) -> Order:
    """Return a place in the order of everything."""
    return stamp, source, number, event


numbers = st.floats() | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf])


def metric(values: list[float], steps: list[int] | None = None) -> dict[str, Any]:
    """Return the columns of a metric."""
    steps = list(range(len(values))) if steps is None else steps
    return {"step": array("q", steps), "time": array("q", [0] * len(steps)), "value": array("d", values)}


@given(st.lists(numbers, max_size=60), st.integers(0, 70))
def test_thinning_keeps_the_bound_the_order_and_the_extremes(values: list[float], bound: int) -> None:
    """At most so many rows come, in order, unchanged, the least and the greatest of all among them."""
    whole = Columns(metric(values))
    thin = whole.sampled(bound)
    assert len(thin) <= max(bound, 0)
    steps = list(thin["step"])
    assert steps == sorted(set(steps))
    assert all(repr(values[step]) == repr(value) for step, value in zip(steps, thin["value"], strict=True))
    real = [value for value in values if not math.isnan(value)]
    if real and bound >= 2:
        assert {min(real), max(real)} <= set(thin["value"])
    if len(values) <= bound:
        assert thin is whole


@given(st.lists(numbers, min_size=1, max_size=30), st.randoms())
def test_a_summary_is_of_the_whole_series(values: list[float], chance: random.Random) -> None:
    """Count, least and greatest without NaN, and the last row by step, whatever was logged when."""
    logged = [(at(step), metric([value], [step])) for step, value in enumerate(values)]
    chance.shuffle(logged)
    found, real = ordered(logged).summary(), [value for value in values if not math.isnan(value)]
    assert found is not None
    assert (found.count, found.step, repr(found.value)) == (len(values), len(values) - 1, repr(values[-1]))
    wanted = (min(real), max(real)) if real else (math.nan, math.nan)
    assert numpy.array_equal((found.min, found.max), wanted, equal_nan=True)


def test_columns_of_text_are_neither_summed_nor_thinned() -> None:
    """Rows that are no numbers come whole, and break nothing."""
    columns = Columns({"step": array("q", [1, 2, 3]), "time": array("q", [1, 2, 3]), "value": ["a", None, 1]})
    assert columns.sampled(2) is columns
    assert columns.summary() is None
    assert Columns({}).summary() is None
    assert list(ordered([(at(1), columns.columns)])["value"]) == ["a", None, 1]


def test_integers_beyond_any_float_are_summed_up() -> None:
    """A value that a foreign client sent as a huge integer breaks no reader."""
    found = ordered([(at(1), {"step": array("q", [1, 2]), "time": array("q", [1, 2]), "value": [10**400, 1]})])
    summary = found.summary()
    assert summary
    assert (summary.max, summary.value) == (10**400, 1)
    assert list(found.sampled(1)["value"]) == [10**400]


def test_a_column_that_some_rows_lack_is_none_there() -> None:
    """Rows of two shapes make one series: what one lacks is None, in order of the steps."""
    first = {"step": array("q", [2]), "value": array("d", [2.0])}
    found = ordered([(at(1), first), (at(2), {"step": array("q", [1]), "note": ["x"]})])
    assert {name: list(values) for name, values in found.columns.items()} == {
        "step": [1, 2],
        "value": [None, 2.0],
        "note": ["x", None],
    }


def test_steps_of_several_sources_are_merged() -> None:
    """Order is by step, time, stamp, source, record, event and row, whatever was added first."""
    logged = [
        (at(5, "a"), metric([1.0, 3.0], [1, 3])),
        (at(4, "b"), metric([2.0, 3.5], [2, 3])),
        (at(6, "a", 2), metric([0.0, 0.1, 0.2], [0, 0, 0])),
        (at(6, "a", 2, 1), metric([0.3], [0])),
        (at(6, "b", 1), metric([0.4], [0])),
    ]
    for order in itertools.permutations(logged):
        assert list(ordered(order)["value"]) == [0.0, 0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.5, 3.0]


def test_a_rewind_drops_what_was_logged_before_it() -> None:
    """Rows above the step go if their place is before the rewind's, down to the event in a record."""
    logged = [(at(5, "a", 1, 1), metric([1.0, 2.0]))]
    assert list(ordered(logged, [(at(6, "b"), 0)])["value"]) == [1.0]
    assert len(ordered(logged, [(at(6, "b"), -1)])) == 0
    assert ordered(logged, [(at(6, "b"), -1)]).summary() is None
    assert len(ordered(logged, [(at(5, "a", 1, 2), -1)])) == 0
    assert len(ordered(logged, [(at(5, "a", 1, 0), -1)])) == 2
    assert len(ordered(logged, [(at(4, "b"), -1)])) == 2
    assert len(ordered(logged, [(at(6, "b"), 0), (at(7, "b"), 1)])) == 1


def test_what_is_returned_is_the_callers() -> None:
    """Changing an answer does not touch what was logged."""
    logged = [(at(1), metric([1.0]))]
    answer = ordered(logged).as_numpy()
    answer["value"][0] = 9.0  # type: ignore[index]
    assert list(ordered(logged)["value"]) == [1.0]


def test_numpy_arrays_are_what_numpy_users_expect() -> None:
    """Metric columns are int64 and float64, empty ones too."""
    for values in ([], [1.0]):
        answer = Columns(metric(values)).as_numpy()
        assert isinstance(answer["value"], numpy.ndarray)
        assert [answer[name].dtype for name in ("step", "time", "value")] == ["int64", "int64", "float64"]


def test_without_numpy_columns_are_arrays_of_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs numpy."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    answer = Columns(metric([1.0])).as_numpy()
    assert isinstance(answer["value"], array)
