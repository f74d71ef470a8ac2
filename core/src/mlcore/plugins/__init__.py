"""Find, load and ask plugins: the door through which everything that is not core comes in."""

from __future__ import annotations

from mlcore.hookspecs import Provider, hookimpl
from mlcore.plugins._entry_points import EntryPoint
from mlcore.plugins._manager import (
    FIRST_PARTY,
    Plugin,
    conflicts,
    installed,
    load,
    notify,
    provided,
    register,
    unregister,
)

__all__ = [
    "FIRST_PARTY",
    "EntryPoint",
    "Plugin",
    "Provider",
    "conflicts",
    "hookimpl",
    "installed",
    "load",
    "notify",
    "provided",
    "register",
    "unregister",
]
