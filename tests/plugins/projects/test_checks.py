"""What is asked of the metrics of a repeated run, as users write it."""

from __future__ import annotations

import math

import pytest

from mlcore.errors import InvalidValue
from mlcore_projects.checks import Check, parse_check


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("accuracy +- 0.001", Check("accuracy", "+-", 0.001)),
        ("accuracy+-1e-3", Check("accuracy", "+-", 0.001)),
        ("accuracy ± .5", Check("accuracy", "+-", 0.5)),
        ("accuracy +/- 1", Check("accuracy", "+-", 1)),
        (" loss.valid +- 5 % ", Check("loss.valid", "+-", 0.05, share=True)),
        ("accuracy >= 0.9", Check("accuracy", ">=", 0.9)),
        ("loss<-2.5", Check("loss", "<", -2.5)),
        ("mean error > 0", Check("mean error", ">", 0)),
        ("n == 3", Check("n", "==", 3)),
    ],
)
def test_a_check_is_a_metric_a_relation_and_a_number(text: str, check: Check) -> None:
    """Guards what users type, spaces or none, and that a check is printed as it is read."""
    assert parse_check(text) == check
    assert parse_check(str(check)) == check


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accuracy", "is not a metric, a relation and a number, such as"),
        ("accuracy +- little", "is not a metric, a relation and a number"),
        (">= 0.9", "is not a metric, a relation and a number"),
        ("accuracy = 0.9", "is not a metric, a relation and a number"),
        ("", "is not a metric, a relation and a number"),
        ("accuracy +- -0.1", "a tolerance is not below zero"),
        ("accuracy >= 90%", "only a tolerance can be a share"),
    ],
)
def test_what_is_no_check_is_explained(text: str, problem: str) -> None:
    """Guards against a check that is silently something else."""
    with pytest.raises(InvalidValue, match=problem):
        parse_check(text)


@pytest.mark.parametrize(
    ("text", "before", "after", "passed"),
    [
        ("m +- 0.01", 0.9, 0.91, True),
        ("m +- 0.01", 0.9, 0.9101, False),
        ("m +- 0", 0.1, 0.1, True),
        ("m +- 5%", -2.0, -2.1, True),
        ("m +- 5%", -2.0, -2.11, False),
        ("m >= 0.9", 0.1, 0.9, True),
        ("m > 0.9", 0.95, 0.9, False),
        ("m +- 1", math.nan, math.nan, True),
        ("m +- 1", 0.0, math.nan, False),
        ("m +- 1", math.inf, math.inf, True),
        ("m +- 1", math.inf, -math.inf, False),
        ("m >= 0", 1.0, math.nan, False),
    ],
)
def test_a_tolerance_is_about_what_it_was_and_a_bound_about_what_it_is(
    text: str, before: float, after: float, passed: bool
) -> None:
    """Guards the meaning of a check at its edges."""
    assert parse_check(text).of({"m": before}, {"m": after}).passed is passed


def test_a_metric_that_is_gone_does_not_pass_and_one_that_never_was_is_an_error() -> None:
    """Guards against a misspelt metric that is never checked."""
    assert not parse_check("loss +- 1").of({"loss": 1.0}, {}).passed
    with pytest.raises(InvalidValue, match="has no metric 'los'; did you mean 'loss'"):
        parse_check("los +- 1").of({"loss": 1.0}, {"loss": 1.0})
    with pytest.raises(InvalidValue, match="has no metric 'f1'; it has accuracy, loss"):
        parse_check("f1 >= 0.5").of({"loss": 1.0, "accuracy": 1.0}, {})
