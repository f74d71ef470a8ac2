"""Compare two runs: what code, packages, parameters and data they had, and what came out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import attrs

import mlcore
from mlcore import Client, Run
from mlcore.store import same
from mlcore_local.comparing_code import code_changes
from mlcore_local.comparing_data import data_changes
from mlcore_local.comparing_models import model_changes
from mlcore_local.differences import PARTS, Change, Differences, changes

__all__ = ["PARTS", "Change", "Differences", "compare"]

_ENVIRONMENT = ("python.version", "python.implementation", "host.machine", "host.gpus")
_COMMAND = ("command.kind", "command.entry", "command.arguments", "project.entry_point")


def compare(
    first: Run,
    second: Run,
    *,
    tolerance: float = 0.0,
    within: Mapping[str, float] | None = None,
    ignore: Iterable[str] = (),
    client: Client | None = None,
    other: Client | None = None,
) -> Differences:
    """Return what differs between two runs.

    The latest values of metrics are compared, and are alike if they differ by `tolerance` times the larger at most, or
    by what `within` allows a metric, absolutely. What fits a pattern of `ignore`, such as ``metrics.seconds*``, is left
    out. `client` and `other` are those of the stores that the first and the second run are in, by default the one that
    ``mlcore.client()`` returns for both.
    """
    client = client or mlcore.client()
    found, unknown = dict[str, Iterable[Change]](), list[str]()
    found["code"] = code_changes(first, second, unknown)
    found["environment"] = _environment(first, second)
    found["packages"] = _packages(first, second, client, other or client, unknown)
    found["params"] = list(changes(first.params, second.params))
    found["command"] = _command(first, second, found["params"])
    found["data"] = data_changes(first.datasets, second.datasets)
    found["models"] = model_changes(first, second)
    found["metrics"] = _metrics(first, second, tolerance, within or {})
    patterns = tuple(ignore)
    kept = {
        part: tuple(each for each in of if not any(fnmatchcase(f"{part}.{each.name}", it) for it in patterns))
        for part, of in found.items()
    }
    return Differences(first.id, second.id, **kept, unknown=tuple(unknown))


def _environment(first: Run, second: Run) -> Iterator[Change]:
    """Yield what differs of Python and the machine, and the seeds that frameworks showed."""
    old, new = (
        {name: value for name, value in run.context.items() if name in _ENVIRONMENT or name.startswith("seeds.")}
        | {"host.system": str(run.context.get("host.system", "")).partition(" ")[0]}
        for run in (first, second)
    )
    if old["host.system"] and new["host.system"]:
        yield from changes(old, new)


def _packages(first: Run, second: Run, client: Client, other: Client, unknown: list[str]) -> list[Change]:
    from mlcore_local.packages import packages_of

    digests = [run.context.get("packages.digest") for run in (first, second)]
    if None not in digests and digests[0] == digests[1]:
        return []
    found = [packages_of(of, run) for of, run in ((client, first), (other, second))]
    for run, packages in zip((first, second), found, strict=True):
        if not packages:
            unknown.append(f"packages: run {run.id} did not record them")
    if not all(found):
        return []
    return [_version(each) for each in changes(found[0], found[1])]


def _version(change: Change) -> Change:
    """Return a change of a package with what tells it: the version if that differs, else where it is from."""
    old, new = change.before or {}, change.after or {}
    if change.kind != "changed" or old.get("version") != new.get("version"):
        return attrs.evolve(change, before=old.get("version"), after=new.get("version"))
    names = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    shown = ({name: each[name] for name in names if name in each} for each in (old, new))
    return attrs.evolve(change, before=next(shown), after=next(shown))


def _command(first: Run, second: Run, params: Iterable[Change]) -> Iterator[Change]:
    """Yield what differs of what was called; not arguments that say what a parameter that differs says."""
    old, new = ({name: run.context[name] for name in _COMMAND if name in run.context} for run in (first, second))
    if not old or not new:
        return
    for change in changes(old, new):
        if change.name != "command.arguments" or not _told(change.before or (), change.after or (), params):
            yield change


def _told(before: Sequence[str], after: Sequence[str], params: Iterable[Change]) -> bool:
    """Tell whether arguments differ only in values that parameters have."""
    values = [(each.before, each.after) for each in params if each.kind == "changed"]
    return len(before) == len(after) and all(
        one == other or any(_says(one, old) and _says(other, new) for old, new in values)
        for one, other in zip(before, after, strict=True)
    )


def _says(argument: str, value: Any) -> bool:
    """Tell whether an argument is a value, or gives it to a name."""
    text = argument.rpartition("=")[2]
    with suppress(ValueError, TypeError):
        return text == str(value) or float(text) == value
    return False


def _metrics(first: Run, second: Run, tolerance: float, within: Mapping[str, float]) -> Iterator[Change]:
    for each in changes(first.metrics, second.metrics):
        allowed = within.get(each.name, 0.0)
        if each.kind != "changed" or not _near(each.before, each.after, tolerance, allowed):
            yield each


def _near(one: Any, other: Any, tolerance: float, allowed: float) -> bool:
    return same(one, other) or math.isclose(one, other, rel_tol=tolerance, abs_tol=allowed)
