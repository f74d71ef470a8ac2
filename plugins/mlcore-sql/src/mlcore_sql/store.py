"""The store of a team: batches in a database, and answers from what they are kept as there."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import attrs
from sqlalchemy import exc

from mlcore.errors import MlcoreError
from mlcore.journal import user
from mlcore.store import (
    START,
    Batch,
    Capabilities,
    Columns,
    Entity,
    Page,
    Query,
    SeriesKey,
    SimpleStore,
    Stored,
    shaped,
)
from mlcore_sql.appending import Appender, retried
from mlcore_sql.dialects import Binds, Runner, among, parts, runner
from mlcore_sql.engine import Database
from mlcore_sql.listing import Listing
from mlcore_sql.preparing import prepare
from mlcore_sql.reading import Reading
from mlcore_sql.series import read_series

__all__ = ["SqlStore", "open_store"]

Answer = TypeVar("Answer")


class SqlStore(SimpleStore):
    """Keep batches in a database; a handle may be shared by threads, but not by processes."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.capabilities = Capabilities(durability="power" if database.power else "process", shared_positions=True)
        self._database = database
        self._actor = database.user or f"{user()}@{platform.node()}"
        self._begin()

    def _begin(self) -> None:
        self._pid, self._preparing, self._prepared = os.getpid(), threading.Lock(), False
        self._appender = Appender(self._database)
        self._reading = Reading(self._connect)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.name!r})"

    @property
    def patience(self) -> float:
        """For how many seconds a call tries again when the database is away or busy."""
        return self._database.patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._database.patience = seconds

    def append(self, batch: Batch) -> None:
        """See `mlcore.store.Store.append`; the first one makes the tables."""
        self._prepare()
        self._appender.append(batch, self._actor)

    def append_all(self, batches: Sequence[Batch], actors: Sequence[str] = ()) -> list[MlcoreError | None]:
        """See `mlcore.store.Store.append_all`; all are committed together."""
        self._prepare()
        answers = self._appender.append_all(batches, actors or [self._actor] * len(batches))
        for answer in answers:
            if answer is not None and not isinstance(answer, MlcoreError):
                raise answer
        return [answer for answer in answers if answer is None or isinstance(answer, MlcoreError)]

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        """See `mlcore.store.Store.events`."""
        listing = Listing(self._database, of, kinds, rows)
        at, last = self._answer(lambda: listing.begin(after))
        while at < last:  # what is appended from now on is left to the next time
            at, page = self._answer(partial(listing.page, at, last))
            yield from page

    def latest(self) -> str:
        """Return the position after all that is stored now, to be told what comes from here on."""
        return self._answer(Listing(self._database, None, None, rows=False).latest)

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""
        found = self._answer(lambda: self._reading.get(kind, ids))
        seen = self._seen([each for each in found if each is not None])
        return [each and attrs.evolve(each, seen=seen.get(each.id)) for each in found]

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        page = self._answer(lambda: self._reading.find(kind, query))
        seen = self._seen(page.items)
        return attrs.evolve(page, items=tuple(attrs.evolve(each, seen=seen.get(each.id)) for each in page.items))

    def keys(self, kind: str, family: str, prefix: str = "", limit: int | None = None) -> list[str]:
        """Return the distinct names in a family of all entities of a kind that begin with `prefix`, in order."""
        return self._answer(lambda: self._reading.keys(kind, family, prefix, limit))

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

        def read() -> dict[SeriesKey, Columns]:
            with self._database.reading() as connection:
                return read_series(connection, kind, ids, keys, context)

        return shaped(self._answer(read), None, None, columns, max_points)

    def close(self) -> None:
        """See `mlcore.store.Store.close`."""
        self._database.close()

    def _prepare(self) -> None:
        if self._pid != os.getpid():
            self._begin()  # in the child of a fork, where other threads' locks are never let go
        with self._preparing:
            if not self._prepared:
                prepare(self._database)
                self._prepared = True

    def _answer(self, call: Callable[[], Answer]) -> Answer:
        self._database.demand()  # a file that comes from here on may have no tables yet
        self._prepare()
        try:
            return retried(self._database, call)
        except exc.SQLAlchemyError as error:
            raise self._database.error("cannot be read", error) from error

    @contextmanager
    def _connect(self) -> Iterator[Runner]:
        with self._database.reading() as connection:
            yield runner(connection)

    def _seen(self, found: Sequence[Entity]) -> dict[str, int]:
        running = [e.id for e in found if e.kind == "run" and e.fields.get("status", "RUNNING") == "RUNNING"]

        def read() -> dict[str, int]:
            seen: dict[str, int] = {}
            with self._database.reading() as connection:
                run = runner(connection)
                for some in parts([id.encode() for id in running]):
                    binds = Binds()
                    sql = f"SELECT home, seen FROM signs WHERE {among(run.dialect, 'home', some, binds)}"
                    seen |= {bytes(home).decode(): at for home, at in run.rows(sql, binds)}
            return seen

        return self._answer(read) if running else {}


def open_store(uri: str) -> SqlStore:
    """Open the store in a database; a server is connected to, a file of SQLite is made by what is first appended.

    Raises `NotInstalled` if the driver is missing, and `StoreError` if the database cannot be reached.
    """
    database = Database(uri)
    if database.exists():
        database.check()
    return SqlStore(database)
