"""mlcore's tracking server: stores and files over HTTP.

What is named here is imported when it is first used: every first run of a process loads this module for its hooks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore_server.routing import Actor, Declined, Route

__all__ = ["Actor", "Declined", "Route"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mlcore_server' has no attribute {name!r}")
    return getattr(import_module("mlcore_server.routing"), name)
