"""The types that data have, as the MLmodel file writes them; no library is imported to find out.

A type is a dict: ``{"type": "long"}``, ``{"type": "array", "items": {...}}``, ``{"type": "map", "values": {...}}``, or
``{"type": "object", "properties": {"name": {..., "required": True}}}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache, reduce
from math import isnan
from typing import Any

__all__: list[str] = []

Type = dict[str, Any]

ANY: Type = {"type": "any"}
MISSING: Type = {"type": "any", "missing": True}  # of None, beside which anything may stand
SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
_FRAMES = {"pandas.DataFrame": "frame", "pandas.Series": "series", "polars.DataFrame": "polars"}
_FORMS = {**_FRAMES, "numpy.generic": "value"}
_PLAIN = {bool: "boolean", float: "double", str: "string", bytes: "binary", bytearray: "binary", date: "datetime"}
_KINDS = {"b": "boolean", "U": "string", "T": "string", "S": "binary", "M": "datetime"}  # of NumPy's dtypes


def form_of(data: Any) -> str:
    """Say what holds the data: frame, series, polars, sparse, array, map or list; value is anything else."""
    return _form_of(type(data))  # type: ignore[arg-type] # a class is hashable


@lru_cache(1000)
def _form_of(kind: type) -> str:
    names = [f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in kind.__mro__]
    if found := [_FORMS[name] for name in names if name in _FORMS]:
        return found[0]
    if hasattr(kind, "tocsr"):
        return "sparse"
    if hasattr(kind, "__array__"):  # torch, jax and others
        return "array"
    return "map" if issubclass(kind, Mapping) else "list" if issubclass(kind, list | tuple) else "value"


def is_missing(value: Any) -> bool:
    """Say whether a value is None, NaN, or pandas' word for it."""
    return type(value).__name__ in ("NoneType", "NAType", "NaTType") or (isinstance(value, float) and isnan(value))


def type_of(value: Any) -> Type:
    """Return the type of one value: any if it is missing, or of a kind that signatures have no name for."""
    if form_of(value) == "array":
        import numpy

        value = numpy.asarray(value)
    if hasattr(value, "dtype") and (kind := type_of_dtype(value.dtype)):
        return reduce(lambda inner, _: {"type": "array", "items": inner}, value.shape, kind)
    if isinstance(value, list | tuple) or getattr(value, "ndim", None):
        return {"type": "array", "items": type_of_all(value)}
    if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
        kinds = {key: type_of(value[key]) for key in sorted(value)}
        inner = {key: {**kind, "required": "missing" not in kind} for key, kind in kinds.items()}
        return {"type": "object", "properties": inner}
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
    if dtype.kind in "iuf":
        bits = dtype.itemsize * 8 + (dtype.kind == "u")  # 32 unsigned bits need 33
        narrow, wide = ("float", "double") if dtype.kind == "f" else ("integer", "long")
        return {"type": narrow if bits <= 32 else wide if bits <= 64 else "any"}
    if dtype.kind == "O":
        return {"type": "string"} if str(dtype).startswith("str") else None
    return {"type": _KINDS.get(dtype.kind, "any")}


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
    """Return a type in few words, such as array of string."""
    if inner := kind.get("items", kind.get("values")):
        return f"{kind['type']} of {text(inner)}"
    if inner := kind.get("properties"):
        each = [f"{name}{'' if kind['required'] else '?'}: {text(kind)}" for name, kind in inner.items()]
        return f"{{{', '.join(each)}}}"
    if inner := kind.get("tensor-spec"):
        return f"{inner['dtype']} {tuple(inner['shape'])}"
    return str(kind["type"])
