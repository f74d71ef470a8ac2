"""Registered models and their versions: what is shown of them, and what is changed about them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from mlcore import journal, query, store
from mlcore.errors import AliasMoved, AlreadyExists, InvalidValue, NotFound
from mlcore.store import AttributesRemoved, AttributesSet, Compare, Entity, Event, Query, Sort, Term, Updated
from mlcore.tracking._changes import MODEL, VERSION, Change, write
from mlcore.tracking._ids import new_run_id
from mlcore.tracking._model_uris import LATEST, SCHEME, STAGES, ModelUri, check_alias, check_stage, parse
from mlcore.tracking._plain import plain
from mlcore.tracking._thing import Listing, Thing, everything, field, shown

if TYPE_CHECKING:
    from mlcore.tracking._backend import Backend

STATUSES = ("PENDING", "READY", "FAILED")
_PARENT, _NUMBER = Term("", "parent"), Term("fields", "number")
_NUMBERED = Term("fields", "numbered")  # since when it has its number, where that was not its first
_SAME = 16  # versions of one number, made apart and merged, of which the first is the latest


class Registered(Thing):
    """What models and versions of the registry have in common: every change of them is a `Change`."""

    note = description = field("description", "What it is, as Markdown.", default="")
    user = field("user", "Who made it, as they said.", default="")
    created = shown(lambda it: it.created_ms, "When it was made, in ms since 1970.")
    changed = shown(lambda it: it.changed_ms, "When it was last changed, in ms since 1970.")

    def __init__(self, backend: Backend, id: str, entity: Entity | None = None) -> None:
        super().__init__(backend, id, entity)
        self._page: Sequence[Any] = (self,)  # what was read with it: what else is shown of them is read at once, too

    @classmethod
    def _of(cls, backend: Backend, found: Iterable[Entity]) -> list[Self]:
        page = super()._of(backend, found)
        for each in page:
            each._page = page
        return page

    def _about(self) -> dict[str, Any]:
        """Return what a change says that it is about."""
        raise NotImplementedError

    def _change(self, action: str, *events: Event, claim: str | None = None, **details: Any) -> Change:
        change = write(self._backend, Change(action, **self._about(), details=details), events, claim)
        self.refresh()
        return change

    def _put(self, events: tuple[Event, ...]) -> None:
        match events[0]:
            case AttributesSet():
                self._change("set_tags", *events, tags={k: v for each in events for k, v in each.values.items()})  # type: ignore[attr-defined]
            case AttributesRemoved(names=names):
                self._change("remove_tag", *events, tag=names[0])
            case Updated(fields=fields):
                self._change("delete" if fields["deleted"] else "restore", *events)

    @property
    def comments(self) -> list[dict[str, Any]]:
        """The comments in order, each with its ``id``, ``text`` as Markdown, ``user`` and ``time`` in ms since 1970."""
        return sorted(self._now().attributes.get("comments", {}).values(), key=lambda each: each["time"])

    def describe(self, text: str) -> None:
        """Set the description, as Markdown; the last one counts."""
        description = plain("description", text)
        self._change("describe", Updated(self.kind, self.id, {"description": description}), description=description)

    set_note = describe

    def comment(self, text: str) -> str:
        """Add a comment, as Markdown; return its id."""
        if not str(text).strip():
            raise InvalidValue("a comment must not be empty")
        id = new_run_id()
        value = {"id": id, "text": plain("comment", text), "user": journal.user(), "time": int(id[:12], 16)}
        self._change("comment", AttributesSet(self.kind, self.id, "comments", {id: value}), text=text, comment=id)
        return id

    def remove_comment(self, id: str) -> None:
        """Take a comment out of what is shown; the history keeps it."""
        if id not in self._now().attributes.get("comments", {}):
            raise NotFound(f"there is no comment {id!r}")
        self._change("remove_comment", AttributesRemoved(self.kind, self.id, "comments", [id]), comment=id)


class RegisteredModel(Registered):
    """A model of the registry: versions under one name, which can change."""

    kind = MODEL
    _known: Sequence[ModelVersion] | None = None

    def _about(self) -> dict[str, Any]:
        return {"model": self.name, "model_id": self.id}

    @property
    def aliases(self) -> dict[str, ModelVersion]:
        """The versions that aliases stand for."""
        ids = self._now().attributes.get("aliases", {})
        found = self._backend.store().get(VERSION, list(ids.values())) if ids else []
        known = {each.id: each for each in ModelVersion._of(self._backend, filter(None, found))}
        return {alias: known[id] for alias, id in sorted(ids.items()) if id in known}

    @property
    def versions(self) -> Listing[ModelVersion]:
        """The versions, the highest number first, without those that are deleted."""
        return Listing(each for each in versions(self._backend, self.id) if not each.deleted)

    @property
    def latest_versions(self) -> dict[str, ModelVersion]:
        """The version with the highest number of each stage that has one."""
        return {each.stage: each for each in reversed(self.versions)}

    def version(self, which: str | int = LATEST) -> ModelVersion:
        """Return the version with a number, an alias, the highest of a stage, or the ``latest``. Raises `NotFound`.

        What is an alias of the model is taken for that, even if it is a stage, too.
        """
        text, aliases = str(which), self._now().attributes.get("aliases", {})
        known = text.lower() in (LATEST, *map(str.lower, STAGES)) or text[:1].isdigit()
        return self._fitting(parse(f"{self.name}{'/' if known and text not in aliases else '@'}{text}"))

    def _fitting(self, uri: ModelUri) -> ModelVersion:
        found: Sequence[ModelVersion]
        if uri.alias:
            found = [each for alias, each in self.aliases.items() if alias == uri.alias]
        elif uri.number:
            number = Compare(_NUMBER, "=", int(uri.number.partition("~")[0]))
            found = [each for each in versions(self._backend, self.id, number) if each.version == uri.number]
        else:
            stage = [query.VERSION["stage"].compare("=", uri.stage)] if uri.stage else []
            found = versions(self._backend, self.id, *stage, deleted=False, limit=_SAME)
        if not found:
            raise NotFound(f"there is no {uri}: {self._there()}")
        return found[0]

    def _there(self) -> str:
        there = [f"version {each.version}" for each in self.versions[:5]]
        return f"{self.name} has {', '.join([*there, *(f'@{each}' for each in self.aliases)]) or 'no version'}"

    def set_alias(self, alias: str, version: str | int | ModelVersion) -> None:
        """Let an alias stand for a version, and no longer for another.

        Raises `AliasMoved` if somebody else moved it since this was read; then nothing is changed, and this is read
        anew.
        """
        target = version if isinstance(version, ModelVersion) else self.version(version)
        if target.deleted or target._now().parent != self.id:
            what = "deleted: restore it" if target.deleted else f"no version of {self.name}"
            raise InvalidValue(f"version {target.version} of {target.name} is {what}, or choose another")
        self._move(check_alias(alias), target)
        target.refresh()

    def remove_alias(self, alias: str) -> None:
        """Let an alias stand for nothing. Raises `NotFound` or `AliasMoved`."""
        if alias not in self._now().attributes.get("aliases", {}):
            raise NotFound(f"{self.name} has no alias {alias!r}")
        self._move(alias, None)

    def _holds(self, alias: str) -> tuple[str | None, Mapping[str, Any]]:
        """Return the id of the version that an alias stands for, and which move made it so."""
        kept = self._now().attributes
        return kept.get("aliases", {}).get(alias), kept.get("revisions", {}).get(alias, {})

    def _move(self, alias: str, target: ModelVersion | None) -> None:
        """Move an alias by a claim of what comes after its last move, which of several that try at once one gets."""
        seen, after = self._holds(alias), target.id if target else None
        self.refresh()
        before = self.aliases.get(alias)
        if self._holds(alias) == seen and seen[0] != after:
            revision = {"id": new_run_id(), "by": journal.user()}
            moved = AttributesSet(MODEL, self.id, "aliases", {alias: after})
            removed = AttributesRemoved(MODEL, self.id, "aliases", [alias])
            with suppress(AlreadyExists):
                self._change(
                    "set_alias" if target else "remove_alias", moved if target else removed,
                    AttributesSet(MODEL, self.id, "revisions", {alias: revision}),
                    claim=f"model-alias/{self.id}/{alias}/{seen[1].get('id', 0)}", alias=alias,
                    before=before and before.version, after=target and target.version,
                )  # fmt: skip
                return
            soon(lambda: RegisteredModel(self._backend, self.id)._holds(alias) != seen)
            self.refresh()
        holds, last = self._holds(alias)
        if holds != after:
            found = self.aliases.get(alias)
            what, who = f"version {found.version}" if found else "no version", last.get("by", "somebody")
            raise AliasMoved(
                f"{self.name}@{alias} was moved to {what} by {who}, not by you: look again, and move it if that is"
                " still right"
            )

    def rename(self, name: str) -> None:
        """Give it another name, which must be free. Raises `AlreadyExists`."""
        from mlcore.tracking._registry import take_name

        change = Change("rename", self.name, self.id, details={"before": self.name, "after": name})
        take_name(self._backend, name, lambda _: (change, [Updated(MODEL, self.id, {"name": name})]), self.id)
        self.refresh()

    def refresh(self) -> None:
        """See `Thing.refresh`."""
        super().refresh()
        self._page, self._known = (self,), None

    def _view(self) -> dict[str, Any]:
        if self._known is None or len(self._page) == 1:
            found = defaultdict[str, list[ModelVersion]](list)
            for version in versions(self._backend, [each.id for each in self._page]):
                found[version._now().parent].append(version)
            for each in self._page:
                each._known = found[each.id]
        names = {each.id: each.version for each in self._known or ()}
        aliases = sorted(self._now().attributes.get("aliases", {}).items())
        latest = next((each.version for each in self._known or () if not each.deleted), None)
        view = {"name": self.name, "latest": latest} | {f"aliases.{alias}": names.get(id) for alias, id in aliases}
        view |= {f"tags.{key}": value for key, value in self.tags.items()}
        view |= {"description": self.description} if self.description else {}
        return view | ({"deleted": True} if self.deleted else {})


class ModelVersion(Registered):
    """One version of a registered model: which model it is, and where it lies."""

    kind = VERSION
    number = field("number", "The number; of two that were made apart and merged, both have the same.", default=0)
    source = field("source", "The URI of the model's files.", default="")
    digest = field("digest", "The digest of its files, which they must have to be loaded.", default="")
    flavor = field("flavor", "The flavor that wrote it.", default="")
    run_id = field("run_id", "The run that it came from.")
    model_id = field("model_id", "The id of the model that was logged.")
    status = field("status", "PENDING, READY or FAILED.", default="READY")
    status_message = field("status_message", "Why it has its status.", default="")
    stage = field("stage", "None, Staging, Production or Archived, as text.", default="None")
    parent_version = field("parent_version", "The id of the version that it was copied from.")
    _version = ""
    _model: Entity | None = None

    def _about(self) -> dict[str, Any]:
        about = {"model": self.name, "model_id": self._now().parent}
        return about | {"version": self.version, "version_id": self.id}

    def _of_model(self) -> Entity:
        """Return the model, read for all of the page at once."""
        if self._model is None:
            ids = list({each._now().parent for each in self._page})
            found = dict(zip(ids, self._backend.store().get(MODEL, ids), strict=True))
            for each in self._page:
                each._model = found.get(each._now().parent)
        return self._model or Entity(MODEL, self._now().parent)

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self._of_model().fields.get("name", ""))

    @property
    def version(self) -> str:
        """The number as text: ``3``, or of the later of two that were made apart and merged ``3~ab12``."""
        if not self._version:
            _label(self._backend, self._page)
        return self._version

    @property
    def uri(self) -> str:
        """The URI to load it by."""
        return f"{SCHEME}{self.name}/{self.version}"

    @property
    def model(self) -> RegisteredModel:
        """The model that this is a version of."""
        return RegisteredModel(self._backend, self._now().parent)

    @property
    def aliases(self) -> list[str]:
        """The aliases that stand for it."""
        found = self._of_model().attributes.get("aliases", {})
        return sorted(alias for alias, id in found.items() if id == self.id)

    def transition(self, stage: str, *, archive_existing: bool = False) -> None:
        """Move it to a stage, and with `archive_existing` what was there to Archived. Raises `InvalidValue`."""
        after, before = check_stage(stage), self.stage
        wanted = archive_existing and after not in ("None", "Archived")
        there = query.VERSION["stage"].compare("=", after)
        others = [
            each for each in versions(self._backend, self._now().parent, there) if each.id != self.id
        ] if wanted else []  # fmt: skip
        events = [Updated(VERSION, self.id, {"stage": after})]
        events += [Updated(VERSION, each.id, {"stage": "Archived"}) for each in others]
        archived = {"archived": [each.version for each in others]} if wanted else {}
        self._change("transition", *events, **{"before": before, "after": after, **archived})

    def renumber(self) -> None:
        """Give it the next free number, of two that were made apart with one number. Raises `InvalidValue`."""
        before, known, model = self.version, self.number, self._now().parent
        if len(versions(self._backend, model, Compare(_NUMBER, "=", known))) == 1:
            raise InvalidValue(f"version {before} of {self.name} has its number to itself")
        for number in count(versions(self._backend, model, limit=1)[0].number + 1):
            events = [Updated(VERSION, self.id, {"number": number, "numbered": time.time_ns()})]
            with suppress(AlreadyExists):
                claim = f"model-version/{model}/{number}"
                self._change("renumber", *events, claim=claim, before=before, after=str(number))
            self.refresh()
            if self.number != known:  # else somebody took that number just now
                break

    def set_status(self, status: str, message: str = "") -> None:
        """Say that it is PENDING, READY or FAILED, and why. Raises `InvalidValue`."""
        if status not in STATUSES:
            raise InvalidValue(f"a version is {', '.join(STATUSES)}, not {status!r:.80}")
        values = {"status": status, "status_message": plain("message", message)}
        self._change("set_status", Updated(VERSION, self.id, values), status=status, message=message)

    def delete(self) -> None:
        """Hide it until it is restored; its number is never used again. Raises `InvalidValue` while an alias has it."""
        self.refresh()
        if aliases := self.aliases:
            told = ", ".join(f"@{alias}" for alias in aliases)
            raise InvalidValue(f"version {self.version} of {self.name} is {told}: move or remove that first")
        super().delete()

    def refresh(self) -> None:
        """See `Thing.refresh`."""
        super().refresh()
        self._page, self._version, self._model = (self,), "", None

    def _view(self) -> dict[str, Any]:
        view = {"name": self.name, "version": self.version, "created": self.created, "source": self.source}
        view |= {name: value for name in ("run_id", "flavor", "user") if (value := getattr(self, name))}
        view |= {"stage": self.stage} if self.stage != "None" else {}
        view |= {"status": self.status} if self.status != "READY" else {}
        view |= {"deleted": True} if self.deleted else {}
        view |= {"aliases": ", ".join(aliases)} if (aliases := self.aliases) else {}
        return view | {f"tags.{key}": value for key, value in self.tags.items()}


def versions(
    backend: Backend, models: str | Iterable[str], *where: store.Where, deleted: bool = True, limit: int | None = None
) -> list[ModelVersion]:
    """Return versions of models by their ids, the highest number first, of one number the first that was made."""
    ids = (models,) if isinstance(models, str) else tuple(models)
    asked = (Compare(_PARENT, "in", ids), *where, *([everything()] if deleted else []))
    found = backend.store().find(VERSION, Query(store.And(asked), order=(Sort(_NUMBER, descending=True),), limit=limit))
    return ModelVersion._of(backend, sorted(found.items, key=in_order))


def in_order(it: Entity) -> tuple[int, int, str]:
    """Return by what to order versions: the highest number first, of one number the first that was made."""
    return -it.fields.get("number", 0), it.fields.get("numbered", it.created), it.id


def _label(backend: Backend, page: Sequence[ModelVersion]) -> None:
    """Give versions their numbers as text."""
    parents, numbers = ({*each} for each in zip(*((each._now().parent, each.number) for each in page), strict=True))
    same = Compare(_PARENT, "in", tuple(parents)), Compare(_NUMBER, "in", tuple(numbers)), everything()
    shown = labels(backend.store().find(VERSION, Query(store.And(same), select=(_NUMBER, _NUMBERED))).items)
    for it in page:
        it._version = shown.get(it.id) or str(it.number)


def labels(entities: Iterable[Entity]) -> dict[str, str]:
    """Return the numbers of versions as text, as `ModelVersion.version`, by their ids; they are all that have these."""
    found = dict[str, str]()
    for (_, number), (first, *others) in by_number(entities).items():
        found |= {first.id: str(number), **{each.id: f"{number}~{each.id[-4:]}" for each in others}}
    return found


def by_number(entities: Iterable[Entity]) -> dict[tuple[str, Any], list[Entity]]:
    """Return versions by their model and number, those first that keep the number."""
    found = dict[tuple[str, Any], list[Entity]]()
    for each in sorted(entities, key=in_order):
        found.setdefault((each.parent, each.fields.get("number")), []).append(each)
    return found


def soon(look: Callable[[], Any]) -> Any:
    """Return what is there within two seconds: any store shows what others wrote within one."""
    for pause in (0, 0.05, 0.15, 0.3, 0.6, 1):
        time.sleep(pause)
        if found := look():
            return found
    return None
