"""Follow the metrics of a run while it goes on."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from mlcore import Client, Run

__all__ = ["Point", "Points"]


@attrs.frozen
class Point:
    """One value of a metric, its time in ms since 1970."""

    key: str
    step: int
    time: int
    value: float


class Points:
    """Remember which points of a run were seen, of all its metrics or of those in `only`."""

    def __init__(self, client: Client, run: Run, only: Sequence[str] = ()) -> None:
        self._client, self._run, self._only = client, run, only
        self._seen: dict[str, tuple[int, int, int]] = {}  # how many, and step and time of the last of them

    def fresh(self) -> list[Point]:
        """Return the points that came since the last time, in order of step.

        What came with a step before those that were known, or after a rewind, is told from them by its time.
        """
        entity = self._client.store.get("run", [self._run.id])[0]
        found = []
        for (key, context), summary in entity.metrics.items() if entity else ():
            now = (summary.count, summary.step, summary.time)
            if not context and (not self._only or key in self._only) and self._seen.get(key) != now:
                found += self._after(key)
        return sorted(found, key=lambda point: (point.step, point.time))

    def _after(self, key: str) -> list[Point]:
        series = self._run.series(key)
        count, step, time = self._seen.get(key, (0, 0, 0))
        points = [
            Point(key, *each) for each in zip(*map(_plain, (series.steps, series.times, series.values)), strict=True)
        ]
        self._seen[key] = (len(points), points[-1].step, points[-1].time)
        if count and (count > len(points) or (points[count - 1].step, points[count - 1].time) != (step, time)):
            return [point for point in points if point.time > time]
        return points[count:]


def _plain(column: Sequence[float]) -> list[float]:
    """Return the numbers of a column, which may be numpy's, as Python's."""
    return column.tolist() if hasattr(column, "tolist") else [*column]
