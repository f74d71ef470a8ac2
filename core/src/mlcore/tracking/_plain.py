"""Turn what people log as parameters and tags into JSON values, and nested ones into dotted keys."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from mlcore import journal, store
from mlcore.errors import InvalidValue


def plain(key: str, value: Any) -> Any:
    """Return `value` as JSON: scalars as they are, numpy's as Python's, enums by value, anything else as text.

    Raises `InvalidValue` when it is over the size that one event may have.
    """
    value = as_json(value)
    size = len(store.to_json(value))
    if size > store.EVENT_LIMIT - 4096:
        raise InvalidValue(f"{key!r}: a value of {size:,} bytes is too large: keep it as a file and log its path")
    return value


def as_json(value: Any) -> Any:
    """Return the JSON value that stands for `value`."""
    if isinstance(value, Enum):
        value = value.value
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):  # a subclass becomes what JSON gives back
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(as_json, value), key=repr)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def fields_of(value: Any) -> Mapping[Any, Any] | None:
    """Return the content of a dict, Namespace, dataclass or attrs object, None of anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type):
        return None
    names = [*getattr(value, "__dataclass_fields__", ()), *(f.name for f in getattr(value, "__attrs_attrs__", ()))]
    if names:
        return {name: getattr(value, name) for name in names}
    # argparse.Namespace, types.SimpleNamespace and their like
    return vars(value) if type(value).__name__.endswith("Namespace") else None


def flat(values: Any) -> dict[str, Any]:
    """Return dotted key -> JSON value of whatever holds parameters. Raises `InvalidValue`."""
    content = fields_of(values)
    if content is None:
        raise InvalidValue(f"parameters must be a dict, Namespace, dataclass or attrs object, not {values!r:.80}")
    found: dict[str, Any] = {}
    for key, value in _walk("", content):
        if found.setdefault(journal.check_key(key), value) is not value:
            raise InvalidValue(f"two parameters are both named {key!r}")
    return {key: plain(key, value) for key, value in found.items()}


def _walk(prefix: str, content: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        inner = fields_of(value)
        yield from _walk(f"{prefix}{key}.", inner) if inner else [(f"{prefix}{key}", value)]


def portions(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the values in parts that fit into one event each."""
    part, size = dict[str, Any](), 0
    for key, value in values.items():
        cost = len(store.to_json({key: value}))
        if part and size + cost > store.EVENT_LIMIT - 2048:
            yield part
            part, size = {}, 0
        part[key] = value
        size += cost
    if part:
        yield part
