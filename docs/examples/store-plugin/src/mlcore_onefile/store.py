"""A store in one SQLite file: every batch is a row, its records as JSON."""

import contextlib
import json
import sqlite3
import time

from mlcore.errors import AlreadyExists, PositionLost
from mlcore.store import (
    START,
    Batch,
    Capabilities,
    Marks,
    Record,
    SimpleStore,
    Stored,
    decode_event,
    encode_event,
    selected,
)

TABLE = """CREATE TABLE IF NOT EXISTS batch (
    position INTEGER PRIMARY KEY, received INTEGER, source TEXT, home TEXT, records TEXT, previous TEXT,
    claim TEXT UNIQUE)"""


class OneFileStore(SimpleStore):
    """Append batches to a table and yield them again; `SimpleStore` answers everything else from that."""

    capabilities = Capabilities(durability="power", shared_positions=True)

    def __init__(self, path):
        super().__init__()
        self._file = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._file.execute(TABLE)
        self._marks, self._marked = Marks(), 0

    def append(self, batch):
        """See `mlcore.store.Store.append`."""
        with self._lock, self._transaction():
            for stored in self._read(self._marked):  # what was appended by whichever handle
                self._marks.advance(stored.batch)
                self._marked = int(stored.position.partition(" ")[0])
            fresh = self._marks.new(batch)
            if fresh is None:
                return
            claim = [fresh.claim]
            for (holder,) in self._file.execute("SELECT source FROM batch WHERE claim = ?", claim):
                raise AlreadyExists(fresh.claim, holder)
            records = [[each.number, each.stamp, [encode_event(event).decode() for event in each.events]]
                       for each in fresh.records]  # fmt: skip
            row = (time.time_ns() // 1_000_000, fresh.source, fresh.home, json.dumps(records), fresh.previous)
            self._file.execute("INSERT INTO batch VALUES (NULL, ?, ?, ?, ?, ?, ?)", [*row, *claim])

    def events(self, after=START, *, of=None, kinds=None, rows=True):
        """See `mlcore.store.Store.events`."""
        with self._lock:
            number = after.partition(" ")[0] or 0
            same = "SELECT 1 FROM batch WHERE position = ? AND position || ' ' || source = ?"
            if after != START and not self._file.execute(same, [number, after]).fetchone():
                raise PositionLost(f"this store has no position {after!r}")
            found = [selected(stored, of, kinds, rows) for stored in self._read(int(number))]
        return (stored for stored in found if stored is not None)

    def close(self):
        """See `mlcore.store.Store.close`."""
        self._file.close()

    def _read(self, after):
        columns = "position, received, source, home, records, previous, claim"
        query = f"SELECT {columns} FROM batch WHERE position > ? ORDER BY position"
        for position, received, source, home, records, previous, claim in self._file.execute(query, [after]):
            whole = tuple(
                Record(number, stamp, tuple(decode_event(line.encode()) for line in lines))
                for number, stamp, lines in json.loads(records)
            )
            yield Stored(f"{position} {source}", received, "", Batch(source, home, whole, previous, claim))

    @contextlib.contextmanager
    def _transaction(self):
        self._file.execute("BEGIN IMMEDIATE")
        with self._file:  # commits, or rolls back what failed
            yield


def open_store(uri):
    """Open the store behind a URI, made if it is not there."""
    return OneFileStore(uri.removeprefix("onefile://"))
