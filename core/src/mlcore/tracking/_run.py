"""A run: what is logged to it, live, and what is read back of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlcore import _log, config, folder, journal, plugins, store
from mlcore.errors import InvalidValue, NotFound, ParamConflict, RunStateError, StoreError
from mlcore.tracking._artifacts import Artifacts, Keeping
from mlcore.tracking._backend import Backend, StoreSink, status_of
from mlcore.tracking._plain import flat, portions
from mlcore.tracking._thing import Series, field, frame, shown

if TYPE_CHECKING:
    import pandas

    from mlcore.tracking._context import Capture

ENDED = ("FINISHED", "FAILED", "KILLED")


class _Later:
    """Stand in for the sink of a run that this process does not hold open, until something is written."""

    def __init__(self, run: Run) -> None:
        self._run, self.dropped = run, 0

    def __getattr__(self, name: str) -> Any:
        run = self._run
        ended = (name != "events" or run._backend.spool is not None) and run.status in ENDED
        if ended and name != "events":
            raise RunStateError(f"run {run.name} ({run.id}) is {run.status}: resume it with start_run(run_id=...)")
        run._sink = StoreSink(run._backend.opened, run.id) if ended else run._backend.sink(run.id)
        return getattr(run._sink, name)


class Run(Keeping):
    """A run, live or read back.

    As a context manager it ends with the block: FINISHED, FAILED on an exception, KILLED on an interrupt. What is read
    from a live run is read from its store.
    """

    kind = "run"
    _inherited = False  # in the child of a fork

    def __init__(self, backend: Backend, id: str, entity: store.Entity | None = None) -> None:
        super().__init__(backend, id, entity)
        self._opener = False
        self._sink: journal.Writer | StoreSink | _Later = _Later(self)
        self._params: dict[str, Any] = dict(entity.attributes.get("params", {})) if entity else {}
        self._previous: Run | None = None
        self._capture: Capture | None = None
        self._owed: tuple[store.Event, ...] = ()  # what a full disk refused at the start

    # What is logged

    def log_metric(self, key: str, value: Any, step: int | None = None, time: int | None = None) -> None:
        """Log one value of a metric.

        `value` is anything with ``__float__`` or ``.item()``; NaN and infinities are kept. `step` defaults to the
        key's next one, `time` (ms since 1970) to now. Raises `InvalidValue`.
        """
        self._sink.point(key, value, step, time)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None, time: int | None = None) -> None:
        """Log one value of each metric at one step, all or none. Raises `InvalidValue`."""
        if not isinstance(metrics, Mapping):
            raise InvalidValue(f"metrics must be a dict of names and values, not {metrics!r:.80}")
        self._sink.points(metrics, step, time)

    def log_points(self, key: str, steps: Any, values: Any, times: Any = None) -> None:
        """Log many values of one metric: buffers, numpy arrays or sequences of one length, `times` in ms since 1970.

        Raises `InvalidValue`.
        """
        self._sink.block(key, steps, values, times)

    def log_param(self, key: str, value: Any, *, correct: bool = False) -> None:
        """Log one parameter; see `log_params`."""
        self.log_params({key: value}, correct=correct)

    def log_params(self, params: Any, *, correct: bool = False) -> None:
        """Log parameters from a dict, Namespace, dataclass or attrs object; nested ones become ``a.b``.

        A parameter has one value: the same again is no change, another raises `ParamConflict`, unless `correct`
        says that the one before was wrong. Raises `InvalidValue`.
        """
        if not correct and not self._live and self.status in ENDED:
            raise RunStateError(f"run {self.id} is {self.status}: resume it, or say correct=True if a param was wrong")
        known, given = self._params, flat(params)
        new = {key: value for key, value in given.items() if key not in known or not store.same(known[key], value)}
        if not correct and (changed := [key for key in new if key in known]):
            before, now = known[changed[0]], new[changed[0]]
            raise ParamConflict(f"param {changed[0]!r} is {before!r}, not {now!r}; correct=True replaces it")
        self._write(*(store.AttributesSet("run", self.id, "params", part, once=not correct) for part in portions(new)))
        known.update(new)

    def log_events(self, *events: store.Event) -> None:
        """Log events of `mlcore.store` with the run's own, such as entities of a kind that a plugin brings."""
        self._write(*events)

    def end(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED. In a process that only joined it, stop logging to it.

        A run that was read back is ended, too, if it goes on or is lost, whichever process started it. Raises
        `StoreError` if that cannot be written; a training that ends its own run is only warned of what was dropped.
        """
        if status not in ENDED:
            raise InvalidValue(f"a run ends as {', '.join(ENDED)}, not {status!r}")
        if not self._live and self.status in ENDED:
            return _log.warning("run %s has ended already", self.id)
        if afar := not self._live:
            self._live = self._opener = True
        try:
            self._captured()
        finally:  # whatever a second Ctrl-C does to the wait
            self._end(status, afar)
        return None

    def _end(self, status: str, afar: bool) -> None:
        if self._opener:
            ended = store.Updated("run", self.id, {"status": status, "end_time": int(time.time() * 1000)})
            self._write(*self._owed, ended)
        if dropped := self._close():
            if afar:
                raise StoreError(dropped)
            _log.warning("%s", dropped)
        if self._opener:
            plugins.notify("mlcore_run_ended", run=self)

    def leave(self) -> None:
        """Stop logging to the run from here, and leave it open: others go on with it, and end it.

        Raises `StoreError` if something could not be written.
        """
        self._captured()
        self._opener = False
        if dropped := self._close():
            raise StoreError(dropped)

    def _captured(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.wait()

    def _close(self) -> str:
        """Close what was written to, and return what to tell if something was dropped."""
        sink, self._sink, self._live, self._entity = self._sink, _Later(self), False, None
        if not isinstance(sink, _Later):
            sink.close()
        return f"run {self.id}: {sink.dropped} calls could not be written: {sink.reason}" if sink.dropped else ""

    def _go(self, first: list[store.Event], rewind_to: int | None) -> None:
        """Begin to log: the first events, and steps that go on from what is known of the run or from an earlier one."""
        known, self._live, self._sink = self._entity, True, self._backend.sink(self.id)
        steps = {key: each.step for (key, context), each in known.metrics.items() if not context} if known else {}
        if rewind_to is not None and known and self._opener:
            first.append(store.Rewound("run", self.id, rewind_to))
            steps = {key: min(step, rewind_to) for key, step in steps.items()}
        self._sink.continue_after(steps)
        self._write(*first)
        self._owed = tuple(first) if self._sink.dropped else ()

    def _put(self, events: tuple[store.Event, ...]) -> None:
        self._sink.events(events)
        if not self._live and (dropped := self._close()):
            raise StoreError(dropped)

    # What is read

    @property
    def folder(self) -> Path | None:
        """The folder of the run's journals, None in a store that is no folder."""
        root = self._backend.root
        return None if root is None else folder.Folder.open(root).run_folder(self.id)

    status = shown(status_of, "RUNNING, FINISHED, FAILED, KILLED, or LOST: its process is gone or silent for 5 min.")
    experiment_id = shown(lambda it: it.parent, "The id of the run's experiment.")
    parent_run_id = field("parent_run", "The id of the run that this one is nested in, or None.")
    start_time = field("start_time", "When the run started, in ms since 1970.")
    user = field("user", "Who started the run, by the name on the machine; None if that is not known.")
    end_time = field("end_time", "When the run ended, in ms since 1970; None while it has not.")

    last_seen = shown(lambda it: it.seen or it.changed // 1_000_000, "When it was last heard of, in ms since 1970.")
    params = shown(lambda it: dict(it.attributes.get("params", {})), "The parameters, of the types they were given.")
    context = shown(lambda it: dict(it.attributes.get("context", {})), "What the run recorded about itself.")
    conflicts = shown(lambda it: it.conflicts, "Parameters that several processes set to different values, and lost.")

    @property
    def metrics(self) -> dict[str, float]:
        """The latest value of every metric: that of the highest step."""
        return {key: each.value for (key, context), each in self._now().metrics.items() if not context}

    @property
    def artifacts(self) -> Artifacts:
        """The files kept with the run."""
        return Artifacts(self)

    def series(self, key: str, *, max_points: int | None = None) -> Series:
        """Return the history of a metric; thinned to `max_points` it keeps every peak. Raises `NotFound`."""
        found = self._backend.store().series("run", [self.id], [key], context="", max_points=max_points)
        if not found and self._backend.uri != config.OFF:
            raise NotFound(f"run {self.id} has no metric {key!r}; it has {', '.join(self.metrics) or 'none'}")
        columns = found.get((self.id, key, ""), dict[str, Any].fromkeys(store.METRIC, ()))
        return Series(key, *(columns[name] for name in store.METRIC))

    def to_pandas(self) -> pandas.DataFrame:
        """Return all metrics as a DataFrame with the columns key, step, time (ms since 1970) and value."""
        found = self._backend.store().series("run", [self.id], context="")
        columns = {name: [value for each in found.values() for value in each[name]] for name in store.METRIC}
        return frame({"key": [key for (_, key, _), each in found.items() for _ in range(len(each))], **columns})

    def _view(self) -> dict[str, Any]:
        families = {"metrics": self.metrics, "params": self.params, "tags": self.tags}
        values = {f"{family}.{key}": each for family, found in families.items() for key, each in found.items()}
        return {"id": self.id, "name": self.name, "status": self.status, "start_time": self.start_time, **values}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._live:
            self.end(status_after(error))


def status_after(error: BaseException | None) -> str:
    """Return how a run ends that `error` broke off."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
