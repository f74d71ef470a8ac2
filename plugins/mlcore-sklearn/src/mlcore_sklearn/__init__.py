"""mlcore's flavor for scikit-learn estimators and pipelines; found by its hooks, there is nothing to import."""

__all__: list[str] = []
