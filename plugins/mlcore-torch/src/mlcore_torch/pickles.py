"""Write and read networks as torch's pickles and TorchScript, which only who trusts them may load."""

from __future__ import annotations

import pickle
import pkgutil
import sys
import warnings
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from mlcore.errors import MlcoreError, ModelError
from mlcore.models import Trust
from mlcore_torch.states import within_reach

__all__ = ["is_script", "names_in", "read", "write", "write_script"]

MODULE_NAME = "pickle_module_info.txt"  # where MLflow looks for the name of the module that unpickles


def write(module: torch.nn.Module, folder: Path, code: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write `module` as ``model.pth``; return the top-level modules and the names that reading it takes.

    Classes of modules that no reader could import go into the pickle themselves. Raises `ModelError`.
    """
    import cloudpickle

    path, kinds = folder / "model.pth", {type(each) for each in module.modules()}
    inside = {kind.__module__ for kind in kinds if not within_reach(kind.__module__, code)} - {"__main__"}
    with ExitStack() as stack:
        for name in inside & sys.modules.keys():
            cloudpickle.register_pickle_by_value(sys.modules[name])
            stack.callback(cloudpickle.unregister_pickle_by_value, sys.modules[name])
        try:
            torch.save(module, path, pickle_module=cloudpickle)
        except Exception as error:
            if isinstance(error, OSError):
                raise
            raise ModelError(f"this {type(module).__qualname__} cannot be pickled: {error}") from error
    (folder / MODULE_NAME).write_text(pickle.__name__, encoding="utf-8")
    tops = {kind.__module__.partition(".")[0] for kind in kinds if kind.__module__ not in inside} - {"__main__"}
    try:
        names = names_in(path)
    except pickle.UnpicklingError:  # code in the pickle, which no list of names covers
        names, tops = (path.name,), {*tops, "cloudpickle"}
    return tuple(sorted(tops)), names


def write_script(module: Any, folder: Path) -> None:
    """Write a TorchScript module as MLflow does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is old
        torch.jit.save(module, folder / "model.pth")
    (folder / MODULE_NAME).write_text(pickle.__name__, encoding="utf-8")


def names_in(path: Path) -> tuple[str, ...]:
    """Return the names that a checkpoint of torch would import beyond those of tensors, without importing any."""
    return tuple(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))))


def is_script(path: Path) -> bool:
    """Tell whether a file is TorchScript."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read(path: Path, trust: Trust, code: Path, device: Any = None) -> Any:
    """Load a pickle or TorchScript with the reader's trust.

    Raises `Untrusted` before anything runs, or `ModelError`.
    """
    where = "cpu" if device is None else device
    with trust.code(code):
        try:
            if is_script(path):
                trust.demand(f"{path.name} is TorchScript, a program that torch runs")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return torch.jit.load(str(path), map_location=where)  # type: ignore[no-untyped-call]
            if trust.everything:
                trust.demand("it unpickles", path.name)
                return torch.load(path, map_location=where, weights_only=False)
            return _by_names(path, trust, where)
        except (MlcoreError, ImportError):
            raise
        except Exception as error:
            what = type(error).__name__
            raise ModelError(f"{path} cannot be read as a network: {what}: {str(error).splitlines()[:1]}") from error


def _by_names(path: Path, trust: Trust, where: Any) -> Any:
    """Load a pickle with torch's own restricted reader, to which the trusted names are added for this one time."""
    try:
        names = names_in(path)
    except Exception as error:  # what is no archive of torch's may be a pickle of any kind
        trust.demand(f"it unpickles {path.name} ({type(error).__name__})")
        raise
    trust.demand("its pickle names", *(names or [path.name]))
    known: list[Any] = []
    for name in names:
        module, _, last = name.rpartition(".")
        found = pkgutil.resolve_name(f"{module}:{last}")
        own = f"{getattr(found, '__module__', module)}.{getattr(found, '__qualname__', last)}"
        trust.demand(f"what its pickle calls {name} is", own)
        known.append((found, name))
    try:
        with torch.serialization.safe_globals(known):
            return torch.load(path, map_location=where, weights_only=True)
    except pickle.UnpicklingError as error:
        trust.demand(f"its pickle does more than names say ({str(error).splitlines()[0][:100]})")
        raise
