"""Build what a journal would send: numbered, stamped, chained records."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from mlcore.store import AttributesSet, Batch, Created, Event, Record, RowsLogged, digest


def new_id() -> str:
    """Return 32 fresh hex digits, for a source or a run."""
    return uuid.uuid4().hex


class Writer:
    """Number, stamp and chain records as one journal does; every batch stays available for `cut`."""

    def __init__(self, home: str = "", *, source: str | None = None) -> None:
        self.home = home
        self.source = source or new_id()
        self.records: list[Record] = []

    def batch(self, *events: Event, stamp: int | None = None, claim: str | None = None) -> Batch:
        """Add one record of these events and return it as a batch."""
        last = self.records[-1].stamp if self.records else 0
        now = max(last + 1, time.time_ns()) if stamp is None else stamp
        self.records.append(Record(len(self.records) + 1, now, events))
        return self.cut(len(self.records), claim=claim)

    def cut(self, first: int, last: int | None = None, *, claim: str | None = None) -> Batch:
        """Return the records from number `first` to `last` (the end if None) as a batch."""
        stop = len(self.records) if last is None else last
        previous = digest(self.records[: first - 1])
        return Batch(self.source, self.home, tuple(self.records[first - 1 : stop]), previous, claim)

    def life_sign(self) -> Batch:
        """Return an empty batch: a sign of life."""
        return Batch(self.source, self.home)


def points(
    run: str,
    key: str,
    values: Sequence[float],
    *,
    steps: Sequence[int] | None = None,
    times: Sequence[int] | None = None,
    context: str = "",
) -> RowsLogged:
    """Return one event with points of a metric; steps count from 0, times (ms) are 1000 times the step."""
    steps = range(len(values)) if steps is None else steps
    times = [1000 * step for step in steps] if times is None else times
    columns: dict[str, Sequence[Any]] = {"step": list(steps), "time": list(times), "value": list(values)}
    return RowsLogged("run", run, key, columns, context)


def run_events(
    run: str,
    *,
    parent: str = "",
    fields: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Event, ...]:
    """Return the events that make a run with these fields, params, tags and metrics."""
    events: list[Event] = [Created("run", run, parent, fields or {})]
    if params:
        events.append(AttributesSet("run", run, "params", params, once=True))
    if tags:
        events.append(AttributesSet("run", run, "tags", tags))
    events += [points(run, key, values) for key, values in (metrics or {}).items()]
    return tuple(events)


def run_batch(run: str | None = None, *, stamp: int | None = None, claim: str | None = None, **made: Any) -> Batch:
    """Return a whole run as one batch of one record by a new source; `made` goes to `run_events`."""
    run = run or new_id()
    return Writer(run).batch(*run_events(run, **made), stamp=stamp, claim=claim)
