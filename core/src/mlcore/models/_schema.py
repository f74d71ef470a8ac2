"""The types that data have, as the MLmodel file writes them, and data cast to them where no value changes by it.

A type is a dict: ``{"type": "long"}``, ``{"type": "array", "items": {...}}``, ``{"type": "map", "values": {...}}``, or
``{"type": "object", "properties": {"name": {..., "required": True}}}``.
No library is imported to find out what data are.
"""

from __future__ import annotations

import base64
import operator
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from functools import lru_cache, reduce
from math import isnan
from typing import Any

from mlcore.errors import NotInstalled, SchemaMismatch

__all__: list[str] = []

Type = dict[str, Any]

ANY: Type = {"type": "any"}
MISSING: Type = {"type": "any", "missing": True}  # of None, beside which anything may stand
SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
_FORMS = {"pandas.DataFrame": "frame", "pandas.Series": "series", "polars.DataFrame": "polars"}
_FORMS |= {"numpy.generic": "value"}
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


def array_of(data: Any) -> Any:
    """Return a NumPy array of what holds one, on whatever device, with gradients or without."""
    import numpy

    if hasattr(data, "detach"):  # torch's, whose bfloat16 NumPy does not know
        data = data.detach().cpu()
        data = data.float() if str(data.dtype) == "torch.bfloat16" else data
    return numpy.asarray(data)


def is_missing(value: Any) -> bool:
    """Say whether a value is None, NaN, or pandas' word for it."""
    return type(value).__name__ in ("NoneType", "NAType", "NaTType") or (isinstance(value, float) and isnan(value))


def type_of(value: Any) -> Type:
    """Return the type of one value: any if it is missing, or of a kind that signatures have no name for."""
    value = array_of(value) if form_of(value) == "array" else value
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


# Data against types

_DTYPES = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
_MISSING_IS_A_VALUE = ("any", "float", "double", "datetime")  # NaN and NaT
_CODES = {"integer": "i", "long": "q", "float": "f", "double": "d"}  # for struct
_PYTHON = ("map", "list", "value")
_REQUESTS = {"dataframe_split", "dataframe_records", "instances", "inputs"}

Fields = tuple[Mapping[str, Any], ...]


@contextmanager
def noted(problems: list[str], what: str) -> Iterator[None]:
    """Add what does not fit to the problems, so that the next one is found too."""
    try:
        yield
    except SchemaMismatch as error:
        problems.append(f"{what}: {error}")


def refuse(problems: list[str], what: str) -> None:
    """Raise `SchemaMismatch` with all problems, if there are any."""
    if problems:
        raise SchemaMismatch("\n  ".join([f"the {what} do not fit the model's signature:", *problems]))


def fit(fields: Fields, data: Any, frame: bool) -> Any:
    """Return `data` as the fields of a schema have them. Raises `SchemaMismatch` with everything that does not fit."""
    problems: list[str] = []
    names, first = [each["name"] for each in fields if "name" in each], fields[0]
    if form_of(data) == "map" and len(data) == 1 and {*data} <= _REQUESTS - {*names, *first.get("properties", ())}:
        data = next(iter(data.values()))
    form = form_of(data)
    with noted(problems, "the data"):
        if "tensor-spec" in first:
            data = _fit_tensors(fields, data, problems) if names else _fit_tensor(data, first)
        elif names and not frame and form in _PYTHON:
            data = _fit_records(fields, names, data, problems)
        elif form == "frame" or names or len(fields) > 1:
            data = _fit_frame(fields, names, data, problems)
        elif form == "series":
            data = _fit_column(data, first)
        else:
            data = fit_value(data, {"type": "array", "items": first} if form in ("list", "array") else first)
    refuse(problems, "data")
    return data


def _refusal(expected: Mapping[str, Any] | str, given: object, where: str = "") -> SchemaMismatch:
    expected = expected if isinstance(expected, str) else text(expected)
    return SchemaMismatch(f"expected {expected}, was given {given}{where and f' in {where}'}")


# Plain values: parameters, what came as JSON, columns of objects. Their numbers have no width, so that any float may
# become one of 32 bits.


def fit_value(value: Any, kind: Any, where: str = "") -> Any:
    """Return one value as `kind`. Raises `SchemaMismatch`."""
    given, form = type_of(value), form_of(value)
    if kind["type"] == "any" or given == {key: kind[key] for key in given if key in kind}:
        return value
    value = array_of(value) if form == "array" else value
    wanted: Any = {"type": "array", "items": {"type": "double"}} if kind["type"] == "sparkml_vector" else kind
    match wanted:
        case {"type": "array", "items": {"type": name}} if form == "array" and value.ndim == 1 and name in _DTYPES:
            return _cast(value, _DTYPES[name], kind)
        case {"type": "array", "items": items} if form in ("list", "array"):
            return [_fit_item(each, items, f"{where}[{place}]") for place, each in enumerate(value)]
        case {"type": "map", "values": values} if form == "map":
            return {str(key): _fit_item(each, values, f"{where}[{key!r}]") for key, each in value.items()}
        case {"type": "object", "properties": properties} if form == "map":
            return _fit_object(value, properties, where)
        case {"type": "object", "properties": properties} if given == ANY:
            _fit_object({name: getattr(value, name, None) for name in properties}, properties, where)
            return value  # an instance of the class that a type hint named
        case {"type": name} if form == "value":
            with suppress(ValueError, OverflowError, KeyError, struct.error):
                return _fit_scalar(value, name, given["type"])
    raise _refusal(kind, f"{text(given).removeprefix('any')} {value!r:.60}".strip(), where)


def _fit_item(value: Any, kind: Type, where: str) -> Any:
    return value if is_missing(value) else fit_value(value, kind, where)  # no type can say that items may be missing


def _fit_object(value: Mapping[Any, Any], properties: Mapping[str, Type], where: str = "") -> dict[str, Any]:
    if unknown := [str(key) for key in value if key not in properties]:
        raise _refusal(f"only {', '.join(properties)}", ", ".join(unknown), where)
    for name, spec in properties.items():
        nothing = name not in value or (is_missing(value[name]) and spec["type"] not in _MISSING_IS_A_VALUE)
        if spec["required"] and nothing:
            raise _refusal(f"{text(spec)} as {name!r}", "nothing", where)
    return {name: _fit_item(each, properties[name], f"{where}[{name!r}]") for name, each in value.items()}


def _fit_scalar(value: Any, kind: str, given: str) -> Any:
    """Return a number, date or bytes as `kind`. Raises one of four errors if it would be another one then."""
    if given == "string" and kind in ("datetime", "binary"):
        return datetime.fromisoformat(value) if kind == "datetime" else base64.b64decode(value.strip(), validate=True)
    if given not in _CODES and not isinstance(value, float):
        raise ValueError
    number, code = value.item() if hasattr(value, "item") else value, _CODES[kind]
    (cast,) = struct.unpack(code, struct.pack(code, int(number) if code in "iq" else number))
    cast = number if isinstance(number, float) and code in "fd" else cast
    if cast != number and not is_missing(cast):
        raise ValueError
    return cast


# Arrays, and columns that NumPy can cast.


def _cast(given: Any, dtype: str, expected: Mapping[str, Any], plain: bool = False) -> Any:
    """Return an array or sparse matrix in another dtype. Raises `SchemaMismatch` if a value would change."""
    import numpy

    values, wanted = given.tocsr().data if form_of(given) == "sparse" else given, numpy.dtype(dtype)
    kinds = {values.dtype.kind, wanted.kind}
    if values.dtype == wanted or wanted.kind == "O" or kinds in ({"U"}, {"S"}):
        return given
    if kinds in ({"U", "M"}, {"O", "M"}, {"O", "f"}):  # texts as dates, and None among numbers
        with suppress(ValueError, TypeError):
            return values.astype(wanted)
    if not (kinds <= {"i", "u", "f"} or kinds == {"M"}):
        raise _refusal(expected, values.dtype)
    with numpy.errstate(all="ignore"):
        cast = values.astype(wanted)
        same = (cast == values) & (cast.astype(values.dtype) == values)
        if wanted.kind == "f":
            same |= numpy.isnan(values) | (plain & numpy.isfinite(cast))
        same |= numpy.isnat(values) if wanted.kind == "M" else False
    if not same.all():
        raise _refusal(expected, f"{values.dtype}, such as {values[~same][0]}")
    return cast if values is given else given.astype(wanted)


def _fit_tensors(fields: Fields, data: Any, problems: list[str]) -> Any:
    if form_of(data) not in ("map", "frame", "polars"):
        data = {fields[0]["name"]: data}
    found = {}
    for each in fields:
        with noted(problems, f"tensor {each['name']!r}"):
            if each["name"] not in data:
                raise _refusal(each, f"only {', '.join(map(str, data))}")
            found[each["name"]] = _fit_tensor(data[each["name"]], each)
    return found


def _fit_tensor(data: Any, field: Mapping[str, Any]) -> Any:
    form, (dtype, shape) = form_of(data), field["tensor-spec"].values()
    try:
        given = data if form == "sparse" else array_of(data)
    except (ValueError, TypeError) as error:
        raise _refusal(field, f"what is no array: {error}") from error
    fits = [want in (-1, have) for want, have in zip(shape, given.shape, strict=False)]
    if len(given.shape) != len(shape) or not all(fits):
        raise _refusal(field, f"shape {given.shape}")
    cast = _cast(given, dtype, field, plain=form in ("list", "value"))
    return data if cast is given and form == "array" else cast


# Frames.


def _rows(fields: Fields, names: list[Any], data: Any) -> list[Any]:
    """Return rows of plain Python as dicts. Raises `SchemaMismatch` if one has more or fewer values than columns."""
    form, nested = form_of(data), len(names) == 1 and fields[0]["type"] == "array"
    if form == "map" and "data" in data and {*data} <= {"columns", "data", "index"} - {*names}:
        names, data, form, nested = data.get("columns", names), data["data"], "list", False
    found = []
    for place, row in enumerate(data if form == "list" else [data]):
        values = [row] if nested or form_of(row) == "value" else row
        if form_of(row) != "map" and len(values) != len(names):
            raise _refusal(_columns(names), f"{len(values)} values", f"row {place}")
        found.append(row if form_of(row) == "map" else dict(zip(names, values, strict=True)))
    return found


def _columns(names: list[Any]) -> str:
    return f"{len(names)} columns ({', '.join(map(str, names))})"


def _fit_records(fields: Fields, names: list[Any], data: Any, problems: list[str]) -> Any:
    kind, found = {"type": "object", "properties": dict(zip(names, fields, strict=True))}, list[Any]()
    for place, row in enumerate(_rows(fields, names, data)):
        with noted(problems, f"row {place}"):
            found.append(fit_value({name: row[name] for name in names if name in row}, kind))
    return found[0] if found and form_of(data) == "map" and "data" not in data else found


def _fit_frame(fields: Fields, names: list[Any], data: Any, problems: list[str]) -> Any:
    """Return the columns of the schema, of data that hold them in whatever form."""
    form, frame = form_of(data), _to_frame(fields, names or list(range(len(fields))), data)
    labels, dtypes, fitted, plain = list(frame.columns), list(frame.dtypes), dict[int, Any](), form in _PYTHON
    places = {label if names else at: at for at, label in enumerate(labels)}
    for place, field in enumerate(fields):
        name, dtype = field.get("name", place), _DTYPES.get(field["type"])
        at = places.get(name)
        with noted(problems, f"column {name!r}"):
            if (at is None and field["required"]) or (names and len(places) < len(labels) and labels.count(name) > 1):
                found = labels.count(name) or "none"
                raise _refusal(field, f"{found} of that name, among {', '.join(map(str, labels))}")
            if at is not None:  # what has its dtype costs nothing, and is the rule
                fitted[at] = None if dtype and dtypes[at] == dtype else _fit_column(frame.iloc[:, at], field, plain)
    if form == "polars":
        return data.select([labels[at] for at in fitted])
    frame = frame if list(fitted) == [*range(len(labels))] else frame.iloc[:, list(fitted)]
    if changed := {place: column for place, column in enumerate(fitted.values()) if column is not None}:
        frame = frame.copy(deep=False)
        for place, column in changed.items():
            frame.isetitem(place, column)
    return frame


def _to_frame(fields: Fields, names: list[Any], data: Any) -> Any:
    form = form_of(data)
    if form in ("frame", "series"):
        return data if form == "frame" else data.to_frame(names[0] if len(names) == 1 else data.name)
    try:
        import pandas
    except ImportError as error:
        raise NotInstalled("a signature with columns needs pandas: pip install pandas") from error
    if form == "polars":
        return pandas.DataFrame(data.to_dict(as_series=False))
    if form == "array":
        if data.shape[1:] != ((len(names),) if data.ndim > 1 or len(names) > 1 else ()):
            raise _refusal(_columns(names), f"an array of shape {data.shape}")
        return pandas.DataFrame(data, columns=names)
    if form == "map" and {*names} & {*data} and "array" not in [each["type"] for each in fields]:
        lengths = {len(each) if form_of(each) in ("list", "array", "series") else None for each in data.values()}
        if len(lengths) == 1 and None not in lengths:
            return pandas.DataFrame(dict(data))
    return pandas.DataFrame(_rows(fields, names, data))


def _fit_column(values: Any, field: Mapping[str, Any], plain: bool = False) -> Any:
    """Return a pandas series as the column is specified."""
    kind, missing = field["type"], values.isna()
    dtype, holes = _DTYPES.get(kind), bool(missing.any())
    if holes and field["required"] and kind not in _MISSING_IS_A_VALUE:
        raise _refusal(field, f"nothing in row {missing.to_numpy().argmax()}")
    better = values.infer_objects() if values.dtype.kind == "O" else values
    keep = holes and kind not in ("float", "double")  # what is missing has no place in NumPy's integers and booleans
    if dtype and better.dtype.kind in "biuf" and (better is values or not holes):
        _cast(better[~missing].to_numpy(), dtype, field, plain or better is not values)
        return better if keep or better.dtype == dtype else better.astype(dtype)
    if kind in ("any", (type_of_dtype(better.dtype) or ANY)["type"]):
        return better if kind == "datetime" else values
    old = list(values)
    new = [None if gone else fit_value(old[row], field, f"row {row}") for row, gone in enumerate(missing)]
    if kind != "datetime" and not dtype and all(map(operator.is_, old, new)):
        return values
    import pandas

    found = pandas.Series(new, values.index, "object" if kind == "datetime" or (keep and dtype) else dtype, values.name)
    try:
        return pandas.to_datetime(found) if kind == "datetime" else found
    except ValueError as error:  # some dates have a time zone, some have none
        raise _refusal(field, error) from error
