"""A forged archive is refused before its model is handed out, where using it would crash the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import linear_kernel
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mlcore.errors import ModelError
from mlcore.models import Trust
from mlcore_sklearn import soundness
from mlcore_sklearn.flavor import Sklearn

ROWS, CLASSES = load_iris(return_X_y=True)
CONFIG = {"pickled_model": "model.skops", "serialization_format": "skops", "predict_fn": "predict"}
FAR = 2**40  # beyond any memory that the process has
CATEGORIES = np.column_stack([ROWS[:, :3], CLASSES])


def with_state(part: Any, place: int | str, value: Any) -> None:
    """Give a tree or an index another state in one place, as an archive can."""
    state = part.__getstate__()
    if isinstance(state, dict):
        part.__setstate__({**state, place: value})
    else:
        part.__setstate__(tuple(value if number == place else each for number, each in enumerate(state)))


def with_nodes(tree: Any, column: str, node: int, value: int) -> None:
    """Forge one node of a decision tree."""
    nodes = tree.__getstate__()["nodes"].copy()
    nodes[column][node] = value
    with_state(tree, "nodes", nodes)


def tree_with(column: str, node: int, value: int) -> DecisionTreeClassifier:
    """Return a decision tree with one forged node."""
    model = DecisionTreeClassifier(random_state=0).fit(ROWS, CLASSES)
    with_nodes(model.tree_, column, node, value)
    return model


def forest(column: str, value: int) -> Any:
    """Return a pipeline with a forest one of whose trees is forged."""
    model = RandomForestClassifier(3, random_state=0).fit(ROWS, CLASSES)
    with_nodes(model.estimators_[1].tree_, column, 0, value)
    return make_pipeline(StandardScaler().fit(ROWS), model)


def tree_that_says(name: str, value: int) -> tuple[Any, Callable[[Any], None]]:
    """Return a decision tree, and how its archive comes to say something else about it than its nodes do."""

    def edit(schema: Any) -> None:
        tree = schema["content"]["content"]["tree_"]
        assert tree["__loader__"] == "TreeNode"
        # skops reads nodes of one id once: this one must not be taken for an equal number elsewhere
        tree["content"]["content"][name] |= {"content": json.dumps(value), "__id__": 1}

    return DecisionTreeClassifier(random_state=0).fit(ROWS, CLASSES), edit


def tree_whose_owner_says(**said: Any) -> DecisionTreeClassifier:
    """Return a decision tree whose owner would let other data through to it."""
    model = DecisionTreeClassifier(random_state=0).fit(ROWS, CLASSES)
    for name, value in said.items():
        if value is None:
            delattr(model, name)
        else:
            setattr(model, name, value)
    return model


def boosting_with_wider_trees() -> GradientBoostingRegressor:
    """Return gradient boosting whose trees look at more features than it asks for."""
    model = GradientBoostingRegressor(n_estimators=2, random_state=0).fit(ROWS[:, :1], CLASSES)
    model.estimators_[1, 0] = DecisionTreeRegressor(random_state=0).fit(ROWS, CLASSES)
    return model


def boosting_with_more_classes() -> GradientBoostingClassifier:
    """Return gradient boosting that writes more columns than it makes."""
    model = GradientBoostingClassifier(n_estimators=2, init="zero", random_state=0).fit(ROWS, CLASSES)
    model.n_trees_per_iteration_ = 1
    return model


def histograms_with(column: str, value: int, rows: Any = ROWS, **options: Any) -> HistGradientBoostingClassifier:
    """Return histogram gradient boosting with one forged node."""
    model = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5, **options).fit(rows, CLASSES)
    predictor = model._predictors[0][0]
    which = np.flatnonzero(predictor.nodes["is_categorical"] if options else predictor.nodes["is_leaf"] == 0)[0]
    predictor.nodes[column][which] = value
    return model


def neighbours_with(place: int, change: Callable[[Any], Any], algorithm: str = "kd_tree", **options: Any) -> Any:
    """Return nearest neighbours whose index has another state in one place."""
    model = KNeighborsClassifier(algorithm=algorithm, leaf_size=10, **options).fit(ROWS, CLASSES)
    with_state(model._tree, place, change(model._tree.__getstate__()[place]))
    return model


def with_first(value: int) -> Callable[[Any], Any]:
    """Return a change that puts a value first."""
    return lambda array: np.concatenate([[value], array[1:]]).astype(array.dtype)


def with_column(column: str, value: int) -> Callable[[Any], Any]:
    """Return a change that fills a column of a structured array."""

    def change(array: Any) -> Any:
        changed = array.copy()
        changed[column] = value
        return changed

    return change


def short_spline() -> SplineTransformer:
    """Return splines with fewer coefficients than their knots take."""
    model = SplineTransformer().fit(ROWS)
    model.bsplines_[0].c = model.bsplines_[0].c[:1]
    return model


def sparse_beyond_its_columns() -> LogisticRegression:
    """Return a sparse classifier with a coefficient where no column is."""
    model = LogisticRegression(max_iter=2000).fit(ROWS, CLASSES).sparsify()
    model.coef_.indices[0] = 2**30
    return model


def vectors_with(name: str, value: Any, model: Any = None) -> Any:
    """Return a support vector machine one of whose arrays has another length than the rest."""
    return _set((model or SVC()).fit(ROWS, CLASSES), **{name: value})


def one_vs_rest_that_answers_more() -> OneVsRestClassifier:
    """Return a classifier one of whose parts answers fifty times for each row."""
    model = OneVsRestClassifier(LogisticRegression(max_iter=2000)).fit(ROWS, CLASSES)
    model.estimators_[0].coef_ = np.concatenate([model.estimators_[0].coef_] * 50)
    return model


CRASHES: dict[str, Callable[[], Any]] = {  # these do, when scikit-learn is let go on with them
    "a tree's child is none": lambda: tree_with("left_child", 0, FAR),
    "a tree in a forest": lambda: forest("right_child", FAR),
    "a tree splits on no feature": lambda: tree_with("feature", 0, FAR),
    "histograms go to a node that is none": lambda: histograms_with("left", 2**32 - 1),
    "histograms split on no feature": lambda: histograms_with("feature_idx", FAR),
    "an index of points that are none": lambda: neighbours_with(1, lambda order: order + FAR),
    "an index of nodes that are none": lambda: neighbours_with(2, with_column("idx_end", FAR)),
}
CRASHES |= {
    "vectors without coefficients": lambda: vectors_with("_dual_coef_", np.empty((0, 0))),
    "vectors that are none": lambda: vectors_with("support_vectors_", np.empty((0, 4))),
}
FORGED: dict[str, Callable[[], Any]] = {
    **CRASHES,
    "a tree's child is negative": lambda: tree_with("right_child", 0, -5),
    "a tree goes round": lambda: tree_with("left_child", 2, 0),
    "a tree's child has two parents": lambda: tree_with("left_child", 2, 4),
    "a tree splits on a negative feature": lambda: tree_with("feature", 0, -1),
    "a tree counts none of its nodes": lambda: tree_that_says("node_count", 0),
    "a tree is deeper than it says": lambda: tree_that_says("max_depth", 1),
    "a tree is far less deep than it says": lambda: tree_that_says("max_depth", FAR),
    "the owner asks for fewer features": lambda: tree_whose_owner_says(n_features_in_=1),
    "the owner asks for no features": lambda: tree_whose_owner_says(n_features_in_=None),
    "the owner's check is replaced": lambda: tree_whose_owner_says(_validate_X_predict=np.positive),
    "boosting has wider trees": boosting_with_wider_trees,
    "boosting has more classes": boosting_with_more_classes,
    "boosting counts other features": lambda: _set(boosting_with_more_classes(), n_features_in_=2),
    "histograms go round": lambda: histograms_with("left", 0),
    "histograms have no such categories": lambda: histograms_with(
        "bitset_idx", 1000, CATEGORIES, categorical_features=[3]
    ),
    "histograms sort what has no categories": lambda: histograms_with("is_categorical", 1),
    "an index has other levels": lambda: neighbours_with(5, lambda levels: levels + 3),
    "an index has other bounds": lambda: neighbours_with(3, lambda bounds: bounds[:, :1].copy()),
    "an index has no leaves": lambda: neighbours_with(2, with_column("is_leaf", 0)),
    "an index starts below": lambda: neighbours_with(2, with_column("idx_start", -1)),
    "an index has one point that is none": lambda: neighbours_with(1, with_first(150), "ball_tree"),
    "a metric weighs other features": lambda: neighbours_with(
        11,
        lambda metric: with_state(metric, 1, np.ones(2)) or metric,
        "ball_tree",
        metric="minkowski",
        metric_params={"w": [1] * 4},
    ),
    "a metric's matrix is too small": lambda: neighbours_with(
        11,
        lambda metric: with_state(metric, 2, np.ones((1, 1))) or metric,
        "ball_tree",
        metric="mahalanobis",
        metric_params={"V": np.eye(4)},
    ),
    "vectors of a regressor without counts": lambda: vectors_with("_n_support", np.ones(1, np.int32), SVR()),
    "a part of many answers more": one_vs_rest_that_answers_more,
    "vectors lack intercepts": lambda: vectors_with("_intercept_", np.ones(1)),
    "vectors are sparse in part": lambda: vectors_with("_sparse", True),
    "vectors say that they are of another kind": lambda: vectors_with("_impl", "nu_svr"),
    "vectors are of rows that are none": lambda: vectors_with(
        "support_", np.full(1, 2**30, np.int32), SVC(kernel=linear_kernel)
    ),
    "splines lack coefficients": short_spline,
    "a sparse matrix leaves its columns": sparse_beyond_its_columns,
}


def _set(model: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(model, name, value)
    return model


def archive(forged: Any, folder: Path) -> Path:
    """Write a forged model as no honest writer would: `forged` is one, or one with how its schema is edited."""
    model, edit = forged if isinstance(forged, tuple) else (forged, None)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.skops"
    skops.io.dump(model, path)
    if edit is not None:
        with zipfile.ZipFile(path) as whole:
            parts = {name: whole.read(name) for name in whole.namelist()}
        schema = json.loads(parts["schema.json"])
        edit(schema)
        with zipfile.ZipFile(path, "w") as whole:
            for name, content in (parts | {"schema.json": json.dumps(schema).encode()}).items():
                whole.writestr(name, content)
    return folder


LOAD = """
import json, sys
from pathlib import Path
from mlcore.errors import ModelError
from mlcore.models import Trust
from mlcore_sklearn.flavor import Sklearn
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        Sklearn().load(folder, json.loads(sys.argv[2]), Trust())
        print(json.dumps([folder.name, "loaded"]))
    except ModelError as error:
        print(json.dumps([folder.name, str(error)]))
"""

USE = """
import sys, warnings, skops.io
from sklearn.datasets import load_iris
warnings.simplefilter("ignore")
model = skops.io.load(sys.argv[1], trusted=skops.io.get_untrusted_types(file=sys.argv[1]))
for times in range(20):
    model.predict(load_iris().data)
"""


def test_every_forgery_is_refused_and_none_crashes(tmp_path: Path) -> None:
    """Guards the reader's process, which runs here apart: what slips through would take it with it."""
    for number, model in enumerate(FORGED.values()):
        archive(model(), tmp_path / f"{number:03}")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path, json.dumps(CONFIG)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = dict(map(json.loads, done.stdout.splitlines()))
    let_through = [name for number, name in enumerate(FORGED) if "damaged or forged" not in told[f"{number:03}"]]
    assert let_through == [], told


@pytest.mark.slow
@pytest.mark.parametrize("name", CRASHES)
def test_these_forgeries_do_crash_whoever_lets_them_through(name: str, tmp_path: Path) -> None:
    """The control: scikit-learn itself asks nothing of what skops has loaded."""
    folder = archive(CRASHES[name](), tmp_path)
    done = subprocess.run([sys.executable, "-c", USE, folder / "model.skops"], capture_output=True, check=False)
    assert done.returncode in {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT}, done.stderr[-500:]


def test_a_forged_part_is_named(tmp_path: Path) -> None:
    """The error says which kind of part, and that it is no fault of the reader's."""
    folder = archive(tree_with("left_child", 0, FAR), tmp_path)
    with pytest.raises(ModelError, match=r"model\.skops was damaged or forged.*Tree: a child that is none"):
        Sklearn().load(folder, CONFIG, Trust())


def test_trusting_everything_does_not_let_a_forgery_through(tmp_path: Path) -> None:
    """Trust says that code may run, not that memory may be read beside an array."""
    folder = archive(forest("right_child", FAR), tmp_path)
    with pytest.raises(ModelError, match="damaged or forged"):
        Sklearn().load(folder, CONFIG, Trust.of(trust=True))


def test_a_part_that_lost_its_state_is_refused(tmp_path: Path) -> None:
    """An object made without state holds no arrays at all: asking it would read what was never written."""

    def edit(schema: Any) -> None:
        del schema["content"]["content"]["_tree"]["content"]

    folder = archive((NearestNeighbors(algorithm="kd_tree").fit(ROWS), edit), tmp_path)
    with pytest.raises(ModelError, match="damaged or forged"):
        Sklearn().load(folder, CONFIG, Trust())


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(max_leaf_nodes=5),
        DecisionTreeClassifier(ccp_alpha=0.02),
        DecisionTreeClassifier(max_depth=1),
        RandomForestClassifier(5, max_leaf_nodes=4),
        GradientBoostingClassifier(n_estimators=3),
        GradientBoostingClassifier(n_estimators=3, init=LogisticRegression(max_iter=2000)),
        HistGradientBoostingClassifier(max_iter=3, categorical_features=[3]),
        HistGradientBoostingClassifier(max_iter=3, early_stopping=True),
        KNeighborsClassifier(algorithm="kd_tree", leaf_size=1),
        KNeighborsClassifier(algorithm="ball_tree", metric="mahalanobis", metric_params={"V": np.eye(4)}),
        KNeighborsClassifier(algorithm="ball_tree", metric="minkowski", p=3, metric_params={"w": [1, 2, 3, 4]}),
        KNeighborsClassifier(algorithm="ball_tree", metric="seuclidean", metric_params={"V": [1, 2, 3, 4]}),
        KNeighborsClassifier(algorithm="kd_tree", metric="chebyshev"),
        SVC(),
        SVR(kernel="poly"),
        NuSVC(nu=0.1),
        OneClassSVM(),
        SVC(kernel=linear_kernel),
        OneVsRestClassifier(SVC()),
    ],
)
def test_an_honest_model_is_sound_however_it_was_built(model: Any) -> None:
    """Guards users from an error about their own work."""
    soundness.examine(model.fit(np.abs(CATEGORIES), CLASSES))


@pytest.mark.parametrize("model", [SVC(), SVR(), NuSVC(nu=0.1), OneClassSVM()], ids=repr)
def test_an_honest_sparse_model_is_sound(model: Any) -> None:
    """Support vectors and coefficients are sparse there, and libsvm takes their data without their places."""
    soundness.examine(model.fit(sparse.csr_matrix(ROWS), CLASSES))


def test_trees_that_are_none_but_a_leaf_are_sound() -> None:
    """A tree that found nothing to split is still one."""
    soundness.examine(DecisionTreeClassifier().fit(ROWS, np.zeros(len(ROWS))))
    soundness.examine(RandomForestClassifier(3).fit(sparse.csr_matrix(ROWS), CLASSES))
