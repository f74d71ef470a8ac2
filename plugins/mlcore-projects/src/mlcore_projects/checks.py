"""What a metric of a repeated run must be, in a line: ``accuracy +- 0.001``, ``loss +- 5%``, ``accuracy >= 0.9``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

import attrs

from mlcore.errors import InvalidValue

__all__ = ["Check", "CheckResult", "parse_check"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CHECK = re.compile(rf"(?P<metric>\S.*?)\s*(?P<relation>\+/?-|±|>=|<=|==|>|<)\s*(?P<value>{_NUMBER})\s*(?P<share>%?)")
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq,
}  # fmt: skip
_WITHIN = "+-"
_FORMS = "such as 'accuracy +- 0.001', 'loss +- 5%' or 'accuracy >= 0.9'"


@attrs.frozen
class Check:
    """Say what one metric must be: within `value` of what it was (of which it is a `share`), or beyond a bound."""

    metric: str
    relation: str
    value: float
    share: bool = False

    def __str__(self) -> str:
        value = f"{self.value * 100:g}%" if self.share else f"{self.value:g}"
        return f"{self.metric} {self.relation} {value}"

    def of(self, before: Mapping[str, float], after: Mapping[str, float]) -> CheckResult:
        """Ask the metrics of the two runs. Raises `InvalidValue` if the run to repeat has no metric of that name."""
        if self.metric not in before and (self.relation == _WITHIN or self.metric not in after):
            raise InvalidValue(f"--check {self}: {_unknown_metric(self.metric, before)}")
        was, now = before.get(self.metric), after.get(self.metric)
        return CheckResult(self, was, now, now is not None and self._holds(was, now))

    def _holds(self, was: float | None, now: float) -> bool:
        if self.relation != _WITHIN:
            return _COMPARISONS[self.relation](now, self.value)
        if was is None:
            return False
        if not (math.isfinite(was) and math.isfinite(now)):
            return was == now or (math.isnan(was) and math.isnan(now))
        within = self.value * abs(was) if self.share else self.value
        rounding = 4 * max(math.ulp(was), math.ulp(now))  # 0.91 is within 0.01 of 0.9, though its nearest double is not
        return abs(now - was) <= within + rounding


@attrs.frozen
class CheckResult:
    """Tell what a metric was and is, and whether that is as the check has it; None is a metric that was not logged."""

    check: Check
    before: float | None
    after: float | None
    passed: bool


def parse_check(text: str) -> Check:
    """Read one check. Raises `InvalidValue` with what may stand there."""
    if not (found := _CHECK.fullmatch(text.strip())):
        raise InvalidValue(f"--check {text!r} is not a metric, a relation and a number, {_FORMS}")
    relation = _WITHIN if found["relation"] in ("+/-", "±") else found["relation"]
    value, share = float(found["value"]), bool(found["share"])
    if relation == _WITHIN and value < 0:
        raise InvalidValue(f"--check {text!r}: a tolerance is not below zero, {_FORMS}")
    if share and relation != _WITHIN:
        raise InvalidValue(f"--check {text!r}: only a tolerance can be a share of what the metric was, {_FORMS}")
    return Check(found["metric"], relation, value / 100 if share else value, share)


def _unknown_metric(name: str, metrics: Mapping[str, float]) -> str:
    """Say that a run has no such metric, and which is nearest or which there are."""
    near = get_close_matches(name, metrics, 1)
    there = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(metrics)[:10]) or 'none'}"
    return f"the run to reproduce has no metric {name!r}; {there}"
