"""The signature of a model: from what goes in and comes out, or from the type hints of a function."""

from __future__ import annotations

import inspect
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from mlcore.errors import InvalidValue
from mlcore.models._signature import Signature
from mlcore.models._types import ANY, Type, schema_of, type_of, type_of_all

__all__ = ["infer_signature", "signature_of"]

_NAMES = {  # of the scalars
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "binary",
    datetime: "datetime",
    date: "datetime",
}
_LISTS = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection)
_RECORDS = ("__required_keys__", "__dataclass_fields__", "__attrs_attrs__", "model_fields")


def infer_signature(input: Any, output: Any = None, params: Mapping[str, Any] | None = None) -> Signature:  # noqa: A002
    """Return the signature of a model that takes `input` and `params`, and gave `output`.

    Frames, series, dicts and lists of dicts become columns; arrays, dicts of arrays and sparse matrices tensors, with
    -1 as their first length; a list of anything else, or one value, is a column without a name. The values of
    `params` become the defaults. Raises `InvalidValue` for column labels or parameters that have no place in it.
    """
    inputs, outputs = (None if each is None else schema_of(each) for each in (input, output))
    return Signature(inputs, outputs, [_param(str(name), value) for name, value in (params or {}).items()])


def _param(name: str, value: Any) -> dict[str, Any]:
    kind, default = type_of(value), value.tolist() if hasattr(value, "tolist") else value
    inner = kind.get("items", kind)
    if inner["type"] == "any":
        raise InvalidValue(f"parameter {name!r}: {value!r:.80} has no type that a signature could name")
    return {"name": name, "default": default, "shape": None if inner is kind else [-1], **inner}


def signature_of(function: Callable[..., Any]) -> Signature | None:
    """Return what the type hints of a function say: of its first argument, its result, and arguments with a default.

    Lists hold rows, as in MLflow: ``list[str]`` is a column of strings without a name. TypedDicts, dataclasses, attrs
    and pydantic classes are objects. ``self``, ``context`` and ``params`` do not count; None if no hint says anything.
    """
    try:
        hints = typing.get_type_hints(function)
        arguments = inspect.signature(function).parameters.values()
        data, *others = [each for each in arguments if each.name not in ("self", "context", "params")]
        params = [_param(each.name, each.default) for each in others if type_of(each.default)["type"] != "any"]
        found = Signature(_schema(hints.get(data.name)), _schema(hints.get("return")), params)
    except (NameError, TypeError, ValueError, RecursionError):  # no name to resolve, no arguments, a type in itself
        return None
    return None if found == Signature() else found


def _schema(hint: Any) -> list[Type] | None:
    kind = _type(hint)
    kind = kind.get("items", kind)
    return None if kind == ANY else [kind]


def _type(hint: Any) -> Type:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    some = [each for each in dict.fromkeys(arguments) if each not in (types.NoneType, ...)]
    if origin is typing.Literal:
        return type_of_all(arguments)
    if origin in (typing.Union, types.UnionType) and len(some) == 1:
        return _type(some[0])
    if origin in _LISTS and len(some) == 1:
        return {"type": "array", "items": _type(some[0])}
    if origin in (dict, abc.Mapping) and some[0] is str:
        return {"type": "map", "values": _type(arguments[1])}
    if any(hasattr(hint, mark) for mark in _RECORDS) and (properties := _properties(hint)):
        return {"type": "object", "properties": properties}
    return {"type": _NAMES[hint]} if isinstance(hint, type) and hint in _NAMES else ANY


def _properties(record: Any) -> dict[str, Type]:
    hints = {key: each.annotation for key, each in getattr(record, "model_fields", {}).items()}  # pydantic's
    hints = hints or typing.get_type_hints(record)
    needed = getattr(record, "__required_keys__", hints)
    optional = {name for name, hint in hints.items() if name not in needed or types.NoneType in typing.get_args(hint)}
    return {
        name: {**_type(hint), "required": name not in optional}
        for name, hint in hints.items()
        if typing.get_origin(hint) is not typing.ClassVar
    }
