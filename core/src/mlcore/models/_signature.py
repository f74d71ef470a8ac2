"""Signatures: what goes into a model, what comes out, and which parameters it takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import attrs

from mlcore.errors import InvalidValue
from mlcore.models import _schema as schema

__all__ = ["Signature", "infer_signature"]

_NAMES = (*schema.SCALARS, "any", "sparkml_vector")
_PARAMS = {*schema.SCALARS, "object"} - {"binary"}


def _type(spec: Mapping[str, Any]) -> schema.Type:
    """Return a type with nothing in it that MLflow would not read. Raises `InvalidValue`."""
    match dict(spec):
        case {"type": "array", "items": items}:
            return {"type": "array", "items": _type(items)}
        case {"type": "map", "values": values}:
            return {"type": "map", "values": _type(values)}
        case {"type": "object", "properties": dict(inner)} if inner:
            properties = {name: _type(inner[name]) | _need(inner[name]) for name in sorted(inner)}
            return {"type": "object", "properties": properties}
        case {"type": "tensor", "tensor-spec": {"dtype": str(dtype), "shape": shape}}:
            return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [*map(int, shape)]}}
        case {"type": str(name)} if name in _NAMES:
            return {"type": name}
    raise InvalidValue(f"{spec!r:.80} is no type: these are {', '.join(_NAMES)}, array, map, object and tensor")


def _need(spec: Mapping[str, Any]) -> dict[str, bool]:
    return {} if spec["type"] == "tensor" else {"required": bool(spec.get("required", True))}


def _fields(given: Iterable[Mapping[str, Any]] | None) -> schema.Fields | None:
    if given is None:
        return None
    given = list(given)
    names = [each["name"] for each in given if each.get("name") is not None]
    if names and not (len(names) == len({*names}) == len(given) and all(isinstance(name, str | int) for name in names)):
        raise InvalidValue(f"either all columns have a name, a text or number of its own, or none has: {names}")
    found = tuple(_type(each) | ({"name": each["name"]} if names else {}) | _need(each) for each in given)
    if len({"tensor-spec" in each for each in found}) != 1:
        raise InvalidValue("a schema is made of columns or of tensors, not of both nor of nothing")
    if not names and not all(each.get("required", len(found) == 1) for each in found):
        raise InvalidValue("optional columns and several tensors need names")
    return found


def _params(given: Iterable[Mapping[str, Any]]) -> schema.Fields:
    found = []
    for each in given:
        name, shape = each["name"], None if each.get("shape") is None else list(each["shape"])
        kind = _type({"type": each.get("dtype"), **each})  # old MLflow says dtype
        if kind["type"] not in _PARAMS or shape not in (None, [-1]) or (shape and "properties" in kind):
            raise InvalidValue(f"parameter {name!r} is no text, number, boolean, date, list of these, or object")
        default = json.loads(json.dumps(each["default"], default=lambda value: value.isoformat()))
        found.append({"name": str(name), "default": default, "shape": shape, **kind})
    return tuple(found)


@attrs.frozen
class Signature:
    """What a model takes and gives, in the words of the MLmodel file; None where nobody knows. Print it for a table.

    A column is ``{"name": "age", "type": "long", "required": True}``, a tensor ``{"type": "tensor", "tensor-spec":
    {"dtype": "float32", "shape": [-1, 3]}}``, a parameter ``{"name": "top", "type": "long", "default": 5}``, or a list
    of such with ``"shape": [-1]``. Names may be left out, ``required`` too. Raises `InvalidValue` for anything else.
    """

    inputs: schema.Fields | None = attrs.field(default=None, converter=_fields)
    outputs: schema.Fields | None = attrs.field(default=None, converter=_fields)
    params: schema.Fields = attrs.field(default=(), converter=_params)

    @classmethod
    def from_mlmodel(cls, content: Mapping[str, Any]) -> Signature:
        """Return the signature that stands in an MLmodel file, whoever wrote it.

        Raises `ValueError` (of which `InvalidValue` is one), `TypeError`, `AttributeError`, `LookupError`, or
        `RecursionError` for types that are nested too deeply.
        """
        return cls(**{key: json.loads(content[key]) for key in ("inputs", "outputs", "params") if content.get(key)})

    def to_mlmodel(self) -> dict[str, str | None] | None:
        """Return what stands in an MLmodel file: None if inputs or outputs are not known, since readers need both."""
        if self.inputs is None or self.outputs is None:
            return None
        return {key: json.dumps(value) if value else None for key, value in attrs.asdict(self, recurse=False).items()}

    def enforce(self, data: Any, *, frame: bool = True) -> Any:
        """Return `data` as the model takes them, cast only where no value changes. Raises `SchemaMismatch`.

        With named columns that is a pandas frame (of polars a polars one), made from whatever holds them: lists, dicts,
        records, arrays as wide as the columns are many, or the body of a scoring request; with ``frame=False`` dicts
        and lists stay what they are. Columns come in the signature's order, others are left out.
        """
        return data if self.inputs is None else schema.fit(self.inputs, data, frame)

    def enforce_params(self, params: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return `params` of the right types, and the defaults of all others. Raises `SchemaMismatch`."""
        known = {each["name"]: each for each in self.params}
        there = ", ".join(known) or "none"
        problems = [f"parameter {name!r} is unknown: there is {there}" for name in params or () if name not in known]
        found = {name: deepcopy(each["default"]) for name, each in known.items()} | dict(params or {})
        for name, each in known.items():
            with schema.noted(problems, f"parameter {name!r}"):
                found[name] = None if found[name] is None else schema.fit_value(found[name], _whole(each))
        schema.refuse(problems, "parameters")
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for title, fields in attrs.asdict(self, recurse=False).items():
            rows = [(str(each.get("name", "-")), schema.text(_whole(each)), _rest(each)) for each in fields or ()]
            widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
            yield from [title] if rows else []
            for row in rows:
                yield "  " + "  ".join(map(str.ljust, row, widths)).rstrip()


def _whole(param: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "array", "items": param} if param.get("shape") else param


def _rest(each: Mapping[str, Any]) -> str:
    return f"default {each['default']!r}" if "default" in each else "" if each.get("required", True) else "optional"


# Found from what goes in and what comes out


def infer_signature(input: Any, output: Any = None, params: Mapping[str, Any] | None = None) -> Signature:  # noqa: A002
    """Return the signature of a model that takes `input` and `params`, and gave `output`, as MLflow infers it.

    Frames, series, dicts and lists of dicts become columns; arrays, dicts of arrays and sparse matrices tensors, with
    -1 as their first length; a list of anything else, or one value, is a column without a name. What has no type in a
    signature is any. The values of `params` are the defaults. Raises `InvalidValue` for labels and parameters that
    have no place in it.
    """
    inputs, outputs = (None if each is None else _found(each) for each in (input, output))
    return Signature(inputs, outputs, [_default(str(name), value) for name, value in (params or {}).items()])


def _found(data: Any) -> list[dict[str, Any]]:
    match schema.form_of(data):
        case "frame":
            return [_column(data.iloc[:, place], label) for place, label in enumerate(data.columns)]
        case "series":
            return [_column(data, data.name)]
        case "polars":
            columns = data.to_dict(as_series=False).items()
            return [{**schema.type_of_all(each), "name": name, "required": None not in each} for name, each in columns]
        case "array" | "sparse":
            return [_tensor(data)]
        case "map" if data and all(schema.form_of(each) == "array" for each in data.values()):
            return [{"name": name, **_tensor(each)} for name, each in data.items()]
        case "map" | "list" as form:
            rows = [data] if form == "map" else data
            kind = schema.type_of_all(rows)
            if kind["type"] != "object" or not all(isinstance(row, Mapping) for row in rows):
                return [kind]
            names = dict.fromkeys(name for row in rows for name in row)
            return [{**kind["properties"][name], "name": name} for name in names]
    return [schema.type_of(data)]


def _column(values: Any, name: Any) -> dict[str, Any]:
    missing, values = values.isna(), values.infer_objects()
    kind = schema.type_of_dtype(values.dtype) or schema.type_of_all(values[~missing])
    return {**kind, "name": name, "required": name is None or not missing.any()}


def _tensor(data: Any) -> dict[str, Any]:
    if schema.form_of(data) == "array":
        import numpy

        data = numpy.asarray(data)
    dtype = {"U": "str", "T": "str", "S": "bytes"}.get(data.dtype.kind, data.dtype.name)  # without these values' width
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *data.shape[1:]][: data.ndim]}}


def _default(name: str, value: Any) -> dict[str, Any]:
    kind, default = schema.type_of(value), value.tolist() if hasattr(value, "tolist") else value
    inner = kind.get("items", kind)
    if inner["type"] == "any":
        raise InvalidValue(f"parameter {name!r}: {value!r:.80} has no type that a signature could name")
    return {"name": name, "default": default, "shape": None if inner is kind else [-1], **inner}
