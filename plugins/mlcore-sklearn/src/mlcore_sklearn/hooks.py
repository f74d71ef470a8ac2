"""What mlcore-sklearn brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import FlavorProvider


def mlcore_flavors() -> Iterable[FlavorProvider]:
    """Provide scikit-learn estimators, pipelines among them."""
    types = ("sklearn.base.BaseEstimator",)
    return [FlavorProvider("sklearn", "mlcore_sklearn.flavor:Sklearn", "scikit-learn estimators", types=types)]
