"""A registry with a random history, and what a plain replay says that it was at each time."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from typing import Any

from mlcore import Client
from mlcore.registry import STAGES, ModelVersion, RegisteredModel, Registry

_NAMES = ("digits", "späß x", "100%", "it's", "a.b")
_ALIASES = ("champion", "challenger", "old.one")
_TAGS = ("team", "späß", "a b")
View = dict[str, dict[str, Any]]


def now() -> int:
    """Return the time, in ms since 1970."""
    return time.time_ns() // 1_000_000


def next_ms() -> int:
    """Wait for the next millisecond, and return it."""
    began = now()
    while now() == began:
        time.sleep(0.0002)
    return now()


class Random:
    """Change the registry of some clients, at random, and know by plain dicts what it was after each change.

    Models are known by their first names, which are all different; versions by their ids.
    """

    def __init__(self, clients: list[Client], seed: int) -> None:
        self._random, self._clients = random.Random(seed), clients
        self._models: View = {}
        self._ids: dict[str, str] = {}  # of models, by their first names
        self.marks: list[tuple[int, int, View]] = []  # from when to when it was how
        self.actions = 0

    def run(self, count: int) -> None:
        """Make so many changes."""
        while self.actions < count:
            self._note()
            self._act()
        self._note()

    def _note(self) -> None:
        """Note that it is as it is for one millisecond at least."""
        began = next_ms()
        self.marks.append((began, next_ms(), copy.deepcopy(self._models)))

    def times(self, count: int) -> list[tuple[int, View]]:
        """Return so many times, and how it was then."""
        chosen = self._random.choices(self.marks, k=count)
        return [(self._random.randrange(began, until), view) for began, until, view in chosen]

    # What is done

    def _act(self) -> None:
        """Make one change."""
        registry = self._random.choice(self._clients).registry
        live = [id for id, each in self._models.items() if not each["deleted"]]
        if not live or (len(self._models) < len(_NAMES) and self._random.random() < 0.1):
            return self._change(self._create, registry)
        id = self._random.choice(live)
        known = self._models[id]
        model = registry.get(known["name"])
        if not known["versions"] or self._random.random() < 0.12:
            return self._change(self._register, registry, model, known)
        acts: list[Callable[..., None]] = [self._alias, self._stage, self._describe, self._tags, self._comment]
        acts += [self._status, self._hide, self._rename, self._alias, self._stage]
        return self._change(self._random.choice(acts), registry, model, known)

    def _change(self, act: Callable[..., None], *about: Any) -> None:
        act(*about)
        self.actions += 1

    def _create(self, registry: Registry) -> None:
        name = f"{self._random.choice(_NAMES)} {len(self._models)}"
        tags = {"team": 1} if self._random.random() < 0.5 else {}
        made = registry.create(name, tags=tags)
        self._models[made.id] = {
            "name": name, "deleted": False, "description": "", "tags": tags, "aliases": {}, "comments": [],
            "versions": {},
        }  # fmt: skip

    def _register(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        aliases = self._random.sample(_ALIASES, self._random.choice([0, 0, 1, 2]))
        made = registry.add(model.name, {"source": "s", "digest": "d"}, tags={"n": 1.5}, aliases=aliases)
        known["versions"][made.id] = {
            "number": len(known["versions"]) + 1, "stage": "None", "status": "READY", "description": "",
            "tags": {"n": 1.5}, "deleted": False, "comments": [],
        }  # fmt: skip
        known["aliases"] |= dict.fromkeys(aliases, made.id)

    def _version(self, registry: Registry, known: dict[str, Any]) -> tuple[ModelVersion, dict[str, Any]]:
        id = self._random.choice(list(known["versions"]))
        return registry.version_by_id(id), known["versions"][id]

    def _alias(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        alias = self._random.choice(_ALIASES)
        if alias in known["aliases"] and self._random.random() < 0.3:
            model.remove_alias(alias)
            del known["aliases"][alias]
            return
        version, about = self._version(registry, known)
        if not about["deleted"]:
            model.set_alias(alias, version)
            known["aliases"][alias] = version.id

    def _stage(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        version, about = self._version(registry, known)
        stage, archive = self._random.choice(STAGES), self._random.random() < 0.5
        version.transition(stage, archive_existing=archive)
        for each in known["versions"].values() if archive and stage != "None" else ():
            if each["stage"] == stage:
                each["stage"] = "Archived"
        about["stage"] = stage

    def _either(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (model, known) if self._random.random() < 0.5 else self._version(registry, known)

    def _describe(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        thing, about = self._either(registry, model, known)
        about["description"] = f"*{self._random.random()}*"
        thing.describe(about["description"])

    def _tags(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        thing, about = self._either(registry, model, known)
        if about["tags"] and self._random.random() < 0.3:
            gone = self._random.choice(list(about["tags"]))
            thing.remove_tag(gone)
            del about["tags"][gone]
            return
        values: list[Any] = [1, 1.0, True, None, "text", [1, "a"], float("inf")]
        tags = {key: self._random.choice(values) for key in self._random.sample(_TAGS, 2)}
        thing.set_tags(tags)
        about["tags"] |= tags

    def _comment(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        thing, about = self._either(registry, model, known)
        if about["comments"] and self._random.random() < 0.4:
            at = self._random.randrange(len(about["comments"]))
            thing.remove_comment(thing.comments[at]["id"])
            del about["comments"][at]
            return
        about["comments"].append(f"it is {self._random.random()}")
        thing.comment(about["comments"][-1])

    def _status(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        version, about = self._version(registry, known)
        about["status"] = self._random.choice(["PENDING", "READY", "FAILED"])
        version.set_status(about["status"], "because")

    def _hide(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        version, about = self._version(registry, known)
        if about["deleted"]:
            version.restore()
            about["deleted"] = False
        elif version.id not in known["aliases"].values():
            version.delete()
            about["deleted"] = True
        elif len(self._models) > 2 and self._random.random() < 0.1:
            model.delete()
            known["deleted"] = True

    def _rename(self, registry: Registry, model: RegisteredModel, known: dict[str, Any]) -> None:
        if self._random.random() < 0.3:
            known["name"] = f"{self._random.choice(_NAMES)} renamed {self.actions}"
            model.rename(known["name"])


def seen(registry: Registry) -> View:
    """Return what a registry shows, as `Random` knows it."""
    found: View = {}
    for model in registry.list(include_deleted=True):
        found[model.id] = {
            "name": model.name, "deleted": model.deleted, "description": model.description, "tags": model.tags,
            "aliases": {alias: each.id for alias, each in model.aliases.items()},
            "comments": [each["text"] for each in model.comments], "versions": {},
        }  # fmt: skip
    for version in registry.search_versions(include_deleted=True):
        found[version.model.id]["versions"][version.id] = {
            "number": version.number, "stage": version.stage, "status": version.status,
            "description": version.description, "tags": version.tags, "deleted": version.deleted,
            "comments": [each["text"] for each in version.comments],
        }  # fmt: skip
    return found
