"""Compare the data of two runs: by digest, and of those that differ by what their profiles tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlcore import Dataset
from mlcore_local.differences import Change, changes

__all__ = ["data_changes"]

_PART = 8  # hex digits of the digest of a block of rows
_COLUMNS = 20  # that are told of each data set
_SILENT = {"at", "digest", "values"}


def data_changes(before: Iterable[Dataset], after: Iterable[Dataset]) -> Iterator[Change]:
    """Yield the data that two runs do not have alike, by name and what they were used for.

    The lines of a change tell which columns and rows differ, as far as that was recorded.
    """
    old, new = _by_name(before), _by_name(after)
    for change in changes(old, new, lambda one, other: set(one) == set(other)):
        gone = [each for digest, each in old.get(change.name, {}).items() if digest not in new.get(change.name, {})]
        come = [each for digest, each in new.get(change.name, {}).items() if digest not in old.get(change.name, {})]
        lines = tuple(_told(gone[0], come[0])) if len(gone) == len(come) == 1 else ()
        yield Change(change.name, change.kind, _shown(gone), _shown(come), lines)


def _by_name(datasets: Iterable[Dataset]) -> dict[str, dict[str, Dataset]]:
    found: defaultdict[str, dict[str, Dataset]] = defaultdict(dict)
    for each in datasets:
        found[f"{each.name} ({each.context})" if each.context else each.name][each.digest] = each
    return found


def _shown(datasets: Sequence[Dataset]) -> str | None:
    """Return data by the beginnings of their digests."""
    return ", ".join(each.digest[:12] for each in datasets) or None


def _told(before: Dataset, after: Dataset) -> Iterator[str]:
    old, new = dict(before.profile), dict(after.profile)
    rows = old.pop("*", {}), new.pop("*", {})
    if not old or not new:
        yield "nothing was recorded of what is in it"
        return
    table = bool(rows[0]) and bool(rows[1])
    if table and rows[0].get("rows") != rows[1].get("rows"):
        yield f"rows: {rows[0].get('rows'):,} -> {rows[1].get('rows'):,}"
    what = "column" if table else "file"
    found = list(changes(old, new, lambda one, other: one.get("digest") == other.get("digest")))
    for each in found[:_COLUMNS]:
        if each.kind == "changed":
            yield f"{what} {each.name}{_differing(each.before, each.after)}"
        else:
            yield f"{what} {each.name} {each.kind}"
    if len(found) > _COLUMNS:
        yield f"and {len(found) - _COLUMNS:,} more {what}s"
    if table and list(old) != list(new) and set(old) == set(new):
        yield "the columns are in another order"
    if table and set(old) == set(new) and list(old) == list(new):
        yield from _blocks(*rows)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what a profile has otherwise, nothing of it where all it tells is alike."""
    told = [
        f"{each.name} {_value(each.before)} -> {_value(each.after)}"
        for each in changes(before, after)
        if each.name not in _SILENT
    ]
    return f": {', '.join(told)}" if told else ""


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _blocks(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield between which rows tables of the same columns differ, counted from 0."""
    size = before.get("block")
    if not size or size != after.get("block"):
        return
    old, new = (
        [each["digests"][at : at + _PART] for at in range(0, len(each["digests"]), _PART)] for each in (before, after)
    )
    rows = min(before["rows"], after["rows"])
    differ = [at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one != other and at * size < rows]
    if len(differ) == len(old) > 1:  # which tells nothing
        return
    for start, stop in _spans(differ):
        yield f"rows {start * size:,} to {min(stop * size, rows) - 1:,}: some or all of them differ"


def _spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return consecutive numbers as spans, each with the number after its last."""
    spans = list[tuple[int, int]]()
    for each in numbers:
        if spans and spans[-1][1] == each:
            spans[-1] = spans[-1][0], each + 1
        else:
            spans.append((each, each + 1))
    return spans
