"""Names of models, versions and aliases, and the URIs that they are loaded by."""

from __future__ import annotations

import re

import attrs

from mlcore import journal
from mlcore.errors import InvalidValue

SCHEME = "models:/"
STAGES = ("None", "Staging", "Production", "Archived")
LATEST = "latest"
_NUMBER = re.compile(r"[1-9][0-9]{0,15}(~[0-9a-f]{4,32})?")
_ALIAS = re.compile(r"[\w.+-]+")


@attrs.frozen
class ModelUri:
    """Say which version is meant: of the model `name` the one with a `number` as text, an `alias` or a `stage`.

    Nothing of these, or ``latest``, is the version with the highest number.
    """

    name: str
    number: str = ""
    alias: str = ""
    stage: str = ""

    def __str__(self) -> str:
        return (
            f"{SCHEME}{self.name}@{self.alias}"
            if self.alias
            else f"{SCHEME}{self.name}/{self.number or self.stage or LATEST}"
        )


def check_model_name(name: object) -> str:
    """Return the name of a model. Raises `InvalidValue` if it cannot stand in a URI."""
    if not isinstance(name, str) or not name.strip() or name != name.strip() or set("/:@") & set(name) or ".." in name:
        raise InvalidValue(f"{name!r:.80} is no name for a model: it may hold anything but '/', ':', '@' and '..'")
    return journal.check_key(name)


def check_alias(alias: object) -> str:
    """Return an alias. Raises `InvalidValue` if it reads like a version, or has other than letters, digits and ._+-."""
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias) or len(alias) > 255:
        raise InvalidValue(f"{alias!r:.80} is no alias: it may hold letters, digits and '_', '-', '.', '+'")
    if alias.lower() == LATEST or re.fullmatch(r"v?[0-9]+", alias, re.IGNORECASE):
        raise InvalidValue(f"{alias!r} cannot be an alias: it reads like a version")
    return alias


def check_stage(stage: object) -> str:
    """Return a stage as it is written. Raises `InvalidValue`."""
    found = next((each for each in STAGES if isinstance(stage, str) and each.lower() == stage.lower()), None)
    if found is None:
        raise InvalidValue(f"{stage!r:.80} is no stage: there are {', '.join(STAGES)}")
    return found


def parse(uri: str) -> ModelUri:
    """Read ``models:/NAME/3``, ``models:/NAME@alias``, ``models:/NAME/Production`` or ``models:/NAME/latest``.

    The scheme may be left out, and all behind the name. Raises `InvalidValue`.
    """
    text = uri.removeprefix("models://").removeprefix(SCHEME).strip("/")
    name, at, alias = text.rpartition("@")
    if at:
        return ModelUri(check_model_name(name), alias=check_alias(alias))
    name, _, which = text.partition("/")
    name = check_model_name(name)
    if not which or which.lower() == LATEST:
        return ModelUri(name)
    if _NUMBER.fullmatch(which):
        return ModelUri(name, number=which)
    if which.lower() in map(str.lower, STAGES):
        return ModelUri(name, stage=check_stage(which))
    raise InvalidValue(
        f"{uri!r} names no version: give {SCHEME}{name}/3, {SCHEME}{name}@alias or {SCHEME}{name}/latest"
    )
