"""mlcore: track, package and reproduce machine-learning experiments.

Everything is imported when it is first used: ``import mlcore`` costs next to nothing.
"""

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore import artifacts as artifacts, errors as errors, plugins as plugins, registry as registry
    from mlcore.hookspecs import Provider as Provider, hookimpl as hookimpl
    from mlcore.models._flavor import Model as Model, PythonModel as PythonModel
    from mlcore.models._save import save_model as save_model
    from mlcore.models._signature import Signature as Signature, infer_signature as infer_signature
    from mlcore.models._trust import distrust as distrust, trust as trust, trusted as trusted
    from mlcore.tracking._active import active_run as active_run, last_run as last_run
    from mlcore.tracking._artifacts import *
    from mlcore.tracking._client import Client as Client, Experiment as Experiment
    from mlcore.tracking._module import *
    from mlcore.tracking._run import Run as Run
    from mlcore.tracking._thing import Listing as Listing, Series as Series

__version__ = "0.1.0"
_PLACES = {
    "mlcore.hookspecs": "Provider hookimpl",
    "mlcore.models": "Model PythonModel Signature distrust infer_signature save_model trust trusted",
    "mlcore.tracking._active": "active_run last_run",
    "mlcore.tracking._artifacts": "Artifact Artifacts Dataset LoggedModel",
    "mlcore.tracking._client": "Client Experiment",
    "mlcore.tracking._module": "client create_experiment end_run get_experiment get_model get_run list_experiments "
    "list_runs load_model log_artifact log_artifacts log_bytes log_dataset log_dict log_figure log_metric log_metrics "
    "log_model log_param log_params log_points log_reference log_text register_model remove_tag search_experiments "
    "search_runs set_experiment set_note set_store set_tag set_tags start_run",
    "mlcore.tracking._run": "Run",
    "mlcore.tracking._thing": "Listing Series",
}
_HOME = {name: module for module, names in _PLACES.items() for name in names.split()}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the names stand above, once


def __getattr__(name: str) -> Any:
    if name in ("artifacts", "errors", "plugins", "registry"):
        return import_module(f"mlcore.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'mlcore' has no attribute {name!r}")
    collecting = gc.isenabled()
    gc.disable()  # what an import makes stays: to look for garbage amid it takes a twentieth of a first run
    try:
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
    finally:
        if collecting:
            gc.enable()
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
