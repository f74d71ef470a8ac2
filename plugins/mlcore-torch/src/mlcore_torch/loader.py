"""Build networks from their recipes and ask them; copied beside a model, so that MLflow can do both without mlcore."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["Asked", "arrays_of", "build", "evaluating", "fill", "how", "tensors_of"]

DESCRIPTION, PROGRAM, STATE, PICKLE = "module.json", "model.pt2", "model.safetensors", "model.pth"


def build(recipe: Mapping[str, Any], import_module: Callable[[str], Any]) -> torch.nn.Module:
    """Make a module of the class that `recipe` names, from its arguments or from its parts."""
    module, _, name = recipe["class"].rpartition(":")
    kind: Any = import_module(module)
    for part in name.split("."):
        kind = getattr(kind, part)
    if "parts" in recipe:
        parts = {key: build(each, import_module) for key, each in recipe["parts"].items()}
        made: torch.nn.Module = kind(parts) if name == "ModuleDict" else kind()
        for key, each in parts.items():
            made.add_module(key, each)
        return made
    found: torch.nn.Module = kind(*recipe.get("positional", ()), **recipe.get("arguments", {}))
    return found


def fill(module: torch.nn.Module, state: Mapping[str, Any], shared: Mapping[str, str]) -> torch.nn.Module:
    """Put the tensors of a state into `module`, in eval mode; `shared` are second names of tensors in it."""
    whole = {**state, **{name: state[first] for name, first in shared.items()}}
    own = module.state_dict()
    for name, value in whole.items():  # a half precision network is built in full
        if name in own and own[name].is_floating_point() and own[name].dtype != value.dtype:
            module.to(value.dtype)
            break
    module.load_state_dict(whole, strict=True)
    return module.train(False)


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a nest of dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_of(each)


class Asked:
    """A module that answers in NumPy arrays.

    `call` says how data are handed on: as ``one`` argument, a dict by its ``names``, or a list as ``several``; None
    looks at the data. Of large data `batch_size` rows are asked at a time.
    """

    def __init__(self, module: Any, call: str | None = None, batch_size: int | None = None) -> None:
        self.module, self.call, self.batch_size = module, call, batch_size
        tensors = [*module.parameters(), *module.buffers()]
        floats = [each.dtype for each in tensors if each.is_floating_point()]
        self.dtype = floats[0] if floats else None
        self.device = tensors[0].device if tensors else torch.device("cpu")

    def __call__(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Answer `data`; `params` are further arguments of the module."""
        args, names = self.arguments(data)
        given = {**names, **(params or {})}
        with evaluating(self.module), torch.inference_mode():
            if not self.batch_size:
                return arrays_of(self.module(*args, **given))
            rows = {each.shape[0] if each.ndim else -1 for each in tensors_of([args, names])}
            if len(rows) != 1 or -1 in rows:
                raise ValueError(f"batch_size needs inputs of one number of rows, and these have {sorted(rows)}")
            count = rows.pop()
            if count <= self.batch_size:
                return arrays_of(self.module(*args, **given))
            starts = range(0, count, self.batch_size)
            return _joined([self._part(args, names, params or {}, start, count) for start in starts])

    def _part(self, args: Any, names: Any, params: Mapping[str, Any], start: int, count: int) -> Any:
        size = min(self.batch_size or count, count - start)
        some, named = _rows(args, start, start + size), _rows(names, start, start + size)
        found = arrays_of(self.module(*some, **named, **params))
        for each in _leaves(found):
            if not each.ndim or each.shape[0] != size:
                raise ValueError("batch_size needs one row of output for each of input; ask without it")
        return found

    def arguments(self, data: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return `data` as the module's arguments: tensors on its device, numbers as wide as its own."""
        call = self.call or how(data)
        if call == "names":
            if not isinstance(data, Mapping) and not hasattr(data, "columns"):
                raise TypeError("this network takes several inputs by their names: give a dict of them")
            return [], {str(name): self.tensor(each) for name, each in data.items()}
        if call == "several":
            return [self.tensor(each) for each in data], {}
        return [self.tensor(data)], {}

    def tensor(self, value: Any) -> Any:
        """Return one value as the module takes it: a tensor, unless it is a truth, a word or a single number."""
        if isinstance(value, Mapping):
            return {key: self.tensor(each) for key, each in value.items()}
        if value is None or isinstance(value, bool | str):
            return value
        if hasattr(value, "to_numpy") and not isinstance(value, np.ndarray):  # frames and series
            value = value.to_numpy()
            value = np.asarray(value, dtype=np.float32) if value.dtype.kind not in "biu" or value.ndim == 2 else value
        elif isinstance(value, list | tuple) and any(hasattr(each, "__array__") for each in value):
            value = np.stack([each.numpy(force=True) if hasattr(each, "numpy") else each for each in value])
        if isinstance(value, int | float):
            return value
        if isinstance(value, list | tuple):
            tensor = torch.tensor(value)
        elif isinstance(value, torch.Tensor):
            tensor = value
        else:
            array = np.asarray(value)
            if array.dtype.kind not in "biufc":
                raise TypeError(f"a network takes numbers, not {array.dtype}")
            whole = array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative
            tensor = torch.from_numpy(array if whole else array.astype(array.dtype.newbyteorder("="), order="C"))
        wide = self.dtype if self.dtype is not None and tensor.is_floating_point() else None
        return tensor.to(self.device, wide)


def how(data: Any) -> str:
    """Return how data look as if they were to be handed on."""
    if isinstance(data, Mapping):
        return "names"
    several = isinstance(data, list | tuple) and any(hasattr(each, "shape") and len(each.shape) for each in data)
    return "several" if several else "one"


def arrays_of(value: Any) -> Any:
    """Return NumPy arrays for tensors, in dicts, lists and tuples too."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, Mapping):
        return {key: arrays_of(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        found = [arrays_of(each) for each in value]
        return found if isinstance(value, list) else tuple(found)
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    elif hasattr(value, "ndim"):
        yield value


def _rows(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[start:stop]
    if isinstance(value, Mapping):
        return {key: _rows(each, start, stop) for key, each in value.items()}
    return [_rows(each, start, stop) for each in value] if isinstance(value, list) else value


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: _joined([each[key] for each in parts]) for key in first}
    if isinstance(first, list | tuple):
        found = [_joined(list(each)) for each in zip(*parts, strict=True)]
        return found if isinstance(first, list) else tuple(found)
    return np.concatenate(parts) if hasattr(first, "ndim") else first


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put a module into eval mode while this lasts, and each of its parts back into its own."""
    training = [each for each in module.modules() if each.training]
    if training:
        with suppress(NotImplementedError):  # an exported program has one mode only
            module.train(False)
    try:
        yield
    finally:
        for each in training:
            each.training = True


class _Model:
    """What MLflow asks."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    def get_raw_model(self) -> Any:
        return self.asked.module

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        return self.asked(data, params)


def _load_pyfunc(path: str, model_config: Any = None) -> _Model:
    """Load the model for MLflow's generic reader, which trusts whatever it reads."""
    folder = Path(path)
    about = json.loads((folder / DESCRIPTION).read_bytes())
    device = (model_config or {}).get("device") or "cpu"
    if (folder / PROGRAM).exists():
        module: Any = torch.export.load(folder / PROGRAM).module()
    elif (folder / STATE).exists():
        from safetensors.torch import load_file

        built = build(about["recipe"], import_module)
        module = fill(built, load_file(folder / STATE), about["shared"]).to(device)
    elif about.get("script"):
        module = torch.jit.load(str(folder / PICKLE), map_location=device).train(False)  # type: ignore[no-untyped-call]
    else:
        module = torch.load(folder / PICKLE, map_location=device, weights_only=False).train(False)
    return _Model(Asked(module, about["call"], about["batch_size"]))
