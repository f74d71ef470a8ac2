"""mlcore on one machine: the folder store, read and sealed, and artifacts as files.

What is named here is imported when it is first used: every start of ``mlcore`` loads this module for its hooks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore_local.reader import Damage, Journal, read
    from mlcore_local.store import FolderStore

__all__ = ["Damage", "FolderStore", "Journal", "read"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlcore_local' has no attribute {name!r}")
    return getattr(import_module("mlcore_local.store" if name == "FolderStore" else "mlcore_local.reader"), name)
