"""Write and read exported programs: the graph of a network and its weights, which need none of its classes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mlcore.errors import MlcoreError, ModelError
from mlcore.models import Trust
from mlcore_torch import archives
from mlcore_torch.loader import arrays_of, tensors_of

__all__ = ["Unexportable", "any_batch", "export", "read", "same", "write"]


class Unexportable(ModelError):
    """Say why a network cannot be saved as a program."""


def export(module: torch.nn.Module, args: list[Any], names: dict[str, Any], dynamic_shapes: Any = None) -> Any:
    """Return the program of `module` for such arguments, for batches of any size if they can be.

    `dynamic_shapes` is `torch.export`'s. Raises `Unexportable` with why not.
    """
    if dynamic_shapes is not None:
        return _exported(module, args, names, dynamic_shapes)
    rows = [each.shape[0] for each in tensors_of([args, names]) if each.ndim]
    if rows and {*rows} == {1}:  # of one row torch would make a program for one row
        args, names = _twice(args), _twice(names)
    try:
        shapes = _batches(names) if names else tuple(_batches(args))
        return _exported(module, args, names, shapes)
    except Unexportable:
        return _exported(module, args, names, None)


def any_batch(program: Any) -> bool:
    """Tell whether a program takes batches of any size."""
    inputs = {*program.graph_signature.user_inputs}
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    firsts = [each.shape[0] for each in values if isinstance(each, torch.Tensor) and each.ndim]
    return bool(firsts) and not any(str(each).isdigit() for each in firsts)  # a symbol may have become a number


def write(program: Any, path: Path) -> tuple[str, ...]:
    """Write a program without the paths and lines of its source; return the names that a reader must trust."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for told in ("stack_trace", "from_node", "custom"):
                node.meta.pop(told, None)
    program.example_inputs = None  # torch would pickle them, and mlcore keeps its own
    try:
        with _quiet():
            torch.export.save(program, path)
        noting = _Noting(what="the program just saved")
        archives.examine(path, noting)
        with _quiet():
            torch.export.load(path)
    except Exception as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise
        reason = str(error) if isinstance(error, MlcoreError) else _reason(error)
        raise Unexportable(f"its program cannot be kept: {reason}") from error
    if noting.more:
        path.unlink(missing_ok=True)
        raise Unexportable(f"its program is more than data: {noting.more[0]}")
    return tuple(sorted(noting.asked))


def same(program: Any, module: Any, args: list[Any], names: dict[str, Any]) -> bool:
    """Tell whether a program answers as the network does it was made of."""
    with torch.inference_mode():
        ours, its = (arrays_of(each(*args, **names)) for each in (module, program.module()))
    return _close(ours, its)


def read(path: Path, trust: Trust, device: Any = None) -> Any:
    """Return the callable module of a program, on `device`. Raises `Untrusted`, or `ModelError` for damaged files."""
    archives.examine(path, trust)
    with _quiet():
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise ModelError(f"{path} cannot be read as an exported program: {_reason(error)}") from error
        if device is not None:
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, torch.device(device))
        return program.module()


class _Noting(Trust):
    """Note what trust would be asked for, and give it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.asked = set[str]()
        self.more = list[str]()

    def demand(self, what: str, *names: str) -> None:
        self.asked.update(names)
        self.more += [] if names else [what]


def _exported(module: torch.nn.Module, args: list[Any], names: dict[str, Any], shapes: Any) -> Any:
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(module, tuple(args), names, dynamic_shapes=shapes)
    except Exception as error:
        raise Unexportable(f"torch.export fails with {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _batches(value: Any) -> Any:
    """Return the shapes of arguments whose first length is a batch's."""
    if isinstance(value, torch.Tensor):
        return {0: torch.export.Dim.AUTO} if value.ndim else None
    if isinstance(value, Mapping):
        return {name: _batches(each) for name, each in value.items()}
    return [_batches(each) for each in value] if isinstance(value, list) else None


def _twice(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.cat([value, value]) if value.ndim else value
    if isinstance(value, Mapping):
        return {name: _twice(each) for name, each in value.items()}
    return [_twice(each) for each in value] if isinstance(value, list) else value


def _close(one: Any, other: Any) -> bool:
    import numpy as np

    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(_close(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    if hasattr(one, "shape"):
        return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))
    return bool(one == other)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch.export says of itself from users, who are told in mlcore's words whether it went well."""
    import warnings

    loud = [logging.getLogger(name) for name in ("torch.export", "torch._export", "torch.fx", "torch._dynamo")]
    levels = [each.level for each in loud]
    for each in loud:
        each.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loud, levels, strict=True):
            each.setLevel(level)
