"""Say of a column what can be said in a few numbers, and of text none of it, as it may be about people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlcore_local.datasets.columns import Column
from mlcore_local.datasets.digests import Digested

__all__ = ["PROFILED", "profile_of"]

PROFILED = 500  # columns; of more a profile has digests alone
_LISTED = 2_000  # columns that a profile names at all
_FEW = 10  # values that are counted each


def profile_of(columns: Sequence[Column], found: Digested, *, text: bool = False) -> dict[str, Any]:
    """Return the profile of a table: of its rows under ``*``, and of each column, in order, by its name.

    Values of text are counted only if `text` says so.
    """
    whole: dict[str, Any] = {"rows": found.rows, "block": found.block, "digests": "".join(found.blocks)}
    if found.sampled < found.rows:
        whole["sampled"] = found.sampled
    if len(columns) > _LISTED:
        whole["columns left out"] = len(columns) - _LISTED
    profile, named = {"*": whole}, dict.fromkeys(["*"], 1)
    for at, column in enumerate(columns[:_LISTED]):
        named[column.name] = count = named.get(column.name, 0) + 1
        about = {"at": at, "type": column.type, "digest": found.columns[at][:16], "missing": found.missing[at]}
        if at < PROFILED and found.samples[at]:
            about |= _summed(column.type, found.samples[at], text=text)
        profile[column.name if count == 1 else f"{column.name}#{count}"] = about
    return profile


def _summed(kind: str, samples: Sequence[Any], *, text: bool) -> Mapping[str, Any]:
    if hasattr(samples[0], "dtype"):
        values = np.concatenate([each.reshape(-1) for each in samples])
        return _numbers(kind, values) if len(values) else {}
    found = [each for part in samples for each in (part.to_pylist() if hasattr(part, "to_pylist") else part)]
    if not found:
        return {}
    lengths = [len(each) for each in found]
    told: dict[str, Any] = {"shortest": min(lengths), "longest": max(lengths)}
    if text and len(set(found)) <= _FEW:
        told["values"] = _counted(found)
    return told


def _numbers(kind: str, values: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if values.dtype.kind == "b":
        return {"values": {"false": int((~values).sum()), "true": int(values.sum())}}
    if kind.startswith(("timestamp", "duration", "date")):
        return _times(kind, values)
    if values.dtype.kind == "c":
        return {}
    finite = values[np.isfinite(values)]
    if len(finite) < len(values):
        told["infinite"] = len(values) - len(finite)
    if len(finite):
        with np.errstate(all="ignore"):  # of values near the largest the mean may be infinite
            wide = finite.astype(np.float64)
            told |= {"min": finite.min().item(), "max": finite.max().item()}
            told |= {"mean": _rounded(wide.mean()), "std": _rounded(wide.std())}
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW < len(values):
        told["values"] = {str(each.item()): int(count) for each, count in zip(distinct, counts, strict=True)}
    return told


def _times(kind: str, values: Any) -> dict[str, Any]:
    if kind == "date":
        return {"min": str(values.min().astype("M8[D]")), "max": str(values.max().astype("M8[D]"))}
    unit = kind.partition("[")[2].rstrip("]").partition(",")[0]
    of = "M8" if kind.startswith("timestamp") else "m8"
    plain = values.astype(np.int64).view(f"{of}[{unit}]")
    return {"min": str(plain.min()), "max": str(plain.max())}


def _counted(values: Sequence[str]) -> dict[str, int]:
    return {each: values.count(each) for each in sorted(set(values))}


def _rounded(value: Any) -> float:
    return float(f"{float(value):.12g}")
