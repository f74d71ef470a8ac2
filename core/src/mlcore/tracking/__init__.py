"""The tracking API, which users find in `mlcore` itself."""

__all__: list[str] = []
