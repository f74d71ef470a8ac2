"""Registered models and their versions: what is shown of them, and what is changed about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcore import journal, store
from mlcore.errors import AliasMoved, AlreadyExists, InvalidValue, NotFound
from mlcore.store import AttributesRemoved, AttributesSet, Compare, Event, Query, Sort, Term, Updated
from mlcore.tracking._changes import MODEL, VERSION, Change, write
from mlcore.tracking._model_uris import LATEST, SCHEME, STAGES, ModelUri, check_alias, check_stage, parse
from mlcore.tracking._plain import plain
from mlcore.tracking._thing import ALL, Listing, Thing, field, shown

if TYPE_CHECKING:
    from mlcore.tracking._backend import Backend

STATUSES = ("PENDING", "READY", "FAILED")
_NUMBER = Term("fields", "number")


class Registered(Thing):
    """What models and versions of the registry have in common: every change of them is a `Change`."""

    note = description = field("description", "What it is, as Markdown.", default="")
    user = field("user", "Who made it, as they said.", default="")
    created = shown(lambda it: it.created_ms, "When it was made, in ms since 1970.")
    changed = shown(lambda it: it.changed_ms, "When it was last changed, in ms since 1970.")

    def _about(self) -> dict[str, Any]:
        """Return what a change says that it is about."""
        raise NotImplementedError

    def _change(self, action: str, *events: Event, claim: str | None = None, **details: Any) -> Change:
        change = write(self._backend, Change(action, **self._about(), details=details), events, claim)
        self._entity = None
        return change

    def _put(self, events: tuple[Event, ...]) -> None:
        match events[0]:
            case AttributesSet(family="tags"):
                self._change("set_tags", *events, tags={k: v for each in events for k, v in each.values.items()})  # type: ignore[attr-defined]
            case AttributesRemoved(names=names):
                self._change("remove_tag", *events, tag=names[0])
            case Updated(fields={"deleted": deleted}):
                self._change("delete" if deleted else "restore", *events)
            case _:
                self._change("update", *events)

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
        from mlcore.tracking._ids import new_run_id

        id = new_run_id()
        value = {"id": id, "text": plain("comment", text), "user": journal.user(), "time": int(id[:12], 16)}
        self._change("comment", AttributesSet(self.kind, self.id, "comments", {id: value}), text=text[:200], comment=id)
        return id

    def remove_comment(self, id: str) -> None:
        """Take a comment out of what is shown; the history keeps it."""
        if id not in self._now().attributes.get("comments", {}):
            raise NotFound(f"there is no comment {id!r}")
        self._change("remove_comment", AttributesRemoved(self.kind, self.id, "comments", [id]), comment=id)


class RegisteredModel(Registered):
    """A model of the registry: versions under one name, which can change."""

    kind = MODEL

    def _about(self) -> dict[str, Any]:
        return {"model": self.name, "model_id": self.id}

    @property
    def aliases(self) -> dict[str, ModelVersion]:
        """The versions that aliases stand for."""
        found = self._now().attributes.get("aliases", {})
        known = {each.id: each for each in versions(self._backend, self)} if found else {}
        return {alias: known[id] for alias, id in sorted(found.items()) if id in known}

    @property
    def versions(self) -> Listing[ModelVersion]:
        """The versions, the highest number first, without those that are deleted."""
        return Listing(each for each in versions(self._backend, self) if not each.deleted)

    def version(self, which: str | int = LATEST) -> ModelVersion:
        """Return the version with a number, an alias, the highest of a stage, or the ``latest``. Raises `NotFound`."""
        text = str(which)
        known = text.lower() in (LATEST, *map(str.lower, STAGES)) or text[:1].isdigit()
        return self._fitting(parse(f"{self.name}/{text}" if known else f"{self.name}@{text}"))

    def _fitting(self, uri: ModelUri) -> ModelVersion:
        found = versions(self._backend, self)
        if uri.alias:
            id = self._now().attributes.get("aliases", {}).get(uri.alias)
            found = [each for each in found if each.id == id]
        elif uri.number:
            found = [each for each in found if uri.number in (each.version, each.id)]
        else:
            found = [each for each in found if not each.deleted and uri.stage in ("", each.stage)]
        if not found:
            raise NotFound(f"there is no {uri}: {self._there()}")
        return found[0]

    def _there(self) -> str:
        there = [f"version {each.version}" for each in self.versions[:5]]
        return f"{self.name} has {', '.join([*there, *(f'@{each}' for each in self.aliases)]) or 'no version'}"

    def set_alias(self, alias: str, version: str | int | ModelVersion) -> None:
        """Let an alias stand for a version, and no longer for another.

        Raises `AliasMoved` if somebody else moved it since this was read; then nothing is changed.
        """
        target = version if isinstance(version, ModelVersion) else self.version(version)
        if target.deleted:
            raise InvalidValue(f"version {target.version} of {self.name} is deleted: restore it, or choose another")
        self._move(check_alias(alias), target)

    def remove_alias(self, alias: str) -> None:
        """Let an alias stand for nothing. Raises `NotFound` or `AliasMoved`."""
        if alias not in self._now().attributes.get("aliases", {}):
            raise NotFound(f"{self.name} has no alias {alias!r}")
        self._move(alias, None)

    def _move(self, alias: str, target: ModelVersion | None) -> None:
        """Move an alias by a claim of its next revision, which of several that try at once one gets."""
        known = self._backend.get(MODEL, self.id) or store.Entity(MODEL, self.id)
        before = known.attributes.get("aliases", {}).get(alias)
        after = target.id if target else None
        revision = known.attributes.get("revisions", {}).get(alias, 0)
        names = {each.id: each.version for each in versions(self._backend, self)}
        while before != after:
            revision += 1
            moved = AttributesSet(MODEL, self.id, "aliases", {alias: after})
            event = moved if target else AttributesRemoved(MODEL, self.id, "aliases", [alias])
            counted = AttributesSet(MODEL, self.id, "revisions", {alias: revision})
            told = {"alias": alias, "before": before and names.get(before), "after": after and names.get(after)}
            try:
                self._change(
                    "set_alias" if target else "remove_alias", event, counted,
                    claim=f"model-alias/{self.id}/{alias}/{revision}", **told,
                )  # fmt: skip
                return
            except AlreadyExists:
                self.refresh()
                now = self._now()
            holds = now.attributes.get("aliases", {}).get(alias)
            if holds == after:
                return
            if holds != before or now.attributes.get("revisions", {}).get(alias, 0) >= revision:
                change = now.fields.get("change") or {}
                names = {each.id: each.version for each in versions(self._backend, self)}
                what = f"to version {names.get(holds)}" if holds else "to no version"
                raise AliasMoved(
                    f"{self.name}@{alias} was moved {what} by {change.get('by', 'somebody')} just now, not by you:"
                    " look again, and move it if that is still right"
                )
            # a store that was merged may know of revisions that others claimed here before: try the next one

    def rename(self, name: str) -> None:
        """Give it another name, which must be free. Raises `AlreadyExists`."""
        from mlcore.tracking._registry import claim_name

        claim_name(self._backend, name, self)

    def _view(self) -> dict[str, Any]:
        aliases = {f"aliases.{alias}": each.version for alias, each in self.aliases.items()}
        tags = {f"tags.{key}": value for key, value in self.tags.items()}
        latest = next(iter(self.versions), None)
        more = {"description": self.description} if self.description else {}
        gone = {"deleted": True} if self.deleted else {}
        return {"name": self.name, "latest": latest and latest.version, **aliases, **tags, **more, **gone}


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
    stage = field("stage", "None, Staging, Production or Archived, as text.", default="None")
    parent_version = field("parent_version", "The id of the version that it was copied from.")

    def __init__(self, backend: Backend, id: str, entity: store.Entity | None = None) -> None:
        super().__init__(backend, id, entity)
        self._version = self._name = ""

    def _about(self) -> dict[str, Any]:
        about = {"model": self.name, "model_id": self._now().parent}
        return about | {"version": self.version, "version_id": self.id}

    @property
    def name(self) -> str:
        """The name of the model."""
        if not self._name:
            model = self._backend.get(MODEL, self._now().parent)
            self._name = str(model.fields.get("name", "")) if model else ""
        return self._name

    @property
    def version(self) -> str:
        """The number as text: ``3``, or of the later of two that were made apart and merged ``3~ab12``."""
        if not self._version:
            number = Compare(_NUMBER, "=", self.number)
            label([*_versions(self._backend, self._now().parent, number), self])
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
        found = self.model._now().attributes.get("aliases", {})
        return sorted(alias for alias, id in found.items() if id == self.id)

    def transition(self, stage: str, *, archive_existing: bool = False) -> None:
        """Move it to a stage, and with `archive_existing` what was there to Archived. Raises `InvalidValue`."""
        after, before = check_stage(stage), self.stage
        events = [Updated(VERSION, self.id, {"stage": after})]
        if archive_existing and after != "None":
            others = (
                each for each in versions(self._backend, self.model) if each.stage == after and each.id != self.id
            )
            events += [Updated(VERSION, each.id, {"stage": "Archived"}) for each in others]
        self._change("transition", *events, before=before, after=after, archived=len(events) - 1)

    def set_status(self, status: str, message: str = "") -> None:
        """Say that it is PENDING, READY or FAILED, and why. Raises `InvalidValue`."""
        if status not in STATUSES:
            raise InvalidValue(f"a version is {', '.join(STATUSES)}, not {status!r:.80}")
        values = {"status": status, "status_message": plain("message", message)}
        self._change("set_status", Updated(VERSION, self.id, values), status=status, message=message)

    def delete(self) -> None:
        """Hide it until it is restored; its number is never used again. Raises `InvalidValue` while an alias has it."""
        if aliases := self.aliases:
            told = ", ".join(f"@{alias}" for alias in aliases)
            raise InvalidValue(f"version {self.version} of {self.name} is {told}: move or remove that first")
        super().delete()

    def _view(self) -> dict[str, Any]:
        view = {"name": self.name, "version": self.version, "created": self.created, "source": self.source}
        view |= {name: value for name in ("run_id", "flavor", "user") if (value := getattr(self, name))}
        view |= {"stage": self.stage} if self.stage != "None" else {}
        view |= {"status": self.status} if self.status != "READY" else {}
        view |= {"deleted": True} if self.deleted else {}
        view |= {"aliases": ", ".join(aliases)} if (aliases := self.aliases) else {}
        return view | {f"tags.{key}": value for key, value in self.tags.items()}


def versions(backend: Backend, model: RegisteredModel) -> list[ModelVersion]:
    """Return all versions of a model, deleted ones too, the highest number first."""
    found = label(_versions(backend, model.id))
    for each in found:
        each._name = model.name
    return found


def _versions(backend: Backend, model_id: str, *where: store.Where) -> list[ModelVersion]:
    query = Query(
        store.And((Compare(Term("", "parent"), "=", model_id), *where, ALL)), order=(Sort(_NUMBER, descending=True),)
    )
    return [ModelVersion(backend, each.id, each) for each in backend.store().find(VERSION, query).items]


def label(found: list[ModelVersion]) -> list[ModelVersion]:
    """Give versions their numbers as text: of several with one number, the first keeps it."""
    first: dict[tuple[str, int], ModelVersion] = {}
    for each in sorted(found, key=lambda it: (it._now().created, it.id)):
        keeper = first.setdefault((each._now().parent, each.number), each)
        each._version = str(each.number) + ("" if keeper.id == each.id else f"~{each.id[-4:]}")
    return found
