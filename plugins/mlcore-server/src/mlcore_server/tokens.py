"""The token of a start: made when none was given, and kept in a file that only this user can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import attrs

from mlcore import config
from mlcore_server.settings import Settings

__all__ = ["with_token"]


def with_token(settings: Settings, port: int) -> tuple[Settings, Path | None]:
    """Return settings that have a token unless they need none, and the file in which a new one was put."""
    if settings.token or settings.no_token:
        return settings, None
    token = f"mlc_{secrets.token_urlsafe(32)}"
    path = config.user_cache() / "servers" / f"{port}.token"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    return attrs.evolve(settings, token=token), path
