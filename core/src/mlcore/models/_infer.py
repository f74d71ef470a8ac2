"""The signature of a model, found from what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlcore.errors import InvalidValue
from mlcore.models._signature import Signature
from mlcore.models._types import form_of, type_of, type_of_all, type_of_dtype

__all__ = ["infer_signature"]


def infer_signature(input: Any, output: Any = None, params: Mapping[str, Any] | None = None) -> Signature:  # noqa: A002
    """Return the signature of a model that takes `input` and `params`, and gave `output`, as MLflow infers it.

    Frames, series, dicts and lists of dicts become columns; arrays, dicts of arrays and sparse matrices tensors, with
    -1 as their first length; a list of anything else, or one value, is a column without a name. What has no type in a
    signature is any. The values of `params` are the defaults. Raises `InvalidValue` for labels and parameters that
    have no place in it.
    """
    inputs, outputs = (None if each is None else _fields(each) for each in (input, output))
    return Signature(inputs, outputs, [_param(str(name), value) for name, value in (params or {}).items()])


def _fields(data: Any) -> list[dict[str, Any]]:
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


def _column(values: Any, name: Any) -> dict[str, Any]:
    missing, values = values.isna(), values.infer_objects()
    kind = type_of_dtype(values.dtype) or type_of_all(values[~missing])
    return {**kind, "name": name, "required": name is None or not missing.any()}


def _tensor(data: Any) -> dict[str, Any]:
    if form_of(data) == "array":
        import numpy

        data = numpy.asarray(data)
    dtype = {"U": "str", "T": "str", "S": "bytes"}.get(data.dtype.kind, data.dtype.name)  # without these values' width
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *data.shape[1:]][: data.ndim]}}


def _param(name: str, value: Any) -> dict[str, Any]:
    kind, default = type_of(value), value.tolist() if hasattr(value, "tolist") else value
    inner = kind.get("items", kind)
    if inner["type"] == "any":
        raise InvalidValue(f"parameter {name!r}: {value!r:.80} has no type that a signature could name")
    return {"name": name, "default": default, "shape": None if inner is kind else [-1], **inner}
