"""Check keys, and turn what people log into int64 and float64, or say which key cannot be."""

import operator
import re
from array import array
from contextlib import suppress
from typing import Any

from mlcore.errors import InvalidValue

KEY_LIMIT = 250
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_FORMATS = {"q": ("l", "q", "<l", "<q"), "d": ("d", "<d")}


def check_key(key: Any) -> str:
    """Return the name of a metric, parameter or tag. Raises `InvalidValue` if it cannot be one."""
    if not isinstance(key, str) or not key:
        raise InvalidValue(f"a key must be text and not empty, not {key!r:.80}")
    if len(key) > KEY_LIMIT:
        raise InvalidValue(f"key {key[:40]!r}... has {len(key)} characters, over the limit of {KEY_LIMIT}")
    if not key.isprintable() and re.search(_CONTROL, key):
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
        value = value.item() if hasattr(value, "item") else value
        number = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
        return array("q", [number])[0]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValue(f"{name} {value!r:.80} is no whole number of 64 bits") from error


def metric_columns(key: str, steps: Any, values: Any, times: Any = None) -> dict[str, "array[Any]"]:
    """Return columns ``step``, ``value`` and, where times (ms) are given, ``time``, from buffers or sequences.

    Raises `InvalidValue` if one is no number, their lengths differ, or the key cannot be one.
    """
    check_key(key)
    columns = {"step": _column("q", key, steps), "value": _column("d", key, values)}
    if times is not None:
        columns["time"] = _column("q", key, times)
    if len(set(map(len, columns.values()))) > 1:
        lengths = ", ".join(f"{len(column)} {name}s" for name, column in columns.items())
        raise InvalidValue(f"metric {key!r}: columns of different lengths: {lengths}")
    return columns


def _column(code: str, key: str, values: Any) -> "array[Any]":
    with suppress(TypeError, ValueError):  # no buffer, or one of things that are no numbers
        view = memoryview(values)
        if view.ndim == 1 and view.format in _FORMATS[code] and view.itemsize == 8:
            return array(code, view.tobytes())
    try:
        values = list(values.tolist() if hasattr(values, "tolist") else values)
    except TypeError as error:
        raise InvalidValue(f"metric {key!r}: {type(values).__name__} {values!r:.80} is no sequence") from error
    try:
        return array(code, values)
    except Exception:  # noqa: BLE001 - of all the values, find the one to name
        return array(code, [as_int(f"{key!r}: step or time", v) if code == "q" else as_float(key, v) for v in values])
