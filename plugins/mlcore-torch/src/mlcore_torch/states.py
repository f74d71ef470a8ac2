"""Write and read the weights of a network as safetensors, and how to build it: its class by name, and its arguments."""

from __future__ import annotations

import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

from mlcore.errors import ModelError
from mlcore.models import Trust, distribution_of
from mlcore_torch.loader import build, fill

__all__ = ["Unbuildable", "modules_in", "read", "recipe_of", "within_reach", "write"]

_OURS = "torch.nn.modules."  # classes there only compute, and are built without anybody's trust
_PARTS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
_PASSING = {"training", "_compile_kwargs", "_compiled_call_impl", "_is_torch_compile"}  # no matter of the network's
_NOT_TOLD = {"device", "dtype"}
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")


class Unbuildable(ModelError):
    """Say why a reader could not build a network by its class."""


def recipe_of(module: torch.nn.Module, code: Path, init: Any = None) -> dict[str, Any]:
    """Return how a reader builds such a module, `init` being the arguments if they were told.

    What is not told is found in attributes of the arguments' names; a module built so must be like this one in all but
    its weights. Raises `Unbuildable`.
    """
    recipe = _recipe(module, code, init, set())
    try:
        plain = json.loads(json.dumps(recipe))
    except (TypeError, ValueError) as error:
        raise Unbuildable(f"its arguments are more than JSON holds ({error})") from error
    try:
        with torch.random.fork_rng(devices=[]):
            built = build(plain, _here)
    except Exception as error:
        raise Unbuildable(f"{_name(type(module))} cannot be built anew: {type(error).__name__}: {error}") from error
    if difference := next(_differences(module, built), None):
        raise Unbuildable(f"{_name(type(module))} built anew is another: {difference}; say how with init=")
    return plain  # type: ignore[no-any-return]


def write(module: torch.nn.Module, path: Path) -> dict[str, str]:
    """Write the state of `module`; return second names of tensors that have several. Raises `Unbuildable`."""
    from safetensors.torch import save_file

    kept, shared, seen, storages = dict[str, torch.Tensor](), dict[str, str](), dict[Any, str](), set[int]()
    for name, value in module.state_dict().items():
        if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_quantized:
            raise Unbuildable(f"its state holds {name!r}, a {type(value).__qualname__} that safetensors do not")
        storage = value.untyped_storage().data_ptr()
        key = (storage, value.storage_offset(), value.shape, value.stride(), value.dtype)
        if storage and key in seen:
            shared[name] = seen[key]
            continue
        seen[key] = name
        plain = value.detach().cpu().contiguous()
        kept[name] = plain.clone() if plain.untyped_storage().data_ptr() in storages else plain
        if kept[name].untyped_storage().nbytes() != kept[name].numel() * kept[name].itemsize:  # a part of another
            kept[name] = kept[name].clone()
        storages.add(kept[name].untyped_storage().data_ptr())
    try:
        save_file(kept, path)
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise Unbuildable(f"safetensors cannot hold its state: {error}") from error
    return shared


def read(path: Path, about: Mapping[str, Any], trust: Trust) -> torch.nn.Module:
    """Build the module that `about` tells of, and fill it. Raises `Untrusted`, or `ModelError` for damaged files."""
    recipe, shared = about.get("recipe"), about.get("shared")
    if not isinstance(recipe, Mapping) or not isinstance(shared, Mapping):
        raise ModelError(f"{path}: nothing says how the network is built")
    classes = sorted(set(_classes(recipe, path)))
    foreign = [each for each in classes if not each.startswith(_OURS)]
    if foreign:
        trust.demand("it builds", *(each.replace(":", ".") for each in foreign))
    for each in classes:
        _need_a_network(path, each, trust)
    state = _loaded(path)
    if shared and not {*shared.values()} <= state.keys():
        raise ModelError(f"{path} lacks tensors that others are said to be")
    try:
        if foreign:
            module = build(recipe, _here)
        else:
            with torch.device("meta"):  # nothing is made room for before the file says how much there is
                module = build(recipe, _here)
            _need_fitting(path, module, state, shared)
            module = module.to_empty(device="cpu")
        _need_fitting(path, module, state, shared)
        return fill(module, state, shared)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path} does not fit its network: {type(error).__name__}: {error}") from error


def modules_in(recipe: Mapping[str, Any]) -> set[str]:
    """Return the modules that a recipe's classes are in, but for torch's own."""
    return {each for each in _classes(recipe, Path()) if not each.startswith(_OURS)}


def within_reach(module: str, code: Path) -> bool:
    """Tell whether a reader has a module: Python's own, an installed one, or one in the folder `code` of the model."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or (code / top).is_dir() or (code / f"{top}.py").is_file():
        return True
    return top != "__main__" and distribution_of(top) is not None


def _loaded(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error


def _need_fitting(path: Path, module: torch.nn.Module, state: Mapping[str, Any], shared: Mapping[str, str]) -> None:
    own = module.state_dict()
    whole = {**state, **{name: state[first] for name, first in shared.items()}}
    for name in sorted(own.keys() | whole.keys()):
        if name not in whole or name not in own:
            raise ModelError(f"{path} {'lacks' if name in own else 'has'} {name!r}, other than the network")
        mine, its = own[name], whole[name]
        if mine.shape != its.shape or mine.is_floating_point() != its.is_floating_point():
            has = f"{its.dtype} {tuple(its.shape)}"
            raise ModelError(f"{path}: {name!r} is {has}, where the network has {mine.dtype} {tuple(mine.shape)}")


def _classes(recipe: Mapping[str, Any], path: Path) -> Iterator[str]:
    name = recipe.get("class")
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.replace(":", ".").split(".")):
        raise ModelError(f"{path}: {name!r:.80} is no name of a class")
    if name.count(":") != 1:
        raise ModelError(f"{path}: {name!r:.80} is no name of a class in a module")
    yield name
    for each in recipe.get("parts", {}).values():
        yield from _classes(each, path)


def _need_a_network(path: Path, name: str, trust: Trust) -> None:
    """Import what a class is in, which is trusted or torch's own, and check that it is one of networks."""
    module, _, _ = name.partition(":")
    if not name.startswith(_OURS):
        if module not in sys.modules or trust.everything:
            allowed = Trust(trust.what, trust.everything, (*trust.names, module))
            allowed.import_module(module)
        found = pkgutil.resolve_name(name)
        own = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        trust.demand(f"what it calls {name} is", own)
    else:
        if module not in sys.modules:
            raise ModelError(f"{path}: torch has no {name}")
        found = vars(sys.modules[module]).get(name.partition(":")[2])
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise ModelError(f"{path}: {name} is no class of networks")


def _here(name: str) -> ModuleType:
    return sys.modules[name]


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _recipe(module: torch.nn.Module, code: Path, init: Any, seen: set[int]) -> dict[str, Any]:
    kind = type(module)
    if id(module) in seen:
        raise Unbuildable(f"it holds the same {kind.__qualname__} twice")
    seen.add(id(module))
    name, found = f"{kind.__module__}:{kind.__qualname__}", sys.modules.get(kind.__module__)
    if kind.__module__ == "__main__":
        raise Unbuildable(f"{kind.__qualname__} is defined in __main__, which is another module for every reader")
    if "<" in kind.__qualname__ or found is None or pkgutil.resolve_name(name) is not kind:
        raise Unbuildable(f"{_name(kind)} cannot be imported by that name: it is not at the top of its module")
    if not within_reach(kind.__module__, code):
        raise Unbuildable(f"{kind.__module__} is neither installed nor given with code=, so readers lack {_name(kind)}")
    if kind in _PARTS:
        parts = {key: _recipe(each, code, None, seen) for key, each in module.named_children()}
        if len(parts) != len(module):  # type: ignore[arg-type] # a container has a length
            raise Unbuildable(f"it holds the same part of a {kind.__qualname__} twice")
        return {"class": name, "parts": parts}
    if init is not None:
        named = isinstance(init, Mapping)
        return {"class": name, "positional": [] if named else list(init), "arguments": dict(init) if named else {}}
    return {"class": name, "arguments": _arguments(module)}


def _arguments(module: Any) -> dict[str, Any]:
    """Return the arguments of a module's class, as its attributes of these names tell them."""
    if type(module).__module__.startswith(_OURS) and isinstance(module, torch.nn.RNNBase):
        extra = {torch.nn.LSTM: ("proj_size",), torch.nn.RNN: ("nonlinearity",)}.get(type(module), ())
        return {name: getattr(module, name) for name in (*_RECURRENT, *extra)}
    told = getattr(module, "hparams", None)  # Lightning's save_hyperparameters
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if name in _NOT_TOLD or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if isinstance(told, Mapping) and name in told:
            found[name] = told[name]
            continue
        value = getattr(module, name, parameter.default)
        if name == "bias" and not isinstance(getattr(module, name, None), bool):
            value = any("bias" in each for each, _ in module.named_parameters())
        if _is_plain(value):
            if parameter.default is parameter.empty or value != parameter.default:
                found[name] = value
        elif parameter.default is parameter.empty:
            raise Unbuildable(f"nothing says the argument {name!r} of {_name(type(module))}: say it with init=")
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def _differences(module: torch.nn.Module, built: torch.nn.Module) -> Iterator[str]:
    """Yield in what two modules differ, weights apart."""
    mine, its = dict(module.named_modules()), dict(built.named_modules())
    if mine.keys() != its.keys():
        yield f"its parts are {', '.join(its)} and not {', '.join(mine)}"
        return
    for name, one in mine.items():
        other, where = its[name], f"{name}." if name else ""
        if type(one) is not type(other):
            yield f"{where or 'it'} is a {type(other).__qualname__} and not a {type(one).__qualname__}"
        for key in sorted(vars(one).keys() | vars(other).keys()):
            if key not in _PASSING and not _alike(vars(one).get(key), vars(other).get(key)):
                yield f"{where}{key} is {vars(other).get(key)!r:.60} and not {vars(one).get(key)!r:.60}"
        kept = module.state_dict()
        for key, first in one.named_buffers(recurse=False):  # what the state does not hold is as it was built
            second = dict(other.named_buffers(recurse=False)).get(key)
            if f"{where}{key}" not in kept and (second is None or not torch.equal(first.cpu(), second.cpu())):
                yield f"{where}{key} holds other values"
    own, built_state = module.state_dict(), built.state_dict()
    for key in own.keys() | built_state.keys():
        if getattr(own.get(key), "shape", None) != getattr(built_state.get(key), "shape", None):
            yield f"{key} has another shape"


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, FunctionType | BuiltinFunctionType | type):
        return one is other
    if _is_plain(one) or _is_plain(other):
        return _is_plain(one) and _is_plain(other) and json.dumps(one) == json.dumps(other)
    return type(one) is type(other)
