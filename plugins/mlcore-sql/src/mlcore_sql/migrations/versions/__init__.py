"""One module a version of the tables, each as frozen as the databases that were made by it."""

__all__: list[str] = []
