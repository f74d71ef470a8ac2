"""Whose signature a model must have, before anything of it is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlcore import config, plugins
from mlcore.errors import ConfigError
from mlcore.models._mlmodel import SIGNATURE

__all__ = ["check_signed", "user_signers"]


def check_signed(folder: Path, required: Mapping[str, Sequence[str]]) -> Mapping[str, str] | None:
    """Return the sha256 of every file of a model after its signature was checked, None if none is required.

    `required` are public keys in PEM by who requires one of them; those of the user's settings come on top. Raises
    `BadSignature`, `ConfigError`, or `NotInstalled` without what could check it.
    """
    wanted = {**required, **user_signers()}
    if not wanted:
        return None
    hashed: Mapping[str, str] = plugins.load("verifiers", SIGNATURE)(folder, wanted)
    return hashed


def user_signers() -> dict[str, list[str]]:
    """Return the public keys of which the user requires one, by the setting that says so. Raises `ConfigError`."""
    setting = next(config.settings("require_signature"), None)
    if setting is None or setting.value == config.OFF:
        return {}
    reason = f"require_signature ({setting.reason})"
    return {reason: [_read(each) for each in setting.value.split(os.pathsep)]}


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"require_signature names the public key {path!r}, which cannot be read: {told}") from error
