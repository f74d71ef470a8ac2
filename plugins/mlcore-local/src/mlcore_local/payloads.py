"""Data for a model out of a file, and predictions into one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.errors import InvalidValue, NotInstalled
from mlcore_local.terminal import plain

__all__ = ["dumps", "read_data"]

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
        return _frame(path, data), params
    return data, params


def _frame(path: str, data: Any) -> Any:
    if not isinstance(data, Mapping) or "data" not in data:
        raise InvalidValue(f"{path}: dataframe_split is an object of columns and data, and this has no data")
    try:
        return _pandas().DataFrame(data["data"], columns=data.get("columns"), index=data.get("index"))
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{path}: dataframe_split makes no table: {error}") from error


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise NotInstalled("tables are read with pandas: pip install pandas") from error
    return pandas


def dumps(predictions: Any) -> str:
    """Return predictions as MLflow's scoring servers write them; NaN and infinities are null."""
    return json.dumps({"predictions": plain(predictions, words=False)})
