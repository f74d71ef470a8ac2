"""Write cloudpickles that carry the code no reader could import, and tell what a pickle names without running it."""

from __future__ import annotations

import pickle
import pickletools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from mlcore.errors import ModelError
from mlcore_sklearn.reach import out_of_reach

__all__ = ["names_of", "write"]


def write(model: object, path: Path, code: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write `model`; return the top-level modules and the names that reading it takes.

    Classes and functions of modules that are neither installed nor in `code` go into the pickle themselves.
    Raises `ModelError` with what cannot be pickled.
    """
    import cloudpickle

    with ExitStack() as stack:
        for module in {module for module, _ in out_of_reach(model, code)} - {"__main__"}:
            if (
                loaded := sys.modules.get(module)
            ) is not None and module not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(loaded)
                stack.callback(cloudpickle.unregister_pickle_by_value, loaded)
        try:
            with path.open("wb") as file:
                cloudpickle.dump(
                    model, file, protocol=pickle.DEFAULT_PROTOCOL
                )  # what MLflow writes and older ones read
        except Exception as error:
            path.unlink(missing_ok=True)
            raise ModelError(f"cloudpickle cannot hold this {type(model).__qualname__}: {error}") from error
    names = set(names_of(path))
    modules = {name.partition(".")[0] for name in names} - {"builtins", "__builtin__", "__main__"}
    return tuple(sorted(modules)), tuple(sorted(names))


def names_of(path: Path) -> Iterator[str]:
    """Tell every ``module.name`` that a pickle asks for, and the modules that cloudpickle's functions import."""
    memo: dict[int, str | None] = {}
    before: str | None = None
    last: str | None = None  # the two strings on top of the stack, which a global is made of
    imports = False
    with path.open("rb") as file:
        for opcode, argument, _ in pickletools.genops(file):
            match opcode.name:
                case "GLOBAL":
                    before, last = None, None
                    yield str(argument).replace(" ", ".", 1)
                case "STACK_GLOBAL":
                    yield f"{before}.{last}"
                    imports = last == "subimport"
                    before, last = None, None
                case "MEMOIZE":
                    memo[len(memo)] = last
                case "BINPUT" | "LONG_BINPUT" | "PUT":
                    memo[int(argument)] = last
                case "BINGET" | "LONG_BINGET" | "GET":
                    before, last = last, memo.get(int(argument))
                case _ if isinstance(argument, str):
                    before, last = last, argument
                    if imports:
                        yield argument
                        imports = False
                case _ if opcode.stack_after:
                    before, last = last, None
