"""Append batches: those that arrive while others are being written go into the next transaction together."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from mlcore.errors import StoreError
from mlcore.store import EVENT_LIMIT, Batch, RowsLogged, encode_event
from mlcore_sql.committing import Turn, write
from mlcore_sql.compaction import Compaction
from mlcore_sql.engine import Database
from mlcore_sql.faults import passes

__all__ = ["Appender", "retried"]

_LONGEST_WAIT = 1.0
_GROUP = 256
_CONFLICTS = 20  # in which somebody else was first
Answer = TypeVar("Answer")
_log = logging.getLogger("mlcore")


class Appender:
    """Append batches of many threads, one transaction at a time: a group commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compaction = Compaction()
        self._waiting: list[Turn] = []
        self._guard, self._leading = threading.Lock(), threading.Lock()

    def append(self, batch: Batch, actor: str) -> None:
        """Store a batch, and return when it is committed."""
        (answer,) = self.append_all([batch], [actor])
        if answer is not None:
            raise answer

    def append_all(self, batches: Sequence[Batch], actors: Sequence[str]) -> list[Exception | None]:
        """Store batches, and return when all are committed: None for each, or why it is not."""
        turns = [Turn(batch, actor, self._unfit(batch)) for batch, actor in zip(batches, actors, strict=True)]
        fit = [turn for turn in turns if turn.answer is None]
        for turn in fit:
            turn.answer = StoreError(f"store {self._database.name}: writing was interrupted")
        with self._guard:
            self._waiting += fit
        with self._leading:  # whoever gets here first leads, and writes for all that wait by then
            while not all(turn.done for turn in fit):
                with self._guard:
                    some, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
                self._write(some)
        return [turn.answer for turn in turns]

    def _write(self, turns: Sequence[Turn]) -> None:
        try:
            retried(self._database, lambda: self._write_once(turns))
            for turn in turns:
                turn.answer = turn.refusal
        except Exception as error:  # noqa: BLE001 - it is the answer to those that wait
            if len(turns) > 1 and not passes(error):  # one of them has what the database does not take
                for turn in turns:
                    self._write([turn])
            else:
                for turn in turns:
                    turn.answer = self._told(error)
        finally:
            for turn in turns:
                turn.done = True

    def _unfit(self, batch: Batch) -> StoreError | None:
        """Return why a batch is too large for the server, None if it is not."""
        limit = self._database.packet
        for record in batch.records if limit else ():
            if limit and len(record.events) * EVENT_LIMIT > limit:
                size = sum(len(encode_event(e)) for e in record.events if not isinstance(e, RowsLogged))
                if size > limit:
                    what = f"record {record.number} of {size:,} bytes is more than the server takes at once"
                    return StoreError(f"store {self._database.name}: {what}: raise its max_allowed_packet")
        return None

    def _told(self, error: Exception) -> Exception:
        known = isinstance(error, SQLAlchemyError)
        return self._database.error("cannot be written to", error) if known else error

    def _write_once(self, turns: Sequence[Turn]) -> None:
        try:
            with self._database.writing() as connection:
                write(connection, turns, self._compaction)
        except BaseException:
            self._compaction = Compaction()  # what it counted was undone
            raise


def retried(database: Database, call: Callable[[], Answer]) -> Answer:
    """Call until it succeeds, fails for good, or has failed for as long as the database has patience."""
    began, wait, conflicts = time.monotonic(), 0.005, 0
    while True:
        try:
            return call()
        except SQLAlchemyError as error:
            conflicts += isinstance(error, IntegrityError)
            if not passes(error) or time.monotonic() - began > database.patience or conflicts > _CONFLICTS:
                raise
            _log.debug("store %s: trying again: %s", database.name, type(error).__name__)
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - so that two do not meet again
        wait = min(2 * wait, _LONGEST_WAIT)
