"""What is shown of an entity: as JSON, as rows to search, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlcore.store import Conflict, Entity, Summary, to_json
from mlcore_sql import keys

__all__ = ["Row", "entity_of", "member_rows", "rows_of", "show", "start_of"]

Row = tuple[int, bytes | None, bytes | None]  # type, key, and key of its text where that is another
Parts = tuple[str, str, Mapping[str, Any], Mapping[str, Mapping[str, Any]], tuple[Conflict, ...]]
_OBJECT = b"\xf8"  # stands for what is no scalar: it is looked at, never compared


def show(entity: Entity) -> bytes:
    """Return what is shown but for metrics and stamps."""
    conflicts = [[each.family, each.name, each.value, each.source] for each in entity.conflicts]
    return to_json([entity.id, entity.parent, entity.fields, entity.attributes, conflicts])


def entity_of(
    kind: str, shown: Sequence[Any], created: int, changed: int, metrics: Mapping[tuple[str, str], Summary]
) -> Entity:
    """Return the entity that was shown so, of the JSON that `show` made."""
    id, parent, fields, attributes, conflicts = shown
    met = tuple(Conflict(*each) for each in conflicts) if conflicts else ()
    return Entity(kind, id, parent, fields, attributes, metrics, met, created, changed)


def start_of(entity: Entity) -> bytes:
    """Return the key of the start, by which ties are ordered."""
    start = entity.fields.get("start_time", entity.created_ms)
    return keys.number(start if isinstance(start, int) else 0)


def rows_of(entity: Entity) -> dict[tuple[str, str], Row]:
    """Return a row for each field and attribute, by family and name."""
    values = {("fields", name): value for name, value in entity.fields.items()}
    for family, attributes in entity.attributes.items():
        values |= {(family, name): value for name, value in attributes.items()}
    return {name: _row(value) for name, value in values.items()}


def member_rows(entity: Entity) -> set[tuple[str, str, int, bytes]]:
    """Return family, name, type and key of what is in objects; by default an object has its own name."""
    found = set()
    for family, attributes in entity.attributes.items():
        for own, each in attributes.items():
            if isinstance(each, Mapping):
                for name, value in {"name": own, **each}.items():
                    kind, key = keys.encode(value)
                    if key is not None:
                        found.add((family, name, kind, _OBJECT if kind == keys.OTHER else key))
    return found


def _row(value: Any) -> Row:
    kind, key = keys.encode(value)
    return kind, key, None if kind == keys.TEXT else keys.text(str(value))
