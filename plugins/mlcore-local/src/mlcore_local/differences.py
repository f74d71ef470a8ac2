"""Say what two runs do not have alike: the records that a comparison consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from mlcore.store import same

__all__ = ["PARTS", "Change", "Differences", "changes"]

PARTS = ("code", "command", "environment", "packages", "params", "data", "models", "metrics")


@attrs.frozen
class Change:
    """Tell of one thing that two runs do not have alike: what it is, and what each has.

    `kind` is ``changed``, ``added`` if only the second has it, or ``removed`` if only the first has. `lines` tell more:
    of a file a unified diff, of data the columns and rows.
    """

    name: str
    kind: str = "changed"
    before: Any = None
    after: Any = None
    lines: tuple[str, ...] = ()


@attrs.frozen
class Differences:
    """Hold what differs between the runs `first` and `second`, by part; empty, and so false, if nothing does.

    `unknown` says what could not be compared, and why.
    """

    first: str
    second: str
    code: tuple[Change, ...] = ()
    command: tuple[Change, ...] = ()
    environment: tuple[Change, ...] = ()
    packages: tuple[Change, ...] = ()
    params: tuple[Change, ...] = ()
    data: tuple[Change, ...] = ()
    models: tuple[Change, ...] = ()
    metrics: tuple[Change, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts, in the order in which they are told."""
        return PARTS

    def __bool__(self) -> bool:
        return any(getattr(self, part) for part in self.parts)


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], alike: Callable[[Any, Any], bool] = same
) -> Iterator[Change]:
    """Yield what two mappings do not have alike, by name."""
    for name in sorted({*before, *after}):
        if name not in after:
            yield Change(name, "removed", before=before[name])
        elif name not in before:
            yield Change(name, "added", after=after[name])
        elif not alike(before[name], after[name]):
            yield Change(name, "changed", before[name], after[name])
