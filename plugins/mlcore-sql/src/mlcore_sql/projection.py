"""Keep entities, attributes and summaries of metrics as tables, brought up to date record by record."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mlcore.store import Order, Record, Rewind, Summary

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Projection", "Summed"]

Summed = tuple[Summary, Order]  # of rows, and the order of the event that holds the last of them


class Projection:
    """Bring the tables up to date inside a transaction that the caller began and will end.

    Nothing is written before `flush`.
    """

    def __init__(self, connection: sqlite3.Connection | Connection) -> None:
        raise NotImplementedError

    def take(self, source: str, records: Iterable[Record]) -> None:
        """Take in records, in any order, each once; of rows only what they say of their entity."""
        raise NotImplementedError

    def touch(self, kind: str, id: str, first: int, last: int) -> None:
        """Let an entity be known, and changed from stamp `first` to stamp `last`."""
        raise NotImplementedError

    def merge(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed]) -> None:
        """Add rows to metrics by (key, context): the summary of the new rows alone."""
        raise NotImplementedError

    def replace(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed | None]) -> None:
        """Set the summaries of whole metrics by (key, context); None where the rows are no metric, or none are left."""
        raise NotImplementedError

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """Return the rewinds of an entity: where there are any, `replace` must be used, not `merge`."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write all that was taken, in an order that lets two writers wait for, never on, each other."""
        raise NotImplementedError
