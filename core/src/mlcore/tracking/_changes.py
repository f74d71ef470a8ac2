"""Changes of the registry: each is one record, that says who made it, when, and which one it came after.

A change holds the digest of what it changes and of the change before it, so that whoever alters a past one is noticed;
see docs/explanation/registry-history.md.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from mlcore import journal, plugins
from mlcore.config import OFF
from mlcore.store import Event, Updated, encode_event
from mlcore.tracking._backend import Backend

MODEL, VERSION, FIELD = "registered_model", "model_version", "change"
_LONGEST = 500  # characters of one detail, as every reading of the model brings them along


@attrs.frozen
class Change:
    """Tell of one change of a registered model: what was done (`action`), to which, by whom, and when (ms since 1970).

    `version` is the number of the version, as text, empty where the model itself changed; `details` depend on the
    action: an alias has `alias`, `before` and `after`. What is long is cut there, and whole in the change's events.
    `by` and `at` are what the writer said. `digest` stands for the change and all that it came after, of which
    `previous` is the last.
    """

    action: str
    model: str
    model_id: str
    version: str = ""
    version_id: str = ""
    details: Mapping[str, Any] = attrs.field(factory=dict)
    by: str = ""
    at: int = 0
    previous: str = ""
    digest: str = ""


def digest_of(events: Iterable[Event], change: Change) -> str:
    """Return the digest that stands in a change for these events: of their JSON with sorted keys, and its own."""
    about = attrs.asdict(change, filter=attrs.filters.exclude("digest"))
    texts = [json.loads(encode_event(event)) for event in events]
    return hashlib.sha256(json.dumps([*texts, about], sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write(backend: Backend, change: Change, events: Iterable[Event], claim: str | None = None) -> Change:
    """Write a change to the store, and tell plugins of it. Raises `AlreadyExists` or another `StoreError`."""
    known, events = backend.get(MODEL, change.model_id), list(events)
    before = known.fields.get(FIELD) if known else None
    previous = str(before.get("digest", "")) if isinstance(before, Mapping) else ""
    details = {
        key: each if len(str(each)) <= _LONGEST else f"{each!s:.{_LONGEST}}…" for key, each in change.details.items()
    }
    by, at = journal.user(), int(time.time() * 1000)
    change = attrs.evolve(change, details=details, by=by, at=at, previous=previous)
    change = attrs.evolve(change, digest=digest_of(events, change))
    events.append(Updated(MODEL, change.model_id, {FIELD: attrs.asdict(change)}))
    backend.edit(events, claim)
    if backend.uri != OFF:
        plugins.notify("mlcore_registry_changed", event=change)
    return change
