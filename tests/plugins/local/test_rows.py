"""Rows in memory: order, columns, summaries and thinning."""

from __future__ import annotations

import math
import sys
from array import array
from typing import Any

import numpy
import pytest
from hypothesis import given, strategies as st

from mlcore.store import Columns
from mlcore_local.rows import Rows

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


@given(st.lists(numbers, min_size=1, max_size=30))
def test_a_summary_is_of_the_whole_series(values: list[float]) -> None:
    """Count, least and greatest without NaN, and the last row by step."""
    rows = Rows()
    for step, value in reversed(list(enumerate(values))):
        rows.add("a" * 32, step + 1, step, metric([value], [step]))
    found, real = rows.summary(), [value for value in values if not math.isnan(value)]
    assert found is not None
    assert (found.count, found.step, repr(found.value)) == (len(values), len(values) - 1, repr(values[-1]))
    wanted = (min(real), max(real)) if real else (math.nan, math.nan)
    assert numpy.array_equal((found.min, found.max), wanted, equal_nan=True)


def test_columns_of_text_are_neither_summed_nor_thinned() -> None:
    """Rows that are no numbers come whole, and break nothing."""
    columns = Columns({"step": array("q", [1, 2, 3]), "time": array("q", [1, 2, 3]), "value": ["a", None, 1]})
    assert columns.sampled(2) is columns
    rows = Rows()
    rows.add("a" * 32, 1, 1, columns.columns)
    assert rows.summary() is None
    assert list(rows.columns()["value"]) == ["a", None, 1]


def test_a_column_that_some_rows_lack_is_none_there() -> None:
    """Rows of two shapes make one series: what one lacks is None, in order of the steps."""
    rows = Rows()
    rows.add("a" * 32, 1, 1, {"step": array("q", [2]), "value": array("d", [2.0])})
    rows.add("a" * 32, 2, 2, {"step": array("q", [1]), "note": ["x"]})
    found = rows.columns()
    assert {name: list(values) for name, values in found.columns.items()} == {
        "step": [1, 2], "value": [None, 2.0], "note": ["x", None]
    }  # fmt: skip


def test_steps_of_several_sources_are_merged() -> None:
    """Order is by step, time, stamp and source, whichever was added first."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        rows, adds = Rows(), [("a", 1, 5, [1.0, 3.0], [1, 3]), ("b", 1, 4, [2.0, 3.5], [2, 3]), ("a", 2, 6, [0.0], [0])]
        for index in order:
            source, number, stamp, values, steps = adds[index]
            rows.add(source * 32, number, stamp, metric(values, steps))
        assert list(rows.columns()["value"]) == [0.0, 1.0, 2.0, 3.5, 3.0]


def test_a_rewind_drops_rows_and_their_summary() -> None:
    """A rewind that drops everything leaves an empty series and no summary."""
    rows = Rows()
    rows.add("a" * 32, 1, 5, metric([1.0, 2.0]))
    assert list(rows.columns([((6, "b", 1, 0), 0)])["value"]) == [1.0]
    assert len(rows.columns([((6, "b", 1, 0), -1)])) == 0
    assert rows.summary([((6, "b", 1, 0), -1)]) is None
    assert len(rows.columns([((5, "a" * 32, 1, 0), -1)])) == 0, "rows of the rewind's own place were logged before it"
    assert len(rows.columns([((4, "b", 1, 0), -1)])) == 2


def test_what_is_returned_is_the_callers() -> None:
    """Changing or keeping an answer does not touch what is stored, or stop it from growing."""
    rows = Rows()
    rows.add("a" * 32, 1, 1, metric([1.0]))
    answer = rows.columns().as_numpy()
    answer["value"][0] = 9.0  # type: ignore[index]
    rows.add("a" * 32, 2, 2, metric([2.0], [1]))
    assert list(rows.columns()["value"]) == [1.0, 2.0]


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
