"""mlcore's tracking server: stores and files over HTTP."""

__all__: list[str] = []
