"""Signatures: what goes into a model, what comes out, and which parameters it takes; and input examples that show it.

Examples are files beside the model, in MLflow's forms.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs

from mlcore.errors import InvalidValue, NotAModel, NotInstalled, UnsafePath
from mlcore.models import _schema as schema

__all__ = ["Signature", "infer_signature", "load_example", "save_example"]

_log = logging.getLogger("mlcore")

_NAMES = (*schema.SCALARS, "any", "sparkml_vector")
_PARAMS = {*schema.SCALARS, "object"} - {"binary"}
_ROWS = 5
_LARGEST = 20_000_000  # characters: five colour images of 224 x 224 fit, a data set does not
_CHAT = {"messages", "prompt", "input"}  # a dict with one of these is what MLflow's server takes as it is


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
            what = f"parameter {name!r}, {each.get('default')!r:.80},"
            raise InvalidValue(f"{what} is no text, number, boolean, date, list of these, or object")
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

        Raises `ValueError` (of which `InvalidValue` is one), `TypeError`, `AttributeError` or `LookupError`.
        """
        try:
            return cls(**{key: json.loads(content[key]) for key in ("inputs", "outputs", "params") if content.get(key)})
        except RecursionError:
            raise InvalidValue("the types of the signature are nested too deeply") from None

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
        lines: list[str] = []
        for title, fields in attrs.asdict(self, recurse=False).items():
            rows = [(str(each.get("name", "-")), schema.text(_whole(each)), _rest(each)) for each in fields or ()]
            widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
            lines += [title] if rows else []
            lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


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
    data = schema.array_of(data) if schema.form_of(data) == "array" else data
    dtype = {"U": "str", "T": "str", "S": "bytes"}.get(data.dtype.kind, data.dtype.name)  # without these values' width
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *data.shape[1:]][: data.ndim]}}


def _default(name: str, value: Any) -> dict[str, Any]:
    kind, default = schema.type_of(value), value.tolist() if hasattr(value, "tolist") else value
    inner = kind.get("items", kind)
    return {"name": name, "default": default, "shape": None if inner is kind else [-1], **inner}


# Input examples


def save_example(folder: Path, example: Any, params: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Write ``input_example.json`` and ``serving_input_example.json``; return what the MLmodel file says of them.

    Of frames and arrays the first five rows are kept. What JSON has no place for, or is larger than 20 MB, is left out
    with a warning, and nothing returned: a model is worth more than its example.
    """
    if schema.form_of(example) in ("frame", "series", "polars", "array", "sparse") and (*example.shape, 0)[0] > _ROWS:
        _log.info("of the input example the first %d of %d rows are kept", _ROWS, example.shape[0])
        example = (example.tocsr() if schema.form_of(example) == "sparse" else example)[:_ROWS]
    try:
        info, content, request = _encoded(example)
        if params:
            given = {"params": _plain(params)}
            request = request | (given["params"] if request is content else given)
            content, info["params"] = {"inputs": content, **given}, "true"
        files = {"input_example.json": json.dumps(content), "serving_input_example.json": json.dumps(request)}
        if (size := max(map(len, files.values()))) > _LARGEST:
            raise ValueError(f"it has {size:,} characters as JSON, where a few rows would do")
    except ValueError as error:
        _log.warning("the model is saved without its input example: %s", error)
        return {}
    for name, written in files.items():
        (folder / name).write_text(written, encoding="utf-8")
    return {**dict(zip(("artifact_path", "serving_input_path"), files, strict=True)), **info}


def _encoded(example: Any) -> tuple[dict[str, str], Any, Any]:
    """Return what the MLmodel file says of an example, its content, and the body of a request that sends it."""
    form = schema.form_of(example)
    if form in ("frame", "series", "polars"):
        frame = example.to_frame() if form == "series" else example
        rows = frame.rows() if form == "polars" else frame.itertuples(index=False, name=None)
        labels, split = list(frame.columns), {"data": _plain([*rows])}
        if labels == [*range(len(labels))]:  # pandas' own, which every reader makes anew
            return {"type": "dataframe", "pandas_orient": "values"}, split, {"dataframe_split": split}
        split = {"columns": labels, **split}
        return {"type": "dataframe", "pandas_orient": "split"}, split, {"dataframe_split": split}
    if form == "sparse":
        matrix = example if example.format == "csc" else example.tocsr()
        content = {name: _plain(getattr(matrix, name)) for name in ("data", "indices", "indptr", "shape")}
        return {"type": f"sparse_matrix_{matrix.format}"}, content, {"inputs": _plain(matrix.toarray())}
    content = _plain(example)
    if form == "map" and _CHAT & {*example}:
        return {"type": "json_object"}, content, content
    arrays = {schema.form_of(each) for each in (example.values() if form == "map" else [example])} == {"array"}
    return {"type": "ndarray" if arrays else "json_object"}, content, {"inputs": content}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN and None as null, bytes as base64. Raises `ValueError` if it has no place."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        value = schema.array_of(value) if schema.form_of(value) == "array" else value
        value = (value.astype("datetime64[us]") if value.dtype.kind == "M" else value).tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if schema.is_missing(value) or isinstance(value, str | int | float):
        return None if schema.is_missing(value) else value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise ValueError(f"JSON has no place for a {type(value).__qualname__}")


Example = tuple[Any, dict[str, Any] | None]


def load_example(folder: Path, info: Mapping[str, Any], signature: Signature | None = None) -> Example:
    """Return the example that a model was saved with, and its parameters: None if there are none.

    JSON knows neither widths nor dates: with the model's signature they are what they were. Raises `NotAModel` if
    there is no such file, or it cannot be read, and `NotInstalled` without the library it was of.
    """
    path = folder / str(info.get("artifact_path"))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafePath(f"the input example {info['artifact_path']!r} leads out of {folder}")
    try:
        content, params = json.loads(path.read_bytes()), None
        if info.get("params"):
            content, params = content["inputs"], content["params"]
        data = _decoded(content["inputs"] if info.get("format") == "tf-serving" else content, info["type"])
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotAModel(f"the input example {path} cannot be read: {error}") from error
    except ImportError as error:
        raise NotInstalled(f"the input example {path} needs {error.name}: pip install {error.name}") from error
    return data if signature is None else signature.enforce(data, frame=info["type"] == "dataframe"), params


def _decoded(content: Any, kind: str) -> Any:
    if kind == "dataframe":
        import pandas

        split = {"data": content} if isinstance(content, list) else content  # records, of old MLflow
        return pandas.DataFrame(split["data"], columns=split.get("columns"))
    if kind == "ndarray":
        import numpy

        if isinstance(content, dict):
            return {name: _decoded(each, kind) for name, each in content.items()}
        array = numpy.array(content)
        return array.astype(float) if array.dtype == object else array
    if kind != "json_object":
        import scipy.sparse

        made = {"sparse_matrix_csc": scipy.sparse.csc_matrix, "sparse_matrix_csr": scipy.sparse.csr_matrix}[kind]
        matrix = made((content["data"], content["indices"], content["indptr"]), shape=content["shape"])
        matrix.check_format()  # an index beyond the shape would have others read beyond the memory
        return matrix
    return content
