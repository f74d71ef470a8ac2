"""Hold the states of modules, optimizers and their like in one file of safetensors: tensors, and JSON of all the rest.

Nothing in such a file is code: what is no data is refused when it is saved, and what is in none of the forms below is
refused when it is read.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlcore.errors import ArtifactError, InvalidValue

__all__ = ["pack", "unpack"]

_TREE = "mlcore.states"  # the JSON, among the metadata of the file
_DTYPES = {
    torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64", torch.float32: "F32", torch.int32: "I32",
    torch.uint32: "U32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int16: "I16", torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip


def pack(states: Mapping[str, Any]) -> bytearray:
    """Return the bytes of a file that holds `states`: tensors, arrays and plain values, nested as they like.

    Tensors are copied, from whatever device, so that training may go on while the bytes are written. Raises
    `InvalidValue` for what is no data, with where it is.
    """
    packing = _Packing()
    tree = json.dumps(packing.tree(states, ""), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # the largest elements first: so each begins at a multiple of its size
    tensors = sorted(packing.tensors.items(), key=lambda each: -each[1].element_size())
    header: dict[str, Any] = {"__metadata__": {"format": "pt", _TREE: tree}}
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    data = bytearray(first + end)
    data[:first] = len(text).to_bytes(8, "little") + text
    for name, tensor in tensors:
        start, end = header[name]["data_offsets"]
        if end > start:
            place = torch.frombuffer(data, dtype=torch.uint8, count=end - start, offset=first + start)
            place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
    return data


class _Packing:
    """Write values as JSON, and gather the tensors among them; one that is there twice is stored once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def tree(self, value: Any, path: str) -> Any:
        """Return `value` as JSON; what JSON has no form for is an object with one key, which begins with ``$``."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.generic):
            value = value.item()
        for kinds, form in _FORMS:
            if isinstance(value, kinds):
                return form(self, value, path)
        what = f"{type(value).__module__}.{type(value).__qualname__}"
        told = "a checkpoint holds tensors, arrays, numbers, text, lists, tuples and dicts"
        raise InvalidValue(f"{path or 'what is to be saved'} is a {what}, which is no data: {told}")

    def tensor(self, value: Tensor, path: str) -> Any:
        """Name a tensor, and note it."""
        value = value.detach()
        if value.is_complex():
            return {"$complex": self._named(torch.view_as_real(value.resolve_conj()), path)}
        return {"$tensor": self._named(value, path)}

    def _named(self, value: Tensor, path: str) -> str:
        if value.layout is not torch.strided or value.dtype not in _DTYPES or value.is_meta:
            kind = "without data" if value.is_meta else f"of {value.dtype}, {value.layout}"
            raise InvalidValue(f"{path} is a tensor {kind}, for which checkpoints have no form")
        if hasattr(value, "full_tensor"):
            raise InvalidValue(f"{path} is spread over several processes: gather it, as by its full_tensor()")
        same = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and same in self._names:
            return self._names[same]
        names = (path if number == 1 else f"{path}#{number}" for number in count(1))
        name = next(each for each in names if each not in self.tensors and each != "__metadata__")
        self.tensors[name] = value
        self._names[same] = name
        return name

    def array(self, value: np.ndarray[Any, Any], path: str) -> Any:
        """Note an array as a tensor."""
        try:
            return {"$array": self._named(torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape)), path)}
        except TypeError:
            raise InvalidValue(f"{path} is an array of {value.dtype}, for which checkpoints have no form") from None

    def items(self, value: Mapping[Any, Any], path: str) -> Any:
        """Write a dict, of whatever keys."""
        keys, inner = list(value), {key: f"{path}.{key}".lstrip(".") for key in value}
        metadata = getattr(value, "_metadata", None)  # of a module: by it load_state_dict knows older forms
        if metadata is None and all(isinstance(key, str) and not key.startswith("$") for key in keys):
            return {key: self.tree(value[key], inner[key]) for key in keys}
        kind = "$counter" if isinstance(value, Counter) else "$dict"
        pairs = [[self.tree(key, f"a key of {path}"), self.tree(value[key], inner[key])] for key in keys]
        return (
            {kind: pairs} if metadata is None else {"$state": [pairs, self.tree(dict(metadata), f"{path}._metadata")]}
        )

    def sequence(self, value: Iterable[Any], path: str) -> list[Any]:
        """Write the elements of a list."""
        return [self.tree(each, f"{path}.{at}") for at, each in enumerate(value)]


_FORMS: tuple[tuple[Any, Callable[[_Packing, Any, str], Any]], ...] = (
    (int, lambda _, value, __: int(value)),
    (float, lambda _, value, __: float(value) if math.isfinite(value) else {"$float": repr(float(value))}),
    (str, lambda _, value, __: str(value)),
    (Tensor, _Packing.tensor),
    (np.ndarray, _Packing.array),
    (Mapping, _Packing.items),
    (list, _Packing.sequence),
    (tuple, lambda packing, value, path: {"$tuple": packing.sequence(value, path)}),
    (set | frozenset, lambda packing, value, path: {"$set": packing.sequence(value, path)}),
    ((bytes, bytearray), lambda _, value, __: {"$bytes": base64.b64encode(value).decode()}),
)


def unpack(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `pack` made the file of, tensors on the CPU. Raises `ArtifactError` for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path), "pt") as file:
            told = (file.metadata() or {}).get(_TREE)
            if told is None:
                raise ArtifactError(f"{path} is no checkpoint of mlcore: it has no {_TREE} in its header")
            states = _Reading(lambda name: file.get_tensor(name).clone()).value(json.loads(told))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise ArtifactError(f"{path} is no checkpoint of mlcore: {error!r}") from error
    if not isinstance(states, dict):
        raise ArtifactError(f"{path} is no checkpoint of mlcore: it holds a {type(states).__name__}")
    return states


class _Reading:
    """Read what `_Packing` wrote."""

    def __init__(self, tensor: Callable[[str], Tensor]) -> None:
        self._tensor = tensor

    def value(self, tree: Any) -> Any:
        """Return the value that a part of the JSON stands for. Raises `ValueError` for what stands for none."""
        if isinstance(tree, list):
            return [self.value(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        kind = next(iter(tree), "")
        if not kind.startswith("$"):
            return {key: self.value(each) for key, each in tree.items()}
        if len(tree) != 1 or kind not in _READ:
            raise ValueError(f"nothing is written as {kind!r:.40}")
        return _READ[kind](self, tree[kind])

    def pairs(self, found: Any) -> list[tuple[Any, Any]]:
        """Return the items of a dict."""
        return [(self.value(key), self.value(each)) for key, each in found]

    def state(self, found: Any) -> Any:
        """Return the state of a module, with the versions of the modules that it was made by."""
        pairs, metadata = found
        state = OrderedDict(self.pairs(pairs))
        state.__dict__["_metadata"] = self.value(metadata)
        return state


_READ: dict[str, Callable[[_Reading, Any], Any]] = {
    "$array": lambda reading, name: reading._tensor(name).numpy(),
    "$bytes": lambda _, text: base64.b64decode(text, validate=True),
    "$complex": lambda reading, name: torch.view_as_complex(reading._tensor(name)),
    "$counter": lambda reading, found: Counter(dict(reading.pairs(found))),
    "$dict": lambda reading, found: dict(reading.pairs(found)),
    "$float": lambda _, text: float(text),
    "$set": lambda reading, found: set(reading.value(found)),
    "$state": _Reading.state,
    "$tensor": lambda reading, name: reading._tensor(name),
    "$tuple": lambda reading, found: tuple(reading.value(found)),
}
