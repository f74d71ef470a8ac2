"""What is sent is data: it names no path, is not fetched, not expanded, not imported, not run."""

from __future__ import annotations

import json
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mlcore.store import Batch, Created, Record
from mlcore_remote.protocol import BATCHES, pack_batches
from serving import Serving, Thread, serving, serving_here

CANARY = "canary-e0b5c1"
# what became a path of the server elsewhere, by CVE and by every reading of a name that came later
PATHS = (
    "/etc", "file:///etc", "file://localhost/etc", "//proc/self/", "\\..\\..", "C:\\x", "http://h#/../etc", "..", ".",
    "mlflow-artifacts:/x/../../y", "x/%252e%252e/x", "x?/../..", "x;/../..", "../../x", "%2e%2e%2f", "a/../../b", "\0",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve a store beside a file that nobody may read."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "secret").write_text(CANARY)
    (folder / "inner").mkdir()
    with serving_here(folder / "inner" / "store", no_token=True) as server:
        yield server


def run_with(server: Serving, fields: dict[str, Any], tags: dict[str, Any] | None = None) -> str:
    """Log a run with fields and tags, and return its id."""
    run = uuid4().hex
    events: list[dict[str, Any]] = [{"type": "Created", "kind": "run", "id": run, "fields": fields}]
    if tags:
        events.append({"type": "AttributesSet", "kind": "run", "id": run, "family": "tags", "values": tags})
    batch = {"source": uuid4().hex, "home": run, "records": [{"number": 1, "stamp": 1, "events": events}]}
    assert server.post("/api/v1/batches", {"batches": [batch]}).json == {"results": [None]}
    return run


def tree(folder: Path) -> set[str]:
    """Return every path below a folder that is not the store's."""
    return {
        str(each.relative_to(folder)) for each in folder.rglob("*") if "store" not in each.relative_to(folder).parts
    }


@pytest.mark.parametrize("place", PATHS)
def test_what_a_run_says_of_its_place_is_never_followed(server: Thread, place: str) -> None:
    """A1, A3, A5: files are in the run's own folder, whatever its record says, also with tags that mean something."""
    outside = Path(server.app.service.settings.store).parents[1]
    before = tree(outside)
    if place != "\0":
        run = run_with(server, {"artifacts": place, "uri": place, "source": place}, {"mlflow.prompt.is_prompt": "true"})
        for name in ("passwd", "secret", "etc/passwd", "environ"):
            assert server.get(f"/api/v1/runs/{run}/files/{name}").status == 404
        assert server.get(f"/api/v1/runs/{run}/files").json == {"files": [], "next": None}
        put = server.ask(
            "PUT", f"/api/v1/runs/{run}/files/x.txt", b"mine", {"Content-Type": "application/octet-stream"}
        )
        assert put.status == 201 and server.get(f"/api/v1/runs/{run}/files/x.txt").body == b"mine"
    assert tree(outside) == before


@pytest.mark.parametrize("id", [*PATHS, "x" * 5_000, "run\n", "é", "CON", " ", ""])
def test_no_id_is_a_path(server: Thread, id: str) -> None:
    """B2: homes, sources, entities, claims: refused or taken for a name, and no file is made of them."""
    outside = Path(server.app.service.settings.store).parents[1]
    before, store = tree(outside), Path(server.app.service.settings.store)
    event = {"type": "Created", "kind": "run", "id": id, "fields": {}}
    for given in (
        {"source": id, "home": uuid4().hex}, {"source": uuid4().hex, "home": id or ".."},
        {"source": uuid4().hex, "home": uuid4().hex, "claim": id}, {"source": uuid4().hex, "home": "", "claim": id},
    ):  # fmt: skip
        batch = {**given, "records": [{"number": 1, "stamp": 1, "events": [event]}]}
        answer = server.post("/api/v1/batches", {"batches": [batch]})
        assert answer.status in (200, 400)
    assert server.post("/api/v1/get", {"kind": "run", "ids": [id]}).status in (200, 400)
    assert server.post("/api/v1/get", {"kind": id, "ids": ["x"]}).status in (200, 400)
    assert server.post("/api/v1/series", {"kind": "run", "ids": [id], "keys": [id]}).status in (200, 400)
    assert tree(outside) == before
    assert not [each for each in store.rglob("*") if not each.resolve().is_relative_to(store.resolve())]


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """Listen on a port of this machine, and remember who came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        ends = threading.Event()

        def take() -> None:
            while not ends.is_set():
                try:
                    connection, address = listener.accept()
                except TimeoutError:
                    continue
                came.append(address)
                connection.close()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listener.getsockname()[1], came
        finally:
            ends.set()
            thread.join()


def test_no_url_that_is_sent_is_ever_fetched(server: Thread) -> None:
    """C1, C4: whatever field it stands in, and however it writes this machine."""
    with listening() as (port, came):
        for host in ("127.0.0.1", "[::1]", "0.0.0.0", "127.1", "2130706433", "[::ffff:127.0.0.1]", "localhost."):
            for scheme in ("http", "ftp", "gopher", "mlcore+http", "s3"):
                url = f"{scheme}://{host}:{port}/x"
                run = run_with(server, {"artifacts": url, "uri": url, "name": url}, {"url": url, "webhook": url})
                server.get(f"/api/v1/runs/{run}/files")
                server.get(f"/api/v1/runs/{run}/files/x")
                server.post("/api/v1/find", {"kind": "run", "query": {"limit": 1}})
        assert came == []


def test_a_servers_secrets_stay_with_it_whatever_is_written(tmp_path: Path) -> None:
    """C6, C7: no text is expanded; no answer, page or log has what the server's environment has."""
    log = tmp_path / "audit"
    with serving(tmp_path / "store", "--audit-log", str(log), canary_secret=CANARY) as server:
        texts = ("$MLCORE_SERVER_CANARY_SECRET", "${MLCORE_SERVER_CANARY_SECRET}", "{{env}}", "%(x)s", "{0.__class__}")
        for text in texts:
            run = run_with(server, {"name": text, "artifacts": text}, {"t": text})
            found = server.get(f"/api/v1/entities/run/{run}")
            assert found.json["fields"]["name"] == text and CANARY.encode() not in found.body
            assert CANARY.encode() not in server.get(f"/api/v1/runs/{run}/files/{text}").body
        for path in ("/metrics", "/version", "/openapi.json", "/health", "/api/v1/events", "/nothing"):
            body = server.get(path).body
            assert CANARY.encode() not in body and server.token.encode() not in body
        server.ask("GET", f"/metrics?token={CANARY}&x={server.token}")
        server.ask("GET", "/metrics", None, {"Authorization": f"Bearer {CANARY}"})
        secret = server.token
        server.stop()
        told = server.errors.read_text() + log.read_text()
    assert CANARY not in told and secret not in told


# Watches a server process from its first line on; what happens is kept once the file `armed` is there.
_WATCH = """
import os, sys
armed, told = os.environ["WATCH_ARMED"], os.environ["WATCH_TOLD"]
names = {"import", "exec", "compile", "pickle.find_class", "marshal.loads", "os.system", "os.exec", "os.posix_spawn",
         "subprocess.Popen", "ctypes.dlopen", "shutil.unpack_archive", "urllib.Request", "socket.connect"}
inside = False
def watch(event, arguments):
    global inside
    if event in names and not inside:
        inside = True
        try:
            if os.path.exists(armed):
                with open(told, "a") as file:
                    file.write(f"{event} {str(arguments)[:200]}\\n")
        finally:
            inside = False
sys.addaudithook(watch)
"""


class Payload:
    """Touch a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._marker,))


def test_no_request_makes_the_server_import_unpickle_or_run_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1, D3: an audit hook watches the interpreter while every route is asked, with a hostile model as files."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(_WATCH)
    armed, told, marker = tmp_path / "armed", tmp_path / "told", tmp_path / "marker"
    for name, value in (("PYTHONPATH", tmp_path / "watch"), ("WATCH_ARMED", armed), ("WATCH_TOLD", told)):
        monkeypatch.setenv(name, str(value))
    model = {
        "model/MLmodel": b"flavors: {python_function: {loader_module: evil, code: code, data: m.pkl}}",
        "model/m.pkl": pickle.dumps(Payload(marker)),
        "model/code/evil.py": f"open({str(marker)!r}, 'w')".encode(),
        "sitecustomize.py": f"open({str(marker)!r}, 'w')".encode(),
        "x.yaml": f"!!python/object/apply:os.system ['touch {marker}']".encode(),
    }

    def everything(server: Serving) -> None:
        run = run_with(server, {"name": "x", "loader_module": "evil"}, {"t": "x"})
        packed = pack_batches([Batch(uuid4().hex, run, (Record(1, 1, (Created(kind="run", id=run, fields={}),)),))])
        for body in (packed, pickle.dumps(Payload(marker))):
            server.ask("POST", "/api/v1/batches", body, {"Content-Type": BATCHES})
        binary = {"Content-Type": "application/octet-stream"}
        for name, content in model.items():
            assert server.ask("PUT", f"/api/v1/runs/{run}/files/{name}", content, binary).status == 201
            assert server.get(f"/api/v1/runs/{run}/files/{name}").body == content
            server.ask("GET", f"/api/v1/runs/{run}/files/{name}", None, {"Range": "bytes=1-2"})
        announced = {"run": run, "path": "model/big.pkl", "size": 3, "sha256": "0" * 64}
        upload = server.post("/api/v1/uploads", announced)
        assert upload.status < 300
        for route in json.loads(server.get("/openapi.json").body)["paths"]:
            path = route.format(kind="run", id=run, run=run, path="x.yaml", number=1)
            if not path.endswith("/live"):
                server.ask("GET", path)
        server.post("/api/v1/find", {"kind": "run", "query": {"limit": 5, "count": True}})
        server.post("/api/v1/get", {"kind": "run", "ids": [run]})
        server.post("/api/v1/series", {"kind": "run", "ids": [run]})
        server.ask("GET", "/api/v1/events", None, {"Accept": "application/x-ndjson", "Accept-Encoding": "gzip"})
        server.ask("DELETE", f"/api/v1/runs/{run}/files/x.yaml")
        server.ask("GET", "/login?token=x")
        server.ask("POST", "/logout", b"")

    armed.touch()
    with serving(tmp_path / "store", login_window="0") as server:
        assert "import" in told.read_text()  # the watch works
        armed.unlink()
        told.unlink()
        everything(server)  # what is loaded late is loaded now
        armed.touch()
        everything(server)
        armed.unlink()
    assert not marker.exists()
    assert not told.exists(), told.read_text()
