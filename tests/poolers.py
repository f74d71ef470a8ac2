"""A real PgBouncer before the tests' PostgreSQL: transactions of many clients take turns on few connections."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers import PASSWORD, SECONDS, Server, as_nobody, find_program, free_port

CONNECTIONS = 3  # fewer than there are clients, so that they get each other's


@contextmanager
def pooled(server: Server) -> Iterator[int]:
    """Run PgBouncer before a server; yield the port of the pooler."""
    folder = Path(tempfile.mkdtemp(prefix="ml-", dir="/tmp"))
    port = free_port()
    account = as_nobody(server.user)
    (folder / "users").write_text(f'"ml" "{PASSWORD}"\n')
    (folder / "settings").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\npool_mode = transaction\n"
        f"default_pool_size = {CONNECTIONS}\nmax_client_conn = 200\n"
    )
    if account:
        os.chown(folder, account["user"], account["group"])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(find_program("pgbouncer")), "-q", str(folder / "settings")], cwd=folder, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, **account,
        )  # fmt: skip
    try:
        _wait(process, port, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import psycopg

    for _ in range(SECONDS * 20):
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="ml", password=PASSWORD, dbname="postgres").close()
        except psycopg.OperationalError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"PgBouncer does not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def pgbouncer_port(postgresql_server: Server) -> Iterator[int]:
    """Yield the port of a PgBouncer before the shared PostgreSQL."""
    if find_program("pgbouncer") is None:
        pytest.skip("no pgbouncer: apt-get install --no-install-recommends pgbouncer (or what your system calls it)")
    with pooled(postgresql_server) as port:
        yield port


@pytest.fixture
def pgbouncer(postgresql_server: Server, pgbouncer_port: int) -> Iterator[str]:
    """Yield the URI of an empty database, as clients of the pooler see it."""
    with postgresql_server.database() as uri:
        yield uri.replace(f":{postgresql_server.port}/", f":{pgbouncer_port}/")
