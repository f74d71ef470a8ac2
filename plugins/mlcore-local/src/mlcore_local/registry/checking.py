"""Check that nobody altered what was changed in a registry: each change holds the digest of the one before it.

Whoever alters, removes or reorders a change leaves one that does not fit. Who makes all later ones anew is noticed only
where a digest was kept elsewhere, as in the file of the setting `registry_log`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from mlcore.errors import StoreNotFound
from mlcore.registry import MODEL, VERSION, Change, by_number, digest_of
from mlcore.store import Entity, Event, Fold, Record, Store, Updated, digest
from mlcore_local.registry.merging import made, moment

__all__ = ["KINDS", "Chain", "Finding", "read", "verify"]

KINDS = (MODEL, VERSION)
_FAR_MS = 5 * 60 * 1000
_TYPES = {"str": str, "int": int, "Mapping[str, Any]": Mapping}
_NAMES = {each.name for each in attrs.fields(Change)}


@attrs.frozen
class Finding:
    """Say what is wrong with a registry: ``damaged`` was altered, ``merged`` and ``odd`` need somebody's eye.

    `where` is the place that was given with the record: a source, or its file.
    """

    what: str
    severity: str
    where: str = ""
    model: str = ""
    version: str = ""
    action: str = ""
    by: str = ""
    at: int = 0


@attrs.frozen
class _Link:
    """Hold a change with the place of its record."""

    change: Change
    stamp: int
    where: str

    def __str__(self) -> str:
        it = self.change
        of = f"version {it.version} of {it.model}" if it.version else it.model
        return f"{it.action} of {of} by {it.by or 'somebody'} at {moment(it.at)}"

    def finding(self, what: str, severity: str = "damaged") -> Finding:
        it = self.change
        return Finding(f"{self}: {what}", severity, self.where, it.model, it.version, it.action, it.by, it.at)


class Chain:
    """Take in the records of a store, in any order, and tell what does not fit. Not thread-safe."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._seen: dict[tuple[str, int], str] = {}
        self._fold = Fold()
        self._found: list[Finding] = []

    @property
    def changes(self) -> int:
        """How many changes there are."""
        return len(self._links)

    def take(self, source: str, record: Record, where: str = "", received: int | None = None) -> None:
        """Take in a record, from `where`; `received` is when, in ms since 1970, where a store vouches for that."""
        events = tuple(event for event in record.events if event.kind in KINDS)
        if not events:
            return
        content = digest([attrs.evolve(record, events=events)])
        known = self._seen.setdefault((source, record.number), content)
        if known is not content:  # it is in the file of a claim and in a journal
            if known != content:
                what = f"record {record.number} of source {source} is not the same in its other file"
                self._found.append(Finding(what, "damaged", where))
            return
        self._fold.add_record(source, attrs.evolve(record, events=events))
        try:
            change = _change(events)
        except ValueError as error:
            ids = ", ".join(sorted({f"{event.kind} {event.id}" for event in events}))
            self._found.append(Finding(f"{ids} was changed, and no change tells of it: {error}", "damaged", where))
            return
        link = _Link(change, record.stamp, where or source)
        if digest_of(events[:-1], change) != change.digest:
            self._found.append(link.finding("it was altered, its digest is of something else"))
        twin = self._links.setdefault(change.digest, link)
        if twin is not link:
            self._found.append(link.finding(f"it is there twice, {twin.where} has it, too"))
        self._found += _times(link, received)

    def findings(self, told: Iterable[Mapping[str, Any]] = ()) -> list[Finding]:
        """Return all that is wrong; `told` are changes that somebody kept elsewhere, which must be there."""
        found = [*self._found]
        for link in self._links.values():
            before = self._links.get(link.change.previous)
            if not link.change.previous:
                continue
            if before is None:
                found.append(link.finding("the change that it followed is missing, or was altered"))
            elif before.change.model_id != link.change.model_id:
                found.append(link.finding(f"it followed a change of another model, {before}"))
            elif before.stamp >= link.stamp:
                found.append(link.finding(f"its stamp is not after that of the change that it followed, {before}"))
        for each in told:
            if each.get("digest") not in self._links:
                named = {name: value for name, value in each.items() if name in _NAMES}
                what = "it was told when it was made, and is not there"
                found.append(_Link(Change(**{"action": "", "model": "", "model_id": "", **named}), 0, "").finding(what))
        return [*found, *self._doubles()]

    def _doubles(self) -> Iterator[Finding]:
        """Tell of versions of one number, and of models of one name."""
        models = {each.id: each for each in self._fold.entities(MODEL)}
        for (model, number), several in by_number(self._fold.entities(VERSION)).items():
            name = str(models[model].fields.get("name", model)) if model in models else model
            for each in several[1:]:
                label = f"{number}~{each.id[-4:]}"
                what = (
                    f"version {number} of {name} was made in several stores: {made(several[0])} keeps the number,"
                    f" {made(each)} is {label} until `mlcore registry renumber` gives it one to itself"
                )
                yield Finding(what, "merged", model=name, version=label)
        first = dict[str, Entity]()
        for it in sorted(models.values(), key=lambda it: (it.created, it.id)):
            name = str(it.fields.get("name"))
            if (holder := first.setdefault(name, it)) is not it:
                what = f"two models are named {name}: {made(holder)} is found by it, {made(it)} by its id {it.id}"
                yield Finding(what, "merged", model=name)


def read(store: Store) -> Chain:
    """Read the history of a store's registry."""
    chain, vouched = Chain(), store.capabilities.receipts
    with suppress(StoreNotFound):
        for stored in store.events(kinds=KINDS, rows=False):
            for record in stored.batch.records:
                chain.take(stored.batch.source, record, received=stored.received_at if vouched else None)
    return chain


def verify(store: Store, told: Iterable[Mapping[str, Any]] = ()) -> list[Finding]:
    """Read the history of a store's registry, and tell what is wrong with it; see `Chain.findings`."""
    return read(store).findings(told)


def _change(events: Sequence[Event]) -> Change:
    """Return the change that a record tells. Raises `ValueError`."""
    last = events[-1]
    told = last.fields.get("change") if isinstance(last, Updated) and last.kind == MODEL else None
    if not isinstance(told, Mapping) or not isinstance(last, Updated):
        raise ValueError("its last event is none")
    if told.keys() != _NAMES or last.fields.keys() != {"change"} or told["model_id"] != last.id:
        raise ValueError("it has other fields, or is of another model")
    if not all(isinstance(told[each.name], _TYPES[str(each.type)]) for each in attrs.fields(Change)):
        raise ValueError("its fields are of the wrong types")
    return Change(**told)


def _times(link: _Link, received: int | None) -> Iterator[Finding]:
    """Tell of times that are far from each other; a stamp is never before the time at which its change was made."""
    stamp, at = link.stamp // 1_000_000, link.change.at
    if at - stamp > _FAR_MS:
        yield link.finding(f"its stamp is {_span(at - stamp)} before its time")
    elif stamp - at > _FAR_MS:
        what = f"its stamp is {_span(stamp - at)} after its time: the clock of somebody was ahead, or it was altered"
        yield link.finding(what, "odd")
    if received is not None and at - received > _FAR_MS:
        what = f"its time is {_span(at - received)} after the store received it: the clock of its writer was ahead"
        yield link.finding(what, "odd")


def _span(ms: int) -> str:
    minutes = ms // 60_000
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
