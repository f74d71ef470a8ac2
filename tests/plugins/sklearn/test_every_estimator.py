"""Every estimator of scikit-learn that can be fitted is saved, and loaded back by a reader who trusts nothing."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
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


def test_parts_are_found_in_object_arrays_and_everywhere_else() -> None:
    """Guards the walk: what it misses is never looked at."""
    tree = DecisionTreeClassifier(max_depth=1).fit([[0.0], [1.0]], [0, 1])
    hidden = np.empty((1, 1), dtype=object)
    hidden[0, 0] = {"deep": [({tree},)]}
    masked = np.ma.MaskedArray(np.array([KMeans(), None], dtype=object), [True, False])
    found = list(soundness.parts_of({"array": hidden, "masked": masked}))
    assert any(part is tree.tree_ for part in found)
    assert any(isinstance(part, KMeans) for part in found)
