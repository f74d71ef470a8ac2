"""Every estimator of scikit-learn that can be fitted is saved, and loaded back by a reader who trusts nothing."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import feature_selection
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, TweedieRegressor
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, RepeatedKFold, ShuffleSplit, TimeSeriesSplit
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators, get_tags

from mlcore.errors import ModelError
from mlcore.models import Trust
from mlcore_sklearn import soundness
from mlcore_sklearn.flavor import Sklearn, method_of

# What they cannot do without.
NEEDS: dict[str, dict[str, Any]] = {
    "ColumnTransformer": {"transformers": [("scale", StandardScaler(), [0, 1]), ("keep", "passthrough", [2])]},
    "FeatureUnion": {"transformer_list": [("scale", StandardScaler())]},
    "FrozenEstimator": {"estimator": LogisticRegression().fit([[0], [1]], [0, 1])},
    "GridSearchCV": {"param_grid": {"C": [0.1, 1]}},
    "HalvingGridSearchCV": {"param_grid": {"C": [0.1, 1]}},
    "HalvingRandomSearchCV": {"param_distributions": {"C": [0.1, 1]}},
    "Pipeline": {"steps": [("scale", StandardScaler()), ("classify", LogisticRegression())]},
    "RandomizedSearchCV": {"param_distributions": {"C": [0.1, 1]}, "n_iter": 2},
    "SparseCoder": {"dictionary": np.eye(4)},
    "VotingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2))]},
    "StackingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2))]},
    "BisectingKMeans": {"n_clusters": 4},
    "OrthogonalMatchingPursuitCV": {"max_iter": 2},
    "PatchExtractor": {"patch_size": (2, 2)},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "SpectralBiclustering": {"n_best": 2},
    "TSNE": {"max_iter": 250, "perplexity": 5},
}
ONE_COMPONENT = {"CCA", "LinearDiscriminantAnalysis", "PLSCanonical", "PLSSVD"}
# What has no method for new data: there is nothing to load it for.
ONLY_FIT = {
    *("AgglomerativeClustering", "DBSCAN", "HDBSCAN", "OPTICS", "SpectralClustering"),
    *("SpectralBiclustering", "SpectralCoclustering"),
    *("ClassicalMDS", "MDS", "SpectralEmbedding", "TSNE"),
}
# What skops cannot hold: a tree of nodes that refer to each other.
PICKLED = {"Birch"}
# What answers by chance, by its own nature.
RANDOM = {"DummyClassifier"}


def made(cls: type) -> Any:
    """Make an estimator with what it needs, as small as it gets."""
    name, takes = cls.__name__, inspect.signature(cls).parameters
    given = dict(NEEDS.get(name, {}))
    inner = Ridge() if "Regressor" in name else LogisticRegression()
    needed = {key for key, value in takes.items() if value.default is value.empty} - {"args", "kwargs"}
    for key in needed & {"estimator", "estimators"} - given.keys():
        given[key] = inner if key == "estimator" else [("a", inner), ("b", LogisticRegression(C=0.1))]
    given |= {"n_components": 1} if name in ONE_COMPONENT else {}
    small = {"n_estimators": 5, "max_iter": 20, "n_components": 2, "random_state": 0, "n_neighbors": 3, "max_iters": 20}
    return cls(**given, **{key: value for key, value in small.items() if key in takes and key not in given})


def data_for(estimator: Any) -> tuple[Any, Any]:
    """Return what an estimator can be fitted on, and nothing in place of targets where it takes none."""
    tags, name = get_tags(estimator), type(estimator).__name__
    rows, classes = make_classification(60, 4, n_informative=3, n_redundant=0, n_classes=2, random_state=0)
    rows = np.abs(rows) + 0.1
    if name in {"LabelBinarizer", "LabelEncoder"}:
        return classes, None
    if name == "MultiLabelBinarizer":
        return [["a"], ["a", "b"]], None
    if name in {"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"}:
        return ["one two", "two three", "three one"], None
    if tags.input_tags.dict or name == "FeatureHasher":
        return [{"a": 1.0, "b": 2.0}, {"a": 3.0}], None
    if name == "PatchExtractor":
        return np.ones((3, 8, 8, 3)), None
    if name == "FrozenEstimator":
        return rows[:, :1], classes
    if name == "IsotonicRegression":
        return rows[:, 0], rows[:, 1]
    if tags.input_tags.pairwise:
        rows = rows @ rows.T
    if name.startswith(("MultiOutput", "MultiTask")) or name.endswith("Chain"):
        targets = np.column_stack([classes, 1 - classes])
        return rows, rows[:, :2] if name == "MultiOutputRegressor" or name.startswith("MultiTask") else targets
    if tags.target_tags.multi_output and not tags.target_tags.single_output:
        return rows, rows[:, :2]
    continuous = tags.estimator_type == "regressor" or tags.target_tags.positive_only
    return rows, rows[:, 0] + 1 if continuous else classes


MORE = ("score_samples", "kneighbors", "mahalanobis", "apply")


def answers(estimator: Any, data: Any) -> dict[str, Any]:
    """Ask an estimator all that it can be asked; what it refuses for these data is left out."""
    found = {}
    for name in ("predict", "predict_proba", "decision_function", "transform", *MORE):
        if callable(method := getattr(estimator, name, None)):
            try:
                found[name] = method(data)
            except (ValueError, AttributeError, TypeError):
                continue
    return found


def plain(answer: Any) -> Any:
    """Return an answer as one array."""
    if isinstance(answer, list | tuple):
        return np.concatenate([np.ravel(plain(each)) for each in answer])
    return answer.toarray() if sparse.issparse(answer) else np.asarray(answer)


def fitted(cls: type) -> tuple[Any, Any]:
    """Return an estimator and the data it was fitted on."""
    estimator = made(cls)
    data, targets = data_for(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return (estimator.fit(data) if targets is None else estimator.fit(data, targets)), data


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("name", "cls"), all_estimators(), ids=[name for name, _ in all_estimators()])
def test_every_estimator_is_loaded_without_trust_and_predicts_the_same(name: str, cls: type, tmp_path: Path) -> None:
    """Guards the list of what is harmless, and that no honest model is called forged."""
    estimator, data = fitted(cls)
    flavor, asked = Sklearn(), None
    try:
        asked = method_of(estimator)
    except ModelError:
        asked = next((each for each in MORE if hasattr(estimator, each)), None)
    if asked is None:
        assert name in ONLY_FIT
        return
    if name in PICKLED:
        saved = flavor.save(estimator, tmp_path, predict_fn=asked)
        assert saved.config["serialization_format"] == "cloudpickle"
        return
    saved = flavor.save(estimator, tmp_path, predict_fn=asked)
    assert saved.config["serialization_format"] == "skops"
    assert saved.needs_trust == ()
    before = answers(estimator, data)  # after saving: what chance decides is drawn from a generator that is saved too
    after = answers(flavor.load(tmp_path, saved.config, Trust()), data)
    assert before.keys() == after.keys()
    assert name in ONLY_FIT or asked in before
    for method in before if name not in RANDOM else ():
        np.testing.assert_allclose(plain(after[method]), plain(before[method]), rtol=1e-9, atol=1e-12, err_msg=method)


ROWS, CLASSES = load_iris(return_X_y=True)
HOUSES = pd.DataFrame({"size": ROWS[:, 0], "town": ["Ulm", "Jena", "Bonn"] * 50, "new": [True, False] * 75})
HOUSES["kind"] = HOUSES["town"].astype("category")
TEXTS = ["a fox", "the hen", "no bird"] * 50
VARIANTS: dict[str, tuple[Any, Any]] = {
    **{
        f"boosting of {loss}": (GradientBoostingRegressor(n_estimators=3, loss=loss), ROWS)
        for loss in ("absolute_error", "huber", "quantile")
    },
    **{
        f"histograms of {loss}": (HistGradientBoostingRegressor(max_iter=3, loss=loss), ROWS)
        for loss in ("absolute_error", "gamma", "poisson")
    },
    "histograms of categories": (
        HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype"),
        HOUSES[["size", "kind"]],
    ),
    **{
        f"neighbours by {metric}": (KNeighborsClassifier(algorithm="ball_tree", metric=metric, p=3), ROWS)
        for metric in ("braycurtis", "canberra", "chebyshev", "hamming", "jaccard", "manhattan", "minkowski")
    },
    "neighbours in single precision": (KNeighborsClassifier(algorithm="kd_tree"), ROWS.astype(np.float32)),
    **{
        f"process of {type(kernel).__name__}": (GaussianProcessRegressor(kernel, optimizer=None, alpha=1), ROWS)
        for kernel in (
            kernels.Matern(),
            kernels.DotProduct(),
            kernels.RBF() + kernels.WhiteKernel(),
            kernels.RBF() ** 2,
        )
    },
    **{
        f"descent of {loss}": (SGDClassifier(loss=loss, random_state=0), ROWS)
        for loss in ("hinge", "log_loss", "modified_huber", "huber", "squared_epsilon_insensitive")
    },
    **{f"power {power}": (TweedieRegressor(power=power, link="log"), ROWS) for power in (0, 1, 1.5, 2)},
    **{
        f"best by {score.__name__}": (SelectKBest(score, k=2), ROWS)
        for score in (feature_selection.chi2, feature_selection.f_regression, feature_selection.mutual_info_classif)
    },
    **{
        f"search by {type(cv).__name__}": (
            GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=cv, scoring="neg_mean_absolute_error"),
            ROWS,
        )
        for cv in (ShuffleSplit(2), RepeatedKFold(n_splits=2, n_repeats=1), TimeSeriesSplit(2))
    },
    "search by a scorer": (GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2, scoring=make_scorer(r2_score)), ROWS),
    **{
        f"calibrated by {method}": (CalibratedClassifierCV(LogisticRegression(), method=method), ROWS)
        for method in ("isotonic", "sigmoid")
    },
    "a ufunc": (FunctionTransformer(np.log1p), ROWS),
    "a function of numpy's": (FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": 1}), ROWS),
    "a target of logarithms": (TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), ROWS),
    "columns by name": (
        make_column_transformer((OneHotEncoder(), ["town", "new"]), (StandardScaler(), ["size"])),
        HOUSES,
    ),
    "columns by type": (
        make_column_transformer(
            (OneHotEncoder(), make_column_selector(dtype_include=["category"])),
            (StandardScaler(), make_column_selector(dtype_include="number")),
        ),
        HOUSES,
    ),
    "frames come out": (make_pipeline(StandardScaler()).set_output(transform="pandas"), HOUSES[["size", "new"]]),
    "categories of strings": (OrdinalEncoder(), HOUSES[["town"]]),
    "texts": (make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), Ridge()), TEXTS),
    "many outputs": (MultiOutputRegressor(GradientBoostingRegressor(n_estimators=2)), ROWS),
    "a generator of its own": (RandomForestRegressor(2, random_state=np.random.RandomState(0)), ROWS),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_what_estimators_can_be_given_is_harmless_too(name: str, tmp_path: Path) -> None:
    """Losses, metrics, kernels, splits, scorers and columns: all that the list names because somebody may choose it."""
    estimator, data = VARIANTS[name]
    targets = ROWS[:, 1:3] + 1 if name == "many outputs" else CLASSES + 1
    estimator.fit(data, targets)
    saved = Sklearn().save(estimator, tmp_path)
    assert (saved.config["serialization_format"], saved.needs_trust) == ("skops", ())
    expected = getattr(estimator, saved.config["predict_fn"])(data)
    found = Sklearn().predictor(Sklearn().load(tmp_path, saved.config, Trust()), saved.config)(data, {})
    np.testing.assert_allclose(plain(found), plain(expected), rtol=1e-9)


def test_parts_are_found_in_object_arrays_and_everywhere_else() -> None:
    """Guards the walk: what it misses is never looked at."""
    tree = DecisionTreeClassifier(max_depth=1).fit([[0.0], [1.0]], [0, 1])
    hidden = np.empty((1, 1), dtype=object)
    hidden[0, 0] = {"deep": [({tree},)]}
    masked = np.ma.MaskedArray(np.array([KMeans(), None], dtype=object), [True, False])
    found = list(soundness.parts_of({"array": hidden, "masked": masked}))
    assert any(part is tree.tree_ for part in found)
    assert any(isinstance(part, KMeans) for part in found)
