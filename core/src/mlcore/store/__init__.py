"""The store contract: events, batches, the fold, queries, and `SimpleStore` to build a store on."""

from __future__ import annotations

from mlcore.store import _clock as clock
from mlcore.store._batch import Batch, Marks, Record, check, digest
from mlcore.store._contract import START, Capabilities, SeriesKey, SimpleStore, Store, Stored, selected, shaped
from mlcore.store._events import (
    EVENT_LIMIT,
    AttributesRemoved,
    AttributesSet,
    Created,
    Erased,
    Event,
    Rewound,
    RowsLogged,
    Unknown,
    Updated,
    decode_event,
    encode_event,
    from_json,
    to_json,
)
from mlcore.store._fold import Conflict, Entity, Fold, same
from mlcore.store._query import And, Compare, Not, Or, Page, Query, Sort, Term, Where, find
from mlcore.store._rows import Columns, Rows, Summary, summarize

__all__ = [
    "EVENT_LIMIT",
    "START",
    "And",
    "AttributesRemoved",
    "AttributesSet",
    "Batch",
    "Capabilities",
    "Columns",
    "Compare",
    "Conflict",
    "Created",
    "Entity",
    "Erased",
    "Event",
    "Fold",
    "Marks",
    "Not",
    "Or",
    "Page",
    "Query",
    "Record",
    "Rewound",
    "Rows",
    "RowsLogged",
    "SeriesKey",
    "SimpleStore",
    "Sort",
    "Store",
    "Stored",
    "Summary",
    "Term",
    "Unknown",
    "Updated",
    "Where",
    "check",
    "clock",
    "decode_event",
    "digest",
    "encode_event",
    "find",
    "from_json",
    "same",
    "selected",
    "shaped",
    "summarize",
    "to_json",
]
