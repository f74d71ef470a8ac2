"""Errors as they go over the wire: the name of a class of `mlcore.errors`, a message, and what it was made of."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mlcore import errors
from mlcore.errors import MlcoreError, Refused, StoreError

__all__ = ["error_entry", "error_from_json", "error_of_entry", "error_to_json", "results_from_json", "results_to_json"]
__all__ += ["status_of"]

_TEXT = 10_000
_STATUS = {
    "AccessDenied": 403,
    "AlreadyExists": 409,
    "Ambiguous": 409,
    "DigestMismatch": 409,
    "InvalidValue": 400,
    "NewerFormat": 501,
    "NotFound": 404,
    "ArtifactNotFound": 404,
    "NotSupported": 501,
    "OutOfOrder": 409,
    "PositionLost": 410,
    "Refused": 400,
    "RunStateError": 409,
    "SourceReused": 409,
    "StoreError": 503,
    "StoreNotFound": 404,
    "UnsafePath": 400,
}
_KNOWN: dict[str, type[MlcoreError]] = {name: getattr(errors, name) for name in errors.__all__}
# what is made of more than a message: its arguments, which are its attributes as well, with their types
_MADE = {
    name: {each.name: each.annotation for each in inspect.signature(known).parameters.values()}
    for name, known in _KNOWN.items()
    if "__init__" in vars(known)
}


def status_of(error: MlcoreError) -> int:
    """Return the HTTP status that an error is answered with: that of the nearest class that has one, else 500."""
    said = getattr(error, "status", None)
    return said or next((_STATUS[each.__name__] for each in type(error).__mro__ if each.__name__ in _STATUS), 500)


def error_entry(error: MlcoreError) -> dict[str, Any]:
    """Return an error as one JSON object: type, message, details and status."""
    known = next(each for each in type(error).__mro__ if each.__name__ in _KNOWN)  # a plugin may have its own
    details = {name: getattr(error, name) for name in _MADE.get(known.__name__, ()) if name != "message"}
    return {"type": known.__name__, "message": str(error), "details": details, "status": status_of(error)}


def error_to_json(error: MlcoreError) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the JSON body of an error."""
    entry = error_entry(error)
    return entry.pop("status"), {"error": entry}


def error_of_entry(entry: Any, status: int | None = None) -> MlcoreError:
    """Return the error that an object describes, whatever it is; one of an unknown type as its nearest kind."""
    if not isinstance(entry, Mapping):
        return StoreError(f"an error that is none: {entry!r:.200}")
    name, details = entry.get("type"), entry.get("details")
    status = status if status is not None else entry.get("status")
    message = _text(entry.get("message"))
    known = _KNOWN.get(name) if isinstance(name, str) else None
    if known is None:
        nearest = Refused if status in (400, 409, 413, 422) else StoreError
        return nearest(f"{_text(name)}: {message}")
    return _made(known, message, details if isinstance(details, Mapping) else {})


def _made(known: type[MlcoreError], message: str, details: Mapping[str, Any]) -> MlcoreError:
    if known.__name__ not in _MADE:
        return known(message)
    values = {**details, "message": message}
    if not all(type(values.get(name)) is kind for name, kind in _MADE[known.__name__].items()):
        return _made(known.__mro__[1], message, {})  # its parts are missing: what stands above it has none
    error = known.__new__(known, message)  # not by its own words: whoever raised it may have said more
    error.args = (message,)
    for name in _MADE[known.__name__]:
        if name != "message":
            setattr(error, name, _text(values[name]) if isinstance(values[name], str) else values[name])
    return error


def error_from_json(status: int, body: Any) -> MlcoreError:
    """Return the error that an answer with this HTTP status and JSON body describes."""
    entry = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(entry, Mapping):
        return StoreError(f"the server answers with status {status} and says no more")
    return error_of_entry(entry, status)


def results_to_json(results: Sequence[MlcoreError | None]) -> dict[str, Any]:
    """Return what came of each batch of an append."""
    return {"results": [error and error_entry(error) for error in results]}


def results_from_json(body: Any, count: int) -> list[MlcoreError | None]:
    """Return what came of each of `count` batches. Raises `Malformed`."""
    found = body.get("results") if isinstance(body, Mapping) else None
    if not isinstance(found, list) or len(found) != count:
        raise errors.Malformed(f"not the results of {count} batches: {body!r:.200}")
    return [None if each is None else error_of_entry(each) for each in found]


def _text(value: Any) -> str:
    """Return text that may be printed: short, and without what moves a cursor."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text[:_TEXT])
