"""Networks that mlcore saves, MLflow loads; those that MLflow saves, mlcore loads."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mlcore
from mlcore.errors import Untrusted
from mlcore.testing import plain
from toy_networks import Branching, Gated, Scaled

torch.set_num_threads(1)
Run = Callable[..., str]
HERE = Path(__file__).parents[1] / "toy_networks.py"
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
MORE = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
NATIVE = ("program", "frame", "wide", "pickle")  # what mlflow.pytorch itself reads


def network() -> nn.Module:
    """Return a small network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


# What is saved, with what, and what it is asked.
CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any, dict[str, Any]]] = {
    "program": (network, ROWS, MORE, {}),
    "frame": (network, pd.DataFrame(ROWS, columns=[*"abcd"]), pd.DataFrame(MORE, columns=[*"abcd"]), {}),
    "wide": (network, ROWS.astype(np.float64), MORE.astype(np.float64), {}),
    "pickle": (network, ROWS, MORE, {"serialization": "pickle"}),
    "weights": (network, ROWS, MORE, {"serialization": "safetensors", "batch_size": 4}),
    "class": (lambda: Scaled(4), ROWS, MORE, {"serialization": "safetensors", "init": [4], "code": [HERE]}),
    "branching": (lambda: Branching(4), ROWS, MORE, {"code": [HERE]}),
    "several": (
        lambda: Gated(4),
        {"rows": ROWS, "mask": np.ones((6, 1), np.float32)},
        {"rows": MORE, "mask": np.ones((9, 1), np.float32)},
        {},
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of networks as mlcore saves them, each with data to ask it beside it."""
    root = tmp_path_factory.mktemp("saved")
    for name, (make, example, data, options) in CASES.items():
        mlcore.save_model(make(), root / name, input_example=example, **options)
        (root / f"{name}.data").write_bytes(pickle.dumps(data))
    return root


ASK = """
import importlib.util, json, pickle, sys, warnings
from pathlib import Path
import mlflow, mlflow.pytorch, torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
def plain(value):
    if hasattr(value, "to_numpy"):
        return value.to_numpy().tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value.tolist()
told = {}
for path in sorted(Path(sys.argv[1]).glob("*.data")):
    data, folder = pickle.loads(path.read_bytes()), str(path.with_suffix(""))
    model = mlflow.pyfunc.load_model(folder)
    told[path.stem] = {"pyfunc": plain(model.predict(data)), "signature": model.metadata.signature is not None}
    if path.stem in sys.argv[2:]:
        native = mlflow.pytorch.load_model(folder)
        rows = data.to_numpy(dtype="f4") if hasattr(data, "columns") else data.astype("f4")
        told[path.stem]["native"] = native(torch.from_numpy(rows)).detach().numpy().tolist()
assert importlib.util.find_spec("mlcore") is None
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def asked(saved: Path, mlflow_run: Run) -> dict[str, dict[str, Any]]:
    """What MLflow says of all of them, in one process, since its import takes seconds."""
    told: dict[str, dict[str, Any]] = json.loads(mlflow_run(ASK, saved, *NATIVE, cwd=saved).splitlines()[-1])
    return told


@pytest.mark.parametrize("name", CASES)
def test_mlflow_predicts_the_same_of_a_network_of_ours(
    name: str, saved: Path, asked: dict[str, dict[str, Any]]
) -> None:
    """Guards the folder that is written: MLflow's generic reader takes it always, its own for torch where it can."""
    expected = plain(mlcore.load_model(saved / name, trust=True).predict(CASES[name][2]))
    found = asked[name]
    assert found["signature"]
    for answer in [found["pyfunc"], *([found["native"]] if name in NATIVE else [])]:
        for key in expected if isinstance(expected, dict) else [None]:
            mine, its = (each if key is None else each[key] for each in (expected, answer))
            np.testing.assert_allclose(np.array(its), np.array(mine), rtol=1e-5, atol=1e-6)


SAVE = """
import sys, warnings
import mlflow.pytorch, numpy as np, pandas as pd, torch
from torch import nn
warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.manual_seed(0)
made = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
mlflow.pytorch.save_model(made, "pt2", input_example=rows)
mlflow.pytorch.save_model(made, "pickle", input_example=rows, serialization_format="pickle")
mlflow.pytorch.save_model(torch.jit.script(made), "script", input_example=rows, serialization_format="pickle")
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, mlflow_run: Run) -> Path:
    """Networks that MLflow saved."""
    root = tmp_path_factory.mktemp("theirs")
    mlflow_run(SAVE, cwd=root)
    return root


@pytest.mark.parametrize("name", ["pt2", "pickle", "script"])
def test_networks_of_mlflow_load_here(name: str, theirs: Path) -> None:
    """Guards the formats that MLflow writes: programs are data, pickles and TorchScript take trust."""
    with torch.inference_mode():
        expected = network().eval()(torch.from_numpy(MORE)).numpy()
    if name != "pt2":
        with pytest.raises(Untrusted):
            mlcore.load_model(theirs / name)
    model = mlcore.load_model(theirs / name, trust=name != "pt2")
    np.testing.assert_allclose(model.predict(MORE), expected, rtol=1e-5, atol=1e-6)
    if name == "pickle":
        by_name = mlcore.load_model(theirs / name, trust=["torch.*", "builtins.*", "collections.*"])
        np.testing.assert_allclose(by_name.predict(MORE), expected, rtol=1e-5, atol=1e-6)
