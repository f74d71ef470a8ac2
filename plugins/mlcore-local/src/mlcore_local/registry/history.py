"""Tell how a registered model came to be what it is: each change, who made it and when, and what was before.

See docs/explanation/registry-history.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import attrs

from mlcore import Client, config
from mlcore.errors import NotFound
from mlcore.registry import MODEL, VERSION
from mlcore.store import AttributesRemoved, AttributesSet, Created, Event, Fold, Updated, same
from mlcore_local.registry.facts import Clock, Fact, change_in, facts, folded, names_of
from mlcore_local.registry.past import look

__all__ = ["Edit", "Entry", "history"]

_EVER = 1 << 62
_Key = tuple[str, str, str, str]  # kind and id of what has a value, its family, its name


@attrs.frozen
class Edit:
    """Say that one value was another before: None is none.

    `version` is the number of the version that has it, as text, and empty where the model has it. `name` is as in
    queries: ``stage``, ``tags.team`` or ``aliases.champion``; the values of aliases are numbers as text.
    """

    version: str
    name: str
    before: Any
    after: Any


@attrs.frozen
class Entry:
    """Tell of one change.

    `time` (ms since 1970) is by the clock that was asked for, `received_at` and `actor` are the store's word, and
    `stamp`, `by` and `at` the writer's. `action`, `details` and `digest` are those of `mlcore.registry.Change`; of
    events that no change tells of the action is ``unknown``. `model` and `version` are as they were called then,
    `version_now` as the version is called now. `unseen` has the digests of the changes that had set the same just
    before, which the writer of this one had not seen.
    """

    time: int
    received_at: int
    actor: str
    stamp: int
    by: str
    at: int
    action: str
    model: str
    version: str = ""
    version_now: str = ""
    details: Mapping[str, Any] = attrs.field(factory=dict)
    edits: tuple[Edit, ...] = ()
    unseen: tuple[str, ...] = ()
    digest: str = ""


def history(
    client: Client, name: str, *, since: int | None = None, until: int | None = None, clock: Clock = "store"
) -> list[Entry]:
    """Return the changes of a model, of which `name` is the name, a former one or the id, the newest first.

    `since` and `until` are in ms since 1970, both included, by the `clock` that `mlcore_local.registry.facts.facts`
    explains. Raises `NotFound` and what the store does.
    """
    known = facts(client.store, clock)
    fold = folded(known)
    id = _found(client, fold, known, name)
    replay = _Replay(id, _labels(client, known, id))
    entries = [entry for each in known if (entry := replay.entry(each)) is not None]
    chosen = [
        each for each in entries
        if (since is None or each.time >= since) and (until is None or each.time <= until)
    ]  # fmt: skip
    chosen.reverse()  # so that of two at one time the later one comes first
    return sorted(chosen, key=lambda each: each.time, reverse=True)


def _found(client: Client, fold: Fold, known: Sequence[Fact], name: str) -> str:
    """Return the id of the model that has a name or id now, or else had that name last."""
    name = name.removeprefix("models:/")
    there = sorted(fold.entities(MODEL), key=lambda each: (each.created, each.id))
    now = [each.id for each in there if each.fields.get("name") == name]
    now = now or [each.id for each in there if each.id == name]
    if not now:
        alive, once = {each.id for each in there}, names_of(known)
        now = [id for id in reversed(once.get(name, ())) if id in alive]
        if not now:
            near = get_close_matches(name, once, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise NotFound(f"there never was a model {name!r} in {config.shown(client.setting.value)}{hint}")
    return now[0]


class _Replay:
    """Go through facts in the order of the fold, and remember what each value was and who wrote it."""

    def __init__(self, id: str, labels: Mapping[str, str]) -> None:
        self._id, self._labels = id, labels
        self._values: dict[_Key, Any] = {}
        self._writers: dict[_Key, tuple[int, str]] = {}  # the place and the digest of the change that wrote it
        self._places: dict[str, int] = {}  # of changes, by their digests

    def entry(self, fact: Fact) -> Entry | None:
        """Take a fact in; return what it changed about the model, None if that is nothing."""
        change = change_in(fact.record.events)
        if change is not None and change.get("model_id") != self._id:
            return None
        edits, keys = list[Edit](), list[_Key]()
        for key, before, after in self._edits(fact.record.events):
            keys.append(key)
            if not same(before, after):
                edits.append(self._edit(key, before, after))
        if change is None and not edits:
            return None  # what only repeats what is known
        told = change or {}
        unseen = self._unseen(keys, told)
        name = told.get("model") or self._values.get((MODEL, self._id, "fields", "name"))
        version, id, details = str(told.get("version") or ""), str(told.get("version_id") or ""), told.get("details")
        return Entry(
            fact.time, fact.received_at, fact.actor, fact.stamped, str(told.get("by", "")), _number(told.get("at")),
            str(told.get("action", "unknown")), str(name or ""), version, self._labels.get(id, ""),
            details if isinstance(details, Mapping) else {}, tuple(edits), unseen, str(told.get("digest", "")),
        )  # fmt: skip

    def _edits(self, events: Iterable[Event]) -> Iterator[tuple[_Key, Any, Any]]:
        for event in events:
            if event.id == self._id if event.kind == MODEL else event.id in self._labels:
                first = isinstance(event, Created) or (isinstance(event, AttributesSet) and event.once)
                for family, name, value in _written(event):
                    key = event.kind, event.id, family, name
                    before = self._values.get(key)
                    if (first and key in self._values) or key[2:] == ("fields", "change") or family == "revisions":
                        continue  # the first stays; what the registry notes for itself tells nobody anything
                    self._values[key] = value
                    yield key, before, value

    def _edit(self, key: _Key, before: Any, after: Any) -> Edit:
        kind, id, family, name = key
        if family == "aliases":
            before, after = (self._labels.get(str(each), each) for each in (before, after))
        full = name if family == "fields" else f"{family}.{name}"
        return Edit(self._labels[id] if kind == VERSION else "", full, before, after)

    def _unseen(self, keys: Iterable[_Key], change: Mapping[str, Any]) -> tuple[str, ...]:
        """Return who wrote the same after the change that the writer of this one saw last; note that this one did."""
        here, digest = len(self._places), str(change.get("digest", ""))
        previous = str(change.get("previous", ""))
        seen = self._places.get(previous, here if previous else -1)  # of one that is lost nobody can tell
        found = dict[str, None]()
        for key in keys:
            place, writer = self._writers.get(key, (-1, ""))
            if place > seen:
                found[writer] = None
            self._writers[key] = here, digest
        if digest:
            self._places[digest] = here
        return tuple(found)


def _written(event: Event) -> Iterator[tuple[str, str, Any]]:
    """Yield what an event sets: family, name and value, None where it takes it away."""
    match event:
        case Created(fields=fields) | Updated(fields=fields):
            yield from (("fields", name, value) for name, value in fields.items())
        case AttributesSet(family=family, values=values):
            yield from ((family, name, value) for name, value in values.items())
        case AttributesRemoved(family=family, names=names):
            yield from ((family, name, None) for name in names)


def _labels(client: Client, known: Sequence[Fact], id: str) -> dict[str, str]:
    """Return what the versions of a model are called now, by their ids."""
    registry = look(client, _EVER, known=known).registry
    found = registry.search_versions("name = ?", registry.get(id).name, include_deleted=True)
    return {each.id: each.version for each in found if each.model.id == id}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
