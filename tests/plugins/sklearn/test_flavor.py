"""How estimators are saved, what is said when they cannot be, and how data reach them."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import mlcore
from mlcore.errors import InvalidValue, ModelError, SchemaMismatch, Untrusted
from mlcore.models import Saved, Trust
from mlcore_sklearn.flavor import Sklearn

ROWS = np.random.default_rng(0).normal(size=(40, 2))
CLASSES = (ROWS.sum(axis=1) > 0).astype(int)
FRAME = pd.DataFrame({"size": ROWS[:, 0], "rooms": ROWS[:, 1]})


class Majority(ClassifierMixin, BaseEstimator):
    """Predict what is most frequent; of this file, which is not installed."""

    def fit(self, rows: Any, classes: Any) -> Majority:
        """Count."""
        self.most_ = int(np.bincount(classes).argmax())
        return self

    def predict(self, rows: Any) -> Any:
        """Say the same of all."""
        return np.full(len(rows), self.most_)


def fitted() -> LogisticRegression:
    """Return a small classifier."""
    return LogisticRegression().fit(ROWS, CLASSES)


def kept(model: Any, folder: Path, **options: Any) -> tuple[Saved, Any]:
    """Save a model, and load it as a reader who trusts everything."""
    folder.mkdir(exist_ok=True)
    saved = Sklearn().save(model, folder, **options)
    return saved, Sklearn().load(folder, saved.config, Trust.of(trust=True))


def ask(model: Any, data: Any, **config: Any) -> Any:
    """Ask a model as mlcore does."""
    return Sklearn().predictor(model, {"predict_fn": "predict", **config})(data, {})


class TestSaving:
    def test_what_is_written_is_what_mlflow_looks_up(self, tmp_path: Path) -> None:
        saved, _ = kept(RandomForestClassifier(3).fit(ROWS, CLASSES), tmp_path)
        assert saved.python_function == {
            "loader_module": "mlflow.sklearn",
            "model_path": "model.skops",
            "predict_fn": "predict",
        }
        assert saved.config["pickled_model"] == "model.skops"
        assert saved.config["serialization_format"] == "skops"
        assert saved.config["skops_trusted_types"] == ["sklearn.tree._tree.Tree"]
        assert saved.needs_trust == ()
        assert saved.modules == ("numpy", "sklearn")

    def test_cloudpickle_can_be_asked_for(self, tmp_path: Path) -> None:
        saved, model = kept(fitted(), tmp_path, serialization="cloudpickle")
        assert saved.config["pickled_model"] == "model.pkl"
        assert "sklearn.linear_model._logistic.LogisticRegression" in saved.needs_trust
        np.testing.assert_array_equal(model.predict(ROWS), fitted().predict(ROWS))

    def test_the_environment_is_complete(self, tmp_path: Path) -> None:
        model = LogisticRegression().fit(FRAME, CLASSES)
        mlcore.save_model(model, tmp_path / "model")
        lines = (tmp_path / "model" / "requirements.txt").read_text().split()
        assert {line.partition("==")[0] for line in lines} >= {"mlflow", "numpy", "pandas", "scikit-learn", "skops"}

    def test_an_unknown_option_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidValue, match="takes no compress: it takes predict_fn and serialization"):
            mlcore.save_model(fitted(), tmp_path / "model", compress=3)

    def test_an_unknown_format_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidValue, match="'skops' or 'cloudpickle', not 'joblib'"):
            Sklearn().save(fitted(), tmp_path, serialization="joblib")

    def test_a_model_that_is_not_fitted_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        kept(LogisticRegression(), tmp_path)
        assert [record.getMessage() for record in caplog.records] == [
            "this LogisticRegression is not fitted: fit it before it is saved, or it will not predict"
        ]

    def test_what_fits_only_has_nothing_to_load(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="DBSCAN has no predict or transform for new data; it only fits"):
            Sklearn().save(DBSCAN().fit(ROWS), tmp_path)

    def test_fitting_anew_is_no_prediction(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="KMeans has no fit_predict for new data; it has predict, transform"):
            Sklearn().save(KMeans(2, n_init=1).fit(ROWS), tmp_path, predict_fn="fit_predict")

    def test_a_method_it_lacks_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="has no predict_proba for new data; it has transform"):
            Sklearn().save(StandardScaler().fit(ROWS), tmp_path, predict_fn="predict_proba")

    def test_what_cannot_be_kept_at_all_is_named(self, tmp_path: Path) -> None:
        model = FunctionTransformer(lambda rows: rows, kw_args={"lock": (each for each in ROWS)}).fit(ROWS)
        with pytest.raises(ModelError, match=r"cloudpickle cannot hold this FunctionTransformer.*generator"):
            Sklearn().save(model, tmp_path)
        assert not list(tmp_path.glob("model.*"))


class TestFallingBack:
    """What skops cannot hold, or no reader could import by its name, is pickled with its code, and that is told."""

    def said(self, caplog: pytest.LogCaptureFixture) -> str:
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith(
            "saved with cloudpickle, which readers must trust: skops cannot hold this "
        )
        return record.getMessage()

    def test_a_lambda(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        saved, model = kept(FunctionTransformer(lambda rows: rows * 2).fit(ROWS), tmp_path)
        assert saved.config["serialization_format"] == "cloudpickle"
        np.testing.assert_array_equal(model.transform(ROWS), ROWS * 2)
        assert "<lambda> cannot be imported by that name" in self.said(caplog)

    def test_a_function_within_a_function_that_another_is_named_like(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Skops keeps the name only: reading it back would find the one at the top."""

        def ask(rows: Any) -> Any:
            return rows * 3

        _, model = kept(FunctionTransformer(ask).fit(ROWS), tmp_path)
        np.testing.assert_array_equal(model.transform(ROWS), ROWS * 3)
        assert "ask cannot be imported by that name" in self.said(caplog)

    def test_a_class_of_main(self, tmp_path: Path) -> None:
        """A notebook's class: another process has another ``__main__``."""
        script = f"""
from mlcore_sklearn.flavor import Sklearn
from pathlib import Path
from sklearn.base import BaseEstimator
import numpy as np
class Constant(BaseEstimator):
    def fit(self, rows): self.value_ = 7; return self
    def predict(self, rows):
        import colorsys
        return np.full(len(rows), self.value_)
saved = Sklearn().save(Constant().fit([]), Path({str(tmp_path)!r}))
print(saved.config["serialization_format"], *saved.modules)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert "Constant is defined in __main__" in done.stderr
        assert done.stdout.split()[0] == "cloudpickle"
        assert {"numpy", "sklearn", "colorsys"} <= {*done.stdout.split()}
        config = {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "predict_fn": "predict"}
        model = Sklearn().load(tmp_path, config, Trust.of(trust=True))
        np.testing.assert_array_equal(model.predict([1, 2]), [7, 7])

    def test_a_class_of_a_file_that_is_not_installed_travels_in_the_pickle(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A process that does not have this file loads it all the same."""
        kept(Majority().fit(ROWS, CLASSES), tmp_path)
        assert "is neither installed nor given with code=, so readers lack Majority" in self.said(caplog)
        script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).predict([1, 2, 3]).tolist())"
        command = [sys.executable, "-I", "-c", script, tmp_path / "model.pkl"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == Majority().fit(ROWS, CLASSES).predict([1, 2, 3]).tolist()

    def test_what_travels_leads_to_more_that_must(self, two_files: ModuleType, tmp_path: Path) -> None:
        """A file that imports another one, neither installed."""
        kept(two_files.Scaled().fit(ROWS), tmp_path / "model")
        script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).predict([1, 2, 3]))"
        command = [sys.executable, "-I", "-c", script, tmp_path / "model" / "model.pkl"]
        done = subprocess.run(command, cwd=tmp_path / "model", capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == [10, 20, 30]

    def test_not_where_the_code_travels_with_the_model(self, two_files: ModuleType, tmp_path: Path) -> None:
        """With ``code=`` the archive stays an archive, and needs trust since it brings code."""
        model = two_files.Scaled().fit(ROWS)
        files = [tmp_path / "outer_file.py", tmp_path / "inner_file.py"]
        info = mlcore.save_model(model, tmp_path / "model", code=files)
        assert info.flavors["sklearn"]["serialization_format"] == "skops"
        assert info.needs_trust == ("outer_file.Scaled",)
        script = """
import sys, mlcore
from mlcore.errors import Untrusted
try:
    mlcore.load_model(sys.argv[1], trust=False)
except Untrusted as error:
    assert "outer_file.Scaled" in str(error), error
    print(mlcore.load_model(sys.argv[1], trust=True).predict([1, 2]))
"""
        command = [sys.executable, "-c", script, tmp_path / "model"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == "[10, 20]\n", done.stderr

    def test_not_where_skops_was_asked_for(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"skops cannot hold this FunctionTransformer: .*<lambda>"):
            Sklearn().save(FunctionTransformer(lambda rows: rows).fit(ROWS), tmp_path, serialization="skops")

    def test_where_skops_writes_what_it_cannot_read(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A defaultdict of numbers goes in and does not come out: only reading it back tells."""
        model = fitted()
        model.notes_ = defaultdict(list, {1: [2]})
        _, loaded = kept(model, tmp_path)
        assert loaded.notes_ == model.notes_
        assert "skops fails with" in self.said(caplog)
        assert not (tmp_path / "model.skops").exists()


@pytest.fixture
def two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with an estimator, which imports another module; neither is installed."""
    (tmp_path / "inner_file.py").write_text(
        "FACTOR = 10\n\n\ndef scale(rows):\n    return [row * FACTOR for row in rows]\n"
    )
    (tmp_path / "outer_file.py").write_text(
        "from sklearn.base import BaseEstimator\nimport inner_file\n\n\nclass Scaled(BaseEstimator):\n"
        "    def fit(self, rows):\n        self.done_ = True\n        return self\n\n"
        "    def predict(self, rows):\n        return inner_file.scale(rows)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("outer_file")
    for name in ("inner_file", "outer_file"):
        sys.modules.pop(name, None)


class TestAsking:
    def test_columns_are_taken_by_name(self) -> None:
        model = LogisticRegression().fit(FRAME, CLASSES)
        turned = FRAME[["rooms", "size"]].assign(more=1)
        np.testing.assert_array_equal(ask(model, turned), model.predict(FRAME))

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(SchemaMismatch, match="column 'rooms' is missing: the model was fitted on size, rooms"):
            ask(LogisticRegression().fit(FRAME, CLASSES), FRAME[["size"]])

    @pytest.mark.parametrize("data", [ROWS, ROWS.tolist(), FRAME.to_dict("records"), FRAME.to_dict("list")])
    def test_rows_records_and_columns_become_frames(self, data: Any) -> None:
        columns = make_column_transformer((StandardScaler(), ["rooms"]))
        model = make_pipeline(columns, LogisticRegression()).fit(FRAME, CLASSES)
        np.testing.assert_array_equal(ask(model, data), model.predict(FRAME))

    def test_a_model_without_names_takes_a_frame_as_rows(self) -> None:
        np.testing.assert_array_equal(ask(fitted(), FRAME), fitted().predict(ROWS))

    def test_sparse_data_stay_sparse(self, tmp_path: Path) -> None:
        data = sparse.csr_matrix(np.eye(6))
        _, model = kept(LogisticRegression().fit(data, [0, 1] * 3), tmp_path)
        np.testing.assert_array_equal(ask(model, data), model.predict(data))
        encoder = OneHotEncoder().fit([["a"], ["b"]])
        assert sparse.issparse(ask(encoder, [["b"]], predict_fn="transform"))

    def test_texts_and_dicts_go_through(self) -> None:
        texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["a fox", "the hen"] * 5, [0, 1] * 5)
        assert ask(texts, ["fox fox"]).tolist() == [0]
        dicts = make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"fox": 1}, {"hen": 1}] * 5, [0, 1] * 5)
        assert ask(dicts, [{"hen": 2}]).tolist() == [1]

    @pytest.mark.parametrize("method", ["predict_proba", "decision_function", "predict_log_proba"])
    def test_another_method_is_asked(self, method: str, tmp_path: Path) -> None:
        saved, model = kept(fitted(), tmp_path, predict_fn=method)
        found = Sklearn().predictor(model, saved.config)(ROWS, {})
        np.testing.assert_array_equal(found, getattr(fitted(), method)(ROWS))

    def test_what_only_transforms_transforms(self, tmp_path: Path) -> None:
        model = StandardScaler().fit(ROWS)
        mlcore.save_model(model, tmp_path / "model")
        found = mlcore.load_model(tmp_path / "model").predict(ROWS)  # the loader for MLflow in code/ asks for no trust
        np.testing.assert_array_equal(found, model.transform(ROWS))

    def test_parameters_are_the_methods_own(self) -> None:
        model = GaussianProcessRegressor(optimizer=None).fit(ROWS, CLASSES)
        _, deviations = Sklearn().predictor(model, {"predict_fn": "predict"})(ROWS[:3], {"return_std": True})
        assert deviations.shape == (3,)

    def test_a_parameter_it_does_not_take_is_named(self) -> None:
        with pytest.raises(InvalidValue, match=r"LogisticRegression\.predict takes no parameter 'warm'"):
            Sklearn().predictor(fitted(), {"predict_fn": "predict"})(ROWS, {"warm": 1})


def test_a_logged_model_is_loaded_from_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From training to prediction, as a user does it."""
    monkeypatch.chdir(tmp_path)
    mlcore.set_store(tmp_path / "store")
    with mlcore.start_run() as run:
        mlcore.log_model(fitted(), "model", input_example=ROWS[:2])
    model = mlcore.load_model(f"runs:/{run.id}/model")
    np.testing.assert_array_equal(model.predict(ROWS), fitted().predict(ROWS))
    assert isinstance(model.unwrap(), LogisticRegression)


def test_a_reader_without_the_writers_trust_is_asked_for_names(tmp_path: Path) -> None:
    """Guards the writer's own list from reaching the reader."""
    saved, _ = kept(FunctionTransformer(json.dumps).fit(ROWS), tmp_path)
    assert saved.needs_trust == ("json.dumps",)
    with zipfile.ZipFile(tmp_path / "model.skops") as archive:
        assert b"json" in archive.read("schema.json")
    with pytest.raises(Untrusted, match=r"trust=\['json\.dumps'\]"):
        Sklearn().load(tmp_path, saved.config, Trust.of(trust=False))
    Sklearn().load(tmp_path, saved.config, Trust.of("json.*"))


def test_two_processes_that_learn_the_same_write_the_same_bytes(tmp_path: Path) -> None:
    """Guards that a run can be compared with one that repeats it: no address in memory, no moment is in the archive."""
    script = """if True:
    import sys, pathlib
    ballast = [bytearray(int(sys.argv[2]) * each) for each in range(1, 9)]
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.linear_model import SGDClassifier
    from mlcore_sklearn.flavor import Sklearn
    model = make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit([[0.0], [1.0], [3.0]], [0, 1, 1])
    Sklearn().save(model, pathlib.Path(sys.argv[1]))
    """
    archives = []
    for number in range(2):
        (folder := tmp_path / str(number)).mkdir()
        subprocess.run([sys.executable, "-c", script, folder, str(1000 + number * 12345)], check=True)
        archives.append((folder / "model.skops").read_bytes())
    assert archives[0] == archives[1]
