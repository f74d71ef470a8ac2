"""Files: where they are kept, how they get there whole, and what their digests are."""

__all__: list[str] = []
