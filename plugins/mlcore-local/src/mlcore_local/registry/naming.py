"""What is meant by a word on the command line: a model of the registry, or one of its versions."""

from __future__ import annotations

from mlcore.errors import InvalidValue
from mlcore.registry import ModelVersion, RegisteredModel, Registry, parse

__all__ = ["find", "find_model", "find_version", "names_version", "shown"]

_SCHEME = "models:/"


def names_version(text: str) -> bool:
    """Tell whether a word such as ``digits/3`` or ``models:/digits@champion`` says which version is meant."""
    return bool({"/", "@"} & set(_plain(text)))


def find(registry: Registry, text: str) -> RegisteredModel | ModelVersion:
    """Return the model that is named, or the version if the word says which. Raises `NotFound` or `InvalidValue`."""
    return registry.version(text) if names_version(text) else find_model(registry, text)


def find_model(registry: Registry, text: str) -> RegisteredModel:
    """Return the model that is named, or whose version is. Raises `NotFound` or `InvalidValue`."""
    return registry.get(parse(text).name)


def find_version(registry: Registry, text: str) -> ModelVersion:
    """Return the version that is named. Raises `NotFound`, or `InvalidValue` if the word does not say which.

    The latest is never what is meant silently: what is changed about a version is said of the one that was named.
    """
    if not names_version(text):
        model = find_model(registry, text)
        last = next((each.version for each in model.versions), "1")
        raise InvalidValue(
            f"{model.name} is a model: say which version of it, as {model.name}/{last} or {model.name}@alias"
        )
    return registry.version(text)


def shown(thing: RegisteredModel | ModelVersion) -> str:
    """Return the word that names a model or a version."""
    return f"{thing.name}/{thing.version}" if isinstance(thing, ModelVersion) else thing.name


def _plain(text: str) -> str:
    return text.removeprefix("models://").removeprefix(_SCHEME).strip("/")
