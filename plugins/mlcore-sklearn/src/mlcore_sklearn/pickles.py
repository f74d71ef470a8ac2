"""Write cloudpickles that carry the code no reader could import."""

from __future__ import annotations

import dis
import pickle
import sys
from contextlib import ExitStack
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

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

    inside = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    with ExitStack() as stack:
        while True:
            try:
                modules = _dump(model, path, inside)
            except Exception as error:
                path.unlink(missing_ok=True)
                if isinstance(error, OSError):
                    raise
                raise ModelError(f"cloudpickle cannot hold this {type(model).__qualname__}: {error}") from error
            away = {module for module in modules - inside if not within_reach(module, code)}
            if not away:
                return tuple(sorted(modules - inside)), tuple(sorted(pickled_names(path)))
            for module in away:  # what they define is only now looked into, and may lead to more
                if module in sys.modules:
                    cloudpickle.register_pickle_by_value(sys.modules[module])
                    stack.callback(cloudpickle.unregister_pickle_by_value, sys.modules[module])
            inside |= away


def _dump(model: object, path: Path, inside: set[str]) -> set[str]:
    """Write a pickle; return the top-level modules of all the classes, functions and modules in it.

    A function that goes in itself, since its module is `inside`, or it has no name in it, also tells what it imports.
    """
    import cloudpickle

    modules = set()

    class Noting(cloudpickle.Pickler):  # type: ignore[misc] # it ships no types
        def reducer_override(self, obj: object) -> object:
            if isinstance(obj, ModuleType):
                modules.add(obj.__name__.partition(".")[0])
            elif isinstance(obj, type | FunctionType):
                modules.add(top := str(obj.__module__).partition(".")[0])
                if isinstance(obj, FunctionType) and (top in inside or "<" in obj.__qualname__):
                    modules.update(_imported(obj.__code__))
            return super().reducer_override(obj)

    with path.open("wb") as file:
        Noting(file, protocol=pickle.DEFAULT_PROTOCOL).dump(model)  # as MLflow does: older Pythons read it
    return modules - {"builtins"}


def _imported(code: CodeType) -> set[str]:
    """Return the top-level modules that code imports when it runs, in the functions within it too."""
    imports = (each for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME" and each.argval)
    found = {str(each.argval).partition(".")[0] for each in imports}
    return found.union(*(_imported(each) for each in code.co_consts if isinstance(each, CodeType)))
