"""What mlcore-torch brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import FlavorProvider


def mlcore_flavors() -> Iterable[FlavorProvider]:
    """Provide modules of PyTorch, under the name that MLflow has for them."""
    types = ("torch.nn.modules.module.Module", "torch.export.exported_program.ExportedProgram")
    return [FlavorProvider("pytorch", "mlcore_torch.flavor:Torch", "PyTorch modules", types=types)]
