"""Real PostgreSQL and MariaDB servers for tests: thrown away, on this machine only, stopped whatever happens.

A server belongs to whoever holds a lock on a file in its folder. The kernel drops the lock of a process that ends,
however it ends; a reaper that waits for the last one then stops the server and removes the folder.
"""

from __future__ import annotations

import fcntl
import getpass
import inspect
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TextIO

import pytest

PASSWORD = "mlpw"
SECONDS = 60  # to start, on a machine that is busy with other tests
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}
_TRIES = 5  # to find a port that nobody takes before the server does


class Server:
    """Start and stop one database server, and make databases on it.

    It runs as a user without privileges, listens on 127.0.0.1 only and keeps its data in a short temporary folder.
    With `durable` it waits for the disk as it does for users; else not, as tests seldom cut the power.
    """

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]]
    user: ClassVar[str]
    package: ClassVar[str]
    program: ClassVar[str]
    crash: ClassVar[signal.Signals]
    end: ClassVar[signal.Signals]

    def __init__(self, folder: Path, port: int = 0, durable: bool = False) -> None:
        self.folder, self.port, self.durable = folder, port, durable
        self._count = 0

    # What tests use

    @contextmanager
    def database(self, scheme: str = "") -> Iterator[str]:
        """Make an empty database, yield its URI, and drop it with whoever is still connected."""
        self._count += 1
        name = f"t{os.getpid()}_{self._count}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.uri(name, scheme)
        finally:
            if self.running():
                self.drop(name)

    def uri(self, database: str, scheme: str = "") -> str:
        """Return the URI of a database."""
        return f"{scheme or self.schemes[0]}://ml:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server on its data, on the port it had, and wait until it answers."""
        for _ in range(_TRIES if not self.port else 1):
            port = self.port or free_port()
            with (self.folder / "log").open("ab") as log:
                process = subprocess.Popen(
                    [str(part) for part in self.command(port)], cwd=self.folder, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True, env=self.environment(), **as_nobody(self.user),
                )  # fmt: skip
            (self.folder / "pid").write_text(str(process.pid))
            answers = self._answers(process, port)
            process.returncode = 0  # or Python warns that it still runs, as it is to
            if answers:
                self.port = port
                return
        raise RuntimeError(f"{self.name} does not start:\n{(self.folder / 'log').read_text()[-4000:]}")

    def stop(self, immediate: bool = False) -> None:
        """Stop the server in order, or let it die as in a crash; `start` goes on with the data it left."""
        pid = self.running()
        if pid:
            os.kill(pid, self.crash if immediate else self.end)
        deadline = time.monotonic() + SECONDS
        while self.running():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} with process id {pid} does not stop")
            time.sleep(0.01)

    def running(self) -> int:
        """Return the process id of the server, 0 if it does not run."""
        with suppress(OSError, ValueError):
            pid = int((self.folder / "pid").read_text())
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat")
            return 0 if state.exists() and state.read_text().rpartition(") ")[2][0] == "Z" else pid
        return 0

    def environment(self) -> dict[str, str]:
        """Return an environment of the server's own: those of MariaDB trip over each other's temporary tables."""
        return {**os.environ, "HOME": str(self.folder), "TMPDIR": str(self.folder)}

    # What each kind has of its own

    @classmethod
    def missing(cls) -> str:
        """Return what is not installed that the server needs, or nothing."""
        return "" if find_program(cls.program) else cls.program

    def create(self) -> None:
        """Make the data folder."""
        raise NotImplementedError

    def command(self, port: int) -> list[str | Path]:
        """Return the command that runs the server in the foreground."""
        raise NotImplementedError

    def connect(self, port: int) -> Any:
        """Return a connection of the administrator."""
        raise NotImplementedError

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator; return its rows."""
        connection = self.connect(self.port)
        try:
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def drop(self, database: str) -> None:
        """End every connection to a database, and remove it."""
        raise NotImplementedError

    def _answers(self, process: subprocess.Popen[bytes], port: int) -> bool:
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(Exception):  # each driver has its own
                self.connect(port).close()
                return True
            time.sleep(0.05)
        return False


class PostgreSQL(Server):
    """Run PostgreSQL, with English collation, which sorts otherwise than by code point."""

    name, schemes, user = "PostgreSQL", ("postgresql",), "postgres"
    package, program = "postgresql", "initdb"
    end, crash = signal.SIGINT, signal.SIGQUIT

    def create(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        program = find_program("initdb")
        version = run([program, "--version"], self).split()[2]
        english = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        options = english if int(version.partition(".")[0]) >= 15 else ["--no-locale"]
        run([
            program, "-D", self.folder / "data", "-U", "ml", f"--pwfile={password}", "-A", "scram-sha-256",
            "-E", "UTF8", "--no-sync", *options,
        ], self)  # fmt: skip

    def command(self, port: int) -> list[str | Path]:
        sync = "on" if self.durable else "off"
        settings = {
            "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200,
            "fsync": sync, "synchronous_commit": sync, "full_page_writes": sync,
        }  # fmt: skip
        each = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [find_program("postgres"), "-D", self.folder / "data", *each]

    def connect(self, port: int) -> Any:
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=port, user="ml", password=PASSWORD, dbname="postgres", autocommit=True,
            connect_timeout=SECONDS,
        )  # fmt: skip

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE {database} WITH (FORCE)")


class MariaDB(Server):
    """Run MariaDB, whose default collation takes upper and lower case for one."""

    name, schemes, user = "MariaDB", ("mysql", "mariadb"), "mysql"
    package, program = "mariadb-server", "mariadb-install-db"
    end, crash = signal.SIGTERM, signal.SIGKILL

    def create(self) -> None:
        data = self.folder / "data"
        run([
            find_program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db",
            "--auth-root-authentication-method=normal", "--skip-name-resolve",
        ], self)  # fmt: skip
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS ml@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO ml@'127.0.0.1';\n"
        )

    def command(self, port: int) -> list[str | Path]:
        return [
            find_program("mariadbd"), "--no-defaults", f"--datadir={self.folder / 'data'}", f"--port={port}",
            f"--socket={self.folder / 's'}", "--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin",
            f"--init-file={self.folder / 'init.sql'}", "--innodb-buffer-pool-size=256M", "--local-infile=1",
            "--character-set-server=utf8mb4", f"--innodb-flush-log-at-trx-commit={int(self.durable)}",
            *(() if self.durable else ("--skip-innodb-doublewrite",)),
        ]  # fmt: skip

    def connect(self, port: int) -> Any:
        import pymysql

        return pymysql.connect(host="127.0.0.1", port=port, user="ml", password=PASSWORD, autocommit=True)

    def drop(self, database: str) -> None:
        for (id,) in self.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{database}'"):
            with suppress(Exception):  # it has gone by itself
                self.execute(f"KILL {id}")
        self.execute(f"DROP DATABASE {database}")


KINDS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}


def launch(kind: str, *, durable: bool = False) -> tuple[Server, TextIO]:
    """Make and start a server; it lives as long as anybody holds the lock that comes with it."""
    folder = Path(tempfile.mkdtemp(prefix="ml-", dir="/tmp"))  # the socket's path may have 107 bytes
    lock = (folder / "users").open("w")
    fcntl.flock(lock, fcntl.LOCK_SH)
    reaper = subprocess.Popen(
        [sys.executable, inspect.getfile(KINDS[kind]), kind, folder], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    reaper.returncode = 0  # it outlives us
    server = KINDS[kind](folder, durable=durable)
    if account := as_nobody(server.user):
        os.chown(folder, account["user"], account["group"])
    server.create()
    server.start()
    return server, lock


def share(kind: str, place: Path) -> tuple[Server, TextIO]:
    """Return the server of this test session, started by whichever of its processes asks first."""
    with (place / f"{kind}.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        known = place / f"{kind}.json"
        with suppress(OSError):  # there is none yet, or its last user has gone
            folder, port = json.loads(known.read_text())
            lock = (Path(folder) / "users").open()
            fcntl.flock(lock, fcntl.LOCK_SH)
            server = KINDS[kind](Path(folder), port)
            if server.running():
                return server, lock
            lock.close()
        server, lock = launch(kind)
        known.write_text(json.dumps([str(server.folder), server.port]))
        return server, lock


def reap(kind: str, folder: Path) -> None:
    """Wait until nobody uses a server, then end it and remove its folder."""
    with (folder / "users").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = KINDS[kind](folder)
        with suppress(OSError, RuntimeError):
            server.stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)


def find_program(name: str) -> Path | None:
    """Return where a program is, on PATH or where Debian keeps those of PostgreSQL; the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return found[-1] if found else Path(path) if path else None


def as_nobody(user: str) -> dict[str, Any]:
    """Return what makes `subprocess` run as `user`, or as nobody, if we are root, which no database runs as."""
    if os.geteuid() != 0:
        return {}
    for name in (user, "nobody"):
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise RuntimeError(f"run the tests as another user than {getpass.getuser()}, or make one named {user}")


def run(command: list[Any], server: Server) -> str:
    """Run a command as the server's user, in its folder; return what it prints."""
    done = subprocess.run(
        [str(part) for part in command], cwd=server.folder, capture_output=True, text=True, check=False,
        env=server.environment(), **as_nobody(server.user),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command[0]} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def driver(uri: str) -> str:
    """Return a database's URI as SQLAlchemy takes it, with the name of the driver."""
    for scheme, full in {
        "postgresql": "postgresql+psycopg",
        "mysql": "mysql+pymysql",
        "mariadb": "mysql+pymysql",
    }.items():
        uri = uri.replace(f"{scheme}://", f"{full}://")
    return uri


def free_port() -> int:
    """Return a port on which nobody listened a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# Fixtures: a conftest.py imports those that its folder needs.


def need(kind: str) -> None:
    """Skip the test where the server is not installed, and say how to get it."""
    if program := KINDS[kind].missing():
        package = KINDS[kind].package
        pytest.skip(f"no {program}: apt-get install --no-install-recommends {package} (or what your system calls it)")


def _session(kind: str, factory: pytest.TempPathFactory) -> Iterator[Server]:
    need(kind)
    base = factory.getbasetemp()
    server, lock = share(kind, base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    yield server
    lock.close()


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield the PostgreSQL server that all tests of this session share: do not stop it."""
    yield from _session("postgresql", tmp_path_factory)


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield the MariaDB server that all tests of this session share: do not stop it."""
    yield from _session("mariadb", tmp_path_factory)


@pytest.fixture
def postgresql(postgresql_server: Server) -> Iterator[str]:
    """Yield the URI of an empty database on PostgreSQL."""
    with postgresql_server.database() as uri:
        yield uri


@pytest.fixture
def mariadb(mariadb_server: Server) -> Iterator[str]:
    """Yield the URI of an empty database on MariaDB."""
    with mariadb_server.database() as uri:
        yield uri


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URI of an empty database, on each engine in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    server: Server = request.getfixturevalue(f"{request.param}_server")
    with server.database() as uri:
        yield uri


@contextmanager
def own_server(kind: str, *, durable: bool = False) -> Iterator[Server]:
    """Start a server that a test may stop and start again, as it is nobody else's."""
    need(kind)
    server, lock = launch(kind, durable=durable)
    with lock:
        yield server


if __name__ == "__main__":
    reap(sys.argv[1], Path(sys.argv[2]))
