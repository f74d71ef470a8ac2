"""What mlcore saves, MLflow loads and MLServer serves; what MLflow saves, mlcore loads without MLflow."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

import mlcore
from interop.environments import clean_environment
from mlcore.errors import NotInstalled, Untrusted
from mlcore.testing import plain

Run = Callable[..., str]

FLOWERS, KINDS = load_iris(return_X_y=True, as_frame=True)
TOWNS = pd.DataFrame(
    {"size": np.linspace(-1, 1, 60), "town": ["Ulm", "Jena", "Bonn"] * 20, "rooms": np.arange(60, dtype=np.int64) % 5}
)
PRICES = (TOWNS["size"] + TOWNS["rooms"] / 5 > 0.4).astype(int)


def _of_the_users_own() -> tuple[Any, Any]:
    """Return a function and a Python model that no other process can import, as a notebook's are."""

    def doubled(data: Any) -> Any:
        return np.asarray(data) * 2

    class Words(mlcore.PythonModel):
        def load(self, artifacts: dict[str, Path]) -> None:
            self.words = artifacts["words"].read_text().split()

        def predict(self, data: Any, params: Any = None) -> Any:
            return [sum(word in text for word in self.words) for text in data["text"]]

    return doubled, Words()


def _pipeline() -> Any:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["town"]), (StandardScaler(), ["size", "rooms"])
    )
    return make_pipeline(columns, LogisticRegression()).fit(TOWNS, PRICES)


TRAINED = {
    "logistic": lambda: LogisticRegression(max_iter=2000).fit(FLOWERS, KINDS),
    "forest": lambda: RandomForestClassifier(10, random_state=0).fit(FLOWERS, KINDS),
    "neighbours": lambda: KNeighborsClassifier().fit(FLOWERS, KINDS),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=5).fit(FLOWERS, KINDS),
    "vectors": lambda: SVC().fit(FLOWERS, KINDS),
    "pipeline": _pipeline,
    "chances": lambda: LogisticRegression(max_iter=2000).fit(FLOWERS, KINDS),
    "scaled": lambda: StandardScaler().fit(FLOWERS),
    "pickled": lambda: make_pipeline(FunctionTransformer(lambda rows: rows * 2), KMeans(3, n_init=1)).fit(FLOWERS),
}
OPTIONS = {"chances": {"predict_fn": "predict_proba"}}
SERVED = ("logistic", "forest", "neighbours", "histograms", "vectors", "pipeline", "chances", "scaled")
OTHERS = ("function", "words")


def data_of(name: str) -> Any:
    """Return what a model is asked."""
    if name == "words":
        return pd.DataFrame({"text": ["a fox and a hen", "no bird", "fox"]})
    return TOWNS if name == "pipeline" else FLOWERS


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """The models themselves, as they were trained here."""
    return {name: train() for name, train in TRAINED.items()}


@pytest.fixture(scope="module")
def saved(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models as mlcore saves them, each with data to ask it beside it."""
    root = tmp_path_factory.mktemp("saved")
    for name, model in models.items():
        mlcore.save_model(model, root / name, input_example=data_of(name).head(3), **OPTIONS.get(name, {}))
    doubled, words = _of_the_users_own()
    mlcore.save_model(doubled, root / "function", input_example=FLOWERS.head(3))
    (root / "words.txt").write_text("fox hen")
    example = data_of("words").head(2)
    mlcore.save_model(words, root / "words", artifacts={"words": root / "words.txt"}, input_example=example)
    for name in (*models, *OTHERS):
        (root / f"{name}.data").write_bytes(pickle.dumps(data_of(name)))
    return root


ASK = """
import importlib.util, json, pickle, sys, warnings
from pathlib import Path
import mlflow, mlflow.sklearn
warnings.simplefilter("ignore")
def plain(value):
    if hasattr(value, "to_dict"):
        return {str(key): list(each) for key, each in value.to_dict("list").items()}
    return value.tolist() if hasattr(value, "tolist") else value
told = {}
for path in sorted(Path(sys.argv[1]).glob("*.data")):
    data, folder = pickle.loads(path.read_bytes()), str(path.with_suffix(""))
    model = mlflow.pyfunc.load_model(folder)
    answers = told[path.stem] = {"pyfunc": plain(model.predict(data))}
    answers["described"] = model.metadata.signature is not None and model.input_example is not None
    if "sklearn" in model.metadata.flavors:
        native = mlflow.sklearn.load_model(folder)
        answers["type"] = type(native).__name__
        answers["native"] = plain((native.predict if hasattr(native, "predict") else native.transform)(data))
assert importlib.util.find_spec("mlcore") is None
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def asked(saved: Path, mlflow_run: Run) -> dict[str, dict[str, Any]]:
    """What MLflow says of all of them, in one process, since its import takes seconds."""
    told: dict[str, dict[str, Any]] = json.loads(mlflow_run(ASK, saved, cwd=saved).splitlines()[-1])
    return told


def answer(name: str, model: Any) -> Any:
    """Return what the model itself says."""
    if name in OPTIONS:
        return plain(model.predict_proba(data_of(name)))
    return plain((model.predict if hasattr(model, "predict") else model.transform)(data_of(name)))


@pytest.mark.parametrize("name", TRAINED)
def test_mlflow_predicts_the_same_from_what_mlcore_saved(
    name: str, models: dict[str, Any], asked: dict[str, dict[str, Any]]
) -> None:
    """Both of MLflow's readers, in an environment that has no mlcore."""
    told, expected = asked[name], answer(name, models[name])
    np.testing.assert_array_equal(told["pyfunc"], expected)
    if name not in OPTIONS:
        np.testing.assert_array_equal(told["native"], expected)
    assert told["type"] == type(models[name]).__name__
    assert told["described"]


def test_mlflow_asks_a_function_that_mlcore_saved(asked: dict[str, dict[str, Any]]) -> None:
    """A plain function of a module that MLflow's environment does not have."""
    np.testing.assert_array_equal(asked["function"]["pyfunc"], (FLOWERS * 2).to_numpy())


def test_mlflow_asks_a_python_model_that_reads_a_file(asked: dict[str, dict[str, Any]]) -> None:
    """A class of the user's own, with an artifact."""
    assert asked["words"]["pyfunc"] == [2, 0, 1]


@pytest.mark.parametrize("name", [*TRAINED, *OTHERS])
def test_mlcore_reads_back_what_mlflow_reads(name: str, saved: Path, asked: dict[str, dict[str, Any]]) -> None:
    """One folder, three readers, one answer."""
    model = mlcore.load_model(str(saved / name), trust=True)
    np.testing.assert_array_equal(plain(model.predict(data_of(name))), asked[name]["pyfunc"])


WRITE = """
import sys, warnings
from pathlib import Path
import mlflow, skops.io
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from sklearn.pipeline import make_pipeline
warnings.simplefilter("ignore")
root = Path(sys.argv[1])
data, kinds = load_iris(return_X_y=True, as_frame=True)
logistic = LogisticRegression(max_iter=2000).fit(data, kinds)
forest = RandomForestClassifier(10, random_state=0).fit(data, kinds)
doubled = make_pipeline(FunctionTransformer(lambda rows: rows * 2), LogisticRegression(max_iter=2000)).fit(data, kinds)
given = {"pip_requirements": ["scikit-learn"]}  # guessing them takes MLflow seconds
signed = {"signature": mlflow.models.infer_signature(data, logistic.predict(data)), "input_example": data.head(2)}
mlflow.sklearn.save_model(logistic, root / "skops", **given, **signed)
trusted = skops.io.get_untrusted_types(data=skops.io.dumps(forest))
mlflow.sklearn.save_model(forest, root / "trusted", skops_trusted_types=trusted, **given)
mlflow.sklearn.save_model(logistic, root / "chances", pyfunc_predict_fn="predict_proba", **given)
mlflow.sklearn.save_model(logistic, root / "pickle", serialization_format="pickle", **given)
mlflow.sklearn.save_model(doubled, root / "cloudpickle", serialization_format="cloudpickle", **given)
class Doubled(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2
mlflow.pyfunc.save_model(root / "pyfunc", python_model=Doubled(), **given)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, mlflow_run: Run) -> Path:
    """A folder of models as MLflow saves them."""
    root = tmp_path_factory.mktemp("written")
    mlflow_run(WRITE, root, cwd=root)
    return root


@pytest.mark.parametrize("name", ["skops", "trusted"])
def test_mlcore_loads_mlflows_archives_without_trust(name: str, written: Path, models: dict[str, Any]) -> None:
    """Data only, by the reader's own list: what MLflow wrote into the model about trust is not asked."""
    own = models["logistic" if name == "skops" else "forest"]
    np.testing.assert_array_equal(mlcore.load_model(str(written / name)).predict(FLOWERS), own.predict(FLOWERS))


def test_mlcore_asks_what_mlflow_was_told_to_ask(written: Path, models: dict[str, Any]) -> None:
    """MLflow keeps the method in the map for its generic reader only."""
    found = mlcore.load_model(str(written / "chances")).predict(FLOWERS)
    np.testing.assert_allclose(found, models["logistic"].predict_proba(FLOWERS))


@pytest.mark.parametrize("name", ["pickle", "cloudpickle"])
def test_mlcore_loads_mlflows_pickles_with_trust_only(name: str, written: Path, models: dict[str, Any]) -> None:
    """The same model in a format that runs what it likes."""
    with pytest.raises(Untrusted, match="sklearn"):
        mlcore.load_model(str(written / name))
    model = mlcore.load_model(str(written / name), trust=True)
    assert (model.predict(FLOWERS) == models["logistic"].predict(FLOWERS)).mean() > 0.95


def test_what_only_mlflow_can_load_says_so(written: Path) -> None:
    """MLflow's own Python models are pickles that name MLflow's classes."""
    with pytest.raises(Untrusted, match="mlflow"):
        mlcore.load_model(str(written / "pyfunc"))
    with pytest.raises(NotInstalled, match="mlflow"):
        mlcore.load_model(str(written / "pyfunc"), trust=True)


@pytest.fixture(scope="module")
def server(saved: Path, mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLServer with its MLflow runtime, which knows what mlcore saved and has loaded none of it; its address."""
    root = tmp_path_factory.mktemp("served")
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), _free_ports(3), strict=True))
    url = f"http://127.0.0.1:{ports['http_port']}"
    # With workers of its own it never becomes ready; in one process it does.
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "load_models_at_startup": False, **ports}
    (root / "settings.json").write_text(json.dumps(settings))
    for name in SERVED:
        (root / name).mkdir()
        parameters = {"uri": str(saved / name)}
        about = {"name": name, "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": parameters}
        (root / name / "model-settings.json").write_text(json.dumps(about))
    with (root / "log").open("w") as log:
        command = [mlflow_python.parent / "mlserver", "start", root]
        process = subprocess.Popen(command, cwd=root, env=clean_environment(), stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(url, process, root / "log")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-5000:]
        try:
            return _ask(f"{url}/v2/health/live")
        except ConnectionError:
            time.sleep(0.2)
    raise AssertionError(f"MLServer did not come up:\n{log.read_text()[-5000:]}")


def _ask(url: str, body: Any = None) -> Any:
    """Return what a server answers to a GET, or to a POST of `body`. Raises `ConnectionError` if nobody is there."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read() or "null")
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()[-3000:]) from error
    except urllib.error.URLError as error:
        raise ConnectionError(str(error)) from error


TENSORS = {"f": "FP64", "i": "INT64", "O": "BYTES"}


@pytest.mark.parametrize("name", SERVED)
def test_mlserver_serves_what_mlcore_saved(name: str, server: str, saved: Path, models: dict[str, Any]) -> None:
    """Over the Open Inference Protocol, as KServe sends it, one tensor a column; and over MLflow's own.

    The body that lies beside the model as its serving example is a whole request. MLServer has one route for all
    models there, so only one is loaded at a time.
    """
    expected = np.asarray(answer(name, models[name]))
    columns = {column: values.to_numpy() for column, values in data_of(name).head(5).items()}
    inputs = [
        {"name": column, "datatype": TENSORS[values.dtype.kind], "shape": [len(values), 1], "data": values.tolist()}
        for column, values in columns.items()
    ]
    _ask(f"{server}/v2/repository/models/{name}/load", {})
    try:
        reply = _ask(f"{server}/v2/models/{name}/infer", {"inputs": inputs, "parameters": {"content_type": "pd"}})
        (output,) = reply["outputs"]
        np.testing.assert_allclose(np.reshape(output["data"], expected[:5].shape), expected[:5])
        reply = _ask(f"{server}/invocations", json.loads((saved / name / "serving_input_example.json").read_text()))
        np.testing.assert_allclose(reply["predictions"], expected[:3])
    finally:
        _ask(f"{server}/v2/repository/models/{name}/unload", {})
