"""mlcore's flavor for Python functions and classes of your own; found by its hooks, there is nothing to import."""

__all__: list[str] = []
