"""Save, load and ask networks of PyTorch: as exported programs, as weights and a class, or as pickles."""

from __future__ import annotations

import copy
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mlcore.errors import InvalidValue, MlcoreError, ModelError
from mlcore.models import Flavor, Saved, Trust, file_inside
from mlcore_torch import loader, pickles, programs, states
from mlcore_torch.loader import DESCRIPTION, PICKLE, PROGRAM, STATE, Asked

__all__ = ["LOADER", "Torch"]

_log = logging.getLogger("mlcore")
LOADER = "mlcore_torch_loader"
DATA = "data"  # the folder that MLflow looks into
FORMATS = ("pt2", "safetensors", "pickle")


class Torch(Flavor):
    """Save a module as a `torch.export` program where its example allows that, else its state and its class by name.

    Options of `save`: ``serialization`` is ``"pt2"``, ``"safetensors"`` or ``"pickle"``; without it the first that can
    be is taken, a pickle last and with a warning. ``init`` are the arguments that the class is built with, a dict or a
    list, where its attributes do not tell. ``dynamic_shapes`` is `torch.export`'s. ``batch_size`` is how many rows are
    asked at a time.

    Options of `load`: ``map_location``, ``dtype``, ``batch_size``.
    """

    name = "pytorch"

    def __init__(self) -> None:
        self._batch_size: int | None = None
        self._saved: tuple[Any, Any] | None = None

    def save(
        self,
        model: Any,
        folder: Path,
        *,
        example: Any = None,
        serialization: str | None = None,
        init: Any = None,
        dynamic_shapes: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> Saved:
        """Write `model` into ``data/``. Raises `ModelError` if `serialization` asks for what cannot be done."""
        if options:
            known = "serialization, init, dynamic_shapes and batch_size"
            raise InvalidValue(f"flavor pytorch takes no {', '.join(options)}: it takes {known}")
        if serialization not in {None, *FORMATS}:
            raise InvalidValue(f"serialization is {', '.join(map(repr, FORMATS))}, not {serialization!r}")
        (folder / DATA).mkdir()
        writing = _Writing(folder, example, self.params, init, dynamic_shapes, _positive(batch_size))
        if isinstance(model, torch.export.ExportedProgram):
            return writing.program_itself(model)
        network = _ready(_unwrapped(model), example)
        self._saved = (model, network)
        with loader.evaluating(network):
            return writing.write(network, serialization)

    def load(
        self,
        folder: Path,
        config: Mapping[str, Any],
        trust: Trust,
        *,
        map_location: Any = None,
        dtype: Any = None,
        batch_size: int | None = None,
    ) -> Any:
        """Read the network, in eval mode, on the CPU or where `map_location` says, with numbers of `dtype`."""
        self._batch_size = _positive(batch_size)
        data = file_inside(folder, config.get("model_data", DATA))
        device = None if map_location is None else _device(map_location)
        wide = None if dtype is None else _dtype(dtype)
        if (data / PROGRAM).exists():
            module = programs.read(file_inside(folder, f"{_relative(data, folder)}/{PROGRAM}"), trust, device)
        elif (data / STATE).exists():
            about = _description(data)
            module = states.read(data / STATE, about, trust)
        elif (data / PICKLE).exists():
            module = pickles.read(data / PICKLE, trust, folder / "code", device)
            module = module.train(False) if hasattr(module, "train") else module
        else:
            raise ModelError(f"{data} holds neither {PROGRAM} nor {STATE} nor {PICKLE}")
        if not isinstance(module, torch.nn.Module):
            raise ModelError(f"{data} holds a {type(module).__qualname__}, which is no network")
        return module.to(device, wide) if device is not None or wide is not None else module

    def predictor(self, model: Any, config: Mapping[str, Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
        """Return a function that asks the network, in eval mode, and answers in NumPy arrays."""
        if self._saved is not None and self._saved[0] is model:  # the network in it, or one that has seen data
            model = self._saved[1]
        module = model.module() if isinstance(model, torch.export.ExportedProgram) else _unwrapped(model)
        asked = Asked(module, config.get("call"), self._batch_size or config.get("batch_size"))

        def predict(data: Any, params: Mapping[str, Any]) -> Any:
            try:
                return asked(data, params)
            except (ValueError, TypeError, AssertionError, RuntimeError) as error:
                if isinstance(error, MlcoreError):
                    raise
                rows = config.get("any_batch") is False
                more = "; it was exported for batches of the size of its example" if rows else ""
                raise ModelError(f"the network cannot be asked this: {str(error)[:500]}{more}") from error

        return predict


class _Writing:
    """Write one network, in the best form that it allows."""

    def __init__(
        self, folder: Path, example: Any, params: Any, init: Any, dynamic_shapes: Any, batch_size: int | None
    ) -> None:
        self.folder, self.data, self.code = folder, folder / DATA, folder / "code"
        self.example, self.params, self.init = example, params, init
        self.dynamic_shapes, self.batch_size = dynamic_shapes, batch_size

    def write(self, network: torch.nn.Module, serialization: str | None) -> Saved:
        ways = {"pt2": self.program, "safetensors": self.state, "pickle": self.pickle}
        script = isinstance(network, torch.jit.ScriptModule)
        if serialization == "pickle" or script:
            _log.info("saved as %s, which readers must trust: trust=True", "TorchScript" if script else "a pickle")
            return self.pickle(network)
        if serialization:
            return ways[serialization](network)
        reasons = []
        for way in (self.program, self.state):
            try:
                return way(network)
            except (programs.Unexportable, states.Unbuildable) as error:
                reasons.append(str(error))
        _log.warning("saved as a pickle, which readers must trust: %s", "; and ".join(reasons))
        return self.pickle(network)

    def program_itself(self, program: Any) -> Saved:
        """Write a program that the user exported."""
        needs = programs.write(copy.copy(program), self.data / PROGRAM)
        return self._saved(program.module(), "pt2", needs=needs, more={"any_batch": programs.any_batch(program)})

    def program(self, network: torch.nn.Module) -> Saved:
        if self.example is None:
            raise programs.Unexportable("without input_example= there is no program of it")
        if self.params:
            raise programs.Unexportable("its example has parameters, which a program would hold as they are")
        if isinstance(network, torch.jit.ScriptModule):
            raise programs.Unexportable("TorchScript is no network to torch.export")
        network = _on_cpu(network)
        args, names = _arguments(network, self._call(network), self.example)
        program = programs.export(network, args, names, self.dynamic_shapes)
        if not programs.same(program, network, args, names):
            raise programs.Unexportable("its program answers its example otherwise than the network")
        any_batch = programs.any_batch(program)
        needs = programs.write(program, self.data / PROGRAM)
        if not any_batch:
            _log.info("saved as a program for batches of the size of its example: torch found it depends on that")
        return self._saved(network, "pt2", needs=needs, more={"any_batch": any_batch})

    def state(self, network: torch.nn.Module) -> Saved:
        recipe = states.recipe_of(network, self.code, self.init)
        shared = states.write(network, self.data / STATE)
        classes = sorted(states.modules_in(recipe))
        needs = tuple(each.replace(":", ".") for each in classes)
        modules = tuple({each.partition(".")[0].partition(":")[0] for each in classes})
        if needs:
            _log.info("saved as weights and the class %s, which readers must have and trust", ", ".join(needs))
        about = {"recipe": recipe, "shared": shared}
        return self._saved(network, "safetensors", needs=needs, modules=modules, about=about)

    def pickle(self, network: torch.nn.Module) -> Saved:
        if isinstance(network, torch.jit.ScriptModule):
            pickles.write_script(network, self.data)
            return self._saved(network, "torchscript", needs=(PICKLE,), about={"script": True})
        modules, needs = pickles.write(network, self.data, self.code)
        return self._saved(network, "pickle", needs=needs, modules=modules)

    def _call(self, network: torch.nn.Module) -> str | None:
        return _call(network, self.example)

    def _saved(
        self,
        network: Any,
        form: str,
        *,
        needs: tuple[str, ...] = (),
        modules: tuple[str, ...] = (),
        about: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Saved:
        call = self._call(network)
        config = {
            "model_data": DATA,
            "pytorch_version": str(torch.__version__),
            "serialization_format": form,
            "call": call,
            "batch_size": self.batch_size,
            **(more or {}),
        }
        told = {"call": call, "batch_size": self.batch_size, **(about or {})}
        (self.data / DESCRIPTION).write_text(json.dumps(told, indent=1), encoding="utf-8")
        simple = form in {"pt2", "pickle", "torchscript"} and self._mlflow_asks_the_same(network, call)
        reader = "mlflow.pytorch" if simple else _write_loader(self.code)
        requirements = ("torch", "numpy", *(["safetensors"] if form == "safetensors" else []))
        generic = {"loader_module": reader, "data": DATA}
        return Saved({k: v for k, v in config.items() if v is not None}, generic, modules, requirements, needs)

    def _mlflow_asks_the_same(self, network: Any, call: str | None) -> bool:
        """Tell whether MLflow's own reader hands on the example as it is, and returns what comes out of it."""
        if self.example is None or call != "one" or self.batch_size:
            return False
        given = self.example
        asked = Asked(network)
        framed = hasattr(given, "columns")
        wide = getattr(asked.tensor(given), "dtype", None)
        if not framed and (not hasattr(given, "dtype") or str(wide).rpartition(".")[2] != _dtype_name(given)):
            return False
        try:
            return hasattr(asked(given, self.params), "dtype")
        except Exception:  # noqa: BLE001 - whoever predicts the example next tells why it fails
            return False


def _dtype_name(data: Any) -> str:
    return str(data.dtype).rpartition(".")[2]


def _write_loader(code: Path) -> str:
    """Write the loader into the model's folder of code; return its name."""
    code.mkdir(exist_ok=True)
    (code / f"{LOADER}.py").write_text(inspect.getsource(loader), encoding="utf-8")
    return LOADER


def _call(network: Any, example: Any) -> str | None:
    """Say how the example is handed on: a dict by names, if these are arguments of the network, else as one."""
    if example is None:
        return None
    if not isinstance(example, Mapping):
        return loader.how(example)
    takes = inspect.signature(network.forward).parameters
    catches = any(each.kind is each.VAR_KEYWORD for each in takes.values())
    return "names" if catches or all(name in takes for name in example) else "one"


def _arguments(network: torch.nn.Module, call: str | None, example: Any) -> tuple[list[Any], dict[str, Any]]:
    try:
        return Asked(network, call).arguments(example)
    except Exception as error:
        raise programs.Unexportable(f"its example is none for a network: {error}") from error


def _unwrapped(model: Any) -> Any:
    """Return the network within what trains it on several devices, or compiles it."""
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or type(model).__name__ == "OptimizedModule":
        model = model.module if isinstance(model, parallel) else model._orig_mod
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"flavor pytorch saves torch.nn.Module and ExportedProgram, not {type(model).__qualname__}")
    return model


def _ready(network: torch.nn.Module, example: Any) -> torch.nn.Module:
    """Return the network if it has weights; of one that gets them with its first data, a copy that has seen some."""
    tensors = [*network.parameters(), *network.buffers()]
    if any(torch.nn.parameter.is_lazy(each) for each in tensors):
        if example is None:
            raise ModelError("this network gets its weights with its first data: ask it once, or give input_example=")
        network = copy.deepcopy(network)
        Asked(network, _call(network, example))(example)
    elif any(each.is_meta for each in tensors):
        raise ModelError("this network is on the device meta, and has no weights: load them before it is saved")
    return network


def _on_cpu(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy on the CPU of what is elsewhere: a program stays where it was made, whoever reads it."""
    away = any(each.device.type != "cpu" for each in (*network.parameters(), *network.buffers()))
    return copy.deepcopy(network).cpu() if away else network


def _description(data: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((data / DESCRIPTION).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{data / DESCRIPTION} cannot be read: {error}") from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{data / DESCRIPTION} describes no network")
    return found


def _relative(data: Path, folder: Path) -> str:
    return data.resolve().relative_to(folder.resolve()).as_posix()


def _positive(size: Any) -> int | None:
    if size is not None and (not isinstance(size, int) or size < 1):
        raise InvalidValue(f"batch_size is a number of rows, not {size!r}")
    return None if size is None else int(size)


def _device(given: Any) -> torch.device:
    try:
        return torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise InvalidValue(f"map_location={given!r} is no device: {error}") from error


def _dtype(given: Any) -> torch.dtype:
    found = getattr(torch, given, None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InvalidValue(f"dtype={given!r} is no type of floating numbers, such as torch.bfloat16 or 'float16'")
    return found
