"""Signatures and bills of materials of mlcore's models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlcore_signing.keys import KeyPair, make_key
    from mlcore_signing.signing import Signature, release, require, sign, verify

__all__ = ["KeyPair", "Signature", "make_key", "release", "require", "sign", "verify"]

_HOMES = {name: "keys" if name in ("KeyPair", "make_key") else "signing" for name in __all__}


def __getattr__(name: str) -> Any:
    """Import what is asked for: what makes keys takes long to load, and hooks must not."""
    if name in _HOMES:
        return getattr(import_module(f"mlcore_signing.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
