"""Check keys, and turn what people log into int64 and float64, or say which key cannot be."""

from __future__ import annotations

import operator
import re
from array import array
from typing import Any

from mlcore.errors import InvalidValue

KEY_LIMIT = 250
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_INT64 = range(-(1 << 63), 1 << 63)


def check_key(key: Any) -> str:
    """Return the name of a metric, parameter or tag. Raises `InvalidValue` if it cannot be one."""
    if not isinstance(key, str) or not key:
        raise InvalidValue(f"a key must be text and not empty, not {key!r:.80}")
    if len(key) > KEY_LIMIT:
        raise InvalidValue(f"key {key[:40]!r}... has {len(key)} characters, over the limit of {KEY_LIMIT}")
    if _CONTROL.search(key):
        raise InvalidValue(f"key {key!r} has control characters")
    return key


def as_float(key: str, value: Any) -> float:
    """Return a metric's value from anything with ``__float__`` or ``.item()``. Raises `InvalidValue`."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError("text is no number")
        return float(value.item() if hasattr(value, "item") else value)
    except Exception as error:  # the value's own code may raise anything
        raise InvalidValue(f"metric {key!r}: {type(value).__name__} {value!r:.80} is no number: {error}") from error


def as_int(name: str, value: Any) -> int:
    """Return a step or a time (ms) from an integer or a whole float. Raises `InvalidValue`."""
    try:
        number = int(value) if isinstance(value, float) and value.is_integer() else operator.index(
            value.item() if hasattr(value, "item") else value
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{name} {value!r:.80} is no whole number") from error
    if number not in _INT64:
        raise InvalidValue(f"{name} {number} does not fit into 64 bits")
    return number


def as_int_column(key: str, name: str, values: Any) -> array[int]:
    """Return int64s from a buffer, a numpy array or a sequence. Raises `InvalidValue`."""
    found = _buffer("q", values)
    if found is None:
        try:
            found = array("q", values.tolist() if hasattr(values, "tolist") else values)
        except (TypeError, OverflowError):
            found = array("q", [as_int(f"{key!r}: {name}", value) for value in values])
    return found


def as_float_column(key: str, values: Any) -> array[float]:
    """Return float64s from a buffer, a numpy array or a sequence. Raises `InvalidValue`."""
    found = _buffer("d", values)
    if found is None:
        try:
            found = array("d", values.tolist() if hasattr(values, "tolist") else values)
        except TypeError:
            found = array("d", [as_float(key, value) for value in values])
    return found


def _buffer(code: str, values: Any) -> array[Any] | None:
    """Copy a contiguous one-dimensional buffer of the very type, None if it is not one."""
    if isinstance(values, array):
        return values[:] if values.typecode == code else None
    try:
        view = memoryview(values)
    except (TypeError, ValueError, BufferError):
        return None
    if view.ndim != 1 or view.itemsize != 8 or view.format not in (("d", "<d") if code == "d" else ("l", "q", "<q", "<l")):
        return None
    found = array(code)
    found.frombytes(view.tobytes())
    return found
