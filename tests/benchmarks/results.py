"""Hold what was measured, judge it by its ratios, and print it as Markdown."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Limit:
    """Say what a budget allows: at most, or at least, so much."""

    most: float | None = None
    least: float | None = None

    def allows(self, value: float) -> bool:
        """Tell whether a value is within the budget."""
        compare, bound = (operator.le, self.most) if self.most is not None else (operator.ge, self.least)
        return bound is None or compare(value, bound)

    def __str__(self) -> str:
        bound = self.least if self.most is None else self.most
        return "" if bound is None else f"{'≥' if self.most is None else '≤'} {bound:g}"


NONE = Limit()


@dataclass(frozen=True)
class Ratios:
    """Hold the ratios of one benchmark, one a round: mlcore to a floor, or a peer to mlcore."""

    what: str
    against: str
    ratios: Sequence[float]
    limit: Limit = NONE
    own: str = ""

    @property
    def missed(self) -> bool:
        """Whether the median is beyond the budget."""
        return not self.limit.allows(median(self.ratios))


@dataclass(frozen=True)
class Number:
    """Hold one number that every run finds alike, such as a count of modules."""

    what: str
    tool: str
    value: float
    limit: Limit = NONE

    @property
    def missed(self) -> bool:
        """Whether it is beyond the budget."""
        return not self.limit.allows(self.value)


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratios of what was measured in the same rounds."""
    return [one / max(other, 1e-9) for one, other in zip(over, under, strict=True)]


def table(rows: Sequence[Ratios | Number]) -> str:
    """Return the results as two Markdown tables."""
    found: list[list[str]] = [["benchmark", "against", "ratio", "least", "most", "budget", "", "mlcore took"]]
    for row in rows:
        if isinstance(row, Ratios):
            ratio = [f"{each:.3g}" for each in (median(row.ratios), min(row.ratios), max(row.ratios))]
            found.append([row.what, row.against, *ratio, str(row.limit), _verdict(row), row.own])
    counted: list[list[str]] = [["number", "of", "value", "budget", ""]]
    numbers = (row for row in rows if isinstance(row, Number))
    counted += ([row.what, row.tool, f"{row.value:.4g}", str(row.limit), _verdict(row)] for row in numbers)
    return "\n\n".join(_markdown(each) for each in (found, counted) if len(each) > 1)


def _verdict(row: Ratios | Number) -> str:
    return "" if row.limit == NONE else "MISSED" if row.missed else "ok"


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)) for row in [rows[0], ["-" * width for width in widths], *rows[1:]]]
    return "\n".join(f"| {line} |" for line in lines)
