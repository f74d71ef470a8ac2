"""The events: every change that mlcore can write down.

What this version does not know, types and fields alike, is kept byte for byte in `raw` and passed on as it came.
"""

import contextlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

__all__ = ["AttributesRemoved", "AttributesSet", "Created", "Erased", "Event", "Rewound", "RowsLogged"]
__all__ += ["Unknown", "Updated", "column"]


def column(values: Sequence[Any]) -> Sequence[Any]:
    """Return `values` as ``array('q')`` if all are int64, ``array('d')`` if all are float, else as a list."""
    if isinstance(values, array) and values.typecode in "qd":
        return values
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    kinds = {type(value) for value in values}
    with contextlib.suppress(OverflowError):
        if kinds in ({int}, {float}):
            return array("q" if kinds == {int} else "d", values)
    return values


def _columns(columns: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    return {name: column(values) for name, values in columns.items()}


@attrs.frozen
class Event:
    """Stand above all events; `kind` and `id` name the entity that changed."""

    kind: str
    id: str
    raw: bytes | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)


@attrs.frozen
class Created(Event):
    """Make an entity. Its fields are first values: any `Updated` wins over them, and the earliest do."""

    parent: str = ""
    fields: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Updated(Event):
    """Set fields; the last one wins."""

    fields: Mapping[str, Any]


@attrs.frozen
class AttributesSet(Event):
    """Set values of a family such as params or tags; with `once`, the first wins and others conflict."""

    family: str
    values: Mapping[str, Any]
    once: bool = False


@attrs.frozen
class AttributesRemoved(Event):
    """Remove values of a family by name."""

    family: str
    names: Sequence[str]


@attrs.frozen
class RowsLogged(Event):
    """Log rows under a key and a context, as columns of one length.

    A metric has the columns ``step`` (int64), ``time`` (int64, ms since 1970) and ``value`` (float64); other
    rows may lack them. Columns of int64 or of floats are kept as `array.array`, whatever they came as.
    """

    key: str
    columns: Mapping[str, Sequence[Any]] = attrs.field(converter=_columns)
    context: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


@attrs.frozen
class Rewound(Event):
    """Forget the rows with a step above `step` that were logged before this event."""

    step: int


@attrs.frozen
class Erased(Event):
    """Remove the entity for good; nothing brings it back."""


@attrs.frozen
class Unknown(Event):
    """Carry an event of a later version, untouched."""

    type: str = ""
