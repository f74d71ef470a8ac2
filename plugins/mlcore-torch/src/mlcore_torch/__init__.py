"""Mlcore's flavor for PyTorch, and what a training loop records with it.

What is named here is imported when it is first used: every start of ``mlcore`` loads this module for its hooks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore_torch.checkpoints import Checkpoints, load_checkpoint
    from mlcore_torch.ranks import start_run
    from mlcore_torch.slots import Checkpoint, list_checkpoints
    from mlcore_torch.training import Monitor

__all__ = ["Checkpoint", "Checkpoints", "Monitor", "list_checkpoints", "load_checkpoint", "start_run"]
_HOMES = {"Checkpoint": "slots", "Monitor": "training", "list_checkpoints": "slots", "start_run": "ranks"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlcore_torch' has no attribute {name!r}")
    return getattr(import_module(f"mlcore_torch.{_HOMES.get(name, 'checkpoints')}"), name)
