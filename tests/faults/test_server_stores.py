"""A server whose disk is full or whose database goes away: it says so, goes on reading, and heals by itself."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mlcore.store import Batch
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore_remote.protocol import BATCHES, pack_batches
from servers import PostgreSQL, launch, need
from serving import Answer, Process, serving


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert os.environ.get("MLCORE_TEST_ALL") != "1", "CI runs as root, and must be able to mount"
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def written(count: int) -> Writer:
    """Return a writer of a run with so many records."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": "x"}))
    for number in range(1, count):
        writer.batch(points(writer.home, "loss", [float(number)], steps=[number]))
    return writer


def send(server: Process, batch: Batch) -> Answer:
    """Append one batch."""
    return server.ask("POST", "/api/v1/batches", pack_batches([batch]), {"Content-Type": BATCHES}, seconds=60)


def soon(call: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not call():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["folder", "sqlite"])
def test_a_full_disk_is_507_and_heals_when_there_is_room(disk: Path, kind: str) -> None:
    """Guards R5: JSON with 507 for what cannot be stored, reading goes on, nothing that was acknowledged is lost."""
    store = str(disk / "store") if kind == "folder" else f"sqlite:///{disk / 'store.db'}"
    writer = written(400)
    with serving(store) as server:
        assert send(server, writer.cut(1, 200)).status == 200
        with (disk / "filler").open("wb", buffering=0) as filler:
            size = 1 << 20
            while size:
                try:
                    size = size if filler.write(b"x" * size) == size else size // 2
                except OSError:
                    size //= 2
        refused, number, large = None, 200, "y" * 60_000
        while refused is None:  # what is left of the last page is still taken
            number += 1
            made = Writer(new_id())
            made.batch(*run_events(made.home, fields={"name": large}))
            answer = send(server, made.cut(1))
            refused = answer if answer.status != 200 else None
        assert (refused.status, refused.headers["content-type"]) == (507, "application/json")
        assert str(disk).encode() not in refused.body
        found = server.post("/api/v1/get", {"kind": "run", "ids": [writer.home]})
        assert found.status == 200
        assert found.json["entities"][0]["metrics"]["loss"][""][0] == 199
        (disk / "filler").unlink()
        assert send(server, made.cut(1)).status == 200
        assert send(server, writer.cut(150, 400)).status == 200
        found = server.post("/api/v1/get", {"kind": "run", "ids": [writer.home]})
        assert found.json["entities"][0]["metrics"]["loss"][""][0] == 399
        assert server.stop() == 0


def test_a_database_that_is_away_is_503_and_heals_when_it_is_back() -> None:
    """Guards R4: a restart under load is answered by 503 at most, the pool heals, what was acknowledged is there."""
    need("postgresql")
    database, lock = launch("postgresql")
    assert isinstance(database, PostgreSQL)
    try:
        with serving(database.uri("postgres")) as server:
            acknowledged, statuses = list[str](), set[int]()
            over = threading.Event()

            def work() -> None:
                while not over.is_set():
                    writer = written(2)
                    status = send(server, writer.cut(1)).status
                    statuses.add(status)
                    if status == 200:
                        acknowledged.append(writer.home)
                    else:
                        time.sleep(0.2)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            soon(lambda: len(acknowledged) > 20)
            database.stop(immediate=True)
            soon(lambda: 503 in statuses)
            away = server.post("/api/v1/get", {"kind": "run", "ids": [uuid4().hex]}, **{"X-Request-ID": "away"})
            assert (away.status, away.headers["retry-after"]) == (503, "5")
            assert (server.get("/readyz").status, server.get("/livez").status) == (503, 200)
            assert b"mlpw" not in away.body
            database.start()
            known = len(acknowledged)
            soon(lambda: len(acknowledged) > known + 20)
            over.set()
            for thread in threads:
                thread.join()
            assert server.get("/readyz").status == 200
            found = server.post("/api/v1/get", {"kind": "run", "ids": acknowledged}).json["entities"]
            assert None not in found
            assert statuses <= {200, 503}
            assert "mlpw" not in server.errors.read_text()
            assert server.stop() == 0
    finally:
        lock.close()
