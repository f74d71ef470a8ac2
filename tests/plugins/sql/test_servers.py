"""The database servers that tests start: real ones, alone, and gone when their users are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from servers import Server, driver, own_server, share

TESTS = Path(__file__).parents[2]


def soon(true: Callable[[], bool], seconds: float = 30) -> bool:
    """Tell whether something comes true."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


DATABASES = ("mariadb", "postgresql")  # of all the servers that tests know


@contextmanager
def connected(uri: str) -> Iterator[Connection]:
    """Connect to a database."""
    with create_engine(driver(uri), poolclass=NullPool).connect() as connection:
        yield connection


@pytest.fixture(params=DATABASES)
def server(request: pytest.FixtureRequest) -> Server:
    """Return the shared server of each kind."""
    return request.getfixturevalue(f"{request.param}_server")


def test_databases_are_real_and_apart(server: Server) -> None:
    """Guards tests against each other: what one wrote is not in the database of the next."""
    for _ in range(2):
        with server.database() as uri, connected(uri) as connection:
            connection.execute(text("CREATE TABLE t (n INTEGER)"))
            connection.execute(text("INSERT INTO t VALUES (1)"))


def test_a_database_goes_with_whoever_is_connected(server: Server) -> None:
    """Guards the end of a test that failed in the middle of a transaction."""
    with server.database() as uri:
        connection = create_engine(driver(uri), poolclass=NullPool).connect()
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    connection.invalidate()
    assert uri.rpartition("/")[2] not in str(server.execute("SELECT schema_name FROM information_schema.schemata"))


def test_a_server_is_not_run_by_root_and_hears_nobody_else(server: Server) -> None:
    """Guards the machine of whoever runs the tests."""
    assert os.geteuid() != 0 or os.stat(f"/proc/{server.running()}").st_uid != 0
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().split("\n")[1:]
    ]
    listening = {line[1].partition(":")[0] for line in lines if line and line[1].endswith(f":{server.port:04X}")}
    assert listening == {"0100007F"}


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize("immediate", [False, True], ids=["stopped", "crashed"])
def test_what_was_committed_is_there_when_the_server_is_back(kind: str, immediate: bool) -> None:
    """Guards tests of faults, which stop a server of their own."""
    with own_server(kind, durable=True) as server:
        server.execute("CREATE DATABASE kept")
        with connected(server.uri("kept")) as connection:
            connection.execute(text("CREATE TABLE t (n INTEGER)"))
            connection.execute(text("INSERT INTO t VALUES (7)"))
            connection.commit()
        server.stop(immediate=immediate)
        assert not server.running()
        server.start()
        with connected(server.uri("kept")) as connection:
            assert connection.execute(text("SELECT n FROM t")).scalar_one() == 7
        folder = server.folder
    assert soon(lambda: not folder.exists())
    assert not server.running()


@pytest.mark.parametrize("kind", DATABASES)
def test_a_server_is_shared_and_ends_with_the_last_who_uses_it(kind: str, tmp_path: Path) -> None:
    """Guards against a server per worker, and against one that stays when the tests were killed."""
    code = f"import servers, pathlib, time; s, lock = servers.share({kind!r}, pathlib.Path({str(tmp_path)!r}));"
    code += "print(s.folder, flush=True); time.sleep(600)"
    users = [
        subprocess.Popen([sys.executable, "-c", code], cwd=TESTS, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    places = {user.stdout.readline().strip() for user in users}
    (folder,) = map(Path, places)
    users[0].kill()
    server, lock = share(kind, tmp_path)
    assert server.folder == folder
    for user in users[1:]:
        user.kill()
    for user in users:
        user.communicate()
    pid = server.running()
    assert server.execute("SELECT 1") == [(1,)]
    lock.close()
    assert soon(lambda: not folder.exists())
    assert not Path(f"/proc/{pid}").exists() or soon(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text())
