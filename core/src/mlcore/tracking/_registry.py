"""The registry of one store: models under names, their versions, and what stands for which of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from mlcore import config, journal
from mlcore.errors import AliasMoved, AlreadyExists, InvalidValue, NotFound, StoreNotFound
from mlcore.folder import STORE_HOME
from mlcore.store import AttributesSet, Compare, Created, Event, Store, Term
from mlcore.tracking._backend import Backend
from mlcore.tracking._changes import MODEL, VERSION, Change, write
from mlcore.tracking._ids import new_run_id
from mlcore.tracking._model_uris import check_alias, check_model_name, parse
from mlcore.tracking._plain import plain, portions
from mlcore.tracking._registered import ModelVersion, RegisteredModel, versions
from mlcore.tracking._thing import Listing

if TYPE_CHECKING:
    from mlcore.tracking._client import Client

_NAME = Term("fields", "name")


class Registry:
    """Register models in one store and find them; `Client.registry` has that of its store."""

    def __init__(self, backend: Backend, client: Client | None = None) -> None:
        self._backend, self._client = backend, client

    @classmethod
    def over(cls, store: Store, name: str, client: Client | None = None) -> Self:
        """Return the registry of a store that is open, such as one that shows the past; messages call it `name`."""
        backend = Backend(config.OFF)
        backend._store, backend.name = store, name
        return cls(backend, client)

    def create(self, name: str, *, description: str = "", tags: Mapping[str, Any] | None = None) -> RegisteredModel:
        """Make a model without versions. Raises `AlreadyExists` or `InvalidValue`."""
        fields = {"name": name, "description": plain("description", description), "user": journal.user()}
        values = _plain(tags)

        def made(id: str) -> tuple[Change, list[Event]]:
            tagged = [AttributesSet(MODEL, id, "tags", part) for part in portions(values)]
            return Change("create", name, id, details=_details(values)), [Created(MODEL, id, fields=fields), *tagged]

        return RegisteredModel(self._backend, take_name(self._backend, name, made))

    def get(self, name: str) -> RegisteredModel:
        """Return a model by its name or id, deleted or not. Raises `NotFound`."""
        found = named(self._backend, name)
        if found is None and (entity := self._backend.get(MODEL, name)):
            found = RegisteredModel(self._backend, name, entity)
        if found is None:
            near = _near(name, (each.name for each in self.list()))
            raise NotFound(f"there is no model {name!r} in {self._backend.name}{near}")
        return found

    def list(self, *, include_deleted: bool = False) -> Listing[RegisteredModel]:
        """Return the models, newest first."""
        return RegisteredModel._find(self._backend, deleted=include_deleted)

    def search(
        self,
        filter: str | None = None,
        *params: Any,
        order_by: str | Iterable[str] | None = None,
        limit: int | None = None,
        include_deleted: bool = False,
    ) -> Listing[RegisteredModel]:
        """Return the models that fit a filter, newest first; see `Client.search_runs`. Raises `InvalidQuery`."""
        from mlcore.tracking._searching import search

        return search(
            RegisteredModel, self._backend, filter, params,
            order_by=order_by, limit=limit, include_deleted=include_deleted,
        )  # fmt: skip

    def search_versions(
        self,
        filter: str | None = None,
        *params: Any,
        order_by: str | Iterable[str] | None = None,
        limit: int | None = None,
        include_deleted: bool = False,
    ) -> Listing[ModelVersion]:
        """Return the versions of all models that fit a filter, newest first. Raises `InvalidQuery`.

        ``metrics.KEY`` and ``params.KEY`` are those of the run that a version came from; see docs/reference/query.md.
        """
        from mlcore.tracking._searching import search

        return search(
            ModelVersion, self._backend, filter, params,
            order_by=order_by, limit=limit, include_deleted=include_deleted,
        )  # fmt: skip

    def version(self, uri: str) -> ModelVersion:
        """Return the version that a URI names, such as ``models:/NAME/3`` or ``NAME@alias``. Raises `NotFound`."""
        parsed = parse(uri)
        return self.get(parsed.name)._fitting(parsed)

    def register(
        self,
        uri: str,
        name: str,
        *,
        description: str = "",
        tags: Mapping[str, Any] | None = None,
        aliases: str | Iterable[str] = (),
    ) -> ModelVersion:
        """Make a version of the model `name`, which is made if there is none, of what lies at `uri`; copy nothing.

        `uri` is what `mlcore.load_model` takes. The files are pinned by their digest: the version is loaded only as
        long as they are the same. Raises `NotAModel`, `InvalidValue`, `NotFound` or another `MlcoreError`.
        """
        assert self._client is not None
        return self.add(name, self._client._described(uri), description=description, tags=tags, aliases=aliases)

    def add(
        self,
        name: str,
        about: Mapping[str, Any],
        *,
        description: str = "",
        tags: Mapping[str, Any] | None = None,
        aliases: str | Iterable[str] = (),
    ) -> ModelVersion:
        """Make a version of what is known already: its `source`, `digest`, `flavor`, `run_id` and `model_id`."""
        wanted = [check_alias(each) for each in ([aliases] if isinstance(aliases, str) else aliases)]
        values, id = _plain(tags), new_run_id()
        fields = {key: value for key, value in about.items() if value is not None}
        fields |= {"description": plain("description", description), "user": journal.user()}
        model = named(self._backend, check_model_name(name)) or self._made(name)
        if model.deleted:
            raise InvalidValue(f"model {name!r} is deleted: restore it, or choose another name")
        details = {"source": fields.get("source"), **_details(values)}
        tagged = [AttributesSet(VERSION, id, "tags", part) for part in portions(values)]
        latest = versions(self._backend, model.id, limit=1)
        for number in count(latest[0].number + 1 if latest else 1):
            change = Change("register", model.name, model.id, str(number), id, details)
            made = Created(VERSION, id, model.id, {"number": number, **fields})
            with suppress(AlreadyExists):  # somebody took the number just now: the next one is free, or taken as well
                write(self._backend, change, [made, *tagged], f"model-version/{model.id}/{number}")
                break
        for alias in wanted:
            while True:
                with suppress(AliasMoved):  # to another version that was made just now, and before this
                    model.refresh()
                    model.set_alias(alias, ModelVersion(self._backend, id))
                    break
        return ModelVersion(self._backend, id)

    def version_by_id(self, id: str) -> ModelVersion:
        """Return a version by its id, which no other model's has and which never changes. Raises `NotFound`."""
        entity = self._backend.get(VERSION, id)
        if entity is None:
            raise NotFound(f"there is no version with the id {id!r} in {self._backend.name}")
        return ModelVersion(self._backend, id, entity)

    @property
    def signers(self) -> dict[str, dict[str, Any]]:
        """The public keys, of which one must have signed each model that is loaded from this store, by their names."""
        edited = self._backend.edited()  # which is soon told, where thousands of runs would have to be looked at
        entity = self._backend.get("policy", "models") if edited else None
        found = (entity.attributes.get("signers") if entity else None) or {}
        known = {name: dict(each) if isinstance(each, Mapping) else {"key": each} for name, each in found.items()}
        return {name: each for name, each in known.items() if each.get("key") is not None}

    def set_signer(self, name: str, key: str | None) -> None:
        """Require a signature of this key, in PEM, or of another that is required; with None no longer of this one."""
        about = {"key": key, "user": journal.user(), "time": int(time.time() * 1000)}
        self._backend.edit([Created("policy", "models"), AttributesSet("policy", "models", "signers", {name: about})])

    def _made(self, name: str) -> RegisteredModel:
        try:
            return self.create(name)
        except AlreadyExists:  # by another process, just now
            return self.get(name)


def named(backend: Backend, name: str) -> RegisteredModel | None:
    """Return the model that has a name now, deleted or not; of several that met offline, the first."""
    with suppress(StoreNotFound):
        found = RegisteredModel._find(backend, Compare(_NAME, "=", name), deleted=True)
        return min(found, key=lambda each: (each._now().created, each.id), default=None)
    return None


def take_name(backend: Backend, name: str, wanted: Callable[[str], tuple[Change, list[Event]]], own: str = "") -> str:
    """Write a change that makes a model of a name, or gives it to the `own` one; return its id.

    `wanted` returns the change and its events by the id that is derived from the name. Raises `AlreadyExists`.
    """
    check_model_name(name)
    holder = named(backend, name)
    for generation in count():
        id = hashlib.sha256(f"{MODEL}\0{name}\0{generation}".encode()).hexdigest()[:32]
        known = backend.get(MODEL, id) if holder is None else None
        if known is not None and known.fields.get("name") == name:  # made just now, else it was renamed since
            holder = RegisteredModel(backend, id, known)
        if holder is not None:
            gone = ", and is deleted: restore it" if holder.deleted else ""
            raise AlreadyExists(f"model {name!r}", f"id {holder.id}{gone}")
        if known is None or id == own:
            try:
                write(backend, *wanted(id), f"model-name/{name}/{generation}")
            except AlreadyExists as error:  # somebody took it just now, or had it before a rename
                holder = _taken(backend, name, error)
            else:
                return id
    raise AssertionError("generations do not end")


def _taken(backend: Backend, name: str, refused: AlreadyExists) -> RegisteredModel | None:
    """Wait until what a claim is held by is read, and return the model, None if it has another name since."""
    for pause in (0, 0.05, 0.15, 0.3, 0.6, 1, 2, 4, 8, 14):  # on a busy machine another's write may be seen late
        time.sleep(pause)
        if found := named(backend, name):
            return found
        for batch in (
            each.batch for each in backend.store().events(of=STORE_HOME) if each.batch.claim == refused.claim
        ):
            ids = [event.id for record in batch.records for event in record.events if event.kind == MODEL]
            held = backend.get(MODEL, ids[0])
            if held is not None and held.changed >= batch.records[-1].stamp and held.fields.get("name") != name:
                return None
    raise refused


def _plain(tags: Mapping[str, Any] | None) -> dict[str, Any]:
    return {journal.check_key(key): plain(key, value) for key, value in (tags or {}).items()}


def _details(tags: Mapping[str, Any]) -> dict[str, Any]:
    return {"tags": tags} if tags else {}


def _near(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name, list(names), 1)
    return f": did you mean {found[0]}?" if found else ""
