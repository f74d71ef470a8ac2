"""Data for a model out of a file, and predictions into one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.errors import InvalidValue, NotInstalled

__all__ = ["dumps", "plain", "read_data"]

_FRAMES = {"csv": "read_csv", "parquet": "read_parquet"}
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def read_data(path: str, kind: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Return data and parameters from a file, ``-`` for standard input.

    `kind` is ``json``, ``csv`` or ``parquet``, by default what the name ends in. JSON is a list of rows, an object of
    columns, or what MLflow's scoring servers take: an object with ``dataframe_split``, ``dataframe_records``,
    ``instances`` or ``inputs``, and ``params`` beside it. Raises `InvalidValue`.
    """
    kind = kind or Path(path).suffix.removeprefix(".").lower() or "json"
    try:
        if kind in _FRAMES:
            return getattr(_pandas(), _FRAMES[kind])(sys.stdin.buffer if path == "-" else path), {}
        if kind != "json":
            raise InvalidValue(f"{path}: data are json, csv or parquet, not {kind}: say which with --format")
        content = json.loads(sys.stdin.read() if path == "-" else Path(path).read_bytes())
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"{path} cannot be read as {kind}: {error}") from error
    return _parsed(path, content)


def _parsed(path: str, content: Any) -> tuple[Any, dict[str, Any]]:
    forms = [form for form in _FORMS if form in content] if isinstance(content, Mapping) else []
    if not forms:
        return content, {}
    if len(forms) > 1:
        raise InvalidValue(f"{path} has {' and '.join(forms)}: give one of them")
    data, params = content[forms[0]], content.get("params") or {}
    if forms[0] == "dataframe_split":
        return _pandas().DataFrame(data["data"], columns=data.get("columns"), index=data.get("index")), params
    return data, params


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise NotInstalled("tables are read with pandas: pip install pandas") from error
    return pandas


def plain(value: Any) -> Any:
    """Return predictions as what JSON has: arrays as lists, frames as records, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "toarray"):
        return plain(value.toarray())
    if hasattr(value, "to_dict"):
        return plain(value.to_dict("records") if hasattr(value, "columns") else value.tolist())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124 - NaN
        return None
    return value


def dumps(predictions: Any) -> str:
    """Return predictions as MLflow's scoring servers write them."""
    return json.dumps({"predictions": plain(predictions)}, default=str)
