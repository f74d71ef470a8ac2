"""Load a model that mlcore saved, in readers without mlcore.

A copy of this file is in the model, and MLflow calls `_load_pyfunc`. It stands alone, on the standard library and what
the model itself needs.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__: list[str] = []


class _Model:
    def __init__(self, model: Any, root: Path) -> None:
        self.model, self._undo = model, _undo(root)
        self._predict = getattr(model, "predict", model)
        self._whole = "params" in inspect.signature(self._predict).parameters

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        given, data = params or {}, self._undo(data) if hasattr(data, "to_dict") else data
        return self._predict(data, params=given) if self._whole else self._predict(data, **given)


def _undo(root: Path) -> Callable[[Any], Any]:
    """Return what makes MLflow's frames again what the model takes: lists, dicts or values, as its example was."""
    import yaml

    about = yaml.safe_load((root / "MLmodel").read_text(encoding="utf-8"))
    fields = json.loads((about.get("signature") or {}).get("inputs") or "[]")
    unnamed = len(fields) == 1 and not {"name", "tensor-spec"} & fields[0].keys()
    info = about.get("saved_input_example_info") or {"type": "json_object" if unnamed else "dataframe"}
    if info["type"] != "json_object":
        return lambda frame: frame
    example: Any = json.loads((root / info["artifact_path"]).read_bytes()) if "artifact_path" in info else []
    example = example["inputs"] if info.get("params") else example
    if unnamed:
        return lambda frame: frame.iloc[:, 0].tolist() if isinstance(example, list) else frame.iloc[0, 0]
    if isinstance(example, list):
        return lambda frame: frame.to_dict("records")
    lists = any(isinstance(value, list) for value in example.values()) and not any(
        field["type"] == "array" for field in fields
    )
    return lambda frame: frame.to_dict("list") if lists else frame.to_dict("records")[0]


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
    return _Model(model, root)
