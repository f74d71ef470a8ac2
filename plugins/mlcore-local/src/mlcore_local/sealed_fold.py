"""Fold what a folder store holds, and leave sealed runs as they are while nobody else writes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlcore.store import Batch, Entity, Fold, Rewind
from mlcore_local.seal import Sealed

__all__ = ["SealedFold"]


class SealedFold(Fold):
    """Show a sealed run as its seal does, until something else is known of it: then its records are folded, too.

    It makes no difference to what is shown, as a fold is the same whatever order it came in. The rows of a sealed run,
    and so its metrics, are whoever's who keeps the seal.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asleep: dict[str, Sealed] = {}
        self._shown: dict[str, Entity] = {}
        self._awake: set[str] = set()

    def take_sealed(self, id: str, sealed: Sealed) -> None:
        """Take in a sealed run."""
        self.stamp = max(self.stamp, sealed.span[1])
        for source, record in sealed.others:
            self.add_record(source, record)
        self._asleep[id] = sealed
        if id in self._awake or not sealed.shows:
            self.wake(id)

    def wake(self, id: str) -> None:
        """Fold the records of a sealed run, which may have been folded in part: that changes nothing."""
        sealed = self._asleep.pop(id, None)
        self._awake.add(id)
        self._shown.pop(id, None)
        if sealed is not None:
            for source, record in sealed.records:
                self.add(Batch(source, id, (record,)))
            for stamp in sealed.span:
                self.touch("run", id, stamp)

    def touch(self, kind: str, id: str, stamp: int) -> None:
        """See `mlcore.store.Fold.touch`, through which everything comes that is known of an entity."""
        if kind == "run" and id not in self._awake:
            self.wake(id)
        super().touch(kind, id, stamp)

    def entity(self, kind: str, id: str) -> Entity | None:
        """See `mlcore.store.Fold.entity`."""
        if kind != "run" or id not in self._asleep:
            return super().entity(kind, id)
        if id not in self._shown:
            self._shown[id] = self._asleep[id].entity(id)
        return self._shown[id]

    def entities(self, kind: str) -> Iterator[Entity]:
        """See `mlcore.store.Fold.entities`."""
        yield from super().entities(kind)
        if kind == "run":
            yield from filter(None, (self.entity(kind, id) for id in list(self._asleep)))

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """See `mlcore.store.Fold.rewinds`."""
        if kind == "run" and id in self._asleep:
            self.wake(id)
        return super().rewinds(kind, id)
