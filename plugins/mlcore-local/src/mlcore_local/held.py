"""The rows of an entity, in whichever homes they were logged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_

import attrs

from mlcore.store import Columns, SeriesKey, Summary
from mlcore_local.home import Home, Name, Rewinding
from mlcore_local.sealed_fold import SealedFold

__all__ = ["Held"]


@attrs.frozen
class Held:
    """Answer for the rows of one entity. `homes` hold some each; `rewinding` knows its rewinds."""

    kind: str
    id: str
    homes: Sequence[Home]
    rewinding: Rewinding
    fold: SealedFold

    def names(self) -> list[Name]:
        """Return key and context of what was logged."""
        return sorted({name for home in self.homes for name in home.names(self.kind, self.id)})

    def columns(self, name: Name) -> Columns:
        """Return rows in order."""
        homes = [home for home in self.homes if name in home.names(self.kind, self.id)]
        rewinds = self.rewinding.rewinds(self.kind, self.id)
        if len(homes) == 1:
            with contextlib.suppress(OSError):  # somebody seals it anew, or removes the seal
                return homes[0].columns(self.kind, self.id, name, rewinds)
        for home in homes:
            home.unseal(self.fold)
        return reduce(or_, (home.rows(self.kind, self.id, name) for home in homes)).columns(rewinds)

    def series(self, keys: Sequence[str] | None, context: str | None) -> Iterator[tuple[SeriesKey, Columns]]:
        """Yield whole series by id, key and context; `keys` and `context` are all if None."""
        for name in self.names():
            if (keys is None or name[0] in keys) and context in (None, name[1]):
                yield (self.id, *name), self.columns(name)

    def summaries(self) -> dict[Name, Summary]:
        """Return the summaries of the metrics."""
        each = [home.summaries(self.kind, self.id, self.rewinding) for home in self.homes]
        if len(each) == 1:
            return each[0]
        found = dict[Name, Summary | None]()
        for name in self.names():
            known = [
                some.get(name)
                for some, home in zip(each, self.homes, strict=True)
                if name in home.names(self.kind, self.id)
            ]
            found[name] = known[0] if len(known) == 1 else self.columns(name).summary()
        return {name: summary for name, summary in found.items() if summary is not None}
