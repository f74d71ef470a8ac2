"""Give tests a real server that speaks the protocol of Azure."""

from __future__ import annotations

from azurite import azurite, container

__all__ = ["azurite", "container"]
