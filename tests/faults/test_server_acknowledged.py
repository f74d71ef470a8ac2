"""What a server acknowledged: answers that are cut off, disks that fail, signals, and many who write at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from faults.processes import crowd, mlcore, run
from mlcore import Client
from mlcore.store import Batch, Store
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore_local.store import FolderStore
from mlcore_remote.protocol import BATCHES, pack_batches
from mlcore_sql.store import open_store
from serving import Answer, Process, serving

TOKEN = "the-token-of-these-tests-0123456789"


def send(server: Process, batch: Batch) -> Answer:
    """Append one batch."""
    return server.ask("POST", "/api/v1/batches", pack_batches([batch]), {"Content-Type": BATCHES}, seconds=60)


def opened(uri: str) -> Store:
    """Open the store that was served."""
    return open_store(uri) if uri.startswith("sqlite") else FolderStore(Path(uri))


def arrived(uri: str) -> Counter[tuple[str, int]]:
    """Count every record in a store by source and number."""
    store = opened(uri)
    found = Counter((each.batch.source, record.number) for each in store.events() for record in each.batch.records)
    store.close()
    return found


@pytest.fixture(params=["folder", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of a store."""
    return str(tmp_path / "store") if request.param == "folder" else f"sqlite:///{tmp_path / 'store.db'}"


class Cutter:
    """Pass connections on to a server, and cut every other answer to what changes something, once it is complete."""

    def __init__(self, port: int) -> None:
        self._target, self.cut, self._seen = port, 0, 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._pass, args=(self._listening.accept()[0],), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            asked: list[bytes] = []
            threading.Thread(target=self._ask, args=(client, server, asked), daemon=True).start()
            with suppress(OSError):
                while data := server.recv(1 << 20):
                    if b"".join(asked)[:5].startswith((b"POST ", b"PUT ", b"PATCH")) and b"HTTP/1.1 2" in data:
                        self._seen += 1
                        if self._seen % 2:
                            self.cut += 1
                            break
                    asked.clear()
                    client.sendall(data)
            for each in (client, server):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _ask(self, client: socket.socket, server: socket.socket, asked: list[bytes]) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                asked.append(data[:5] if not asked else b"")
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


LOGGED = """
import pathlib, mlcore
pathlib.Path("notes.txt").write_text("kept " * 1000)
with mlcore.start_run(name="cut", tags={"a": "b"}) as run:
    for step in range(300):
        run.log_metric("m", step, step=step)
    run.log_params({f"p{each}": each for each in range(50)})
    run.log_points("c", range(1000), range(1000))
    run.set_tags({"t": "u"})
    run.log_artifact("notes.txt")
print(run.id)
"""


def test_an_answer_that_is_cut_off_doubles_nothing(tmp_path: Path, store: str) -> None:
    """Guards R11: the server stores, the answer is lost, the client sends again: one of everything."""
    with serving(store, token=TOKEN, artifacts=str(tmp_path / "files")) as server:
        cutter = Cutter(server.port)
        settings = {"MLCORE_STORE": cutter.url, "MLCORE_TOKEN": TOKEN}
        out, _ = run(tmp_path / "home", LOGGED, **settings)
        for _ in range(5):
            done = mlcore(tmp_path / "home", "sync", **settings)
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stdout + done.stderr
        cutter.close()
        assert cutter.cut >= 2
        assert server.stop() == 0
    assert set(arrived(store).values()) == {1}
    client = Client(store)
    (back,) = client.list_runs()
    assert (back.id, back.name, back.status) == (out.split()[-1], "cut", "FINISHED")
    assert list(back.series("m").values) == list(range(300))
    assert list(back.series("c").steps) == list(range(1000))
    assert dict(back.params) == {f"p{each}": each for each in range(50)}
    assert {"a": "b", "t": "u"}.items() <= back.tags.items()
    assert not back.conflicts
    client.close()


def test_a_signal_ends_a_server_in_order(store: str) -> None:
    """Guards R23: SIGTERM while eight write: it ends with 0 and in time, and what was acknowledged is there."""
    with serving(store, token=TOKEN) as server:
        server.token = TOKEN
        told: list[list[tuple[str, int]]] = [[] for _ in range(8)]

        def write(found: list[tuple[str, int]]) -> None:
            writer = Writer(new_id())
            batch = writer.batch(*run_events(writer.home, fields={"name": "x"}))
            with suppress(OSError, ValueError):
                while send(server, batch).json == {"results": [None]}:
                    found.append((writer.source, batch.records[-1].number))
                    batch = writer.batch(points(writer.home, "loss", [1.0] * 50, steps=[1] * 50))

        threads = [threading.Thread(target=write, args=(each,)) for each in told]
        for each in threads:
            each.start()
        while sum(map(len, told)) < 50:
            time.sleep(0.05)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 30
        for each in threads:
            each.join(60)
        errors = server.errors.read_text()
        assert "Traceback" not in errors, errors
    acknowledged = {each for found in told for each in found}
    records = arrived(store)
    assert len(acknowledged) >= 50
    assert acknowledged <= records.keys()
    assert set(records.values()) == {1}


WRITING = """
from mlcore.testing._builders import Writer, new_id, points
from mlcore_remote.store import RemoteStore
store, writer = RemoteStore(sys.argv[4]), Writer(new_id())
together()
for step in range(int(sys.argv[5])):
    store.append(writer.batch(points(writer.home, "m", [float(step)], steps=[step])))
print(writer.source)
"""


@pytest.mark.slow
def test_sixteen_processes_write_to_one_file_at_once(tmp_path: Path) -> None:
    """Guards R14: sixteen clients of one server of one SQLite file: no error, and every point is there."""
    store, count = f"sqlite:///{tmp_path / 'store.db'}", 60
    with serving(store, token=TOKEN) as server:
        texts = crowd(tmp_path / "home", WRITING, 16, server.url, count, MLCORE_TOKEN=TOKEN)
    records = arrived(store)
    assert records == Counter((text.strip(), number) for text in texts for number in range(1, count + 1))


@contextmanager
def traced(server: Process, log: Path, *options: str) -> Iterator[None]:
    """Trace a running server's syncs, and tamper with them as `options` say."""
    if not shutil.which("strace"):
        pytest.skip("no strace: apt-get install strace (or what your system calls it)")
    assert server.process is not None
    command = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(log), *options, "-p", str(server.process.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        line = strace.stderr.readline()
        if "attached" not in line:
            strace.wait()
            assert os.environ.get("MLCORE_TEST_ALL") != "1", line
            pytest.skip(f"no tracing here: {line}")
        try:
            yield
        finally:
            strace.terminate()
            strace.communicate()


def syncs(log: Path) -> int:
    """Count the syncs that were done."""
    return len(re.findall(r"f(?:data)?sync(?:\(\d+\)| resumed>\)) += 0$", log.read_text(), re.MULTILINE))


def test_what_is_acknowledged_with_power_was_synced(tmp_path: Path, store: str) -> None:
    """Guards R9: with durability `power` no answer without a sync, of which a kill tells nothing."""
    log, writer = tmp_path / "syncs", Writer(new_id())
    with serving(store, durability="power", token=TOKEN) as server:
        server.token = TOKEN
        assert json.loads(server.get("/version").body)["durability"] == "power"
        send(server, writer.batch(*run_events(writer.home, fields={"name": "x"})))
        with traced(server, log):
            for number in range(1, 11):
                answer = send(server, writer.batch(points(writer.home, "loss", [1.0], steps=[number])))
                assert answer.json == {"results": [None]}
                assert syncs(log) >= number
    assert set(arrived(store).values()) == {1}


def test_nothing_is_acknowledged_when_the_sync_fails(tmp_path: Path, store: str) -> None:
    """Guards R8: a disk that reports an error when it is to keep what was written: no answer says that it did."""
    log, writer = tmp_path / "syncs", Writer(new_id())
    with serving(store, durability="power", token=TOKEN) as server:
        server.token = TOKEN
        acknowledged = [writer.batch(*run_events(writer.home, fields={"name": "x"}))]
        assert send(server, acknowledged[0]).json == {"results": [None]}
        with traced(server, log, "-e", "inject=fsync,fdatasync:error=EIO"):
            for number in range(3):
                other = Writer(new_id())
                answer = send(server, other.batch(points(other.home, "loss", [1.0], steps=[number])))
                assert answer.status in (503, 507), answer
                assert "EIO" in log.read_text()
                assert answer.json["error"]["type"] == "StoreError"
        deadline = time.monotonic() + 30
        batch = writer.batch(points(writer.home, "loss", [2.0], steps=[1]))
        while send(server, batch).status != 200:  # it may give up, and is then started again by whoever runs it
            assert time.monotonic() < deadline
            time.sleep(0.2)
        server.kill()
        server.start()
        server.token = TOKEN
        assert send(server, batch).json == {"results": [None]}
    records = arrived(store)
    assert records[writer.source, 1] == records[writer.source, 2] == 1
