"""Keep entities, attributes and summaries of metrics as tables, brought up to date record by record."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mlcore.store import Record, Rewind, Rewound, RowsLogged, Unknown
from mlcore_sql import keys
from mlcore_sql.dialects import Binds, runner
from mlcore_sql.states import State
from mlcore_sql.summaries import Summed, joined
from mlcore_sql.terms import digest_of
from mlcore_sql.writing import Change, write

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Projection", "Summed"]


class Projection:
    """Bring the tables up to date inside a transaction that the caller began and will end.

    Nothing is written before `flush`. On a server the transaction must be READ COMMITTED: what another one inserted
    first is looked up after it was waited for.
    """

    def __init__(self, connection: sqlite3.Connection | Connection) -> None:
        self._runner = runner(connection)
        self._changes: defaultdict[tuple[str, str], Change] = defaultdict(Change)

    def take(self, source: str, records: Iterable[Record]) -> None:
        """Take in records, in any order, each once; of rows only what they say of their entity."""
        for record in records:
            for index, event in enumerate(record.events):
                if not isinstance(event, Unknown):
                    change = self._changes[event.kind, event.id]
                    change.touch(record.stamp, record.stamp)
                    if not isinstance(event, RowsLogged):
                        change.events.append(((record.stamp, source, record.number, index), event))

    def touch(self, kind: str, id: str, first: int, last: int) -> None:
        """Let an entity be known, and changed from stamp `first` to stamp `last`."""
        self._changes[kind, id].touch(first, last)

    def merge(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed]) -> None:
        """Add rows to metrics by (key, context): the summary of the new rows alone."""
        change = self._changes[kind, id]
        for name, summed in metrics.items():
            if name in change.replaced:
                change.replaced[name] = joined(change.replaced[name], summed)
            else:
                change.added[name] = joined(change.added.get(name), summed)

    def replace(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed | None]) -> None:
        """Set the summaries of whole metrics by (key, context); None where no row is left, or they are no metric."""
        change = self._changes[kind, id]
        for name, summed in metrics.items():
            change.added.pop(name, None)
            change.replaced[name] = summed

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """Return the rewinds of an entity: where there are any, `replace` must be used, not `merge`."""
        binds = Binds()
        digest, key = binds.add(digest_of((kind, "", "", ""))), binds.add(keys.id_key(id))
        sql = (
            "SELECT d.state FROM terms t JOIN entities e ON e.kind = t.id JOIN documents d ON d.entity = e.entity "
            f"WHERE t.digest = {digest} AND e.id = {key} AND e.rewound = 1"
        )
        saved = next(iter(self._runner.rows(sql, binds)), None)
        state = State(kind, id, None if saved is None else bytes(saved[0]))
        for order, event in self._changes[kind, id].events if (kind, id) in self._changes else ():
            if isinstance(event, Rewound):
                state.add(event, order)
        return state.rewinds

    def flush(self) -> None:
        """Write all that was taken."""
        changes, self._changes = self._changes, defaultdict(Change)
        write(self._runner, changes)
