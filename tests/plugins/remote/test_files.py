"""Files of runs on a server: they arrive once and whole, however often either side or the line between them breaks."""

from __future__ import annotations

import hashlib
import io
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import mlcore
from mlcore import artifacts
from mlcore.errors import ArtifactError, DigestMismatch, StoreError, UnsafePath
from mlcore.store import AttributesSet, Batch, Created, Record, Updated
from mlcore_remote.connection import Connection
from mlcore_remote.files import RemoteFileSystem, open_files, upload
from mlcore_remote.store import RemoteStore
from serving import Serving, Thread, serving, serving_here

PART = 16 << 20
DATA = os.urandom(1 << 20) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Thread]:
    """Serve a store, and let this process in."""
    with serving_here(tmp_path / "store") as found:
        let_in(found, monkeypatch)
        yield found


def let_in(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a server the store of this process."""
    monkeypatch.setenv("MLCORE_STORE", server.url)
    monkeypatch.setenv("MLCORE_TOKEN", server.token)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a large file."""
    path = tmp_path / "large.bin"
    path.write_bytes(DATA)
    return path


class Line:
    """Stand between a client and a server, and cut connections: by `cut`, after so many bytes up, or down."""

    def __init__(self, server: Serving) -> None:
        self._port = server.port
        self.up, self.down, self.most_up, self.most_down = 0, 0, list[int](), list[int]()
        self.stop, self.go = 1 << 60, threading.Event()  # bytes after which nothing more goes up before `go` is set
        self.lost = list[bytes]()  # requests of which the next is stored, and its answer lost
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as behind:
            up = down = 0
            while True:
                ready, _, _ = select.select([client, behind], [], [], 30)
                for each in ready:
                    data = each.recv(1 << 16)
                    if not data:
                        return
                    if each is client:
                        up, self.up = up + len(data), self.up + len(data)
                        if self.most_up and up > self.most_up[0]:
                            self.most_up.pop(0)
                            return
                        if self.up > self.stop:
                            self.go.wait(60)
                        for request in self.lost:
                            if request in data:
                                self.lost.remove(request)
                                behind.sendall(data)
                                behind.recv(1 << 16)
                                return
                        behind.sendall(data)
                    else:
                        down, self.down = down + len(data), self.down + len(data)
                        if self.most_down and down > self.most_down[0]:
                            self.most_down.pop(0)
                            return
                        client.sendall(data)

    def close(self) -> None:
        self.go.set()
        self._socket.close()


@contextmanager
def line_to(server: Serving, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Line, RemoteFileSystem]]:
    """Yield a line to a server, and a filesystem at its other end."""
    line = Line(server)
    monkeypatch.setenv("MLCORE_STORE", line.url)
    connection = Connection(line.url)
    try:
        yield line, RemoteFileSystem(connection)
    finally:
        connection.close()
        line.close()


# A run on a server is a run


def test_files_and_models_are_as_in_a_local_store(server: Thread, tmp_path: Path, large: Path) -> None:
    """Guards the promise of one API: the same calls, the same answers, and the same files in the server's folder."""
    from sklearn.linear_model import LinearRegression

    found = []
    for store in (server.url, tmp_path / "local"):
        client = mlcore.Client(store)
        with client.start_run(name="training") as run:
            run.log_text("größe", "notes/größe.txt")
            run.log_artifact(large, "large.bin")
            run.log_dict({"a": [1, 2]}, "d.json")
            model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
            run.log_model(model, "model")
            back = client.get_run(run.id)
            assert client.load_model(f"runs:/{run.id}/model").predict([[2.0]]).tolist() == pytest.approx([5.0])
            assert back.artifacts.verify() == []
            with back.artifacts.open("large.bin") as file:
                file.seek(-5, io.SEEK_END)
                assert file.read() == DATA[-5:]
            assert back.artifacts.get("notes").joinpath("größe.txt").read_text() == "größe"
            listed = [(each.path, each.size, each.sha256, each.uri) for each in back.artifacts.list()]
            # a model's files have the time and the run in them
            found.append([each if "model/" not in each[0] else each[0] for each in listed])
            assert "artifacts" not in back._now().fields
    assert found[0] == found[1]
    (folder,) = (tmp_path / "store" / "runs").glob("*/*/artifacts")
    assert (folder / "large.bin").read_bytes() == DATA
    same = mlcore.Client(tmp_path / "store").get_run(folder.parent.name)
    assert same.artifacts.verify() == []
    assert same.artifacts.get("d.json") == folder / "d.json"


def test_the_shell_works_the_same(server: Thread, tmp_path: Path, large: Path) -> None:
    """Guards ``mlcore artifacts`` and ``mlcore models`` on a server."""
    with mlcore.Client().start_run(name="training") as run:
        run.log_text("x", "notes.txt")

    def shell(*arguments: str) -> str:
        command = [sys.executable, "-m", "mlcore", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    shell("artifacts", "put", run.id, str(large), "data/large.bin")
    shell("artifacts", "get", run.id, "data", "back")
    assert (tmp_path / "back" / "large.bin").read_bytes() == DATA
    assert "2 files, 0 problems" in shell("artifacts", "verify", run.id)


# Large files go on where they stopped


def test_a_part_whose_connection_is_cut_is_sent_again(
    server: Thread, monkeypatch: pytest.MonkeyPatch, large: Path
) -> None:
    """Guards bad lines: of what has arrived little is sent twice, and the file is there once."""
    with line_to(server, monkeypatch) as (line, filesystem):
        line.most_up = [1000, 3 << 20, 5 << 20]
        ticks = list[int]()
        assert filesystem.put_hashed(str(large), f"{'a' * 32}/x", ticks.append) == (len(DATA), SHA256)
        assert line.most_up == []
        assert line.up < len(DATA) + 3 * PART
        assert sum(ticks) == len(DATA)
        assert filesystem.cat_file(f"{'a' * 32}/x") == DATA


def test_an_answer_that_was_lost_is_no_error(server: Thread, monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    """Guards the moment after the last byte: the file appeared, and who asks again is told so."""
    with line_to(server, monkeypatch) as (line, filesystem):
        line.lost = [b"POST /api/v1/uploads HTTP", b"/complete", b"PUT /api/v1/runs"]
        filesystem.put_hashed(str(large), f"{'a' * 32}/x", abs)
        with filesystem.open(f"{'a' * 32}/small", "wb") as file:
            file.write(b"small")
        assert line.lost == []
        assert filesystem.find("a" * 32) == [f"{'a' * 32}/small", f"{'a' * 32}/x"]
        assert filesystem.cat_file(f"{'a' * 32}/x") == DATA


def half_way(store: Path) -> None:
    """Wait until a part of an upload has arrived."""
    deadline = time.monotonic() + 60
    while not any(each.stat().st_size for each in (store / "uploads").glob("*/done")):
        assert time.monotonic() < deadline, "nothing arrives"
        time.sleep(0.01)


def test_a_server_that_is_killed_and_started_again_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: Path
) -> None:
    """Guards an upload from the server's end: it waits, goes on, and nothing of it is there twice."""
    with large.open("ab") as file:
        file.truncate(120 << 20)
    with serving(tmp_path / "store", no_token="1") as server, line_to(server, monkeypatch) as (line, filesystem):
        line.stop, failed = 50 << 20, list[Exception]()

        def send() -> None:
            try:
                filesystem.put_hashed(str(large), f"{'a' * 32}/x", abs)
            except Exception as error:  # noqa: BLE001 - looked at below
                failed.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        half_way(tmp_path / "store")
        server.kill()
        line.go.set()
        time.sleep(2)
        server.start()
        thread.join()
        assert failed == []
        assert filesystem.info(f"{'a' * 32}/x")["sha256"] == artifacts.hash_file(large)
        assert line.up < (120 << 20) + 5 * PART
        assert list((tmp_path / "store" / "uploads").iterdir()) == []


SEND = """
    import sys
    from mlcore_remote.files import open_files
    filesystem, path = open_files(sys.argv[2])
    filesystem.put_hashed(sys.argv[1], path, abs)
"""


def test_a_client_that_is_killed_leaves_the_rest_to_the_next(
    server: Thread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: Path
) -> None:
    """Guards an upload from the client's end: another process that sends the same file sends what is missing."""
    with large.open("ab") as file:
        file.truncate(120 << 20)
    with line_to(server, monkeypatch) as (line, _):
        line.stop = 50 << 20
        uri = f"mlcore+{line.url}/runs/{'a' * 32}/files"
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SEND), str(large), f"{uri}/x"])
        half_way(tmp_path / "store")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert server.get(f"/api/v1/runs/{'a' * 32}/files").json["files"] == []
    sha256, ticks = artifacts.hash_file(large), list[int]()
    with line_to(server, monkeypatch) as (line, filesystem):
        filesystem.send(f"{'a' * 32}/x", large, 120 << 20, sha256, ticks.append)
        assert line.up < (120 << 20) - (4 << 20)
    assert sum(ticks) == 120 << 20
    assert server.ask("HEAD", f"/api/v1/runs/{'a' * 32}/files/x").headers["mlcore-sha256"] == sha256


def test_a_file_that_changed_since_it_was_logged_is_refused(server: Thread, large: Path, tmp_path: Path) -> None:
    """Guards spooled references: what arrives is what was logged, or nothing."""
    uri = f"mlcore+{server.url}/runs/{'a' * 32}/files"
    upload(uri, "x/y", large, size=len(DATA), sha256=SHA256)
    small = tmp_path / "small"
    small.write_bytes(b"now")
    changed = DATA[:-1] + bytes([DATA[-1] ^ 1])
    large.write_bytes(changed)
    for path, size, sha256 in ((large, len(DATA), SHA256), (small, 3, "0" * 64)):
        with pytest.raises(DigestMismatch):
            upload(uri, "x/y", path, size=size, sha256=sha256)
    large.write_bytes(b"short")
    with pytest.raises(ArtifactError, match="shorter"):
        upload(uri, "x/z", large, size=len(DATA), sha256=SHA256)
    with pytest.raises(FileNotFoundError):
        upload(uri, "x/z", tmp_path / "missing", size=1, sha256=SHA256)
    with pytest.raises(UnsafePath):
        upload(uri, "../x", small, size=3, sha256=hashlib.sha256(b"now").hexdigest())
    with pytest.raises(ArtifactError, match="folder"):
        upload(uri, "x", small, size=3, sha256=hashlib.sha256(b"now").hexdigest())
    assert list(open_files(uri)[0].find("a" * 32)) == [f"{'a' * 32}/x/y"]


def test_a_server_that_is_not_there_is_told_of_soon(tmp_path: Path, large: Path) -> None:
    """Guards the uploader, which comes back later and must know that it has to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(StoreError):
        upload(f"mlcore+http://127.0.0.1:{port}/runs/a/files", "x", large, size=len(DATA), sha256=SHA256)
    assert time.monotonic() - began < 10


# Reading goes on, too


def test_a_reader_whose_connection_is_cut_goes_on(server: Thread, monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    """Guards long downloads: from the byte that was missing, and what was read is what was stored."""
    with line_to(server, monkeypatch) as (line, filesystem):
        filesystem.put_hashed(str(large), f"{'a' * 32}/x", abs)
        line.most_down = [2 << 20, 100, 7 << 20]
        with filesystem.open(f"{'a' * 32}/x", "rb") as file:
            assert file.read() == DATA
        assert line.most_down == []
        before = line.down
        with filesystem.open(f"{'a' * 32}/x", "rb") as file:
            file.seek(30 << 20)
            assert file.read(10) == DATA[30 << 20 :][:10]
        assert line.down - before < 12 << 20  # a reader of a part does not get the whole


def test_a_file_that_is_replaced_while_it_is_read_is_no_mix(server: Thread, large: Path, tmp_path: Path) -> None:
    """Guards readers from two versions in one: they get the rest of the old one, or are told."""
    filesystem, root = open_files(f"mlcore+{server.url}/runs/{'a' * 32}/files")
    artifacts.put(filesystem, root, {"x": large})
    with filesystem.open(f"{root}/x", "rb") as file:
        assert file.read(5) == DATA[:5]
        artifacts.put(filesystem, root, {"x": DATA[::-1]})
        with pytest.raises(ArtifactError, match="replaced"):
            file.read()
    filesystem.get_file(f"{root}/x", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == DATA[::-1]
    with pytest.raises(FileNotFoundError):
        filesystem.get_file(f"{root}/missing", str(tmp_path / "other"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["got", "large.bin"]


# What a server says of files is a stranger's word


@pytest.fixture
def said(server: Thread) -> Callable[..., mlcore.Run]:
    """Return what makes a run of which a hostile server says whatever it likes."""
    store = RemoteStore(server.url)

    def make(*events: Callable[[str], object]) -> mlcore.Run:
        run = os.urandom(16).hex()
        made = (Created("run", run, fields={"name": "x", "status": "FINISHED"}), *(event(run) for event in events))
        store.append(Batch(os.urandom(16).hex(), run, (Record(1, 1, made),)))  # type: ignore[arg-type]
        return mlcore.Client(server.url).get_run(run)

    return make


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\b", "C:x", "..", "", "a//b", "x\0y"])
def test_a_hostile_name_writes_nothing_outside(said: Callable[..., mlcore.Run], tmp_path: Path, name: str) -> None:
    """Guards the machine of who downloads, check B4: a name in a list leads nowhere."""
    kept = {name: {"sha256": "0" * 64, "size": 1}}
    run = said(lambda id: AttributesSet("run", id, "artifacts", kept))
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "dst").mkdir()
    for get in (lambda: run.artifacts.get("", tmp_path / "dst"), lambda: run.artifacts.get(name, tmp_path / "dst")):
        with pytest.raises(ArtifactError):
            get()
    assert list((tmp_path / "dst").iterdir()) == []
    assert sorted(set(tmp_path.rglob("*")) - {tmp_path / "dst"}) == before


@pytest.mark.parametrize(
    "uri",
    [
        "/etc", "etc", "~/x", "file:///etc", "file://localhost/etc", "local:///etc", "FILE:///etc", "/", " /etc",
        "simplecache::file:///etc", "https://host/x::file:///etc", "zip://x::/etc/x.zip", "git:///repo", "dir::/etc",
        "memory://x", "reference://x", "mlcore+http://127.0.0.1:9/runs/a/files", "s3://bucket/../x", "github://a:b@/c",
    ],
)  # fmt: skip
def test_a_server_cannot_name_files_of_this_machine(
    said: Callable[..., mlcore.Run], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the files, and the tokens, of who reads another one's run."""
    opened = list[str]()
    run = said(
        lambda id: Updated("run", id, {"artifacts": uri}),
        lambda id: AttributesSet("run", id, "artifacts", {"x": {"sha256": "0" * 64, "size": 1}}),
        lambda id: AttributesSet("run", id, "artifacts", {"y": {"sha256": "0" * 64, "size": 1, "uri": uri}}),
    )
    real = artifacts.open_backend
    monkeypatch.setattr(artifacts, "open_backend", lambda uri: opened.append(str(uri)) or real(uri))
    for name in ("x", "y", ""):
        for use in (run.artifacts.get, run.artifacts.open):
            with pytest.raises(UnsafePath):
                use(name)
    with pytest.raises(UnsafePath):
        run.log_text("mine", "z")
    assert opened == []


def test_a_user_may_say_that_a_place_is_theirs(said: Callable[..., mlcore.Run], server: Thread, tmp_path: Path) -> None:
    """Guards teams with a shared disk: what the own setting covers is read, and what lies beside it is not."""
    (tmp_path / "shared").mkdir()
    for name in ("shared/x", "shared-not"):
        (tmp_path / name).write_bytes(b"x")
    sha256 = hashlib.sha256(b"x").hexdigest()

    def reference(path: str) -> Callable[[str], object]:
        return lambda id: AttributesSet(
            "run", id, "artifacts", {"f": {"sha256": sha256, "size": 1, "uri": f"{tmp_path}/{path}"}}
        )

    client = mlcore.Client(server.url, artifacts=str(tmp_path / "shared"))
    assert client.get_run(said(reference("shared/x")).id).artifacts.open("f").read() == b"x"
    for path in ("shared-not", "shared/../shared-not"):
        with pytest.raises(UnsafePath, match="MLCORE_ARTIFACTS"):
            client.get_run(said(reference(path)).id).artifacts.open("f")
    local = mlcore.Client(tmp_path / "store").get_run(said(reference("shared-not")).id)
    assert local.artifacts.open("f").read() == b"x"  # a store in an own folder is one's own word


def test_a_token_goes_to_its_server_only(server: Thread, tmp_path: Path) -> None:
    """Guards the token from a URI in a list, a link or a message that names another server."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        uri = f"mlcore+http://127.0.0.1:{other.getsockname()[1]}/runs/a/files"
        seen = list[bytes]()

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                seen.append(connection.recv(1 << 16))
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        filesystem, root = open_files(uri)
        with pytest.raises(FileNotFoundError):
            filesystem.about(f"{root}/x")
        thread.join()
    assert b"HEAD /api/v1/runs/a/files/x" in seen[0]
    assert server.token.encode() not in seen[0]
    assert b"authorization" not in seen[0].lower()


def test_what_names_no_files_is_refused() -> None:
    """Guards against URIs that are nearly right."""
    for uri in (
        "mlcore+http://host",
        "mlcore+http://host/runs/a",
        "http://host/runs/a/files",
        "mlcore+http://h/runs/../files",
    ):
        with pytest.raises(ArtifactError):
            open_files(uri)
