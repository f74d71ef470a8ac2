"""`mlcore models`: what a model is, what it says of a file, and whether it loads elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
from click.testing import CliRunner, Result
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mlcore
from mlcore.cli import program
from mlcore.errors import MlcoreError, ModelError, NotAModel

NAMES = ["sepal length", "sepal width", "petal length", "petal width"]


@pytest.fixture(scope="module")
def flowers() -> tuple[pandas.DataFrame, LogisticRegression]:
    """Return real flowers as a frame, and a model of them."""
    data, labels = load_iris(return_X_y=True)
    frame = pandas.DataFrame(data, columns=NAMES)
    return frame, LogisticRegression(max_iter=1_000).fit(frame, labels)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flowers: tuple[pandas.DataFrame, LogisticRegression]) -> str:
    """Return the URI of a model that was logged to a run."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    client = mlcore.set_store(tmp_path / "store")
    with client.start_run() as run:
        logged = run.log_model(flowers[1], "flowers", input_example=flowers[0].head(3), metadata={"made": "today"})
    return logged.uri


def call(*arguments: str | Path, said: str | None = None) -> Result:
    """Run `mlcore models` with these arguments."""
    return CliRunner().invoke(program, ["models", *map(str, arguments)], input=said)


def test_inspect_tells_what_a_model_is_and_needs(model: str) -> None:
    """Guards that all a reader wants to know before loading is printed, for people and as JSON."""
    text = call("inspect", model)
    assert text.exit_code == 0, text.output
    for part in ("sklearn", "petal width", "as saved", "scikit-learn==", "made             today"):
        assert part in text.output
    told = json.loads(call("inspect", model, "--json").output)
    assert told["model"] == model
    assert told["needs_trust"] == []
    assert told["digest"] == mlcore.get_run(told["run_id"]).models[0].digest


def test_inspect_imports_no_library_of_others(model: str, tmp_path: Path) -> None:
    """Guards that a look at a model runs nothing of what it names."""
    code = f"""
import sys
from mlcore.cli import program
from mlcore.errors import MlcoreError, ModelError, NotAModel
try:
    program(["models", "inspect", {model!r}])
finally:
    found = {{"sklearn", "skops", "numpy", "pandas", "cloudpickle", "pickle"}} & set(sys.modules) - {{"pickle"}}
    assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


@pytest.mark.parametrize("form", ["csv", "parquet", "split", "records", "rows", "named"])
def test_predict_reads_what_scoring_servers_read(
    form: str, model: str, tmp_path: Path, flowers: tuple[pandas.DataFrame, LogisticRegression]
) -> None:
    """Guards that every usual form of a table gives the model's own predictions."""
    frame, estimator = flowers
    some = frame.iloc[::10]
    path = tmp_path / f"rows.{form if form in ('csv', 'parquet') else 'json'}"
    if form == "csv":
        some.to_csv(path, index=False)
    elif form == "parquet":
        pytest.importorskip("pyarrow", reason="pip install pyarrow")
        some.to_parquet(path)
    else:
        split = {"columns": NAMES, "data": some.to_numpy().tolist()}
        bodies = {"split": {"dataframe_split": split}, "records": {"dataframe_records": some.to_dict("records")}}
        bodies |= {"rows": some.to_dict("records"), "named": {"inputs": some.to_dict("list")}}
        path.write_text(json.dumps(bodies[form]))
    done = call("predict", model, "--input", path)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {"predictions": estimator.predict(some).tolist()}


def test_predict_takes_standard_input_and_writes_a_file(model: str, tmp_path: Path) -> None:
    """Guards the use within a pipe."""
    body = json.dumps({"dataframe_split": {"columns": NAMES, "data": [[5.1, 3.5, 1.4, 0.2]]}})
    assert call("predict", model, "-i", "-", "-o", tmp_path / "out.json", said=body).exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {"predictions": [0]}


def test_predict_takes_the_example_of_the_model(
    model: str, flowers: tuple[pandas.DataFrame, LogisticRegression]
) -> None:
    """Guards that a model can be tried without any data at hand."""
    said = json.loads(call("predict", model, "--example").output)
    assert said == {"predictions": flowers[1].predict(flowers[0].head(3)).tolist()}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("{", "cannot be read as json"),
        ('{"inputs": {}, "instances": []}', "give one of them"),
        ('{"dataframe_split": {"columns": ["a"], "data": [[1]]}}', "sepal length"),
        (
            '{"dataframe_split": {"columns": ["a"]}}',
            "dataframe_split is an object of columns and data, and this has no data",
        ),
        ('{"dataframe_split": [[1]]}', "dataframe_split is an object of columns and data"),
        ('{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}', "dataframe_split makes no table"),
        ('[{"sepal length": "x", "sepal width": 1, "petal length": 1, "petal width": 1}]', "sepal length"),
    ],
)
def test_bad_input_is_one_clear_error(body: str, part: str, model: str, tmp_path: Path) -> None:
    """Guards that nobody has to read a traceback."""
    (tmp_path / "rows.json").write_text(body)
    done = call("predict", model, "-i", tmp_path / "rows.json")
    assert isinstance(done.exception, MlcoreError)  # which the program prints in one line
    assert part in str(done.exception)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    """Guards wrong paths and folders."""
    for done in (call("inspect", tmp_path), call("predict", tmp_path / "nothing", "--example")):
        assert isinstance(done.exception, NotAModel)
    assert call("predict", tmp_path).exit_code == 2


@pytest.mark.slow
def test_check_loads_the_model_in_an_environment_of_its_requirements(
    model: str, flowers: tuple[pandas.DataFrame, LogisticRegression]
) -> None:
    """Guards that requirements.txt is enough, and that a missing one is found."""
    done = call("check", model, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output.splitlines()[-1])
    assert told["predictions"] == flowers[1].predict(flowers[0].head(3)).tolist()
    assert any(line.startswith("scikit-learn==") for line in told["requirements"])
    info = mlcore.get_model(model)
    assert info.folder.joinpath("requirements.txt").exists()


@pytest.mark.slow
def test_check_finds_a_requirement_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that check can fail: a function that needs what nobody named."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def zeros(data: object) -> object:
        return numpy.zeros(len(data))  # type: ignore[arg-type]

    mlcore.save_model(zeros, tmp_path / "model", input_example=[1.0, 2.0], requirements=["cloudpickle"])
    done = call("check", tmp_path / "model", "--trust-all")
    assert isinstance(done.exception, ModelError)
    assert "numpy" in str(done.exception)
