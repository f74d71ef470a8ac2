"""The client: start runs in a store, and find what is in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from mlcore import config, journal, store
from mlcore.errors import AlreadyExists, Ambiguous, InvalidValue, NotFound, RunStateError, StoreNotFound
from mlcore.store import AttributesSet, Created, Entity, Event, Updated
from mlcore.tracking import _active
from mlcore.tracking._artifacts import Loading
from mlcore.tracking._backend import Backend, held
from mlcore.tracking._context import Capture
from mlcore.tracking._ids import check_run_id, experiment_id, is_run_id, keyed_run_id, memorable_name, new_run_id
from mlcore.tracking._run import Run
from mlcore.tracking._spooled import open_backend
from mlcore.tracking._thing import Listing, Thing

if TYPE_CHECKING:
    from mlcore.store import Sort, Store, Term, Where
    from mlcore.tracking._registry import Registry

_Uri = str | os.PathLike[str]

_WHOLE = ("metrics", "params", "tags", "context")  # families that no query language needs to be asked about


class Experiment(Thing):
    """An experiment: runs that belong together, under a name that can change."""

    kind = "experiment"

    def rename(self, name: str) -> None:
        """Give it another name, which must be free. Raises `AlreadyExists`."""
        _claim_name(self._backend, name, lambda _: Updated("experiment", self.id, {"name": name}))
        self.refresh()

    def _view(self) -> dict[str, Any]:
        tags = {f"tags.{key}": value for key, value in self.tags.items()}
        return {"id": self.id, "name": self.name, **({"deleted": True} if self.deleted else {}), **tags}


class Client(Loading):
    """Log into one store and read from it.

    `uri` is a path, a URI whose scheme a plugin provides, or ``"off"``; by default it is found as
    `mlcore.config` says. `artifacts` is a path or URI below which runs keep their files, by default in the store.
    Raises `NotInstalled` for an unknown scheme.
    """

    def __init__(self, uri: _Uri | None = None, artifacts: _Uri | None = None) -> None:
        self.setting = config.store_setting(uri)
        self._backend = open_backend(self.setting.value, artifacts)
        self._experiment: str | None = None

    @property
    def store(self) -> Store:
        """The store itself, for whatever this class has no method for."""
        return self._backend.store()

    @property
    def spool(self) -> Any:
        """What keeps runs on this machine until the store has them, None where they are written to it directly."""
        return self._backend.spool

    def close(self) -> None:
        """Close the store, after a short wait for what is on its way there."""
        self._backend.close()

    @property
    def registry(self) -> Registry:
        """The registry of models in this store."""
        from mlcore.tracking._registry import Registry

        return Registry(self._backend, self)

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
        capture: str | Iterable[str] | None = None,
    ) -> Run:
        """Start a run and make it the active one.

        With `key`, or the id of a run (`run_id`, else ``MLCORE_RUN_ID``), the run of before goes on if there is one:
        joined while its process runs, resumed when that has ended; `resume` may be ``"must"`` or ``"never"``. A run
        that is resumed with `rewind_to` forgets what was logged after that step. `nested` or `parent` start it inside
        another. `capture` names what the run records about itself, ``"all"`` or ``"off"``; by default settings do.
        Raises `RunStateError`, `NotFound` or `InvalidValue`.
        """
        if resume not in ("allow", "must", "never"):
            raise InvalidValue(f"resume is 'allow', 'must' or 'never', not {resume!r}")
        active = _active.make_way(inside=nested or parent is not None)
        if run_id is None and key is None and active is None:
            run_id = os.environ.get("MLCORE_RUN_ID") or None
        anew = run_id is None and key is None
        if resume == "must" and anew:
            raise InvalidValue("resume='must' needs to know which run: give its key or run_id")
        title = journal.check_key(self._title(experiment))
        home = self._experiment_id(title)
        id = check_run_id(run_id) if run_id is not None else new_run_id() if key is None else keyed_run_id(home, key)
        rewind_to = None if rewind_to is None else journal.as_int("rewind_to", rewind_to)
        inside = (parent.id if isinstance(parent, Run) else parent) or (active.id if nested and active else None)
        fields = {"name": name or memorable_name(id), "status": "RUNNING", "start_time": int(time.time() * 1000)}
        fields |= {"user": journal.user()} | ({"parent_run": check_run_id(inside)} if inside else {})
        fields |= {"key": key} if key else {}
        first: list[Event] = [Created("experiment", home, fields={"name": title}), Created("run", id, home, fields)]
        arriving = partial(self._arrive, id, resume, rewind_to is not None)
        known, events = (None, []) if anew else self._backend.asked(id, arriving)
        if known is not None and "name" in known.fields:  # what a process wrote that died before its journal has none
            first = []
        run = Run(self._backend, id, known)
        run._opener = events is not None
        run._capture = Capture(run, capture, joins=not run._opener)
        run._go([*first, *(events or ()), *run._capture.claim()], rewind_to)
        run.set_tags(tags or {})
        _active.push(run)
        run._capture.begin()
        return run

    def new_run_id(self, key: str | None = None, experiment: str | None = None) -> str:
        """Return an id to start a run with, elsewhere or later; of a key the one that everyone derives from it."""
        return new_run_id() if key is None else keyed_run_id(self._experiment_id(self._title(experiment)), key)

    def _arrive(
        self, id: str, resume: str, taking_over: bool, known: Entity | None, online: Callable[[], bool]
    ) -> tuple[Entity | None, list[Event] | None]:
        """Return what is known of a run, and what opens it again; None instead if another process has it open.

        Of several processes that arrive at once the claim lets one open it, if the store can be reached.
        """
        if known is None and resume == "must" and online():
            raise NotFound(f"there is no run {id} in {self._backend.name} to resume")
        if known is not None and resume == "never":
            raise RunStateError(f"run {id} exists already in {self._backend.name}, and resume='never'")
        starts = len(known.attributes.get("starts", {})) if known else 0
        mark = AttributesSet("run", id, "starts", {str(starts): os.getpid()})
        events = [mark, Updated("run", id, {"status": "RUNNING", "end_time": None})]
        if known is None or not held(known, taking_over):
            with suppress(AlreadyExists):
                if online():
                    self._backend.edit(events, claim=f"run/{id}/start/{starts}", home=id)
                return known, events  # for the run's own folder too, so that a copy of it alone knows
        return known, None

    def get_run(self, id: str) -> Run:
        """Return a run by its id, or a prefix or suffix that no other run has. Raises `NotFound` or `Ambiguous`."""
        if is_run_id(id):
            found = self._backend.look("run", id)
            runs = Listing([Run(self._backend, id, found)] if found else [])
        else:
            ends = store.Or(tuple(store.Compare(store.Term("", "id"), "like", each) for each in (f"{id}%", f"%{id}")))
            runs = Run._find(self._backend, ends, deleted=True, limit=5) if id.isalnum() else Listing()
        if not runs:
            raise NotFound(f"there is no run {id!r} in {self._backend.name}")
        if len(runs) > 1:
            raise Ambiguous(f"{id!r} fits several runs: {', '.join(run.id for run in runs)}")
        return runs[0]

    def list_runs(self, experiment: str | None = None, *, include_deleted: bool = False) -> Listing[Run]:
        """Return the runs of an experiment, newest first; see `search_runs`."""
        return self.search_runs(experiment=experiment, include_deleted=include_deleted)

    def search_runs(
        self,
        filter: str | None = None,
        *params: Any,
        experiment: str | None = None,
        order_by: str | Iterable[str] | None = None,
        limit: int | None = None,
        select: str | Iterable[str] | None = None,
        include_deleted: bool = False,
    ) -> Listing[Run]:
        """Return the runs of an experiment that fit a filter: by default the active one, ``"*"`` for all.

        Each ``?`` in the filter stands for one of `params`. Without `order_by` the newest come first. `select` names
        the columns to read. Raises `InvalidQuery`, or `NotFound` if there is no such experiment.
        """
        where, order = list["Where"](), tuple["Sort", ...]()
        chosen: dict[str, tuple[Term, ...]] | None = None
        if isinstance(select, list | tuple) and all(each in _WHOLE for each in select):
            chosen, select = {each: (store.Term(each, ""),) for each in select}, None
        if filter not in (None, "") or params or order_by or select is not None:
            from mlcore import query  # who asks for nothing does not wait for it
            from mlcore.tracking._asking import run_names

            names = run_names(self._backend)
            asked = query.where("" if filter is None else filter, names, params)
            where = [] if asked is None else [asked]
            order, chosen = query.order(order_by or (), names), chosen if select is None else query.terms(select, names)
        name = self._title(experiment)
        if name != "*":
            id = self._experiment_id(name) if experiment is None else self.get_experiment(name).id
            where.append(store.Compare(store.Term("", "parent"), "=", id))
        elif not include_deleted:
            hidden = tuple(each.id for each in self.list_experiments(include_deleted=True) if each.deleted)
            where += [store.Not(store.Compare(store.Term("", "parent"), "in", hidden))] if hidden else []
        return Run._find(self._backend, *where, deleted=include_deleted, limit=limit, order=order, chosen=chosen)

    def set_experiment(self, name: str) -> None:
        """Make an experiment the one that runs are started in and listed from; the first run makes it."""
        self._experiment = journal.check_key(name)

    def create_experiment(self, name: str, *, tags: Mapping[str, Any] | None = None) -> Experiment:
        """Make an experiment. Raises `AlreadyExists`."""
        id = _claim_name(self._backend, name, lambda id: Created("experiment", id, fields={"name": name}))
        experiment = self.get_experiment(id)
        experiment.set_tags(tags or {})
        return experiment

    def get_experiment(self, name: str) -> Experiment:
        """Return an experiment by name or id, deleted or not. Raises `NotFound`."""
        found = _named(self._backend, name) or _named(self._backend, name, ("", "id"))
        if found is None:
            raise NotFound(f"there is no experiment {name!r} in {self._backend.name}")
        return found

    def list_experiments(self, *, include_deleted: bool = False) -> Listing[Experiment]:
        """Return the experiments, newest first."""
        return Experiment._find(self._backend, deleted=include_deleted)

    def search_experiments(
        self,
        filter: str | None = None,
        *params: Any,
        order_by: str | Iterable[str] | None = None,
        limit: int | None = None,
        include_deleted: bool = False,
    ) -> Listing[Experiment]:
        """Return the experiments that fit a filter, newest first; see `search_runs`. Raises `InvalidQuery`."""
        from mlcore import query

        asked = query.where("" if filter is None else filter, query.EXPERIMENT, params)
        order, where = query.order(order_by or (), query.EXPERIMENT), [] if asked is None else [asked]
        return Experiment._find(self._backend, *where, deleted=include_deleted, limit=limit, order=order)

    def _title(self, experiment: str | None) -> str:
        return self._experiment or config.experiment_setting().value if experiment is None else experiment

    def _experiment_id(self, name: str) -> str:
        """Return the id under which runs of an experiment are logged, without reading where nobody renamed."""
        if not self._backend.edited():
            return experiment_id(name)
        backend = self._backend.offline()
        if named := _named(backend, name):
            if named.deleted:
                raise RunStateError(f"experiment {name!r} is deleted: restore it, or choose another name")
            return named.id
        return next(_free(backend, name))[0]


def _named(backend: Backend, name: str, by: tuple[str, str] = ("fields", "name")) -> Experiment | None:
    """Return the experiment that has a name now, deleted or not; of several that met offline, the lowest id."""
    with suppress(StoreNotFound):  # what is written first makes it
        found = Experiment._find(backend, store.Compare(store.Term(*by), "=", name), deleted=True)
        return min(found, key=lambda each: (len(each.id), each.id), default=None)
    return None


def _free(backend: Backend, name: str) -> Iterator[tuple[str, int]]:
    """Yield the ids that can be derived from a name and that no experiment has, each with its generation."""
    ids = ((experiment_id(name, generation), generation) for generation in count())
    return (each for each in ids if backend.get("experiment", each[0]) is None)


def _claim_name(backend: Backend, name: str, event: Callable[[str], Event]) -> str:
    for id, generation in _free(backend, journal.check_key(name)):
        if holder := _named(backend, name):
            raise AlreadyExists(f"experiment {name!r}", f"id {holder.id}")
        with suppress(AlreadyExists):  # somebody took it just now, or had it before a rename
            backend.edit([event(id)], claim=f"experiment-name/{name}/{generation}")
            return id
    raise AssertionError("generations do not end")
