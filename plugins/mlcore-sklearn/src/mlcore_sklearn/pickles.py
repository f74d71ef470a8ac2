"""Write cloudpickles that carry the code no reader could import."""

from __future__ import annotations

import pickle
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FunctionType, ModuleType

from mlcore.errors import ModelError
from mlcore.models import pickled_names
from mlcore_sklearn.reach import within_reach

__all__ = ["write"]


def write(model: object, path: Path, code: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write `model`; return the top-level modules and the names that reading it takes.

    Classes and functions of modules that are neither installed nor in `code` go into the pickle themselves.
    Raises `ModelError` with what cannot be pickled.
    """
    import cloudpickle

    inside: set[str] = set(cloudpickle.list_registry_pickle_by_value()) | {"__main__"}
    with ExitStack() as stack:
        while True:
            try:
                modules = _dump(model, path)
            except Exception as error:
                path.unlink(missing_ok=True)
                raise ModelError(f"cloudpickle cannot hold this {type(model).__qualname__}: {error}") from error
            away = {module for module in modules - inside if not within_reach(module, code)}
            if not away:
                return tuple(sorted(modules - inside)), tuple(sorted(pickled_names(path)))
            for module in away:  # what they define is only now looked into, and may lead to more
                if module in sys.modules:
                    cloudpickle.register_pickle_by_value(sys.modules[module])
                    stack.callback(cloudpickle.unregister_pickle_by_value, sys.modules[module])
            inside |= away


def _dump(model: object, path: Path) -> set[str]:
    """Write a pickle; return the top-level modules of all the classes, functions and modules in it."""
    import cloudpickle

    modules = set()

    class Noting(cloudpickle.Pickler):  # type: ignore[misc]  # it ships no types
        def reducer_override(self, obj: object) -> object:
            if isinstance(obj, ModuleType):
                modules.add(obj.__name__)
            elif isinstance(obj, type | FunctionType):
                modules.add(str(obj.__module__))
            return super().reducer_override(obj)

    with path.open("wb") as file:
        Noting(file, protocol=pickle.DEFAULT_PROTOCOL).dump(model)  # as MLflow does: older Pythons read it
    return {module.partition(".")[0] for module in modules} - {"builtins"}
