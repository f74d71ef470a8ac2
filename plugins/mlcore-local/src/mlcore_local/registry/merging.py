"""Tell what becomes of registered models that two stores changed each for itself, when one gets what the other has.

Nothing of a version is lost: its id is its own everywhere. Numbers, names and aliases are not, as each store gave them
without the other: of two versions with one number the first keeps it, the other is shown with the end of its id.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs

from mlcore.errors import StoreNotFound
from mlcore.registry import MODEL, VERSION, by_number, labels
from mlcore.store import And, Batch, Compare, Created, Entity, Not, Or, Query, Store, Term

__all__ = ["CLAIMS", "Labels", "Meeting", "Merging", "made", "moment"]

CLAIMS = ("model-alias/", "model-name/", "model-version/")  # those of names, numbers and moves of aliases
_PARENT, _NUMBER, _NUMBERED = Term("", "parent"), Term("fields", "number"), Term("fields", "numbered")
_NAME, _USER = Term("fields", "name"), Term("fields", "user")
_HERE = Compare(Term("fields", "deleted"), "is null")
_ALL = Or((_HERE, Not(_HERE)))
Labels = Mapping[str, str]


@attrs.frozen
class Meeting:
    """Say what two stores had decided each for itself, and what became of it in the one that was written to.

    `kind` is ``model``, ``name``, ``version`` or ``alias``, and `about` the name, number or alias; `versions` are the
    versions, or models, that met, with their numbers, or names, by their ids. `what` says it in a sentence.
    """

    kind: str
    model: str
    model_id: str
    about: str
    what: str
    versions: Labels = attrs.field(factory=dict)


@attrs.frozen
class _Model:
    """Hold a model and its versions as they were."""

    entity: Entity
    versions: Mapping[str, Entity]

    @property
    def name(self) -> str:
        return str(self.entity.fields.get("name", self.entity.id))

    @property
    def aliases(self) -> Mapping[str, Any]:
        return self.entity.attributes.get("aliases", {})

    @property
    def labels(self) -> Labels:
        return labels(self.versions.values())


def moment(stamp: int) -> str:
    """Return a time in ms since 1970 as people here write it."""
    return f"{datetime.fromtimestamp(stamp / 1000).astimezone():%Y-%m-%d %H:%M:%S}"


def made(it: Entity) -> str:
    """Say when something was made, and by whom."""
    return f"that of {moment(it.created_ms)} by {it.fields.get('user') or 'somebody'}"


class Merging:
    """Look at each model of a store before it is written to, and tell in the end what met there. Thread-safe."""

    def __init__(self, target: Store) -> None:
        self._target, self._lock = target, threading.Lock()
        self._before: dict[str, _Model | None] = {}
        self._held: dict[str, Batch] = {}  # claims that were another's in both stores, with what came in vain

    def look(self, batch: Batch) -> None:
        """Look at the models that a batch changes, before it is written."""
        if not batch.home:
            ids = {event.id for record in batch.records for event in record.events if event.kind == MODEL}
            with self._lock:
                for id in ids - self._before.keys():
                    self._before[id] = self._model(id)

    def meet(self, batch: Batch) -> None:
        """Note that the claim of a batch is another's."""
        with self._lock:
            self._held[str(batch.claim)] = batch

    def meetings(self) -> list[Meeting]:
        """Tell what met: what is there now, and was not before."""
        after = {id: found for id in self._before if (found := self._model(id))}
        told = [*self._models(after), *self._names(after)]
        for id, model in sorted(after.items(), key=lambda item: item[1].name):
            told += [*_numbers(self._before[id], model), *self._aliases(id, model)]
        return told

    def _model(self, id: str) -> _Model | None:
        with suppress(StoreNotFound):
            (entity,) = self._target.get(MODEL, [id])
            asked = Query(And((Compare(_PARENT, "=", id), _ALL)), select=(_NUMBER, _NUMBERED, _USER))
            if entity is not None:
                return _Model(entity, {each.id: each for each in self._target.find(VERSION, asked).items})
        return None

    def _models(self, after: Mapping[str, _Model]) -> Iterator[Meeting]:
        for batch in self._of("model-name/"):
            for event in batch.records[0].events:
                model = after.get(event.id)
                if isinstance(event, Created) and model and self._before.get(event.id):
                    what = f"model {model.name} was made in both stores: it is one here, with the versions of both"
                    yield Meeting("model", model.name, event.id, model.name, what, {event.id: model.name})

    def _names(self, after: Mapping[str, _Model]) -> Iterator[Meeting]:
        names = tuple(sorted({each.name for each in after.values()}))
        if not names:
            return
        found = defaultdict[str, list[Entity]](list)
        for each in self._target.find(MODEL, Query(And((Compare(_NAME, "in", names), _ALL)))).items:
            found[str(each.fields["name"])].append(each)
        for name, several in found.items():
            first, *others = sorted(several, key=lambda it: (it.created, it.id))
            was = (self._before[each.id] for each in several if each.id in self._before)
            if others and any(each is None or each.name != name for each in was):
                rest = ", ".join(f"{made(each)} by its id {each.id}" for each in others)
                what = f"{len(several)} models are named {name} here: {made(first)} is found by it, {rest}: rename one"
                yield Meeting("name", name, first.id, name, what, {each.id: name for each in several})

    def _aliases(self, id: str, model: _Model) -> Iterator[Meeting]:
        known, shown = self._before[id], model.labels
        if known is None:  # it met elsewhere
            return
        for batch in self._of(f"model-alias/{id}/"):
            alias = str(batch.claim).removeprefix(f"model-alias/{id}/").partition("/")[0]
            before = known.aliases.get(alias)
            now = model.aliases.get(alias)
            stands = f"version {shown.get(now, now)}" if now else "no version"
            last = model.entity.attributes.get("revisions", {}).get(alias)
            how = f", as {last.get('by')} moved it last" if isinstance(last, Mapping) else ""
            was = f"version {shown.get(before, before)}" if before else "no version"
            then = f"it stays {stands} here" if now == before else f"it is {stands} here now, and was {was}"
            what = f"alias {alias} of {model.name} was moved in both stores: {then}{how}"
            met = {each: shown.get(each, "") for each in (before, now) if each}
            yield Meeting("alias", model.name, id, alias, what, met)

    def _of(self, prefix: str) -> list[Batch]:
        return [batch for claim, batch in sorted(self._held.items()) if claim.startswith(prefix)]


def _numbers(before: _Model | None, after: _Model) -> Iterator[Meeting]:
    """Tell of versions with one number that was not theirs before, each for itself."""
    known = before.labels if before else {}
    for (_, number), several in sorted(by_number(after.versions.values()).items(), key=lambda item: str(item[0])):
        same = {each.id for each in several if known.get(each.id, "").partition("~")[0] == str(number)}
        if len(several) == 1 or len(same) == len(several):
            continue
        first, *others = several
        was = {each.id: f" and no longer {number}" for each in others if known.get(each.id) == str(number)}
        rest = ", ".join(f"{made(each)} is {number}~{each.id[-4:]}{was.get(each.id, '')} here" for each in others)
        where = "both" if before and len(several) == 2 else "several"
        what = f"version {number} of {after.name} was made in {where} stores: {made(first)} keeps the number, {rest}"
        yield Meeting("version", after.name, after.entity.id, str(number), what, labels(several))
