"""Projects: what is run, in which environment, and where; and how a run is made again."""

__all__: list[str] = []
