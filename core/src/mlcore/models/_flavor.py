"""Flavors: what knows one kind of model, which of them takes a model, and what reads one that was saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mlcore import plugins
from mlcore.errors import InvalidValue, MlcoreError, ModelError, NotInstalled
from mlcore.models._mlmodel import ModelInfo, read_model
from mlcore.models._signature import Signature
from mlcore.models._signed import check_signed
from mlcore.models._trust import Trust, Trusting

__all__ = ["Flavor", "Model", "PythonModel", "Saved", "load_folder"]

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
    params: Mapping[str, Any] | None = None  # of the example, while a model is saved

    def save(self, model: Any, folder: Path, *, example: Any = None, **options: Any) -> Saved:
        """Write `model` into `folder`, which is empty but for ``code/``. Raises `ModelError` with what to do instead.

        `example` is an input the user gave, None if they gave none; `options` are what they passed to
        `mlcore.save_model` beyond its own: take those you know as keyword arguments.
        """
        raise NotImplementedError

    def load(self, folder: Path, config: Mapping[str, Any], trust: Trust) -> Any:
        """Read the model that `config`, this flavor's map, describes; import and unpickle through `trust` alone.

        What the user passed to `mlcore.load_model` beyond its own comes as keyword arguments: take those you know.
        """
        raise NotImplementedError

    def predictor(self, model: Any, config: Mapping[str, Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
        """Return a function of data and parameters that predicts."""
        raise NotImplementedError


class PythonModel:
    """Derive from this to save anything that predicts.

    ::

    class Counter(mlcore.PythonModel):
        def load(self, artifacts):
            self.words = set(artifacts["vocabulary"].read_text().split())

        def predict(self, data, params=None):
            return [len(self.words & set(text.split())) for text in data]

    mlcore.save_model(Counter(), "counter", artifacts={"vocabulary": "words.txt"})
    """

    __module__ = "mlcore"  # where users and pickles find it, whatever file it is in

    def load(self, artifacts: dict[str, Path]) -> None:
        """Load the files that were saved as `artifacts`, by their names; called once, after the model was loaded."""

    def predict(self, data: Any, params: Any = None) -> Any:
        """Predict from `data`; `params` are those of the model's signature."""
        raise NotImplementedError


def flavor_for(model: Any, name: str | None = None) -> Flavor:
    """Return the flavor that takes `model`: that of the nearest class it derives from, or the one called `name`.

    Raises `NotInstalled` if none does, and `PluginError` if two take the same class.
    """
    return load_flavor(plugins.nearest("flavors", model) if name is None else name)


def load_flavor(name: str) -> Flavor:
    """Return the flavor called `name`. Raises `NotInstalled` with what brings it."""
    flavor = plugins.load("flavors", name)()
    if not isinstance(flavor, Flavor):
        raise ModelError(f"flavor {name!r} is {flavor!r}, which is no mlcore.models.Flavor")
    return flavor


class Model:
    """A model that can predict, whatever made it. `info` is what its MLmodel file says."""

    def __init__(self, info: ModelInfo, unwrapped: Any, predictor: Callable[[Any, Mapping[str, Any]], Any]) -> None:
        self.info = info
        self._unwrapped, self._predictor, self._signature = unwrapped, predictor, info.signature
        example = info.raw.get("saved_input_example_info") or {}
        self._frame = example.get("type") != "json_object"  # lists and dicts for whom they were the example

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return what the model says of `data`, which is checked against its signature. Raises `SchemaMismatch`."""
        if self._signature is not None:
            data, params = self._signature.enforce(data, frame=self._frame), self._signature.enforce_params(params)
        return self._predictor(data, params or {})

    def unwrap(self) -> Any:
        """Return the model itself, as its library made it."""
        return self._unwrapped

    def __repr__(self) -> str:
        return f"Model({self.info.uri or str(self.info.folder)!r}, flavor={self.info.flavor!r})"


def load_folder(
    folder: str | os.PathLike[str] | ModelInfo, *, trust: Trusting = None, flavor: str | None = None,
    hashed: Mapping[str, str] | None = None, **options: Any,
) -> Model:  # fmt: skip
    """Load the model that a folder holds; see `mlcore.load_model`.

    `hashed` is the sha256 of every file, if `mlcore.models.check_signed` returned them just now.
    """
    known = folder if isinstance(folder, ModelInfo) else None
    place = known.folder if known else Path(os.fspath(folder)).absolute()  # type: ignore[arg-type]
    if hashed is None:
        hashed = check_signed(place, known.signers if known else {})
    info = known or read_model(place)
    what, name = f"model {info.uri or info.folder}", flavor or _readable(info)
    if name not in info.flavors:
        raise ModelError(f"{what} has no flavor {name!r}; it has {', '.join(info.flavors)}")
    allowed = Trust.of(trust, digest=info.verify(hashed), what=what)
    config, reader = info.flavors[name], load_flavor(name)
    try:
        with allowed.code(info.folder / "code"):
            unwrapped = reader.load(info.folder, config, allowed, **options)
        return Model(info, unwrapped, reader.predictor(unwrapped, config))
    except MlcoreError:
        raise
    except ModuleNotFoundError as error:
        raise NotInstalled(f"{what} needs the module {error.name}, which is not installed") from error
    except Exception as error:
        if options and isinstance(error, TypeError) and "unexpected keyword" in str(error):
            raise InvalidValue(f"flavor {name!r} takes no such option: {error}") from error
        raise ModelError(f"flavor {name!r} cannot read {what}: {type(error).__name__}: {error}") from error


def _readable(info: ModelInfo) -> str:
    """Return the flavor to read a model with: the first of its own that is here, else the one it has."""
    known = plugins.provided("flavors")
    return next((name for name in info.flavors if name in known and name != "python_function"), info.flavor)
