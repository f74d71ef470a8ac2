"""The client: start runs in a store, and find what is in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from mlcore import config
from mlcore.errors import AlreadyExists, Ambiguous, InvalidValue, NotFound, RunStateError, StoreNotFound
from mlcore.journal import as_int, check_key, user
from mlcore.store import (
    And,
    AttributesSet,
    Compare,
    Created,
    Entity,
    Event,
    Not,
    Or,
    Query,
    Rewound,
    Store,
    Term,
    Updated,
    Where,
)
from mlcore.tracking import _active
from mlcore.tracking._backend import Backend, held
from mlcore.tracking._ids import check_run_id, experiment_id, is_run_id, keyed_run_id, memorable_name, new_run_id
from mlcore.tracking._run import Run
from mlcore.tracking._thing import Thing
from mlcore.tracking._views import Listing

_ID = Term("", "id")
_NAME = Term("fields", "name")
_LIVE = Compare(Term("fields", "deleted"), "is null")
_ALL = Or((_LIVE, Not(_LIVE)))  # naming the field asks for deleted ones, too


class Experiment(Thing):
    """An experiment: runs that belong together, under a name that can change."""

    kind = "experiment"

    def rename(self, name: str) -> None:
        """Give it another name, which must be free. Raises `AlreadyExists`."""
        _claim_name(self._backend, check_key(name), lambda _: Updated("experiment", self.id, {"name": name}))
        self.refresh()

    def _view(self) -> dict[str, Any]:
        tags = {f"tags.{key}": value for key, value in self.tags.items()}
        return {"id": self.id, "name": self.name, **({"deleted": True} if self.deleted else {}), **tags}


class Client:
    """Log into one store and read from it.

    `uri` is a path, a URI whose scheme a plugin provides, or ``"off"``; by default it is found as
    `mlcore.config` says. `artifacts` is a path or URI below which runs keep their files, by default in the store.
    Raises `NotInstalled` for an unknown scheme.
    """

    def __init__(
        self, uri: str | os.PathLike[str] | None = None, artifacts: str | os.PathLike[str] | None = None
    ) -> None:
        self.setting = config.store_setting(uri)
        self._backend = Backend(self.setting.value, artifacts)
        self._experiment: str | None = None

    @property
    def store(self) -> Store:
        """The store itself, for whatever this class has no method for."""
        return self._backend.store()

    def close(self) -> None:
        """Close the store."""
        self._backend.close()

    def start_run(
        self,
        *,
        name: str | None = None,
        experiment: str | None = None,
        tags: Mapping[str, Any] | None = None,
        parent: Run | str | None = None,
        nested: bool = False,
        key: str | None = None,
        run_id: str | None = None,
        resume: str = "allow",
        rewind_to: int | None = None,
    ) -> Run:
        """Start a run and make it the active one.

        With `key`, or the id of a run (`run_id`, else ``MLCORE_RUN_ID``), the run of before goes on if there is one:
        joined while its process runs, resumed when that has ended; `resume` may be ``"must"`` or ``"never"``. A run
        that is resumed with `rewind_to` forgets what was logged after that step. `nested` or `parent` start it inside
        another. Raises `RunStateError`, `NotFound` or `InvalidValue`.
        """
        if resume not in ("allow", "must", "never"):
            raise InvalidValue(f"resume is 'allow', 'must' or 'never', not {resume!r}")
        active = _active.make_way(inside=nested or parent is not None)
        inside = (parent.id if isinstance(parent, Run) else parent) or (active.id if nested and active else None)
        title = self._title(experiment)
        home = self._experiment_id(check_key(title))
        if run_id is None and key is None and active is None:
            run_id = os.environ.get("MLCORE_RUN_ID")
        if resume == "must" and run_id is None and key is None:
            raise InvalidValue("resume='must' needs to know which run: give its key or run_id")
        id = check_run_id(run_id or (keyed_run_id(home, key) if key is not None else new_run_id()))
        inside = inside and check_run_id(inside)
        rewind_to = None if rewind_to is None else as_int("rewind_to", rewind_to)
        fields = {"name": name or memorable_name(id), "status": "RUNNING", "start_time": int(time.time() * 1000)}
        fields |= {"user": user()} | ({"parent_run": inside} if inside else {}) | ({"key": key} if key else {})
        first: list[Event] = [Created("experiment", home, fields={"name": title}), Created("run", id, home, fields)]
        run = Run(self._backend, id)
        known = None
        if run_id is None and key is None:
            run._opener = True
        else:
            known, events = self._arrive(id, resume, rewind_to is not None)
            # what a process wrote that died between its claim and its journal has no name
            new = known is None or "name" not in known.fields
            run._opener, first = events is not None, [*(first if new else ()), *(events or ())]
        run._live, run._sink = True, self._backend.sink(id)
        if known is not None:
            steps = {each: summary.step for (each, context), summary in known.metrics.items() if not context}
            if rewind_to is not None and run._opener:
                first.append(Rewound("run", id, rewind_to))
                steps = {each: min(step, rewind_to) for each, step in steps.items()}
            run._sink.continue_after(steps)
            run._params = dict(known.attributes.get("params", {}))
        run._write(*first)
        run._owed = tuple(first) if run._sink.dropped else ()
        run.set_tags(tags or {})
        _active.push(run)
        return run

    def _arrive(self, id: str, resume: str, taking_over: bool) -> tuple[Entity | None, list[Event] | None]:
        """Return what is known of a run, and what opens it again; None instead if another process has it open.

        Of several processes that arrive at once the claim lets one open it.
        """
        known = self._backend.get("run", id)
        if known is None and resume == "must":
            raise NotFound(f"there is no run {id} in {self._backend.uri} to resume")
        if known is not None and resume == "never":
            raise RunStateError(f"run {id} exists already in {self._backend.uri}, and resume='never'")
        if known is not None and held(known, taking_over):
            return known, None
        starts = len(known.attributes.get("starts", {})) if known else 0
        mark = AttributesSet("run", id, "starts", {str(starts): os.getpid()})
        again = Updated("run", id, {"status": "RUNNING", "end_time": None})
        try:
            self._backend.edit([mark, again], claim=f"run/{id}/start/{starts}", home=id)
        except AlreadyExists:
            return known, None
        return known, [mark, again]  # in the run's own folder too, so that a copy of it alone knows

    def get_run(self, id: str) -> Run:
        """Return a run by its id, or a prefix or suffix that no other run has. Raises `NotFound` or `Ambiguous`."""
        like = Or((Compare(_ID, "like", f"{id}%"), Compare(_ID, "like", f"%{id}")))
        store, query = self.store, Query(And((like, _ALL)), limit=5)
        found = store.get("run", [id]) if is_run_id(id) else store.find("run", query).items if id.isalnum() else ()
        runs = [Run(self._backend, entity.id, entity) for entity in found if entity is not None]
        if not runs:
            raise NotFound(f"there is no run {id!r} in {self._backend.uri}")
        if len(runs) > 1:
            raise Ambiguous(f"{id!r} fits several runs: {', '.join(run.id for run in runs)}")
        return runs[0]

    def list_runs(self, experiment: str | None = None, *, include_deleted: bool = False) -> Listing[Run]:
        """Return the runs of an experiment, newest first: by default the active one, ``"*"`` for all.

        Raises `NotFound` if there is no such experiment.
        """
        name = self._title(experiment)
        where: list[Where] = [_ALL] if include_deleted else []
        if name != "*":
            id = self._experiment_id(name) if experiment is None else self.get_experiment(name).id
            where.append(Compare(Term("", "parent"), "=", id))
        elif not include_deleted:
            hidden = tuple(each.id for each in self.list_experiments(include_deleted=True) if each.deleted)
            where.append(Not(Compare(Term("", "parent"), "in", hidden)))
        found = self.store.find("run", Query(And(tuple(where)))).items
        return Listing(Run(self._backend, each.id, each) for each in found)

    def set_experiment(self, name: str) -> None:
        """Make an experiment the one that runs are started in and listed from; the first run makes it."""
        self._experiment = check_key(name)

    def create_experiment(self, name: str, *, tags: Mapping[str, Any] | None = None) -> Experiment:
        """Make an experiment. Raises `AlreadyExists`."""
        id = _claim_name(self._backend, check_key(name), lambda id: Created("experiment", id, fields={"name": name}))
        experiment = self.get_experiment(id)
        experiment.set_tags(tags or {})
        return experiment

    def get_experiment(self, name: str) -> Experiment:
        """Return an experiment by name or id, deleted or not. Raises `NotFound`."""
        entity = _named(self._backend, name) or self._backend.get("experiment", name)
        if entity is None:
            raise NotFound(f"there is no experiment {name!r} in {self._backend.uri}")
        return Experiment(self._backend, entity.id, entity)

    def list_experiments(self, *, include_deleted: bool = False) -> Listing[Experiment]:
        """Return the experiments, newest first."""
        found = self.store.find("experiment", Query(_ALL if include_deleted else None)).items
        return Listing(Experiment(self._backend, each.id, each) for each in found)

    def _title(self, experiment: str | None) -> str:
        return self._experiment or config.experiment_setting().value if experiment is None else experiment

    def _experiment_id(self, name: str) -> str:
        """Return the id under which runs of an experiment are logged, without reading where nobody renamed."""
        if not self._backend.edited():
            return experiment_id(name)
        entity = _named(self._backend, name)
        if entity is None:
            ids = (experiment_id(name, generation) for generation in count())
            return next(id for id in ids if self._backend.get("experiment", id) is None)
        if entity.fields.get("deleted"):
            raise RunStateError(f"experiment {name!r} is deleted: restore it, or choose another name")
        return entity.id


def _named(backend: Backend, name: str) -> Entity | None:
    """Return the experiment that has a name now, deleted or not; of several that met offline, the lowest id."""
    found = backend.store().find("experiment", Query(And((Compare(_NAME, "=", name), _ALL)))).items
    return min(found, key=lambda each: (len(each.id), each.id), default=None)


def _claim_name(backend: Backend, name: str, event: Callable[[str], Event]) -> str:
    for generation in count():
        with suppress(StoreNotFound):  # the claim makes it
            holder = _named(backend, name)
            if holder is not None:
                raise AlreadyExists(f"experiment {name!r}", f"id {holder.id}")
        id = experiment_id(name, generation)
        if backend.get("experiment", id) is None:
            try:
                backend.edit([event(id)], claim=f"experiment-name/{name}/{generation}")
                return id
            except AlreadyExists:
                continue  # somebody took it just now, or had it before a rename
    raise AssertionError("generations do not end")
