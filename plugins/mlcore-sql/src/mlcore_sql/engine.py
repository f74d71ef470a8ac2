"""Open databases: drivers, pools, settings as they were measured, transactions, and errors that keep passwords."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, exc

from mlcore.config import shown
from mlcore.errors import NotInstalled, StoreError, StoreNotFound
from mlcore_sql.faults import reason
from mlcore_sql.forks import apart

__all__ = ["Database", "shown"]

_DRIVERS = {
    "postgresql": ("postgresql+psycopg", "psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "pymysql", "mysql"),
    "mariadb": ("mariadb+pymysql", "pymysql", "mysql"),
    "sqlite": ("sqlite", "sqlite3", ""),
}
PATIENCE_SECONDS = 60.0  # for which what may pass is tried again
_IDLE_SECONDS = 60  # a client that died within a transaction must not keep all others waiting
_LOCK_SECONDS = 30
_START_SECONDS = 30  # that a server may take to be back
_STARTING = re.compile("starting up|shutting down|recovery mode|Server shutdown in progress|database is locked")
_COPIED_SECONDS = 1.0  # between two attempts
_WAL_BYTES = 4 << 20  # of the write-ahead log that are copied back; at twice as many it starts from its beginning
_KEEP_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_WRITES: dict[str, dict[str, Any]] = {"postgresql": {"isolation_level": "READ COMMITTED"}}
_SETTINGS = {  # whether a commit survives the loss of power, and how long a statement may be
    "postgresql": "SELECT (current_setting('fsync')::bool AND current_setting('full_page_writes')::bool)::int, 0",
    "mysql": "SELECT @@innodb_flush_log_at_trx_commit = 1, @@max_allowed_packet",
}


class Database:
    """One database: connections to read from and to write to.

    Not shared by processes: the child of a fork gets connections of its own, and leaves its parent's alone.
    """

    def __init__(self, uri: str) -> None:
        self.name = shown(uri)
        scheme, self._driver, self._extra = _DRIVERS[uri.partition("://")[0]]
        options = _options(uri, scheme)
        self.url: URL = options.pop("url")
        self.dialect = "mysql" if scheme.startswith("mariadb") else scheme.partition("+")[0]
        self.power = options.pop("power")  # of a server, known when it was connected to
        self.packet = 0
        self.patience = PATIENCE_SECONDS
        self._options = options
        self.path = Path(self.url.database or "") if self.dialect == "sqlite" else None
        self._guard, self._pid = threading.Lock(), os.getpid()
        self._engine: Engine | None = None
        self._errors: type[Exception] = exc.DBAPIError
        self._turns = _Turns(self.path) if self.path is not None else None
        self._kept = float("-inf")  # when a reader kept the write-ahead log from starting anew

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def user(self) -> str:
        """The user of the URI, ``""`` if it has none."""
        return self.url.username or ""

    @property
    def engine(self) -> Engine:
        """The engine of this process. Raises `NotInstalled` if its driver is missing."""
        if self._pid != os.getpid():
            self._after_fork()
        with self._guard:
            if self._engine is None:
                self._engine = self._made()
            return self._engine

    def exists(self) -> bool:
        """Tell whether there is a file; of a server, what connecting tells."""
        return self.path is None or self.path.exists()

    def demand(self) -> None:
        """Raise `StoreNotFound` if there is no file."""
        if not self.exists():
            raise StoreNotFound(f"there is no store at {self.name}: the first run makes it")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees the database as it is now, until the end of the block."""
        self.demand()
        with self._apart(), self._told(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection whose work is committed at the end of the block, and undone if it raises."""
        writers = self.engine.execution_options(mlcore_writes=True, **_WRITES.get(self.dialect, {}))
        turn = self._turns.taken() if self._turns is not None else contextlib.nullcontext()
        with self._apart(), self._told(), writers.connect() as connection:
            with turn:
                with connection.begin():
                    yield connection
                if self.path is not None and time.monotonic() - self._kept > _COPIED_SECONDS:
                    self._kept = self._kept if _keep_short(connection, self.path) else time.monotonic()
            if self.path is not None:
                _copy_back(connection, self.path)

    def _apart(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.path is None else apart()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Raise errors of a driver, which we speak to directly at times, as SQLAlchemy raises them."""
        try:
            yield
        except self._errors as error:
            kind = getattr(exc, type(error).__name__, exc.DBAPIError)
            raise kind(None, None, error) from error

    def check(self) -> None:
        """Connect. Raises `StoreError` with what is wrong and without the password, or `NotInstalled`."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with self.engine.connect() as connection:
                    if asked := _SETTINGS.get(self.dialect):
                        self.power, self.packet = map(int, connection.exec_driver_sql(asked).one())
                return
            except exc.SQLAlchemyError as error:
                if not _STARTING.search(reason(error)) or time.monotonic() > deadline:
                    raise self.error("cannot be opened", error) from None
            time.sleep(0.1)

    def error(self, what: str, error: BaseException) -> StoreError:
        """Return the error to raise for one of the database's."""
        told = f"store {self.name} {what}: {reason(error)}"
        return StoreError(told.replace(self.url.password, "***") if self.url.password else told)

    def close(self) -> None:
        """Close all connections; the next question opens new ones."""
        if self._pid != os.getpid():
            self._after_fork()
        with self._guard:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _after_fork(self) -> None:
        self._guard, self._pid = threading.Lock(), os.getpid()
        if self._engine is not None:
            self._engine.dispose(close=False)
            self._engine = None
        self._turns = _Turns(self.path) if self.path is not None else None

    def _made(self) -> Engine:
        try:
            engine = sqlalchemy.create_engine(self.url, **self._options)
            self._errors = engine.dialect.loaded_dbapi.Error
        except ModuleNotFoundError as error:
            pip = f"pip install 'mlcore-sql[{self._extra}]'"
            raise NotInstalled(f"store {self.name} needs {self._driver}, which is not installed: {pip}") from error
        if self.dialect == "sqlite":
            event.listen(engine, "connect", _sqlite_connected(self.power))
            event.listen(engine, "begin", _sqlite_begun)
        elif self.dialect == "mysql":
            event.listen(engine, "begin", _mysql_begun)
        else:
            event.listen(engine, "connect", _postgresql_connected)
            logging.getLogger("psycopg").addFilter(_told_once)
        return engine


def _options(uri: str, scheme: str) -> dict[str, Any]:
    try:
        url = sqlalchemy.make_url(f"{scheme}://{uri.partition('://')[2]}")
    except (exc.ArgumentError, ValueError):  # of a port
        raise StoreError(
            f"{shown(uri)} is no URI of a database: write {uri.partition(':')[0]}://USER:PASSWORD@HOST/DATABASE"
        ) from None
    durability = url.query.get("durability", "process")
    if durability not in ("process", "power") or ("durability" in url.query and scheme != "sqlite"):
        raise StoreError(
            f"{shown(uri)}: durability is process or power, and for SQLite only: a server has its settings"
        )
    options: dict[str, Any] = {"url": url.difference_update_query(["durability"]), "power": durability == "power"}
    if scheme == "sqlite":
        if not url.database or url.database == ":memory:":
            raise StoreError(f"{uri} names no file: write sqlite:///PATH")
        options["url"] = options["url"].set(database=os.path.abspath(url.database))  # wherever the process goes
        arguments: dict[str, Any] = {"timeout": _LOCK_SECONDS, "check_same_thread": False}
        return options | {"connect_args": arguments, "max_overflow": -1}
    if not url.database:
        raise StoreError(f"{shown(uri)} names no database: write {uri.partition(':')[0]}://USER:PASSWORD@HOST/DATABASE")
    if scheme.startswith("postgresql"):
        arguments = {"connect_timeout": 10, "application_name": "mlcore", "client_encoding": "utf8", **_KEEP_ALIVE}
        options |= {"isolation_level": "REPEATABLE READ"}
    else:
        mode = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE"
        times = f"innodb_lock_wait_timeout={_LOCK_SECONDS}, idle_transaction_timeout={_IDLE_SECONDS}"
        if scheme.startswith("mysql"):
            times = times.partition(",")[0]  # the other one is MariaDB's
        arguments = {"connect_timeout": 10, "init_command": f"SET SESSION sql_mode='{mode}', {times}"}
    return options | {"connect_args": arguments, "pool_pre_ping": True, "pool_recycle": 1_800, "max_overflow": 20}


def _told_once(record: logging.LogRecord) -> bool:
    """Keep psycopg from logging what follows from an error that it raises, and that we try again after."""
    return not str(record.msg).startswith("error ignored terminating")


def _postgresql_connected(connection: Any, _: Any) -> None:
    # not as options of the connection, which poolers such as PgBouncer refuse
    alive = "; ".join(f"SET tcp_{name} = {seconds}" for name, seconds in _KEEP_ALIVE.items())
    idle = f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'; SET lock_timeout = '{_LOCK_SECONDS}s'"
    cursor = connection.execute(f"SET synchronous_commit = on; {idle}; {alive}; SELECT pg_backend_pid()")
    while cursor.nextset():
        pass
    if cursor.fetchone() != (connection.info.backend_pid,):
        # a pooler answered: the next transaction may be on a connection that knows nothing of what was prepared on this
        connection.prepare_threshold = None
    connection.commit()


def _sqlite_connected(power: bool) -> Any:
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={'FULL' if power else 'NORMAL'}")
        cursor.execute("PRAGMA cache_size=-65536")
        cursor.execute("PRAGMA wal_autocheckpoint=0")  # see `_keep_short`
        cursor.close()

    return connected


def _sqlite_begun(connection: Connection) -> None:
    # a transaction that begins to write when it has read already cannot wait: it is told "locked" at once
    writes = connection.get_execution_options().get("mlcore_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _mysql_begun(connection: Connection) -> None:
    level = "READ COMMITTED" if connection.get_execution_options().get("mlcore_writes") else "REPEATABLE READ"
    connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {level}")


def _keep_short(connection: Connection, path: Path) -> bool:
    """Start the write-ahead log from its beginning where it has grown; return False if a reader keeps it."""
    with contextlib.suppress(OSError, exc.OperationalError):
        if os.stat(f"{path}-wal").st_size > 2 * _WAL_BYTES:
            cursor: Any = connection.connection.cursor()
            cursor.execute("PRAGMA busy_timeout=50")
            (kept, *_) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            cursor.execute(f"PRAGMA busy_timeout={_LOCK_SECONDS * 1000}")
            cursor.close()
            return not kept
    return True


def _copy_back(connection: Connection, path: Path) -> None:
    """Copy what is in the write-ahead log into the file, where much is: while others write, for whom a disk is slow.

    SQLite itself would do so in every transaction from its thousandth page on, for as long as anybody reads.
    """
    with contextlib.suppress(OSError, exc.OperationalError):
        much = os.stat(f"{path}-wal").st_size > _WAL_BYTES
        if much and time.time() - os.stat(path).st_mtime > _COPIED_SECONDS:
            cursor: Any = connection.connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            cursor.close()


class _Turns:
    """Let writers to one file take turns: SQLite's own lock lets one wait for seconds while others pass it."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = f"{path}.lock", threading.Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        with self._lock:
            try:
                import fcntl

                file = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except (ImportError, OSError):  # SQLite's own lock is right, if not fair
                yield
                return
            try:
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                yield
            finally:
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)  # to close it is not enough where a fork took a copy
                os.close(file)
