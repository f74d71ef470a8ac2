"""Flavors: what knows one kind of model, and which of them takes a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore import plugins
from mlcore.errors import ModelError, NotInstalled, PluginError
from mlcore.hookspecs import FlavorProvider
from mlcore.models._trust import Trust

if TYPE_CHECKING:
    from mlcore.models._signature import Signature

__all__ = ["Flavor", "Saved"]

PYTHON_FUNCTION = "python_function"


@attrs.frozen
class Saved:
    """Say what a flavor wrote, and what reading it takes.

    `config` is the flavor's own map in the MLmodel file, `python_function` that of MLflow's generic reader
    (``loader_module`` and what that looks up), None if there is no such reader. `modules` are the top-level modules
    that the files name and `requirements` further distributions that reading needs. `needs_trust` are the names
    (``package.module.attribute``) that a reader must trust, none where the files are only data. `signature` is what the
    model's type hints say.
    """

    config: Mapping[str, Any]
    python_function: Mapping[str, Any] | None = None
    modules: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    needs_trust: tuple[str, ...] = ()
    signature: Signature | None = None


class Flavor:
    """Save, load and ask one kind of model. `name` is its key in the MLmodel file."""

    name: str

    def save(self, model: Any, folder: Path, *, example: Any = None, **options: Any) -> Saved:
        """Write `model` into `folder`, which is empty but for ``code/``. Raises `ModelError` with what to do instead.

        `example` is an input the user gave, None if they gave none; `options` are what they passed to
        `mlcore.save_model` beyond its own: take those you know as keyword arguments.
        """
        raise NotImplementedError

    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        """Read the model that `config`, this flavor's map, describes; import and unpickle through `trust` alone."""
        raise NotImplementedError

    def predictor(self, model: Any, config: Mapping[str, Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
        """Return a function of data and parameters that predicts."""
        raise NotImplementedError


def flavor_for(model: Any, name: str | None = None) -> Flavor:
    """Return the flavor that takes `model`: that of the nearest class it derives from, or the one called `name`.

    Raises `NotInstalled` if none does, and `PluginError` if two take the same class.
    """
    if name is not None:
        return load_flavor(name)
    takes: dict[str, list[str]] = {}
    for key, providers in plugins.provided("flavors").items():
        for _, record in providers:
            for type_name in record.types if isinstance(record, FlavorProvider) else ():
                takes.setdefault(type_name, []).append(key)
    for base in type(model).__mro__:
        found = sorted(set(takes.get(f"{base.__module__}.{base.__qualname__}", ())))
        if len(found) > 1:
            raise PluginError(f"{' and '.join(found)} both take {base.__qualname__}: choose one with flavor=")
        if found:
            return load_flavor(found[0])
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    hint = plugins.FIRST_PARTY["flavors"].get(kind.partition(".")[0])
    brings = f"pip install mlcore-{hint}" if hint else "a plugin for it, or flavor= with one of those there are"
    there = ", ".join(sorted(plugins.provided("flavors"))) or "none"
    raise NotInstalled(f"no flavor takes a {kind}: it needs {brings}; there is: {there}")


def load_flavor(name: str) -> Flavor:
    """Return the flavor called `name`. Raises `NotInstalled` with what brings it."""
    flavor = plugins.load("flavors", name)()
    if not isinstance(flavor, Flavor):
        raise ModelError(f"flavor {name!r} is {flavor!r}, which is no mlcore.models.Flavor")
    return flavor
