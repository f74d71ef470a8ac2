"""Python models between mlcore and MLflow: what one saves the other loads, and predicts the same."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

import mlcore
from mlcore.errors import Untrusted

Run = Callable[..., str]

AUTHOR = """
import mlcore, helper, pandas

class Vocabulary(mlcore.PythonModel):
    def load(self, artifacts):
        self.words = artifacts["vocabulary"].read_text().split()

    def predict(self, data, params=None):
        times = (params or {}).get("times", 1)
        return [times * (text in self.words) for text in data]

def plain(data):
    return [helper.triple(x) for x in data]

def with_params(data, params=None):
    return [x + (params or {}).get("more", 0) for x in data]

def named(data, more=1):
    return [x + more for x in data]

def hinted(data: list[str]) -> list[str]:
    return [text.upper() for text in data]

shift = 5
example = (["a"], {"times": 1})
mlcore.save_model(Vocabulary(), "models/class", artifacts={"vocabulary": "words.txt"}, input_example=example)
mlcore.save_model(plain, "models/function", code=["helper.py"], input_example=[1])
mlcore.save_model(with_params, "models/params", input_example=([1], {"more": 1}))
mlcore.save_model(named, "models/named", input_example=([1], {"more": 1}))
mlcore.save_model(lambda data: [x + shift for x in data], "models/closure", input_example=[1])
mlcore.save_model(helper.triples, "models/reference", code=["helper.py"], input_example=[1])
mlcore.save_model(lambda data: [row["a"] + shift for row in data], "models/rows", input_example=[{"a": 1}, {"a": 2}])
mlcore.save_model(lambda data: data["a"] + [shift], "models/columns", input_example={"a": [1, 2]})
mlcore.save_model(lambda data: data["a"].tolist(), "models/frame", input_example=pandas.DataFrame({"a": [1, 2]}))
mlcore.save_model(hinted, "models/hinted")
mlcore.save_model("script.py", "models/script", code=["helper.py"], input_example=[1])
"""

ASKED: dict[str, tuple[Any, dict[str, int] | None, list[Any]]] = {
    "class": (["a", "z"], {"times": 3}, [3, 0]),
    "function": ([1, 2], None, [3, 6]),
    "params": ([1, 2], {"more": 10}, [11, 12]),
    "named": ([1, 2], {"more": 10}, [11, 12]),
    "closure": ([1, 2], None, [6, 7]),
    "reference": ([1, 2], None, [3, 6]),
    "script": ([1, 2], None, [4, 7]),
    "rows": ([{"a": 3}], None, [8]),
    "columns": ({"a": [3]}, None, [3, 5]),
    "frame": ({"a": [3, 4]}, None, [3, 4]),
    "hinted": (["a", "b"], None, ["A", "B"]),
}

READER = """
import importlib.util, json, sys
assert importlib.util.find_spec("mlcore") is None
import mlflow, numpy, pandas
said = {}
for name, (data, params, _) in json.loads(sys.argv[1]).items():
    model = mlflow.pyfunc.load_model(name)
    data = pandas.DataFrame(data) if name == "frame" else data
    said[name] = numpy.asarray(model.predict(data, params=params)).tolist()
print(json.dumps(said))
"""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a model of each kind from a script, whose own functions and classes are nowhere to be imported."""
    from house.tree import run

    (tmp_path / "helper.py").write_text(
        "def triple(x): return 3 * x\ndef triples(data): return [triple(x) for x in data]\n"
    )
    (tmp_path / "words.txt").write_text("a b")
    (tmp_path / "script.py").write_text(
        "import helper\ndef predict(data): return [helper.triple(x) + 1 for x in data]\n"
    )
    (tmp_path / "author.py").write_text(AUTHOR)
    run("author.py", cwd=tmp_path)
    return tmp_path / "models"


def test_mlflow_loads_what_mlcore_saved_without_mlcore(saved: Path, mlflow_run: Run) -> None:
    """Guards every kind of Python model in MLflow's generic reader, all of them in one process."""
    said = json.loads(mlflow_run(READER, json.dumps(ASKED), cwd=saved).splitlines()[-1])
    assert said == {name: expected for name, (_, _, expected) in ASKED.items()}


def test_mlcore_loads_them_after_mlflow_did(saved: Path, mlflow_run: Run) -> None:
    """Guards against bytecode that MLflow leaves in a model: it is neither read nor an added file."""
    mlflow_run("import sys\nsys.dont_write_bytecode = False\n" + READER, json.dumps(ASKED), cwd=saved)
    for name, (data, params, expected) in ASKED.items():
        given = pandas.DataFrame(data) if name == "frame" else data
        assert mlcore.load_model(saved / name, trust=True).predict(given, params) == expected, name


MLFLOW_SAVES = """
import mlflow, os
from mlflow.models import ModelSignature

class Theirs(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.words = open(context.artifacts["vocabulary"]).read().split()

    def predict(self, context, model_input, params=None):
        return [text in self.words for text in model_input]

open("words.txt", "w").write("a b")
open("theirs.py", "w").write('''
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
class Coded(PythonModel):
    def predict(self, context, model_input, params=None):
        return [2 * x for x in model_input]
set_model(Coded())
''')
os.makedirs("lib", exist_ok=True)
open("lib/own_loader.py", "w").write('''
import pathlib
class Own:
    def __init__(self, path): self.n = int(pathlib.Path(path).read_text())
    def predict(self, data): return [self.n * x for x in data]
def _load_pyfunc(path): return Own(path)
''')
open("n.txt", "w").write("7")
keep = dict(pip_requirements=[])
mlflow.pyfunc.save_model("class", python_model=Theirs(), artifacts={"vocabulary": "words.txt"}, **keep)
mlflow.pyfunc.save_model("function", python_model=lambda model_input: [x + 1 for x in model_input], **keep)
mlflow.pyfunc.save_model("script", python_model="theirs.py", **keep)
code = ["lib/own_loader.py"]
mlflow.pyfunc.save_model("loader", loader_module="own_loader", data_path="n.txt", code_paths=code, **keep)
os.environ["MLFLOW_LOG_MODEL_COMPRESSION"] = "lzma"
mlflow.pyfunc.save_model("compressed", python_model=Theirs(), artifacts={"vocabulary": "words.txt"}, **keep)
"""

MLCORE_READS = """
import json, sys
sys.path[:0] = sys.argv[1:]
import mlcore, mlcore_local.hooks, mlcore_python.hooks
mlcore.plugins.register(mlcore_python.hooks)
mlcore.plugins.register(mlcore_local.hooks)
said = {}
asked = {"class": ["a", "z"], "function": [1], "script": [1], "loader": [2], "compressed": ["b", "z"]}
for name, data in asked.items():
    said[name] = mlcore.load_model(name, trust=True).predict(data)
print(json.dumps(said))
"""


def test_mlcore_loads_what_mlflow_saved(tmp_path: Path, mlflow_run: Run) -> None:
    """Guards MLflow's own Python models, compressed and from code, where both are there; and the error elsewhere."""
    import attrs
    import fsspec
    import pluggy

    from house.tree import CORE, ROOT

    mlflow_run(textwrap.dedent(MLFLOW_SAVES), cwd=tmp_path)
    for name in ("class", "function", "script", "loader", "compressed"):
        with pytest.raises(Untrusted, match="_load_pyfunc"):
            mlcore.load_model(tmp_path / name)
    for name in ("class", "function", "script", "compressed"):
        with pytest.raises(mlcore.errors.NotInstalled, match="mlflow"):
            mlcore.load_model(tmp_path / name, trust=True)
    assert mlcore.load_model(tmp_path / "loader", trust=True).predict([2]) == [14]
    places = tmp_path / "places"
    for each in (attrs, fsspec, pluggy):
        found = Path(each.__file__ or "").parent
        places.mkdir(exist_ok=True)
        (places / found.name).symlink_to(found)
    import attr

    (places / "attr").symlink_to(Path(attr.__file__ or "").parent)
    sources = [CORE / "src", ROOT / "plugins/mlcore-python/src", ROOT / "plugins/mlcore-local/src", places]
    said = json.loads(mlflow_run(MLCORE_READS, *sources, cwd=tmp_path).splitlines()[-1])
    assert said == {"class": [True, False], "function": [2], "script": [2], "loader": [14], "compressed": [True, False]}
