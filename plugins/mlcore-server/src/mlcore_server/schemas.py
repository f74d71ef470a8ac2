"""JSON schemas of what the routes of the store take and answer, by media type, as OpenAPI 3.1 wants them."""

from __future__ import annotations

from typing import Any

from mlcore_remote.protocol import BATCHES as BATCHES_TYPE, JSON, LINES, QUERY_CLAUSES, SERIES as SERIES_TYPE

__all__ = ["BATCHES", "ENTITY", "ERROR", "EVENTS", "EVENTS_ASKED", "FIND", "GET", "GOT", "PAGE", "RESULTS", "SERIES"]
__all__ += ["SERIES_ASKED", "SHARED", "json_of"]

Schema = dict[str, Any]
_BINARY: Schema = {"type": "string", "format": "binary"}
_TEXT: Schema = {"type": "string"}


def json_of(schema: Schema, **more: Schema) -> Schema:
    """Return a body in JSON, and `more` media types, as a route declares them."""
    return {JSON: {"schema": schema}, **{name: {"schema": each} for name, each in more.items()}}


def _object(required: Schema, optional: Schema | None = None, *, closed: bool = False) -> Schema:
    found: Schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}
    return {**found, "additionalProperties": False} if closed else found


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_EVENT = {
    "description": "an event as docs/reference/events.md describes them, as an object or as the line it is kept as",
    "anyOf": [_object({"type": _TEXT, "kind": _TEXT, "id": _TEXT}), _TEXT],
}
_RECORD = _object({
    "number": {"type": "integer", "minimum": 1},
    "stamp": {"type": "integer", "minimum": 0, "exclusiveMaximum": 1 << 63},
    "events": _list(_ref("Event"), minItems=1),
})  # fmt: skip
_BATCH = _object(
    {"source": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
     "home": {"type": "string", "pattern": "^[A-Za-z0-9_-]{0,64}$"}},
    {"previous": {"type": "string", "pattern": "^([0-9a-f]{64})?$"}, "claim": _or_null(_TEXT),
     "records": _list(_ref("Record"))},
)  # fmt: skip
_TERM = _object({"family": _TEXT, "name": _TEXT}, {"function": _TEXT, "context": _TEXT})
_WHERE = {
    "anyOf": [
        _object({"term": _ref("Term"), "op": _TEXT}, {"value": {}}),
        _object({"and": _list(_ref("Where"))}, closed=True),
        _object({"or": _list(_ref("Where"))}, closed=True),
        _object({"not": _ref("Where")}, closed=True),
    ]
}
_QUERY = _object(
    {},
    {
        "where": _or_null(_ref("Where")),
        "select": _or_null(_list(_ref("Term"), maxItems=QUERY_CLAUSES)),
        "order": _list(_object({"term": _ref("Term")}, {"descending": {"type": "boolean"}}), maxItems=QUERY_CLAUSES),
        "limit": _or_null({"type": "integer", "minimum": 0}),
        "token": _or_null(_TEXT),
        "count": {"type": "boolean"},
    },
    closed=True,
)
_STAMP = {"type": "integer", "description": "ns since 1970, a hybrid logical clock"}
_ENTITY = _object({
    "kind": _TEXT, "id": _TEXT, "parent": _TEXT, "fields": {"type": "object"},
    "attributes": {"type": "object", "additionalProperties": {"type": "object"}},
    "metrics": {
        "type": "object",
        "description": "by key and context: count, min, max, step, time and value",
        "additionalProperties": {
            "type": "object", "additionalProperties": _list({}, minItems=6, maxItems=6),
        },
    },
    "conflicts": _list({"type": "object"}), "created": _STAMP, "changed": _STAMP,
    "seen": _or_null({"type": "integer"}), "alive": _or_null({"type": "boolean"}),
})  # fmt: skip
_FAULT = _object({"type": _TEXT, "message": _TEXT}, {"details": {"type": "object"}, "status": {"type": "integer"}})
_FOUND_SERIES = _object({
    "id": _TEXT, "key": _TEXT, "context": _TEXT,
    "columns": {"type": "object", "additionalProperties": {"type": "array"}},
})  # fmt: skip
_NAMES = _or_null(_list(_TEXT))

SHARED = {
    "Batch": _BATCH, "Entity": _ENTITY, "Error": _object({"error": _ref("Fault"), "request_id": _TEXT}),
    "Event": _EVENT, "Fault": _FAULT, "Query": _QUERY, "Record": _RECORD, "Term": _TERM, "Where": _WHERE,
}  # fmt: skip
ERROR = json_of(_ref("Error"))
BATCHES = json_of(_object({"batches": _list(_ref("Batch"))}), **{BATCHES_TYPE: _BINARY})
RESULTS = json_of(_object({"results": _list(_or_null(_ref("Fault")))}))
GET = json_of(_object({"kind": _TEXT, "ids": _list(_TEXT)}))
GOT = json_of(_object({"entities": _list(_or_null(_ref("Entity")))}))
FIND = json_of(_object({"kind": _TEXT}, {"query": _ref("Query")}))
PAGE = json_of(
    _object({"items": _list(_ref("Entity")), "token": _or_null(_TEXT), "count": _or_null({"type": "integer"})})
)
ENTITY = json_of(_ref("Entity"))
KEYS_ASKED = json_of(
    _object({"kind": _TEXT, "family": _TEXT}, {"prefix": _TEXT, "limit": _or_null({"type": "integer"})})
)
KEYS = json_of(_object({"keys": _list(_TEXT)}))
SERIES_ASKED = json_of(
    _object(
        {"kind": _TEXT, "ids": _list(_TEXT)},
        {
            "keys": _NAMES,
            "context": _or_null(_TEXT),
            "columns": _NAMES,
            "max_points": _or_null({"type": "integer", "minimum": 1}),
        },
    )
)
SERIES = json_of(_object({"series": _list(_FOUND_SERIES)}), **{SERIES_TYPE: _BINARY})
EVENTS = {BATCHES_TYPE: {"schema": _BINARY}, LINES: {"schema": _BINARY}}
EVENTS_ASKED = [
    {"name": "after", "in": "query", "schema": _TEXT, "description": "the position, by default the beginning"},
    {"name": "of", "in": "query", "schema": _TEXT, "description": "only of this home, a run's id"},
    {"name": "kinds", "in": "query", "schema": _TEXT, "description": "only of these kinds, with commas"},
    {"name": "rows", "in": "query", "schema": {"enum": ["0", "1"]}, "description": "0 leaves out what RowsLogged has"},
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0}, "description": "at most so many"},
]
