"""Answer about models and versions as the store would have at a time of the past.

::

    from mlcore_local.registry.past import at, moment

    at(mlcore.client(), moment("2026-03-01")).version("models:/digits@production")
"""

from __future__ import annotations

import re
import time as clocks
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NoReturn

import attrs

from mlcore import Client, config
from mlcore.errors import InvalidValue, NotFound, NotSupported, PositionLost
from mlcore.registry import MODEL, VERSION, RegisteredModel, Registry
from mlcore.store import (
    START,
    Batch,
    Capabilities,
    Columns,
    Entity,
    Erased,
    Page,
    Query,
    SeriesKey,
    SimpleStore,
    Store,
    Stored,
    selected,
)
from mlcore_local.registry.facts import Clock, Fact, change_in, facts, names_of, vouched

__all__ = ["Past", "PastStore", "at", "look", "moment", "shown"]

_LATE_MS = 60_000  # what a store received so much after its writer's time came from elsewhere
_SPAN = re.compile(r"-\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_END = "end"


@attrs.frozen
class Past:
    """Hold the registry as it was at a `time` (ms since 1970), and whose word that is.

    `late` is how many changes are not in it that their writers date before that time: the store received them later.
    """

    registry: Registry
    time: int
    vouched: str
    late: int = 0

    def told(self) -> str:
        """Say in one line what this is."""
        return f"as of {shown(self.time)}; {self.vouched}{f'; {self.came_later()}' if self.late else ''}"

    def came_later(self) -> str:
        """Say what is not in it though its writers date it before that time."""
        changes = f"{self.late:,} change{'s' * (self.late != 1)}"
        return f"{changes} of before came to this store only later: the writers' clock (--clock writer) counts them"


def at(client: Client, time: int | str, *, clock: Clock = "store") -> Registry:
    """Return the registry as it was at a time, in ms since 1970 or as `moment` reads it; nothing is written to it.

    What was erased is gone from the past, too. Runs are as they are now. Raises `InvalidValue` and what the store does.
    """
    return look(client, time, clock=clock).registry


def look(client: Client, time: int | str, *, clock: Clock = "store", known: Sequence[Fact] | None = None) -> Past:
    """Return the registry as it was at a time, and what there is to say about that; see `at`.

    Who asks about many times reads the store once, and gives what `facts` returned as `known`.
    """
    until, store = moment(time) if isinstance(time, str) else time, client.store
    known = facts(store, clock) if known is None else known
    late = sum(
        each.time > until >= each.stamped and each.time - each.stamped > _LATE_MS
        for each in known
        if change_in(each.record.events)
    )
    name = f"{config.shown(client.setting.value)} as of {shown(until)}"
    registry = _PastRegistry.over(PastStore(store, known, until), name, client)
    registry.about, registry.known = Past(registry, until, vouched(store, clock), late), known
    return registry.about


class _PastRegistry(Registry):
    """Tell who asks for a model by a name that it had at another time."""

    about: Past
    known: Sequence[Fact]

    def get(self, name: str) -> RegisteredModel:
        """See `Registry.get`."""
        try:
            return super().get(name)
        except NotFound as error:
            raise NotFound(f"{error}{self._hint(name)}") from None

    def _hint(self, name: str) -> str:
        for id in reversed(names_of(self.known).get(name, [])):
            with suppress(NotFound):
                return f"; what is or was called so was {super().get(id).name!r} then"
        return f"; {self.about.came_later()}" if self.about.late else ""


class PastStore(SimpleStore):
    """Answer about models and versions from what was there up to a time, about all else from the store of today."""

    capabilities = Capabilities(claims=False)

    def __init__(self, present: Store, known: Iterable[Fact], until: int) -> None:
        super().__init__()
        self._present, self._known, self._until = present, known, until

    def append(self, batch: Batch) -> None:  # noqa: ARG002 - of whatever it is
        """Refuse."""
        raise NotSupported(f"as of {shown(self._until)}", "writing", "the past stays as it was: change the present")

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        """See `mlcore.store.Store.events`: yields models and versions only."""
        if after not in (START, _END):
            raise PositionLost(f"position {after[:40]!r} is not one of the past")
        stored = (Stored(_END, each.received_at, each.actor, self._batch(each)) for each in self._known)
        wanted = () if after == _END else stored
        chosen = (selected(each, of, kinds, rows) for each in wanted if each.batch.records)
        return (each for each in chosen if each is not None)

    def _batch(self, fact: Fact) -> Batch:
        record = fact.record
        if fact.time > self._until:  # what was erased for good is not to be found anywhere
            record = attrs.evolve(record, events=tuple(each for each in record.events if isinstance(each, Erased)))
        return Batch(fact.source, "", (record,) if record.events else ())

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""
        return super().get(kind, ids) if kind in (MODEL, VERSION) else self._present.get(kind, ids)

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        return super().find(kind, query) if kind in (MODEL, VERSION) else self._present.find(kind, query)

    def series(
        self,
        kind: str,
        ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        context: str | None = None,
        columns: Sequence[str] | None = None,
        max_points: int | None = None,
    ) -> dict[SeriesKey, Columns]:
        """See `mlcore.store.Store.series`."""
        return self._present.series(kind, ids, keys, context=context, columns=columns, max_points=max_points)


def moment(text: str) -> int:
    """Return the time, in ms since 1970, that is meant by a text.

    ``2026-03-01`` is the start of that day and ``2026-03-01T12:00`` noon, in the local zone;
    ``2026-03-01T12:00+01:00`` and ``...Z`` say theirs; ``-7d`` is seven days ago (s, m, h, d, w); ``now``; or ms since
    1970. Raises `InvalidValue` for others, and for a time that is still to come.
    """
    plain, now = text.strip(), clocks.time_ns() // 1_000_000
    if plain == "now":
        return now
    if re.fullmatch(r"[0-9]{9,11}", plain):
        _wrong(text, f"it is given in ms, which {plain}000 would be")
    try:
        if span := _SPAN.fullmatch(plain):
            found = now - round(timedelta(**{_UNITS[span[2]]: float(span[1])}).total_seconds() * 1000)
        elif re.fullmatch(r"[0-9]{12,15}", plain):
            found = int(plain)
        else:
            found = round(datetime.fromisoformat(plain).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        found = -1
    if found < 0:
        _wrong(text, "give 2026-03-01, 2026-03-01T12:00+01:00, -7d or ms since 1970")
    if found > now:
        _wrong(text, f"{shown(found)} is still to come")
    return found


def _wrong(text: str, why: str) -> NoReturn:
    raise InvalidValue(f"{text!r:.80} is no time of the past: {why}")


def shown(time: int) -> str:
    """Return a time in ms since 1970 as the local clock shows it, with its zone."""
    try:
        local = datetime.fromtimestamp(time / 1000).astimezone()
        return local.isoformat(" ", "milliseconds" if time % 1000 else "seconds")
    except (ValueError, OverflowError, OSError):
        return f"{time} ms"
