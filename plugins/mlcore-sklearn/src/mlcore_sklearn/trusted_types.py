"""What a skops archive may name without anybody's trust: scikit-learn's, numpy's and scipy's own harmless internals.

skops trusts every public estimator itself, numpy's and scipy's ufuncs and plain Python data. Fitted estimators hold
more than that, and what they hold was found by fitting every one of them (tests/plugins/sklearn/test_every_estimator).
Each stands here with the kinds of node in which honest archives name it, one for most. In skops a trusted name is
trusted in every kind of node, so a forged archive could call a function, or create with arguments of its own what is
only ever filled with attributes: such an archive finds the name untrusted.

An archive chooses the attributes of the objects and holds the functions for later use, so a name is here only if that
does nothing but compute: none of these opens a file, imports a module or runs what it is given. What could crash the
interpreter all the same, since compiled code indexes by it unchecked, `mlcore_sklearn.soundness` looks at before a
model is handed out.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HARMLESS"]


def _names(module: str, *names: str, node: str = "ObjectNode") -> dict[str, tuple[str, ...]]:
    return {f"{module}.{name}": tuple(node.split()) for name in names}


# Plain holders of arrays and parameters, written in Python: attributes, and arithmetic on them.
_HOLDERS = (
    _names("sklearn.calibration", "_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling")
    | _names("sklearn.cluster._bisect_k_means", "_BisectingTree")
    | _names("sklearn.compose._column_transformer", "_RemainderColsList", "make_column_selector")
    | _names("sklearn.ensemble._hist_gradient_boosting.binning", "_BinMapper")
    | _names("sklearn.gaussian_process._gpc", "_BinaryGaussianProcessClassifierLaplace")
    | _names("sklearn.impute._iterative", "_ImputerTriplet", node="TupleNode")
    | _names("sklearn.multiclass", "_ConstantPredictor")
    | _names("sklearn.neural_network._stochastic_optimizers", "AdamOptimizer", "SGDOptimizer")
    | _names("sklearn.utils._bunch", "Bunch", node="DictNode")
    | _names("sklearn.utils._metadata_requests", "MetadataRequest", "MethodMetadataRequest")
)

# Kernels of Gaussian processes: parameters, and arithmetic on them.
_KERNELS = _names(
    "sklearn.gaussian_process.kernels",
    *("CompoundKernel", "ConstantKernel", "DotProduct", "ExpSineSquared", "Exponentiation", "Hyperparameter"),
    *("Matern", "PairwiseKernel", "Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel"),
)

# How a search or a calibration split its data and scored: kept by the fitted estimator, not used to predict.
_SPLITS_AND_SCORERS = (
    _names(
        "sklearn.model_selection._split",
        *("GroupKFold", "GroupShuffleSplit", "KFold", "LeaveOneGroupOut", "LeaveOneOut", "LeavePGroupsOut"),
        *("LeavePOut", "PredefinedSplit", "RepeatedKFold", "RepeatedStratifiedKFold", "ShuffleSplit"),
        *("StratifiedGroupKFold", "StratifiedKFold", "StratifiedShuffleSplit", "TimeSeriesSplit"),
        node="ObjectNode TypeNode",  # repeated ones keep the class of what they repeat
    )
    # Public estimators behind an experimental import, which skops therefore does not list.
    | _names("sklearn.model_selection._search_successive_halving", "HalvingGridSearchCV", "HalvingRandomSearchCV")
    | _names("sklearn.metrics._scorer", "_CurveScorer", "_PassthroughScorer", "_Scorer", "_MultimetricScorer")
)

# Arguments for a function, which is one of those below, a ufunc or plain Python's: nothing else can be named as one.
_PARTIAL = _names("functools", "partial", node="PartialNode")

# Pure functions of arrays, which estimators take as a parameter, or keep.
_FUNCTIONS = {
    "numpy": ("clip", "max", "mean", "median", "min", "nan_to_num", "ravel", "round", "std", "sum", "var"),
    "scipy._lib.array_api_compat.numpy._aliases": ("asarray",),
    "sklearn.cluster._kmeans": ("_kmeans_single_elkan", "_kmeans_single_lloyd"),
    "sklearn.feature_selection._mutual_info": ("mutual_info_classif", "mutual_info_regression"),
    "sklearn.feature_selection._univariate_selection": (
        *("chi2", "f_classif", "f_oneway", "f_regression", "r_regression"),
    ),
    "sklearn.metrics._classification": (
        *("accuracy_score", "balanced_accuracy_score", "brier_score_loss", "f1_score", "fbeta_score"),
        *("jaccard_score", "log_loss", "matthews_corrcoef", "precision_score", "recall_score"),
    ),
    "sklearn.metrics._ranking": ("average_precision_score", "roc_auc_score"),
    "sklearn.metrics._regression": (
        *("explained_variance_score", "max_error", "mean_absolute_error", "mean_absolute_percentage_error"),
        *("mean_squared_error", "median_absolute_error", "r2_score", "root_mean_squared_error"),
    ),
    "sklearn.utils.validation": ("check_array",),
    "sklearn.metrics.pairwise": (
        *("additive_chi2_kernel", "chi2_kernel", "cosine_distances", "cosine_similarity", "euclidean_distances"),
        *("haversine_distances", "laplacian_kernel", "linear_kernel", "manhattan_distances", "nan_euclidean_distances"),
        *("polynomial_kernel", "rbf_kernel", "sigmoid_kernel"),
    ),
}

# Loss functions: which formula, and its parameters. Newer skops trusts most of them itself.
_LOSSES = _names(
    "sklearn._loss.loss",
    *("AbsoluteError", "ExponentialLoss", "HalfBinomialLoss", "HalfGammaLoss", "HalfMultinomialLoss"),
    *("HalfPoissonLoss", "HalfSquaredError", "HalfTweedieLoss", "HalfTweedieLossIdentity", "HuberLoss"),
    "PinballLoss",
) | _names(
    "sklearn._loss.link", *("HalfLogitLink", "IdentityLink", "Interval", "LogLink", "LogitLink", "MultinomialLogit")
)

# The type of an array's items. Only as the node that reads it from numpy's own file: given any state, a dtype makes
# numpy follow pointers that the file holds.
_ITEMS = _names("numpy", "dtype", node="DTypeNode")

# Compiled code that follows indices from the archive: `mlcore_sklearn.soundness` looks at every one of them.
_LOOKED_AT = (
    _names("sklearn.tree._tree", "Tree", node="TreeNode")
    | _names("sklearn.ensemble._hist_gradient_boosting.predictor", "TreePredictor")
    | _names("sklearn.neighbors._kd_tree", "KDTree", "KDTree64", "KDTree32")
    | _names("sklearn.neighbors._ball_tree", "BallTree", "BallTree64", "BallTree32")
    | _names(
        "sklearn.metrics._dist_metrics",
        *(
            f"{name}Distance{bits}"
            for bits in (64, 32)
            for name in (
                *("BrayCurtis", "Canberra", "Chebyshev", "Dice", "Euclidean", "Hamming", "Haversine", "Jaccard"),
                *("Mahalanobis", "Manhattan", "Minkowski", "RogersTanimoto", "RussellRao", "SEuclidean"),
                *("SokalSneath", "Yule"),
            )
        ),
    )
    | _names("scipy.interpolate._bsplines", "BSpline")
    | _names("scipy.sparse._csr", "csr_array", "csr_matrix", node="SparseMatrixNode")
    | _names("scipy.sparse._csc", "csc_array", "csc_matrix", node="SparseMatrixNode")
)

HARMLESS: Mapping[str, tuple[str, ...]] = {
    **_HOLDERS,
    **_KERNELS,
    **_SPLITS_AND_SCORERS,
    **_LOSSES,
    **_ITEMS,
    **_PARTIAL,
    **_LOOKED_AT,
    **{f"{module}.{name}": ("FunctionNode",) for module, names in _FUNCTIONS.items() for name in names},
}
