"""Loading a model: its files are checked, then the flavor reads what the reader trusts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlcore import plugins
from mlcore.errors import MlcoreError, ModelError, NotInstalled
from mlcore.models._flavor import load_flavor
from mlcore.models._mlmodel import ModelInfo, read_model
from mlcore.models._trust import Trust

__all__ = ["Model", "load_folder"]


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
    folder: str | os.PathLike[str] | ModelInfo,
    *,
    trust: bool | str | Iterable[str] | None = None,
    flavor: str | None = None,
) -> Model:
    """Load the model that a folder holds; see `mlcore.load_model`."""
    info = folder if isinstance(folder, ModelInfo) else read_model(Path(folder).absolute())
    what, name = f"model {info.uri or info.folder}", flavor or _readable(info)
    if name not in info.flavors:
        raise ModelError(f"{what} has no flavor {name!r}; it has {', '.join(info.flavors)}")
    allowed, config, reader = Trust.of(trust, digest=info.verify(), what=what), info.flavors[name], load_flavor(name)
    try:
        with allowed.code(info.folder / "code"):
            unwrapped = reader.load(info.folder, config, allowed)
        return Model(info, unwrapped, reader.predictor(unwrapped, config))
    except MlcoreError:
        raise
    except ModuleNotFoundError as error:
        raise NotInstalled(f"{what} needs the module {error.name}, which is not installed") from error
    except Exception as error:
        raise ModelError(f"flavor {name!r} cannot read {what}: {type(error).__name__}: {error}") from error


def _readable(info: ModelInfo) -> str:
    """Return the flavor to read a model with: the first of its own that is here, else the one it has."""
    known = plugins.provided("flavors")
    return next((name for name in info.flavors if name in known and name != "python_function"), info.flavor)
