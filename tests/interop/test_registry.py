"""Ask MLflow itself which methods its registry has, and whether each has a counterpart on our page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from docs.test_registry_table import TABLE

SCRIPT = """
import json, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow import MlflowClient
parts = ("registered_model", "model_version", "latest_versions")
found = [name for name in dir(MlflowClient) if name[0] != "_" and any(part in name for part in parts)]
found += [f"mlflow.{name}" for name in dir(mlflow) if name == "register_model" or any(part in name for part in parts)]
print("@", json.dumps(found))
"""


def test_every_method_of_mlflows_registry_has_a_counterpart(mlflow_run: Callable[..., str], tmp_path: Path) -> None:
    """Guards who moves: the table has each method of MLflow's, and none that it does not have."""
    found = json.loads(re.findall("^@ (.*)$", mlflow_run(SCRIPT, cwd=tmp_path), re.MULTILINE)[-1])
    assert len(found) > 20
    assert sorted(TABLE) == sorted(found)
