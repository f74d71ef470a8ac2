"""The signature of a function, from its type hints."""

from __future__ import annotations

import inspect
import types
import typing
from collections import abc
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from mlcore.errors import InvalidValue
from mlcore.models import Signature, infer_signature

__all__ = ["signature_of"]

ANY = {"type": "any"}
SCALARS = {bool: "boolean", int: "long", float: "double", str: "string", bytes: "binary"}
SCALARS |= {datetime: "datetime", date: "datetime"}
LISTS = (list, tuple, abc.Sequence, abc.Iterable, abc.Collection)
RECORDS = ("__required_keys__", "__dataclass_fields__", "__attrs_attrs__", "model_fields")


def signature_of(function: Callable[..., Any]) -> Signature | None:
    """Return what the type hints of a function say: of its first argument, its result, and arguments with a default.

    Lists hold rows, as in MLflow: ``list[str]`` is a column of strings without a name. TypedDicts, dataclasses, attrs
    and pydantic classes are objects. ``self``, ``context`` and ``params`` do not count; None if no hint says anything.
    """
    try:
        hints = typing.get_type_hints(function)
        arguments = inspect.signature(function).parameters.values()
        data, *others = [each for each in arguments if each.name not in ("self", "context", "params")]
        inputs, outputs = (_schema(hints.get(name)) for name in (data.name, "return"))
    except (NameError, TypeError, ValueError, RecursionError):  # no name to resolve, no arguments, a type in itself
        return None
    params = [param for each in others for param in _params(each)]
    return Signature(inputs, outputs, params) if inputs or outputs or params else None


def _params(argument: inspect.Parameter) -> tuple[Any, ...]:
    """Return the parameter that an argument with a default is; none if its default has no type."""
    try:
        return infer_signature(None, None, {argument.name: argument.default}).params
    except InvalidValue:
        return ()


def _schema(hint: Any) -> list[dict[str, Any]] | None:
    kind = _type(hint)
    kind = kind.get("items", kind)
    return None if kind == ANY else [kind]


def _type(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    some = [each for each in dict.fromkeys(arguments) if each not in (types.NoneType, ...)]
    if origin is typing.Literal and len({type(each) for each in some}) == 1:
        return _type(type(some[0]))
    if origin in (typing.Union, types.UnionType) and len(some) == 1:
        return _type(some[0])
    if origin in LISTS and len(some) == 1:
        return {"type": "array", "items": _type(some[0])}
    if origin in (dict, abc.Mapping) and some[0] is str:
        return {"type": "map", "values": _type(arguments[1])}
    if any(hasattr(hint, mark) for mark in RECORDS) and (properties := _properties(hint)):
        return {"type": "object", "properties": properties}
    return {"type": SCALARS[hint]} if isinstance(hint, type) and hint in SCALARS else ANY


def _properties(record: Any) -> dict[str, Any]:
    hints = {key: each.annotation for key, each in getattr(record, "model_fields", {}).items()}  # pydantic's
    hints = hints or typing.get_type_hints(record)
    needed = getattr(record, "__required_keys__", hints)
    optional = {name for name, hint in hints.items() if name not in needed or types.NoneType in typing.get_args(hint)}
    return {
        name: {**_type(hint), "required": name not in optional}
        for name, hint in hints.items()
        if typing.get_origin(hint) is not typing.ClassVar
    }
