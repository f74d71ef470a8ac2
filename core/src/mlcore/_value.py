"""What classes of data have in common: made once, as to make it for each of forty classes is much of a start."""

from functools import cache
from operator import attrgetter
from typing import Any

import attrs


class Value:
    """Compare, hash and show the fields of an attrs class, as the methods would that attrs makes."""

    __slots__ = ()

    def _compared(self) -> Any:
        kind: Any = type(self)
        return _read(kind)(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(other) is not type(self):
            return NotImplemented
        return bool(self._compared() == other._compared())

    def __hash__(self) -> int:
        return hash((type(self), self._compared()))

    def __repr__(self) -> str:
        fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(type(self))  # type: ignore[arg-type]
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields if each.repr)
        return f"{type(self).__name__}({', '.join(shown)})"


@cache
def _read(kind: Any) -> Any:
    return attrgetter(*(each.name for each in attrs.fields(kind) if each.eq))
