"""Look at what compiled code will follow unchecked, before a model from an archive is handed out.

scikit-learn walks the nodes of trees, libsvm its vectors, and scipy the indices of sparse matrices, without asking
whether they are in bounds: an archive with forged ones crashes the interpreter, or reads and writes the memory beside
the array, at the first prediction. An honest model passes all that is asked here by how it was built. What is asked was
found by reading the compiled code, and by forging every array of every estimator in turn.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from mlcore.errors import ModelError

__all__ = ["Unsound", "examine", "parts_of"]

_WHOLE = (str, bytes, bytearray, int, float, complex, type(None), type, ModuleType, FunctionType, BuiltinFunctionType)


_NO_CLASSES = ("epsilon_svr", "nu_svr", "one_class")  # libsvm's names for what does not classify


class Unsound(ModelError):
    """Say what in a model no fitted estimator could hold."""


def parts_of(root: object) -> Iterator[Any]:
    """Walk all that `root` is made of, once each: attributes, items, what object arrays hold; not into classes."""
    import numpy as np

    whole = (*_WHOLE, CodeType, np.ufunc, np.dtype, np.generic)
    seen: dict[int, object] = {}  # holds on to what it names, so that no id comes back
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        if isinstance(part, whole):
            if isinstance(part, type | FunctionType):
                seen[id(part)] = part
                yield part
            continue
        seen[id(part)] = part
        yield part
        if isinstance(part, np.ndarray) and part.dtype.hasobject:
            waiting.extend(np.asarray(part).ravel().tolist())  # what they hold, the garbage collector does not tell
        waiting.extend(gc.get_referents(part))


def examine(model: object) -> None:
    """Raise `Unsound` unless all that compiled code follows in `model` stays in its bounds."""
    looks = _looks()
    known: dict[type, list[Callable[[Any], None]]] = {}
    for part in parts_of(model):
        kind = type(part)
        if kind not in known:
            known[kind] = [look for kinds, look in looks.items() if issubclass(kind, kinds)]
        for look in known[kind]:
            _look(look, part)
    for part in parts_of(model):  # after all else is sound, since asking runs what a model is made of
        if known.get(type(part)) and _is_boosting(part):
            _look(_probe_boosting, part)
        elif known.get(type(part)) and _is_one_vs_rest(part):
            _look(_probe_one_vs_rest, part)


def _look(look: Callable[[Any], None], part: Any) -> None:
    try:
        look(part)
    except (Unsound, Warning):
        raise
    except Exception as error:
        raise Unsound(f"a {type(part).__qualname__} that does not hold together: {error}") from error


def _looks() -> dict[type | tuple[type, ...], Callable[[Any], None]]:
    """Return what is asked of the parts of each type."""
    from scipy import sparse
    from scipy.interpolate import BSpline
    from sklearn.base import BaseEstimator
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
    from sklearn.tree._tree import Tree

    return {
        Tree: _look_at_tree,
        TreePredictor: _look_at_predictor,
        _neighbour_indexes(): _look_at_index,
        BSpline: _look_at_spline,
        (sparse.spmatrix, sparse.sparray): _look_at_matrix,
        BaseEstimator: _look_at_estimator,
    }


def _look_at_estimator(model: Any) -> None:
    """Compare what an estimator lets through to its trees with what they take."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.svm._base import BaseLibSVM
    from sklearn.tree import BaseDecisionTree
    from sklearn.tree._tree import Tree

    if type(model).__module__.startswith("sklearn."):
        _no_method_is_replaced(model)
    if isinstance(model, BaseDecisionTree) and "tree_" in vars(model):
        _need(isinstance(model.tree_, Tree), model, "its tree is none")
        _need(_features_of(model) == model.tree_.n_features, model, "its tree counts other features")
    elif _is_boosting(model):
        _look_at_boosting(model)
    elif isinstance(model, BaseHistGradientBoosting) and "_predictors" in vars(model):
        _look_at_histograms(model)
    elif isinstance(model, BaseLibSVM) and "support_" in vars(model):
        _look_at_support_vectors(model)


def _is_boosting(part: Any) -> bool:
    from sklearn.ensemble._gb import BaseGradientBoosting

    return isinstance(part, BaseGradientBoosting) and "estimators_" in vars(part)


def _is_one_vs_rest(part: Any) -> bool:
    from sklearn.multiclass import OneVsRestClassifier

    return isinstance(part, OneVsRestClassifier) and "estimators_" in vars(part)


def _look_at_spline(spline: Any) -> None:
    type(spline)(spline.t, spline.c, spline.k, extrapolate=spline.extrapolate, axis=spline.axis)  # it checks these


def _look_at_matrix(matrix: Any) -> None:
    (matrix if hasattr(matrix, "check_format") else matrix.tocsr()).check_format(full_check=True)


def _need(sound: object, part: object, otherwise: str) -> None:
    if not sound:
        raise Unsound(f"{type(part).__qualname__}: {otherwise}")


def _features_of(estimator: Any) -> int:
    features = vars(estimator).get("n_features_in_")
    _need(isinstance(features, int) and features > 0, estimator, "it does not say how many features it takes")
    return int(features)


def _no_method_is_replaced(estimator: Any) -> None:
    """Refuse attributes in the place of methods: an archive could so switch off the check of what is predicted on."""
    for name in vars(estimator):
        _need(not callable(getattr(type(estimator), name, None)), estimator, f"its method {name} is replaced")


def _look_at_tree(tree: Any) -> None:
    """Follow a decision tree's children: in bounds, each of one parent, no deeper than is said; features that exist.

    ``capacity`` is asked first, since it says how long the array of nodes is and ``node_count`` only what is used.
    """
    import numpy as np

    count = tree.node_count
    _need(1 <= count <= tree.capacity, tree, f"{count} nodes where there is room for {tree.capacity}")
    _need(tree.n_outputs >= 1 and tree.max_n_classes >= 1, tree, "no outputs")
    left, right = tree.children_left, tree.children_right
    inner = np.flatnonzero(left != -1)
    features = tree.feature[inner]
    _need(((features >= 0) & (features < tree.n_features)).all(), tree, "it splits on a feature that is none")
    depth = _depth(tree, np.concatenate([inner, inner]), np.concatenate([left[inner], right[inner]]), count)
    _need(depth <= tree.max_depth < count, tree, f"it is {depth} deep and says {tree.max_depth}")


def _depth(tree: object, parents: Any, children: Any, count: int) -> int:
    """Return how deep a tree is whose every child comes after its parent and is nobody else's."""
    import numpy as np

    _need(((parents < children) & (children < count)).all(), tree, "a child that is none")
    _need(len(np.unique(children)) == len(children), tree, "a node of two parents")
    above = np.full(count, -1)
    above[children] = parents
    depth, level = 0, above
    while (level := level[level > 0]).size:  # nodes that hang below the root by more than this many steps
        depth += 1
        level = above[level]
    return depth + bool(len(children))


def _look_at_predictor(predictor: Any) -> None:
    """Follow the nodes of one tree of histogram gradient boosting; its features are known to its owner."""
    import numpy as np

    nodes, count = predictor.nodes, len(predictor.nodes)
    _need(count >= 1 and nodes.ndim == 1, predictor, "no nodes")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    children = [nodes[side][inner].astype(np.int64) for side in ("left", "right")]
    _depth(predictor, np.concatenate([inner, inner]), np.concatenate(children), count)
    sorts = nodes[inner][nodes["is_categorical"][inner] != 0]
    for bitsets in (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets):
        _need(bitsets.ndim == 2 and bitsets.shape[1] == 8, predictor, "sets of categories of another size")
        _need((sorts["bitset_idx"] < len(bitsets)).all(), predictor, "a set of categories that is none")


def _look_at_histograms(model: Any) -> None:
    """Compare the features that histogram gradient boosting splits on with those that it takes."""
    import numpy as np

    features = _features_of(model)
    categorical = np.asarray(model._bin_mapper.is_categorical_, dtype=bool)
    _need(categorical.shape == (features,), model, "other features are categorical")
    _need(len(model._bin_mapper.bin_thresholds_) == features, model, "other features have bins")
    for predictor in (each for stage in model._predictors for each in stage):
        inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
        index = inner["feature_idx"]
        _need(((index >= 0) & (index < features)).all(), model, "it splits on a feature that is none")
        _need(categorical[index[inner["is_categorical"] != 0]].all(), model, "it sorts a feature without categories")
    if model._preprocessor is not None:
        width = model._preprocessor.transform(np.full((1, features), np.nan, dtype=object)).shape[1]
        _need(width == features, model, f"its encoder makes {width} features of {features}")


def _look_at_boosting(model: Any) -> None:
    """Compare the features of the trees of gradient boosting with its own: its compiled code asks only for its own."""
    from sklearn.tree import BaseDecisionTree

    features = _features_of(model)
    _need(model.estimators_.ndim == 2, model, "its trees are not in stages")
    for tree in model.estimators_.ravel():
        _need(isinstance(tree, BaseDecisionTree), model, "one of its trees is none")
        _need(_features_of(tree) == features, model, "one of its trees takes other features")


def _probe_boosting(model: Any) -> None:
    """Predict from no tree at all: what comes back must have room for every column that the trees will write into."""
    import numpy as np

    columns = model._raw_predict_init(np.zeros((1, _features_of(model)), dtype=np.float32)).shape[1]
    _need(model.estimators_.shape[1] <= columns, model, "it has trees for more classes than it starts from")


def _probe_one_vs_rest(model: Any) -> None:
    """Predict one row with every part: rows that it answers beyond that would become indices of a sparse matrix."""
    import numpy as np
    from sklearn.multiclass import _predict_binary

    features = getattr(model, "n_features_in_", None)
    if not isinstance(features, int):
        return
    for each in model.estimators_:
        _need(np.shape(_predict_binary(each, np.zeros((1, features)))) == (1,), model, "a part answers more than asked")


def _look_at_support_vectors(model: Any) -> None:
    """Compare the arrays of a support vector machine: libsvm takes their lengths from each other."""
    import numpy as np
    from scipy import sparse

    _need("_impl" not in vars(model), model, "it says itself how it is to be asked")
    vectors, counts, coefficients = model.support_vectors_, np.asarray(model._n_support), model._dual_coef_
    number, classes = len(model.support_), len(counts)
    _need(model.support_.ndim == 1, model, "support vectors that are none")
    if model.kernel == "precomputed" or callable(model.kernel):  # it keeps which rows they were
        inside = (model.support_ >= 0) & (model.support_ < model.shape_fit_[0])
        _need(inside.all() and vectors.shape[0] in {0, number}, model, "support vectors that are none")
    else:
        _need(vectors.shape == (number, _features_of(model)), model, "support vectors of other features")
    # of regressors only the first count is meant
    pairs, total = classes * (classes - 1) // 2, counts[0] if model._impl in _NO_CLASSES else counts.sum()
    _need(counts.ndim == 1 and (counts >= 0).all() and total == number, model, "another number of support vectors")
    _need(classes >= 2, model, "no classes")
    _need(coefficients.shape == (classes - 1, number), model, "coefficients of other support vectors")
    _need(
        sparse.issparse(coefficients) == sparse.issparse(vectors) == bool(model._sparse), model, "sparse in part only"
    )
    if model._sparse:  # what it stores is read as if nothing were left out
        _need(len(coefficients.data) == (classes - 1) * number, model, "coefficients of other support vectors")
    _need(np.shape(model._intercept_) == (pairs,), model, "intercepts of other classes")
    for name in ("_probA", "_probB"):
        _need(np.shape(vars(model)[name]) in {(0,), (pairs,)}, model, "chances of other classes")


def _neighbour_indexes() -> tuple[type, ...]:
    from sklearn.neighbors import BallTree, KDTree
    from sklearn.neighbors._ball_tree import BallTree32
    from sklearn.neighbors._kd_tree import KDTree32

    return (KDTree, KDTree32, BallTree, BallTree32)


def _look_at_index(index: Any) -> None:
    """Check the arrays of a KDTree or BallTree against each other: its points, their order, nodes laid as a heap."""
    import numpy as np
    from sklearn.neighbors._kd_tree import KDTree, KDTree32

    data, order, nodes, bounds, leaf_size, levels, count, *_, metric, weights = index.__getstate__()
    points, features = data.shape
    _need(points >= 1 and features >= 1 and leaf_size >= 1, index, "it holds no points")
    _need(order.shape == (points,) and order.min() >= 0 and order.max() < points, index, "a point that is none")
    _need(1 <= levels < 63 and count == 2**levels - 1 == len(nodes), index, "another number of nodes than it says")
    sides = 2 if isinstance(index, KDTree | KDTree32) else 1
    _need(bounds.shape == (sides, count, features), index, "bounds of another shape than its points")
    _need(weights is None or weights.shape == (points,), index, "weights of other points")
    start, end, inner = nodes["idx_start"], nodes["idx_end"], np.flatnonzero(nodes["is_leaf"] == 0)
    _need(((start >= 0) & (start <= end) & (end <= points)).all(), index, "a node of points that are none")
    _need((inner < count // 2).all(), index, "a node without children that is no leaf")
    left, right = 2 * inner + 1, 2 * inner + 2
    meet = (start[left] == start[inner]) & (end[left] == start[right]) & (end[right] == end[inner])
    _need(start[0] == 0 and end[0] == points and meet.all(), index, "nodes that do not share out their points")
    _look_at_metric(index, metric, data)


def _look_at_metric(index: object, metric: Any, data: Any) -> None:
    """Check that a metric's weights have as many entries as the points have features."""
    _need(type(metric).__module__ == "sklearn.metrics._dist_metrics", index, "its metric is none")
    features = data.shape[1]
    _, weights, matrix, *_ = metric.__getstate__()
    metric._validate_data(data)
    if "Mahalanobis" in type(metric).__qualname__:
        _need(matrix.shape == (features, features), index, "its metric is of other features")
    _need(weights.ndim == 1 and len(weights) in {0, 1, features}, index, "its metric is of other features")
