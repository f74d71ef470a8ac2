"""Hand data to a fitted estimator as it was fitted: columns by name where it knows names, else by place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.errors import SchemaMismatch

__all__ = ["LOADER", "as_fitted", "write_loader"]

LOADER = "mlcore_sklearn_loader"

# MLflow's own loader hands on predict and its kin only; this one, which travels with the model, hands on every method.
_LOADER_CODE = '''\
"""Let MLflow ask a scikit-learn model for what its own loader does not hand on, such as transform."""

from importlib import import_module


class _Model:
    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)


def _load_pyfunc(path, model_config=None):
    loaded = import_module("mlflow.sklearn")._load_pyfunc(path)
    return _Model(loaded.get_raw_model())
'''


def write_loader(code: Path) -> str:
    """Write the loader into the model's folder of code; return its name."""
    code.mkdir(exist_ok=True)
    (code / f"{LOADER}.py").write_text(_LOADER_CODE, encoding="utf-8")
    return LOADER


def as_fitted(model: Any, data: Any) -> Any:
    """Return `data` with the columns that `model` was fitted on, in their order.

    Frames are taken by name; records and columns become frames, and so do rows without names if there are as many as
    names. A model that was fitted without names is given arrays. Raises `SchemaMismatch` naming a missing column.
    """
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        nameless = hasattr(data, "to_numpy") and hasattr(data, "columns") and hasattr(model, "n_features_in_")
        return data.to_numpy() if nameless else data
    wanted = list(names)
    frame = data if hasattr(data, "columns") else _framed(wanted, data)
    if not hasattr(frame, "columns") or list(frame.columns) == wanted:
        return frame
    for name in wanted:
        if name not in frame.columns:
            raise SchemaMismatch(f"column {name!r} is missing: the model was fitted on {', '.join(map(str, wanted))}")
    return frame[wanted]


def _framed(names: list[str], data: Any) -> Any:
    """Make a frame of records, columns or rows; leave anything else as it is."""
    import numpy as np

    first = data[0] if isinstance(data, list) and data else None
    named = isinstance(data, Mapping) or isinstance(first, Mapping)
    width = (
        data.shape[1]
        if isinstance(data, np.ndarray) and data.ndim == 2
        else len(first)
        if isinstance(first, list | tuple)
        else 0
    )
    if not named and width != len(names):
        return data
    try:
        import pandas as pd
    except ImportError:
        return data  # fitted with another library's frames: it will say itself what it lacks
    return pd.DataFrame(data) if named else pd.DataFrame(data, columns=names)
