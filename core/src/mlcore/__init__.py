"""mlcore: track, package and reproduce machine-learning experiments.

Everything is imported when it is first used: ``import mlcore`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore.hookspecs import Provider, hookimpl
    from mlcore.tracking import *  # noqa: F403
    from mlcore.tracking._module import *  # noqa: F403

__version__ = "0.1.0"
_PLACES = {
    "mlcore.tracking": "Client Experiment Listing Run Series active_run client end_run last_run log_metric set_store "
    "create_experiment get_experiment get_run list_experiments list_runs log_metrics log_param log_params log_points "
    "remove_tag set_experiment set_note set_tag set_tags start_run",
    "mlcore.hookspecs": "Provider hookimpl",
}
_HOME = {name: module for module, names in _PLACES.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mlcore' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
