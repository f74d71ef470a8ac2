"""Check what type hints say of a function: they make its signature, where there is no example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, NotRequired, Optional, TypedDict

import attrs
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from mlcore.errors import SchemaMismatch
from mlcore.models import Signature
from mlcore_python.hints import signature_of

LONG, TEXT = {"type": "long"}, {"type": "string"}


class Point(TypedDict):
    x: float
    y: NotRequired[float | None]


@dataclasses.dataclass
class Event:
    kind: ClassVar[str] = "event"
    name: str
    points: list[Point]
    when: datetime | None = None


@attrs.frozen
class Tagged:
    tags: dict[str, list[str]]
    event: Event
    free: Any = None


POINT = {
    "type": "object",
    "properties": {"x": {"type": "double", "required": True}, "y": {"type": "double", "required": False}},
}
EVENT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "required": True},
        "points": {"type": "array", "items": POINT, "required": True},
        "when": {"type": "datetime", "required": False},
    },
}
TAGGED = {
    "type": "object",
    "properties": {
        "event": {**EVENT, "required": True},
        "free": {"type": "any", "required": True},
        "tags": {"type": "map", "values": {"type": "array", "items": {"type": "string"}}, "required": True},
    },
}


@pytest.mark.parametrize(
    ("hint", "kind"),
    [
        (list[str], {"type": "string"}),
        (Sequence[int], {"type": "long"}),
        (tuple[float, ...], {"type": "double"}),
        (list[list[bytes]], {"type": "array", "items": {"type": "binary"}}),
        (list[dict[str, bool]], {"type": "map", "values": {"type": "boolean"}}),
        (list[Optional[int]], {"type": "long"}),  # noqa: UP045 - the old form is what this is about
        (list[datetime], {"type": "datetime"}),
        (str, {"type": "string"}),
        (dict[str, Any], {"type": "map", "values": {"type": "any"}}),
        (Literal["a", "b"], {"type": "string"}),
        (list[Point], POINT),
        (Event, EVENT),
        (list[Tagged], TAGGED),
    ],
    ids=str,
)
def test_hints_become_types(hint: Any, kind: dict[str, Any]) -> None:
    """Guards models that are functions, which need no example then."""

    def predict(data: Any) -> Any: ...

    predict.__annotations__ = {"data": hint, "return": hint}
    assert signature_of(predict) == Signature([kind], [kind])


@pytest.mark.parametrize(
    "hint",
    [
        Any,
        list,
        dict,
        list[Any],
        pd.DataFrame,
        npt.NDArray[np.float64],
        int | str,
        tuple[int, str],
        None,
        object,
        dict[int, str],
    ],
)
def test_hints_that_say_nothing_make_no_signature(hint: Any) -> None:
    """Guards against a signature that lets everything pass, or one that nobody meant."""

    def predict(data: Any) -> Any: ...

    predict.__annotations__ = {"data": hint, "return": hint}
    assert signature_of(predict) is None


def test_arguments_with_a_default_are_parameters() -> None:
    """Guards functions with options; `context` and `params` are how models are called."""

    class Model:
        def predict(
            self, context: Any, rows: list[str], params: Any = None, *, top: int = 3, other: Any = None
        ) -> list[str]: ...

    signature = signature_of(Model().predict)
    assert signature == Signature([TEXT], [TEXT], [{"name": "top", "default": 3, **LONG}])
    assert signature_of(Model.predict) == signature


def test_what_cannot_be_resolved_says_nothing() -> None:
    """Guards hints of names that exist for type checkers only, endless ones, and functions without arguments."""

    def unknown(data: Nowhere) -> list[str]: ...  # type: ignore[name-defined] # noqa: F821

    class Node(TypedDict):
        inner: list[Node]

    def endless(data: Node) -> None: ...

    endless.__annotations__ = {"data": Node}
    Node.__annotations__ = {"inner": list[Node]}
    functions: list[Callable[..., Any]] = [unknown, endless, lambda: 3, len]
    assert [signature_of(each) for each in functions] == [None] * 4


def test_instances_of_the_class_that_was_hinted_fit() -> None:
    """Guards functions that are called from Python with what they ask for."""

    def predict(rows: list[Event]) -> list[str]: ...

    signature = signature_of(predict)
    assert signature is not None
    rows = [Event("x", [{"x": 1.0}])]
    assert signature.enforce(rows)[0] is rows[0]
    with pytest.raises(SchemaMismatch, match=r"expected string, was given long 3 in \[0\]\['name'\]"):
        signature.enforce([Event(3, [])])  # type: ignore[arg-type]
