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
from mlcore.store import Batch
from mlcore_sql.committing import Turn, write
from mlcore_sql.compaction import Compaction
from mlcore_sql.engine import Database
from mlcore_sql.faults import passes

__all__ = ["Appender", "retried"]

RETRY_SECONDS = 60.0
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
        turn = Turn(batch, actor)
        with self._guard:
            self._waiting.append(turn)
        with self._leading:  # whoever gets here first leads, and writes for all that wait by then
            while not turn.done:
                with self._guard:
                    turns, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
                self._write(turns)
        if turn.error is not None:
            raise turn.error

    def _write(self, turns: Sequence[Turn]) -> None:
        error: BaseException | None = StoreError(f"store {self._database.name}: writing was interrupted")
        try:
            retried(self._database, lambda: self._write_once(turns))
            error = None
        except Exception as raised:  # noqa: BLE001 - it is the answer to those that wait
            error = raised
        finally:
            alone = len(turns) == 1 or error is None or passes(error)
            for turn in turns if alone else ():
                turn.done, turn.error = True, turn.error if error is None else self._told(error)
        for turn in () if alone else turns:  # one of them has what the database does not take
            self._write([turn])

    def _told(self, error: BaseException) -> BaseException:
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
    """Call until it succeeds, fails for good, or has failed for a minute."""
    began, wait, conflicts = time.monotonic(), 0.005, 0
    while True:
        try:
            return call()
        except SQLAlchemyError as error:
            conflicts += isinstance(error, IntegrityError)
            if not passes(error) or time.monotonic() - began > RETRY_SECONDS or conflicts > _CONFLICTS:
                raise
            _log.debug("store %s: trying again: %s", database.name, type(error).__name__)
        time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - so that two do not meet again
        wait = min(2 * wait, _LONGEST_WAIT)
