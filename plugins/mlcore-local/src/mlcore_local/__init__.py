"""mlcore on one machine: the folder store, read and sealed, artifacts as files, and models as one file.

What is named here is imported when it is first used: every start of ``mlcore`` loads this module for its hooks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore_local.index import Index
    from mlcore_local.packing import pack, unpack
    from mlcore_local.reader import Damage, Journal, read
    from mlcore_local.store import FolderStore

__all__ = ["Damage", "FolderStore", "Index", "Journal", "pack", "read", "unpack"]
_HOMES = {"FolderStore": "store", "Index": "index", "pack": "packing", "unpack": "packing"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlcore_local' has no attribute {name!r}")
    return getattr(import_module(f"mlcore_local.{_HOMES.get(name, 'reader')}"), name)
