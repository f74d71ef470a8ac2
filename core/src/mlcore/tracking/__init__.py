"""The tracking API: what ``import mlcore`` offers, and the classes behind it."""

from __future__ import annotations

from mlcore.tracking._active import active_run, last_run
from mlcore.tracking._client import Client, Experiment
from mlcore.tracking._module import (
    client,
    create_experiment,
    end_run,
    get_experiment,
    get_run,
    list_experiments,
    list_runs,
    log_metric,
    log_metrics,
    log_param,
    log_params,
    log_points,
    remove_tag,
    set_experiment,
    set_note,
    set_store,
    set_tag,
    set_tags,
    start_run,
)
from mlcore.tracking._run import Run
from mlcore.tracking._views import Listing, Series

__all__ = [
    "Client",
    "Experiment",
    "Listing",
    "Run",
    "Series",
    "active_run",
    "client",
    "create_experiment",
    "end_run",
    "get_experiment",
    "get_run",
    "last_run",
    "list_experiments",
    "list_runs",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "log_points",
    "remove_tag",
    "set_experiment",
    "set_note",
    "set_store",
    "set_tag",
    "set_tags",
    "start_run",
]
