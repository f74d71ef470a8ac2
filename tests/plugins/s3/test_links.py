"""Files straight to and from a real S3 server, by links that a server of mlcore hands out to clients without keys."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from ceph import KEY, SECRET, Bucket, Ceph
from mlcore import artifacts
from mlcore.errors import StoreError
from mlcore.testing import ArtifactBackendContract
from mlcore_remote.connection import Connection
from mlcore_remote.files import RemoteFileSystem
from mlcore_s3.credentials import Credentials
from mlcore_s3.linking import signed_url
from serving import Serving, Thread, serving_here

PART = 16 << 20
DATA = os.urandom(1 << 20) * 40  # two parts and a half
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Thread]:
    """Serve a store with its files in the bucket, and let this process in."""
    with serving_here(tmp_path / "store", artifacts=f"{bucket.uri}/files of all") as found:
        monkeypatch.setenv("MLCORE_TOKEN", found.token)
        monkeypatch.setenv("MLCORE_STORE", found.url)
        yield found


@pytest.fixture
def files(server: Thread) -> Iterator[RemoteFileSystem]:
    """Provide the files of the server."""
    connection = Connection(server.url)
    yield RemoteFileSystem(connection)
    assert connection.bucket.usable  # it was never given up
    connection.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a large file."""
    path = tmp_path / "large.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def run() -> str:
    """Return the id of a run."""
    return os.urandom(16).hex()


def use(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Do something with a link, without any code of mlcore."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request(method, f"{parts.path}?{parts.query}", body, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_example_of_amazon_has_its_signature() -> None:
    """Guards the signature by the example of AWS's own documentation of signed URLs."""
    keys = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    url = signed_url(
        "GET", "https://examplebucket.s3.amazonaws.com", "/test.txt", {}, keys,
        region="us-east-1", seconds=86400, now=1369353600,
    )  # fmt: skip
    assert url.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def test_a_large_file_passes_the_server_by(
    server: Thread, files: RemoteFileSystem, bucket: Bucket, large: Path, run: str, tmp_path: Path
) -> None:
    """Guards the way there and back, and that nothing is left of it but the file."""
    name = "models/größe 100%/a+b~(1)?.bin"
    stored = artifacts.put(files, run, {name: large})
    assert (stored[name].size, stored[name].sha256) == (len(DATA), SHA256)
    assert bucket.names() == [f"files of all/{run}/artifacts/{name}"]
    assert bucket.uploads() == []
    artifacts.get(stored, tmp_path / "got")
    assert (tmp_path / "got" / name).read_bytes() == DATA
    assert server.app.service.metrics  # the server took part in it, and no byte of the file


def announced(server: Serving, run: str, name: str = "a.bin") -> str:
    """Announce the file, and return the id of its upload."""
    asked = {"run": run, "path": name, "size": len(DATA), "sha256": SHA256}
    return str(server.post("/api/v1/uploads", asked).json["id"])


def link_to_write(server: Serving, id: str, number: int = 0) -> dict[str, Any]:
    """Return a link to a part."""
    data = DATA[number * PART : (number + 1) * PART]
    part = {"offset": number * PART, "size": len(data), "md5": hashlib.md5(data).hexdigest()}
    return dict(server.post(f"/api/v1/uploads/{id}/links", {"parts": [part]}).json["links"][0])


def test_a_link_does_one_thing_with_one_object(
    server: Thread, files: RemoteFileSystem, bucket: Bucket, large: Path, run: str
) -> None:
    """Guards what the real server makes of a link that somebody changed, or uses for something else."""
    files.put_hashed(str(large), f"{run}/a.bin", abs)
    files.put_hashed(str(large), f"{run}/b.bin", abs)
    read = server.get(f"/api/v1/runs/{run}/links/a.bin").json["url"]
    assert use(read, Range="bytes=1-3") == (206, DATA[1:4])
    write = link_to_write(server, announced(server, run, "c.bin"))["url"]
    changed = [
        (read, "PUT"), (read, "DELETE"), (read, "POST"), (write, "GET"), (write, "DELETE"),
        (read.replace("/a.bin", "/b.bin"), "GET"), (read.replace("/a.bin", "/../a.bin"), "GET"),
        (read.replace("/artifacts/a.bin", ""), "GET"), (read.replace("X-Amz-Expires=300", "X-Amz-Expires=3000"), "GET"),
        (f"{read}&uploads", "POST"), (f"{read}&acl", "GET"), (f"{write}&acl", "PUT"), (read[:-4] + "0000", "GET"),
        (read.partition("?")[0] + "?", "GET"),
    ]  # fmt: skip
    assert [(url, method) for url, method in changed if use(url, method, b"x" * (method == "PUT"))[0] != 403] == []
    assert files.cat_file(f"{run}/a.bin") == DATA
    assert SECRET not in read + write


def test_a_link_ends(bucket: Bucket, tmp_path: Path, run: str) -> None:
    """Guards against links that are found later."""
    with serving_here(tmp_path / "store", artifacts=bucket.uri, direct_seconds=1) as server:
        link = link_to_write(server, announced(server, run))
        assert link["seconds"] == 1
        time.sleep(2.1)
        assert use(link["url"], "PUT", DATA[:PART])[0] == 403


def test_a_part_that_breaks_on_its_way_is_refused_by_the_bucket(server: Thread, bucket: Bucket, run: str) -> None:
    """Guards lines that change bits: the MD5 goes with the part. Without it, the server compares size and ETag."""
    id = announced(server, run)
    link = link_to_write(server, id)
    import base64

    md5 = base64.b64encode(hashlib.md5(DATA[:PART]).digest()).decode()
    assert use(link["url"], "PUT", bytes(PART), **{"Content-MD5": md5})[0] == 400
    assert use(link["url"], "PUT", bytes(PART))[0] == 200
    assert server.get(f"/api/v1/uploads/{id}").json["direct"]["received"] == []
    assert use(link["url"], "PUT", DATA[:PART], **{"Content-MD5": md5})[0] == 200
    assert server.get(f"/api/v1/uploads/{id}").json["received"] == [[0, PART]]
    assert server.ask("POST", f"/api/v1/uploads/{id}/complete").status == 409
    assert server.ask("DELETE", f"/api/v1/uploads/{id}").status == 204
    assert bucket.names() == []


def test_a_sender_that_is_killed_leaves_nothing_to_see_and_the_next_sends_the_rest(
    server: Thread, files: RemoteFileSystem, bucket: Bucket, run: str, tmp_path: Path
) -> None:
    """Guards jobs that are killed while they upload, at whatever moment."""
    path = tmp_path / "model.bin"
    path.write_bytes(DATA * 3)
    program = f"""
        import os
        from pathlib import Path
        from mlcore_remote.connection import Connection
        from mlcore_remote.files import RemoteFileSystem
        files = RemoteFileSystem(Connection({server.url!r}))
        files.put_hashed({str(path)!r}, "{run}/model.bin", lambda count: print(count, flush=True))
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    sender = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, env=clean, text=True
    )
    assert sender.stdout is not None
    while not sender.stdout.readline().startswith(str(PART)):  # one part has arrived
        pass
    sender.send_signal(signal.SIGKILL)
    sender.wait()
    sender.stdout.close()
    there = [name for name in bucket.names() if not name.endswith("state.json")]
    assert there
    assert all("/.uploads/" in name for name in there)
    ticks = list[int]()
    files.put_hashed(str(path), f"{run}/model.bin", ticks.append)
    assert ticks[0] >= PART * len(there) - PART  # which was not sent again; the last of them may be a shorter one
    assert sum(ticks) == path.stat().st_size
    assert files.cat_file(f"{run}/model.bin") == path.read_bytes()
    assert bucket.names() == [f"files of all/{run}/artifacts/model.bin"]


def test_keys_stay_with_the_server(
    server: Thread, files: RemoteFileSystem, large: Path, run: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Guards the secret: no answer, error or log has it, and clients send nothing of theirs to the bucket."""
    files.put_hashed(str(large), f"{run}/a.bin", abs)
    answers = [
        server.get(f"/api/v1/runs/{run}/links/a.bin").body,
        server.post(f"/api/v1/uploads/{announced(server, run, 'b')}/links", {"parts": [{"offset": 1}]}).body,
        server.get("/metrics").body,
    ]
    told = b"".join(answers).decode() + "".join(capfd.readouterr())
    assert KEY in told  # its name stands in every link
    assert SECRET not in told
    assert quote(SECRET, safe="") not in told


def test_a_wrong_secret_is_told_of_by_the_server(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: Path, run: str
) -> None:
    """Guards what a client sees of a server that is set up wrong: what may go later, in words without the secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with serving_here(tmp_path / "store", artifacts=bucket.uri) as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        connection = Connection(server.url)
        with pytest.raises(StoreError, match="the place where the server keeps files") as caught:
            RemoteFileSystem(connection).put_hashed(str(large), f"{run}/a.bin", abs)
        assert "wrong-secret" not in str(caught.value)
        connection.close()


class TestByLinks(ArtifactBackendContract):
    """Guards the contract where every file that is not empty goes straight to and from the bucket."""

    files_beside_folders = False
    many = 40

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
        with ceph.bucket() as bucket, pytest.MonkeyPatch.context() as patch:
            for name, value in bucket.settings().items():
                patch.setenv(name, value)
            store = tmp_path_factory.mktemp("served") / "store"
            with serving_here(store, artifacts=f"{bucket.uri}/files", direct_size=1) as found:
                yield found

    @pytest.fixture
    def backend(self, server: Thread, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        monkeypatch.setattr("mlcore_remote.sending.SMALL", 0)
        connection = Connection(server.url)
        yield RemoteFileSystem(connection), os.urandom(16).hex()
        assert connection.bucket.usable
        connection.close()
