"""Load a model that mlcore saved, in readers without mlcore.

A copy of this file is in the model, and MLflow calls `_load_pyfunc`. It stands alone, on the standard library and what
the model itself needs.
"""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

__all__: list[str] = []


class _Model:
    def __init__(self, model: Any) -> None:
        self.model = model
        self._predict = getattr(model, "predict", model)
        self._whole = "params" in inspect.signature(self._predict).parameters

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        given = params or {}
        return self._predict(data, params=given) if self._whole else self._predict(data, **given)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> _Model:  # noqa: ARG001
    root = Path(path)
    if (root / "model.pkl").exists():
        with open(root / "model.pkl", "rb") as file:
            model = pickle.load(file)  # noqa: S301 - whoever calls this trusts the model
    else:
        name = f"mlcore_model_{abs(hash(root))}"
        spec = importlib.util.spec_from_file_location(name, root / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.model if hasattr(module, "model") else module.predict
    if hasattr(model, "load"):
        files = root / "artifacts"
        model.load({each.name: next(each.iterdir()) for each in (files.iterdir() if files.is_dir() else ())})
    return _Model(model)
