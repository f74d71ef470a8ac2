"""The index of a folder store: a SQLite file that anybody may delete, damage or copy, and that is made anew then.

It holds the tables of `mlcore_sql.schema` and the notes of whoever fills it. Reading needs no SQLAlchemy, nor does
filling: only the tables are made by it.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import struct
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcore.errors import MlcoreError, PositionLost
from mlcore.store import Entity, Page, Query, Record, Rewind
from mlcore_sql.dialects import runner
from mlcore_sql.reading import Reading

if TYPE_CHECKING:  # imported when something is filled in: most questions are answered without
    from mlcore_sql.projection import Summed

__all__ = ["VERSION", "Index", "open_index"]

VERSION = 2  # of the tables, of what they mean, and of the notes
_WAIT_SECONDS = 10.0
_TABLES = ("members", "metrics", "attributes", "documents", "entities")  # terms only name things, and are remembered
# what a program can do nothing about, by SQLite's primary codes: full, read-only, denied, no file, I/O error
_SYSTEM = {13: errno.ENOSPC, 8: errno.EROFS, 3: errno.EACCES, 23: errno.EACCES, 14: errno.ENOENT, 10: errno.EIO}
_BUSY = (5, 6)
_abandoned: list[sqlite3.Connection] = []  # of the parent of a fork: not ours to use or to close


@contextmanager
def _decoding() -> Iterator[None]:
    """Take what cannot be decoded for damage, as SQLite would if it knew what is written there."""
    try:
        yield
    except (ValueError, KeyError, struct.error) as error:
        if isinstance(error, MlcoreError):
            raise
        raise sqlite3.DatabaseError(f"something cannot be decoded: {error}") from error


class _State:
    """Answer from one state of the index, inside a transaction."""

    def __init__(self, connection: sqlite3.Connection, reading: Reading) -> None:
        self._connection, self._reading = connection, reading
        found = connection.execute("SELECT value FROM notes WHERE name = 'revision'").fetchone()
        self.revision: object = found[0]

    def notes(self, prefix: str) -> dict[str, Any]:
        """Return the notes, JSON values, whose names begin so."""
        found = self._connection.execute(
            "SELECT name, value FROM notes WHERE name >= ? AND name < ?", ("~" + prefix, "~" + prefix + "\U0010ffff")
        ).fetchall()
        with _decoding():  # all at once, which takes less time
            values = json.loads(f"[{','.join([value for _, value in found])}]")
            return {name[1:]: value for (name, _), value in zip(found, values, strict=True)}

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""
        with _decoding():
            return self._reading.get(kind, ids)

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        with _decoding():
            return self._reading.find(kind, query)

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """See `mlcore.store.Fold.rewinds`."""
        from mlcore_sql.projection import Projection

        with _decoding():
            return Projection(self._connection).rewinds(kind, id)


class _Filling(_State):
    """Take in what is new."""

    def __init__(self, connection: sqlite3.Connection, reading: Reading) -> None:
        from mlcore_sql.projection import Projection

        super().__init__(connection, reading)
        self._projection = Projection(connection)

    def note(self, values: Mapping[str, Any]) -> None:
        """Keep notes by name; None removes one."""
        gone = [("~" + name,) for name, value in values.items() if value is None]
        kept = [
            ("~" + name, json.dumps(value, separators=(",", ":"), ensure_ascii=False))
            for name, value in values.items() if value is not None
        ]  # fmt: skip
        self._connection.executemany("DELETE FROM notes WHERE name = ?", gone)
        self._connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", kept)

    def take(self, source: str, records: Iterable[Record]) -> None:
        """See `Projection.take`."""
        self._projection.take(source, records)

    def touch(self, kind: str, id: str, first: int, last: int) -> None:
        """See `Projection.touch`."""
        self._projection.touch(kind, id, first, last)

    def merge(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed]) -> None:
        """See `Projection.merge`; after rewinds the rows must have come after all of them."""
        self._projection.merge(kind, id, metrics)

    def replace(self, kind: str, id: str, metrics: Mapping[tuple[str, str], Summed | None]) -> None:
        """See `Projection.replace`."""
        self._projection.replace(kind, id, metrics)

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        """See `Projection.rewinds`."""
        with _decoding():
            return self._projection.rewinds(kind, id)

    def flush(self) -> None:
        """Let answers show what was taken in so far."""
        with _decoding():
            self._projection.flush()

    def clear(self) -> None:
        """Forget everything, notes too."""
        self._projection = type(self._projection)(self._connection)
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("DELETE FROM notes WHERE name LIKE '~%'")


class Index:
    """Keep an index at `path`, of the store with this identity. Thread-safe, and safe across a fork.

    Raises `OSError` where it cannot be used, `BlockingIOError` if somebody fills it for longer than one waits, and
    `PositionLost` where it was damaged, deleted or exchanged, and begins anew.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self._identity = path, identity
        self._begin()
        with self._turn():
            self._open()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._reading = self._reader()

    def _reader(self) -> Reading:
        """Return what remembers something of the file that is open."""
        return Reading(lambda: nullcontext(runner(self._connected())))

    @contextmanager
    def reading(self) -> Iterator[_State]:
        """Open a state to read from, which stays as it is meanwhile."""
        with self._turn():
            self._reopen_if_exchanged()
            with self._transaction("BEGIN") as connection:
                yield _State(connection, self._reading)

    @contextmanager
    def writing(self) -> Iterator[_Filling]:
        """Wait for others that write, and open the state to be changed: on leaving, unless by an error, it is kept."""
        with self._turn():
            self._reopen_if_exchanged()
            with self._transaction("BEGIN IMMEDIATE") as connection:
                yield (filling := _Filling(connection, self._reading))
                filling.flush()
                connection.execute("UPDATE notes SET value = value + 1 WHERE name = 'revision'")

    def drop(self) -> None:
        """Remove the file; it is made anew when the index is used again."""
        with self._turn():
            self._remove(self._inode)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        with self._turn():
            self._close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._pid != os.getpid():
            if self._connection is not None:
                _abandoned.append(self._connection)
            self._begin()
        with self._lock:
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        """Run a transaction, and say what goes wrong in it in words that need no SQLite."""
        try:
            connection = self._connected()
            connection.execute(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._told(error) from error

    def _told(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", 1) & 0xFF
        if code in _BUSY:
            return BlockingIOError(errno.EAGAIN, f"another process fills it: {error}")
        if code in _SYSTEM:
            return OSError(_SYSTEM[code], str(error))
        return self._lost(error)

    def _lost(self, error: Exception) -> Exception:
        try:
            self._remove(self._inode)
        except OSError as problem:
            return problem
        return PositionLost(f"index {self.path} was damaged and is made anew: {error}")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._open()
        assert self._connection is not None
        return self._connection

    def _reopen_if_exchanged(self) -> None:
        if self._connection is not None:
            with suppress(FileNotFoundError):
                status = os.stat(self.path)
                if status.st_ino == self._inode and status.st_size > 0:
                    return
            self._remove(self._inode)

    def _open(self) -> None:
        """Open the file, made if it is not there, made anew if it is of another store or version, or no database."""
        for _ in range(2):
            with _locked(self.path):
                connection = sqlite3.connect(
                    self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
                )
                weakref.finalize(self, _finish, connection, self._pid)
                self._connection, self._inode = connection, os.stat(self.path).st_ino
                self._reading = self._reader()
            try:
                if self._is_ours(connection):
                    return
            except sqlite3.Error as error:
                told = self._told(error)  # which removes it if it is damaged
                if not isinstance(told, PositionLost):
                    self._close()
                    raise told from error
            else:
                self._remove(self._inode)
        raise OSError(errno.EIO, f"no index can be made at {self.path}")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA cache_size = -65536")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                    _make(connection, self._identity)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            return False
        found = connection.execute("SELECT value FROM notes WHERE name = 'identity'").fetchone()
        return found is not None and found[0] == self._identity

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _remove(self, inode: int) -> None:
        """Remove the file that was opened, unless somebody else did."""
        self._close()
        with _locked(self.path), suppress(FileNotFoundError):
            if os.stat(self.path).st_ino == inode:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _make(connection: sqlite3.Connection, identity: str) -> None:
    from sqlalchemy.dialects import sqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

    from mlcore_sql.schema import projected

    connection.execute("CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    # what was kept in memory of another index must not be taken for this one's
    revision = int.from_bytes(os.urandom(6), "big")
    connection.executemany("INSERT INTO notes VALUES (?, ?)", [("identity", identity), ("revision", str(revision))])
    for table in projected.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
        for index in table.indexes:
            connection.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _finish(connection: sqlite3.Connection, pid: int) -> None:
    """Close what nobody closed, unless it is of the parent of a fork."""
    if pid == os.getpid():
        connection.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let nobody open the file while another one removes it, where the file system has locks."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def open_index(path: Path, identity: str) -> Index:
    """Open the index at a path, to which the version is added; see the hook `mlcore_indexes`. Raises `OSError`."""
    return Index(path.with_name(f"{path.name}-{VERSION}.db"), identity)
