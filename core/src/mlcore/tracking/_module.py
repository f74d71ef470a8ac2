"""The module-level functions: the methods of the default client and of the active run."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from mlcore import _log
from mlcore.tracking import _active
from mlcore.tracking._client import Client
from mlcore.tracking._run import Run

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")
_default: Client | None = None


def client() -> Client:
    """Return the client that the module-level functions use."""
    return _default or set_store()


def set_store(uri: Any = None, artifacts: Any = None) -> Client:
    """Use another store from now on: a path, a URI or ``"off"``; without one, the one that is found; see `Client`."""
    global _default
    _default = Client(uri, artifacts)
    return _default


def log_metric(key: str, value: Any, step: int | None = None, time: int | None = None) -> None:
    """Log one value of a metric to the active run, starting one if there is none; see `Run.log_metric`."""
    run = _active.current.get()
    if run is None or not run._live:
        run = _run()
    run._sink.point(key, value, step, time)


def end_run(status: str = "FINISHED") -> None:
    """End the active run; see `Run.end`."""
    run = _active.active_run()
    if run is None:
        return _log.warning("there is no active run to end")
    return run.end(status)


def _run() -> Run:
    run = _active.active_run()
    if run is None:
        with _active.starting:  # of several threads one starts it
            run = _active.active_run() or client().start_run()
    return run


def on(target: Callable[[], _T], method: Callable[Concatenate[_T, _P], _R]) -> Callable[_P, _R]:
    """Return a method as a function: of what `target` returns when it is called."""

    @wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return method(target(), *args, **kwargs)

    return call


log_artifact = on(_run, Run.log_artifact)
log_artifacts = on(_run, Run.log_artifacts)
log_bytes = on(_run, Run.log_bytes)
log_dataset = on(_run, Run.log_dataset)
log_dict = on(_run, Run.log_dict)
log_figure = on(_run, Run.log_figure)
log_metrics = on(_run, Run.log_metrics)
log_model = on(_run, Run.log_model)
log_param = on(_run, Run.log_param)
log_params = on(_run, Run.log_params)
log_points = on(_run, Run.log_points)
log_reference = on(_run, Run.log_reference)
log_text = on(_run, Run.log_text)
remove_tag = on(_run, Run.remove_tag)
set_note = on(_run, Run.set_note)
set_tag = on(_run, Run.set_tag)
set_tags = on(_run, Run.set_tags)
create_experiment = on(client, Client.create_experiment)
get_experiment = on(client, Client.get_experiment)
get_model = on(client, Client.get_model)
get_run = on(client, Client.get_run)
list_experiments = on(client, Client.list_experiments)
list_runs = on(client, Client.list_runs)
load_model = on(client, Client.load_model)
register_model = on(client, Client.register_model)
search_experiments = on(client, Client.search_experiments)
search_runs = on(client, Client.search_runs)
set_experiment = on(client, Client.set_experiment)
start_run = on(client, Client.start_run)
