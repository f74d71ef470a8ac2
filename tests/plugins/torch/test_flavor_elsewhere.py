"""What one process saves, another loads, as it was told when it was saved: each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[2]
PATH = repr(str(TESTS / "toy_networks.py"))

SAVE = f"""
import json, logging, sys
import numpy as np, torch
from torch import nn
from mlcore.models import save_model
from toy_networks import Branching, Gated, Scaled
torch.set_num_threads(1)
torch.manual_seed(0)
told, results = [], {{}}
class Telling(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())
logging.getLogger("mlcore").addHandler(Telling())
logging.getLogger("mlcore").setLevel(logging.INFO)
rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)

def save(name, model, data, **options):
    told.clear()
    info = save_model(model, name, input_example=data, **options)
    model.eval()
    tensors = {{k: torch.tensor(v) for k, v in data.items()}} if isinstance(data, dict) else torch.tensor(data)
    answer = model(**tensors) if isinstance(data, dict) else model(tensors)
    answer = {{k: v.tolist() for k, v in answer.items()}} if isinstance(answer, dict) else answer.tolist()
    form = info.flavors["pytorch"]["serialization_format"]
    results[name] = {{"answer": answer, "needs": info.needs_trust, "form": form, "told": [*told]}}

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
    def forward(self, rows):
        return self.layer(rows).relu()

class Sums(nn.Module):
    def forward(self, rows):
        return rows.cumsum(1) / rows.shape[1]

wide = torch.export.Dim("wide", min=2, max=64)
save("of main", Mine(), rows)
save("of main as a pickle", Mine(), rows, serialization="pickle")
save("of a package", Scaled(4), rows, serialization="safetensors", init={{"width": 4}}, code=[{PATH}])
save("with arguments", Scaled(4, hidden=3), {{"rows": rows, "shift": np.ones((5, 2), "f4")}}, code=[{PATH}])
save("with dynamic shapes", Sums(), rows, dynamic_shapes=({{0: torch.export.Dim.AUTO, 1: wide}},))
save("not exported", Branching(4), rows, code=[{PATH}])
save("not exported and of nowhere", Branching(4), rows)
save("several and tied", Gated(4), {{"rows": rows, "mask": np.ones((5, 1), "f4")}})
print(json.dumps(results))
"""
ASK = """
import json, sys
import torch
from mlcore.errors import Untrusted
from mlcore.models import load_folder
torch.set_num_threads(1)
results = {}
for name, needs in json.loads(sys.argv[1]).items():
    refused = False
    try:
        model = load_folder(name, trust=False)
    except Untrusted:
        refused, model = True, load_folder(name, trust=True)
    data, params = model.info.example()
    answer = model.predict(data, params)
    answer = {k: v.tolist() for k, v in answer.items()} if isinstance(answer, dict) else answer.tolist()
    results[name] = {"answer": answer, "refused": refused}
print(json.dumps(results))
"""

FORMS = {
    "of main": "pt2",
    "of main as a pickle": "pickle",
    "of a package": "safetensors",
    "with arguments": "pt2",
    "with dynamic shapes": "pt2",
    "not exported": "safetensors",
    "not exported and of nowhere": "pickle",
    "several and tied": "pt2",
}


def _python(folder: Path, script: str, *arguments: str, user: str, path: str = "") -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"XDG_CONFIG_HOME": str(folder / user), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    environment |= {"PYTHONPATH": path} if path else {}
    (folder / "script.py").write_text(script, encoding="utf-8")
    command = [sys.executable, "script.py", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What a script saved, and what it was told."""
    folder = tmp_path_factory.mktemp("networks")
    return folder, _python(folder, SAVE, user="somebody", path=str(TESTS))


@pytest.fixture(scope="module")
def loaded(saved: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """What another user's process, which has nothing but the folders, makes of them."""
    folder, told = saved
    return _python(folder, ASK, json.dumps({name: each["needs"] for name, each in told.items()}), user="nobody")


@pytest.mark.parametrize("name", FORMS)
def test_a_network_loads_elsewhere_as_was_said_when_it_was_saved(
    name: str, saved: tuple[Path, dict[str, Any]], loaded: dict[str, Any]
) -> None:
    """Guards the way from one user to another: the same answers, and trust asked for where it was told, only there."""
    told = saved[1][name]
    assert told["form"] == FORMS[name], told
    assert bool(told["needs"]) == any("trust" in line for line in told["told"]) == loaded[name]["refused"], told
    assert loaded[name]["answer"] == told["answer"]
