"""What code ran: the state of a git repository or of a script, kept with a run, and made again from it.

What is named here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore_local.code.places import code_folder, use_folder
    from mlcore_local.code.restoring import NotRestored, Restored, restore
    from mlcore_local.code.state import Limits, State, state_of

__all__ = ["Limits", "NotRestored", "Restored", "State", "code_folder", "restore", "state_of", "use_folder"]
_HOMES = {"code_folder": "places", "use_folder": "places", "Limits": "state", "State": "state", "state_of": "state"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlcore_local.code' has no attribute {name!r}")
    return getattr(import_module(f"mlcore_local.code.{_HOMES.get(name, 'restoring')}"), name)
