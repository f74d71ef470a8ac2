"""The types that data have, as the MLmodel file writes them; no library is imported to find out.

A type is a dict: ``{"type": "long"}``, ``{"type": "array", "items": {...}}``, ``{"type": "map", "values": {...}}``, or
``{"type": "object", "properties": {"name": {..., "required": True}}}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from functools import reduce
from math import isnan
from typing import Any

__all__: list[str] = []

Type = dict[str, Any]

ANY: Type = {"type": "any"}
MISSING: Type = {"type": "any", "missing": True}  # of None, beside which anything may stand
SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
_FORMS = {
    "pandas.DataFrame": "frame",
    "pandas.Series": "series",
    "polars.DataFrame": "polars",
    "numpy.ndarray": "array",
}
_PLAIN = {bool: "boolean", float: "double", str: "string", bytes: "binary", bytearray: "binary", date: "datetime"}
_DTYPES = {"b": "boolean", "U": "string", "T": "string", "S": "binary", "M": "datetime"}
_WIDTHS = {"i": ("integer", "long"), "u": ("integer", "long"), "f": ("float", "double")}


def form_of(data: Any) -> str:
    """Say what holds the data: frame, series, polars, sparse, array, map or list; value is anything else."""
    for base in type(data).__mro__:
        if found := _FORMS.get(f"{base.__module__.partition('.')[0]}.{base.__name__}"):
            return found
        if base.__module__.startswith("scipy.sparse"):
            return "sparse"
    if hasattr(data, "__array__") and getattr(data, "ndim", None):  # torch, jax and others
        return "array"
    return "map" if isinstance(data, Mapping) else "list" if isinstance(data, list | tuple) else "value"


def is_missing(value: Any) -> bool:
    """Say whether a value is None, NaN, or pandas' word for it."""
    return type(value).__name__ in ("NoneType", "NAType", "NaTType") or (isinstance(value, float) and isnan(value))


def type_of(value: Any) -> Type:
    """Return the type of one value: any if it is missing, or of a kind that signatures have no name for."""
    if hasattr(value, "dtype") and (kind := type_of_dtype(value.dtype)):
        return reduce(lambda inner, _: {"type": "array", "items": inner}, getattr(value, "shape", ()), kind)
    if isinstance(value, list | tuple) or (hasattr(value, "dtype") and hasattr(value, "__iter__")):
        return {"type": "array", "items": type_of_all(value)}
    if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
        kinds = {key: type_of(value[key]) for key in sorted(value)}
        return {
            "type": "object",
            "properties": {key: {**kind, "required": "missing" not in kind} for key, kind in kinds.items()},
        }
    if isinstance(value, int) and not isinstance(value, bool):
        return {"type": "long"} if -(2**63) <= value < 2**63 else ANY
    if is_missing(value):
        return MISSING
    return next(({"type": name} for base, name in _PLAIN.items() if isinstance(value, base)), ANY)


def type_of_all(values: Iterable[Any]) -> Type:
    """Return the type that all values have."""
    return reduce(_merged, map(type_of, values), MISSING)


def type_of_dtype(dtype: Any) -> Type | None:
    """Return the type of what a NumPy or pandas dtype holds, None if only the values tell."""
    if dtype.kind in _WIDTHS:
        bits = dtype.itemsize * 8 + (dtype.kind == "u")  # 32 unsigned bits need 33
        narrow, wide = _WIDTHS[dtype.kind]
        return {"type": narrow if bits <= 32 else wide if bits <= 64 else "any"}
    if dtype.kind == "O" and not str(dtype).startswith("str"):
        return None
    return {"type": "string" if dtype.kind == "O" else _DTYPES.get(dtype.kind, "any")}


def _merged(one: Type, other: Type) -> Type:
    match one, other:
        case {"missing": True}, _:
            return other
        case _, {"missing": True}:
            return one
        case {"type": "array", "items": mine}, {"type": "array", "items": its}:
            return {"type": "array", "items": _merged(mine, its)}
        case {"type": "object", "properties": mine}, {"type": "object", "properties": its}:
            both = {name: _merged(mine.get(name, MISSING), its.get(name, MISSING)) for name in sorted({**mine, **its})}
            needed = {name for name in mine.keys() & its if mine[name]["required"] and its[name]["required"]}
            return {"type": "object", "properties": {name: {**both[name], "required": name in needed} for name in both}}
    kinds = {one["type"], other["type"]}
    if len(kinds) == 2 and kinds <= {"integer", "long", "float", "double"}:
        return {"type": "long" if kinds == {"integer", "long"} else "double"}
    return one if len(kinds) == 1 else ANY


def text(kind: Mapping[str, Any]) -> str:
    """Return a type in few words, such as list of string."""
    match kind:
        case {"type": "array", "items": items}:
            return f"list of {text(items)}"
        case {"type": "map", "values": values}:
            return f"map to {text(values)}"
        case {"type": "object", "properties": inner}:
            each = (f"{name}{'' if spec['required'] else '?'}: {text(spec)}" for name, spec in inner.items())
            return "{" + ", ".join(each) + "}"
        case {"tensor-spec": {"dtype": dtype, "shape": shape}}:
            return f"{dtype} {tuple(shape)}"
    return str(kind["type"])


def schema_of(data: Any) -> list[dict[str, Any]]:
    """Return the columns or tensors that data have, as MLflow infers them; what it cannot name is any, one by one."""
    match form_of(data):
        case "frame":
            return [_column(data.iloc[:, place], label) for place, label in enumerate(data.columns)]
        case "series":
            return [_column(data, data.name)]
        case "polars":
            columns = data.to_dict(as_series=False).items()
            return [{**type_of_all(each), "name": name, "required": None not in each} for name, each in columns]
        case "array" | "sparse":
            return [_tensor(data)]
        case "map" if data and all(form_of(each) == "array" for each in data.values()):
            return [{"name": name, **_tensor(each)} for name, each in data.items()]
        case "map" | "list" as form:
            rows = [data] if form == "map" else data
            kind = type_of_all(rows)
            if kind["type"] != "object" or not all(isinstance(row, Mapping) for row in rows):
                return [kind]
            names = dict.fromkeys(name for row in rows for name in row)
            return [{**kind["properties"][name], "name": name} for name in names]
    return [type_of(data)]


def _column(values: Any, name: str | int | None) -> dict[str, Any]:
    missing = values.isna()
    kind = type_of_dtype(values.dtype) or type_of_all(values[~missing])
    return {**kind, "name": name, "required": name is None or not missing.any()}


def _tensor(data: Any) -> dict[str, Any]:
    if form_of(data) != "sparse":
        import numpy

        data = numpy.asarray(data)
    # Texts and bytes without their width, which belongs to these values.
    dtype = {"U": "str", "T": "str", "S": "bytes"}.get(data.dtype.kind, data.dtype.name)
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *data.shape[1:]] if data.shape else []}}
