"""mlcore against a server: the store and the files of runs over HTTP, and what goes over the wire."""

__all__: list[str] = []
