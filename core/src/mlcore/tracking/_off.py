"""The store of who wants none."""

from typing import Any

from mlcore.errors import AlreadyExists
from mlcore.store import Batch, SimpleStore, Stored, selected


class OffStore(SimpleStore):
    """Keep names, parameters and tags while the process runs, and no rows, for ``MLCORE_STORE=off``."""

    def append(self, batch: Batch) -> None:
        """Take it in, but for its rows."""
        with self._lock:
            if batch.claim in self._fold.claims:
                raise AlreadyExists(str(batch.claim), self._fold.claims[str(batch.claim)])
            kept = selected(Stored("", 0, "", batch), rows=False)
            if kept is not None:
                self._fold.add(kept.batch)

    def events(self, *_: Any, **__: Any) -> Any:
        """Yield nothing: nothing is stored."""
        return iter(())
