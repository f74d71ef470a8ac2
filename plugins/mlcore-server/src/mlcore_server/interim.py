"""JSON of what goes over the wire, until the client's package has it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import attrs

from mlcore import errors
from mlcore.errors import AlreadyExists, Malformed, NotSupported, OutOfOrder
from mlcore.store import Batch, Entity, Record, decode_event, encode_event, to_json

_STATUS = {
    "StoreNotFound": 404, "NotFound": 404, "ArtifactNotFound": 404, "NotSupported": 501, "PositionLost": 410,
    "Malformed": 400, "OutOfOrder": 409, "SourceReused": 409, "AlreadyExists": 409, "InvalidQuery": 400,
    "InvalidValue": 400, "UnsafePath": 400, "DigestMismatch": 409, "Refused": 409,
}  # fmt: skip
_DETAILS = {
    OutOfOrder: ("source", "expected", "given"),
    AlreadyExists: ("claim", "holder"),
    NotSupported: ("store", "capability", "remedy"),
}


def error_to_json(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return status and content."""
    name = type(error).__name__ if hasattr(errors, type(error).__name__) else "StoreError"
    details = {each: getattr(error, each) for each in _DETAILS.get(type(error), ())}
    return _STATUS.get(name, 500), {"error": {"type": name, "message": str(error), "details": details}}


def batches_from_json(content: Any) -> list[Batch]:
    """Return batches."""
    try:
        return [
            Batch(
                each["source"], each["home"],
                tuple(
                    Record(r["number"], r["stamp"], tuple(decode_event(to_json(event)) for event in r["events"]))
                    for r in each.get("records", ())
                ),
                each.get("previous", ""), each.get("claim"),
            )
            for each in content["batches"]
        ]  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"not batches: {error}") from error


def batches_to_json(batches: list[Batch]) -> bytes:
    """Return JSON of batches."""
    parts = []
    for batch in batches:
        records = [
            b'{"number":%d,"stamp":%d,"events":[%s]}' % (r.number, r.stamp, b",".join(map(encode_event, r.events)))
            for r in batch.records
        ]
        head = to_json({"source": batch.source, "home": batch.home, "previous": batch.previous, "claim": batch.claim})
        parts.append(head[:-1] + b',"records":[' + b",".join(records) + b"]}")
    return b'{"batches":[' + b",".join(parts) + b"]}"


def entity_to_json(entity: Entity) -> dict[str, Any]:
    """Return an entity as JSON."""

    def plain(value: Any) -> Any:
        if attrs.has(type(value)):
            return {name: plain(getattr(value, name)) for name in attrs.fields_dict(type(value))}
        if isinstance(value, Mapping):
            return {" ".join(key) if isinstance(key, tuple) else key: plain(each) for key, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(each) for each in value]
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    found: dict[str, Any] = plain(entity)
    return found
