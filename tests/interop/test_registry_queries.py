"""Ask MLflow itself what tests/registries.py says that it finds, in a registry of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from registries import MLFLOW, MLFLOW_MODELS, MODEL_ORDERS, MODELS, ORDERS, RUNS, VERSIONS

SCRIPT = """
import json, logging, re, time, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow import MlflowClient
logging.disable(logging.CRITICAL)
runs, models, versions, filters, of_models, orders, model_orders = json.loads(open("content.json").read())
client = MlflowClient("sqlite:///mlflow.db", "sqlite:///mlflow.db")
home = client.create_experiment("sources")
ids = {digit: client.create_run(home).info.run_id for digit in runs}
for name, about in models.items():
    time.sleep(0.002)
    client.create_registered_model(name, about["tags"], about.get("description"))
letters = {}
for letter, about in versions.items():
    time.sleep(0.002)
    tags = {key: str(value) for key, value in about["tags"].items()}
    made = client.create_model_version(about["name"], about["source"], ids.get(about.get("run")), tags=tags)
    letters[made.name, made.version] = letter

def ask(text="", order_by=None):
    text = re.sub("<(.)>", lambda match: ids[match[1]], text)
    try:
        found = client.search_model_versions(text, order_by=order_by)
        return "".join(letters[each.name, each.version] for each in found)
    except Exception as error:
        return repr(error)

def ask_models(text="", order_by=None):
    try:
        return [each.name for each in client.search_registered_models(text, order_by=order_by)]
    except Exception as error:
        return repr(error)

print("@", json.dumps([
    {text: ask(text) for text in filters}, {text: ask_models(text) for text in of_models},
    [ask(order_by=by) for by in orders], [ask_models(order_by=by) for by in model_orders],
]))
"""


def test_mlflow_finds_the_same(mlflow_run: Callable[..., str], tmp_path: Path) -> None:
    """Every filter and order over models and versions that MLflow takes means here what it means there."""
    orders = {by: expected for by, (expected, known) in ORDERS.items() if known}
    model_orders = {by: expected for by, (expected, known) in MODEL_ORDERS.items() if known}
    asked = [RUNS, MODELS, VERSIONS, list(MLFLOW), list(MLFLOW_MODELS), list(orders), list(model_orders)]
    (tmp_path / "content.json").write_text(json.dumps(asked))
    answers = re.findall("^@ (.*)$", mlflow_run(SCRIPT, cwd=tmp_path), re.MULTILINE)[-1]
    versions, models, ordered, ordered_models = json.loads(answers)
    assert {text: "".join(sorted(each)) for text, each in versions.items()} == MLFLOW
    in_order = {text: [name for name in MODELS if name in found] for text, found in models.items()}
    assert (in_order, models.keys()) == (MLFLOW_MODELS, MLFLOW_MODELS.keys()), models
    assert dict(zip(orders, ordered, strict=True)) == orders
    assert dict(zip(model_orders, ordered_models, strict=True)) == model_orders
