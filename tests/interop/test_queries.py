"""Ask MLflow itself what tests/queries.py says that it finds, on the same runs in a database of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from queries import MLFLOW, ORDERS, RUNS

SCRIPT = """
import json, logging, re, sys, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
logging.disable(logging.CRITICAL)
runs, queries, orders = json.loads(open("content.json").read())
client = MlflowClient("sqlite:///mlflow.db")
home = client.create_experiment("digits")
store = client._tracking_client.store
ids = {}
for letter, about in runs.items():
    user = RunTag("mlflow.user", about["user"])
    run = store.create_run(home, about["user"], about["start_time"], [user], about["name"]).info.run_id
    ids[letter] = run
    for key, values in about["metrics"].items():
        for step, value in enumerate(values):
            store.log_metric(run, Metric(key, value, 1000 * step, step))
    for key, value in about["params"].items():
        store.log_param(run, Param(key, str(value)))
    for key, value in about["tags"].items():
        if "'" not in key:
            store.set_tag(run, RunTag(key, str(value)))
    for name, digest, context in about.get("datasets", ()):
        dataset = Dataset(name, digest, "local", "{}")
        store.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
    if "end_time" in about:
        client.set_terminated(run, about["status"], about["end_time"])
letters = {id: letter for letter, id in ids.items()}

def ask(text="", order_by=None):
    text = re.sub("<(.)>", lambda match: ids[match[1]], text)
    try:
        return "".join(letters[run.info.run_id] for run in client.search_runs([home], text, order_by=order_by))
    except Exception as error:
        return repr(error)

print("@", json.dumps([{text: ask(text) for text in queries}, {by: ask(order_by=[by]) for by in orders}]))
"""


def test_mlflow_finds_the_same(mlflow_run: Callable[..., str], tmp_path: Path) -> None:
    """Every filter and order that MLflow takes means here what it means there."""
    orders = {by: expected for by, (expected, known) in ORDERS.items() if known}
    (tmp_path / "content.json").write_text(json.dumps([RUNS, list(MLFLOW), list(orders)]))
    found, ordered = json.loads(re.findall("^@ (.*)$", mlflow_run(SCRIPT, cwd=tmp_path), re.MULTILINE)[-1])
    assert {text: "".join(sorted(each)) for text, each in found.items()} == MLFLOW
    assert ordered == orders
