"""What is asked of a store about runs and experiments: who only logs never loads it."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from typing import Any

from mlcore import store
from mlcore.query import RUN, Named
from mlcore.store import Compare, Entity, Not, Or, Term, Where
from mlcore.tracking._backend import Backend, status_of
from mlcore.tracking._thing import everything

_ID, _PARENT, _NAME, _STATUS = Term("", "id"), Term("", "parent"), Term("fields", "name"), Term("fields", "status")


def run_names(backend: Backend) -> dict[str, Named]:
    """Return what names of runs stand for, with those for which the whole store has to be asked."""
    return {
        **RUN,
        "status": Named((_STATUS,), "text", partial(_status, backend)),
        "experiment": Named((_PARENT,), "text", partial(_experiment, backend)),
        "metrics.": Named((), "number", partial(_at_step, backend)),
    }


def _among(backend: Backend, kind: str, where: Where) -> tuple[Entity, ...]:
    return backend.store().find(kind, store.Query(store.And((where, everything())), select=(_STATUS,))).items


def _fits(value: Any, op: str, other: Any) -> bool:
    return store.holds(Compare(_STATUS, op, other), Entity("run", "", fields={"status": value}))


def _status(backend: Backend, op: str, value: Any) -> Where:
    """Decide now which runs are LOST, as no store keeps that."""
    running = _among(backend, "run", Compare(_STATUS, "=", "RUNNING"))
    lost = Compare(_ID, "in", tuple(each.id for each in running if status_of(each) == "LOST"))
    kept = store.And((Compare(_STATUS, op, value), Not(lost)))
    return Or((kept, lost)) if _fits("LOST", op, value) else kept


def _experiment(backend: Backend, op: str, value: Any) -> Where:
    found = _among(backend, "experiment", Compare(_NAME, op, value))
    return Compare(_PARENT, "in", tuple(each.id for each in found))


def _at_step(backend: Backend, key: str, step: int, op: str, value: Any) -> Where:
    """Read the series of a metric: summaries do not know its value at a step."""
    ids = [each.id for each in _among(backend, "run", Not(Compare(Term("metrics", key), "is null")))]
    values = {}
    for (id, _, _), columns in backend.store().series("run", ids, [key], context="").items():
        end = bisect_right(columns["step"], step)
        if end and columns["step"][end - 1] == step:
            values[id] = columns["value"][end - 1]
    there = Compare(_ID, "in", tuple(id for id, each in values.items() if op == "is null" or _fits(each, op, value)))
    return Not(there) if op == "is null" else there
