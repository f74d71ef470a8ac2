"""Write cloudpickles that carry the code no reader could import."""

from __future__ import annotations

import pickle
import sys
from contextlib import ExitStack
from pathlib import Path

from mlcore.errors import ModelError
from mlcore.models import pickled_names
from mlcore_sklearn.reach import out_of_reach

__all__ = ["write"]


def write(model: object, path: Path, code: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write `model`; return the top-level modules and the names that reading it takes.

    Classes and functions of modules that are neither installed nor in `code` go into the pickle themselves.
    Raises `ModelError` with what cannot be pickled.
    """
    import cloudpickle

    with ExitStack() as stack:
        away = {module for module, _ in out_of_reach(model, code)} - {"__main__"}
        for module in away - cloudpickle.list_registry_pickle_by_value():
            if (loaded := sys.modules.get(module)) is not None:
                cloudpickle.register_pickle_by_value(loaded)
                stack.callback(cloudpickle.unregister_pickle_by_value, loaded)
        try:
            with path.open("wb") as file:
                cloudpickle.dump(model, file, protocol=pickle.DEFAULT_PROTOCOL)  # as MLflow: older Pythons read it
        except Exception as error:
            path.unlink(missing_ok=True)
            raise ModelError(f"cloudpickle cannot hold this {type(model).__qualname__}: {error}") from error
    names = sorted(pickled_names(path))
    return tuple(sorted({name.partition(".")[0] for name in names})), tuple(names)
