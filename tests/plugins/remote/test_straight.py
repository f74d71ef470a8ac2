"""Large files past the server: straight to and from its bucket, and through it wherever that does not go."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlcore.errors import ArtifactError, DigestMismatch
from mlcore_remote.addresses import address_of
from mlcore_remote.buckets import FAR, HERE, NEAR, NOWHERE, Bucket, Link, Unreached, distance
from mlcore_remote.connection import Connection
from mlcore_remote.files import RemoteFileSystem
from serving import Thread, serving_here
from signing_bucket import Signing, signing_bucket

PART = 1 << 20
LARGE = 1 << 19
DATA = os.urandom(5 << 19)  # two parts and a half
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little files be large, and pauses short."""
    monkeypatch.setattr("mlcore_server.signing._PART", PART)
    monkeypatch.setattr("mlcore_remote.sending.SMALL", LARGE)
    monkeypatch.setattr("mlcore_remote.straight._BLOCK", PART // 3)
    monkeypatch.setattr("mlcore_remote.sending._SECONDS", 0.01)
    monkeypatch.setattr("mlcore_remote.straight._SECONDS", 0.001)


@pytest.fixture(scope="module")
def signing() -> Iterator[Signing]:
    """Provide a bucket that signs."""
    with signing_bucket() as found:
        yield found


@pytest.fixture(scope="module")
def server(signing: Signing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve a store with its files in that bucket."""
    with serving_here(
        tmp_path_factory.mktemp("served") / "store", artifacts="linking://files", direct_size=LARGE
    ) as found:
        yield found


@pytest.fixture
def bucket(signing: Signing) -> Iterator[Signing]:
    """Provide the bucket, empty and well."""
    empty = Signing()
    for name in ("answers", "moved", "wrong", "tags", "delay", "requests", "joined", "made"):
        setattr(signing, name, getattr(empty, name))
    signing.files.clear()
    yield signing
    assert not [path for path in signing.files if "/.uploads/" in path]


@pytest.fixture
def files(server: Thread, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteFileSystem]:
    """Provide the files of the server, to one who knows nothing yet of the bucket."""
    monkeypatch.setenv("MLCORE_TOKEN", server.token)
    connection = Connection(server.url)
    yield RemoteFileSystem(connection)
    connection.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a large file."""
    path = tmp_path / "large.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def target() -> str:
    """Return a file of a new run."""
    return f"{os.urandom(16).hex()}/a folder/größe %41?.bin"


def test_a_large_file_passes_the_server_by(
    bucket: Signing, files: RemoteFileSystem, large: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the way there and back: parts and ranges go to the bucket, and nothing of the server goes with them."""
    ticks = list[int]()
    assert files.put_hashed(str(large), target, ticks.append) == (len(DATA), SHA256)
    assert sum(ticks) == len(DATA)
    assert bucket.joined == [3]
    assert len(bucket.asked("PUT")) == 3
    with files.open(target, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    assert len(bucket.asked("GET")) > 1
    for _, _, headers in bucket.requests:
        assert not {name.lower() for name in headers} & {"authorization", "cookie", "mlcore-version"}
    assert [path for path in bucket.files if not path.endswith("größe %41?.bin")] == []
    assert caplog.records == []


def test_whoever_debugs_sees_no_signature(
    bucket: Signing, files: RemoteFileSystem, large: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards logs of clients: urllib3 tells at its lowest level which URLs it asks for."""
    with caplog.at_level(logging.DEBUG):
        files.put_hashed(str(large), target, abs)
    assert "/.uploads/" in caplog.text
    assert "signature" not in caplog.text


def test_a_file_that_stopped_half_way_goes_on_with_what_is_missing(
    bucket: Signing, files: RemoteFileSystem, server: Thread, large: Path, target: str
) -> None:
    """Guards a sender that died: the next one asks what the bucket has, and sends the rest."""
    run, _, name = target.partition("/")
    asked = {"run": run, "path": name, "size": len(DATA), "sha256": SHA256}
    told = server.post("/api/v1/uploads", asked).json
    part = {"offset": PART, "size": PART, "md5": hashlib.md5(DATA[PART : 2 * PART]).hexdigest()}
    link = server.post(f"/api/v1/uploads/{told['id']}/links", {"parts": [part]}).json["links"][0]
    put(link, DATA[PART : 2 * PART])
    assert server.get(f"/api/v1/uploads/{told['id']}").json["direct"]["received"] == [part]
    del bucket.requests[:]
    ticks = list[int]()
    files.put_hashed(str(large), target, ticks.append)
    assert (len(bucket.asked("PUT")), sum(ticks)) == (2, len(DATA))
    assert files.cat_file(target) == DATA


def put(link: Any, data: bytes) -> int:
    """Use a link as any program can; return the status."""
    bucket = Bucket(address_of("http://127.0.0.1:1"), lambda: "127.0.0.1")
    answer = bucket.send("PUT", Link.read(link), {"Content-Length": str(len(data))}, lambda: [data])
    answer.drain_conn()
    bucket.close()
    return answer.status


def test_parts_that_the_server_passed_on_are_used_as_well(
    bucket: Signing, files: RemoteFileSystem, server: Thread, large: Path, target: str
) -> None:
    """Guards clients of both kinds on one upload: the server makes a file of what came either way, and hashes it."""
    run, _, name = target.partition("/")
    asked = {"run": run, "path": name, "size": len(DATA), "sha256": SHA256}
    told = server.post("/api/v1/uploads", asked).json
    path = f"/api/v1/uploads/{told['id']}"
    assert server.ask("PATCH", path, DATA[:1000], {"Upload-Offset": "0"}).status == 204
    files.put_hashed(str(large), target, abs)
    assert bucket.joined == []
    assert files.cat_file(target) == DATA


def closed() -> str:
    """Return the URL of a port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.mark.parametrize("why", ["closed", "name", "moved", "denied", "encrypted", "garbage", "broken", "tls"])
def test_where_the_bucket_is_of_no_use_files_go_through_the_server(
    why: str, bucket: Signing, files: RemoteFileSystem, large: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards firewalls, names that only the server knows, and whatever a bucket does: one warning, and it works."""
    if why == "closed":
        bucket.made = closed()
    elif why == "name":
        bucket.made = "http://bucket.invalid"
    elif why == "tls":
        bucket.made = bucket.url.replace("http", "https")
    elif why == "garbage":
        bucket.made = "file://"
    elif why == "moved":
        bucket.moved = f"{bucket.url}/elsewhere"
    elif why == "encrypted":
        bucket.tags = False
    elif why == "broken":
        bucket.wrong = 1
    else:
        bucket.answers = [403] * 40
    for name in (target, f"{target}.2"):
        files.put_hashed(str(large), name, abs)
        with files.open(name, "rb") as file:
            assert file.read() == DATA
    assert not {"/elsewhere"} & set(bucket.asked("PUT"))
    (told,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "go through the server" in told.getMessage()
    assert "signature" not in caplog.text


def test_a_bucket_that_fails_for_a_while_is_asked_again(
    bucket: Signing, files: RemoteFileSystem, large: Path, target: str
) -> None:
    """Guards busy buckets: 503 and 500 cost a try each, with a link of its own."""
    bucket.answers = [503, 500, 503, 403]
    files.put_hashed(str(large), target, abs)
    bucket.answers = [503, 403]
    with files.open(target, "rb") as file:
        assert file.read() == DATA
    assert (len(bucket.asked("PUT")), bucket.joined, files._connection.bucket.usable) == (7, [3], True)


def test_a_file_that_changes_before_it_is_sent_is_refused(
    bucket: Signing, files: RemoteFileSystem, large: Path, target: str
) -> None:
    """Guards the sha256 of a record: parts that the bucket took do not become a file of another one."""
    with pytest.raises(DigestMismatch, match="changed"):
        files.send(target, large, len(DATA), "0" * 64)
    assert bucket.files == {}


def test_what_was_stored_of_another_file_is_stored_again(
    bucket: Signing, files: RemoteFileSystem, server: Thread, large: Path, target: str
) -> None:
    """Guards a sender that died while its file changed: what it sent is compared with the file as it is."""
    run, _, name = target.partition("/")
    told = server.post("/api/v1/uploads", {"run": run, "path": name, "size": len(DATA), "sha256": SHA256}).json
    part = {"offset": 0, "size": PART, "md5": hashlib.md5(bytes(PART)).hexdigest()}
    put(server.post(f"/api/v1/uploads/{told['id']}/links", {"parts": [part]}).json["links"][0], bytes(PART))
    files.put_hashed(str(large), target, abs)
    assert files.cat_file(target) == DATA


def test_a_file_that_is_replaced_while_it_is_read_is_told_of(
    bucket: Signing, files: RemoteFileSystem, large: Path, target: str
) -> None:
    """Guards readers against half of one file and half of another."""
    files.put_hashed(str(large), target, abs)
    with files.open(target, "rb") as file:
        file.read(10)
        (stored,) = bucket.files
        bucket.publish(stored, DATA[::-1])
        with pytest.raises(ArtifactError, match="replaced"):
            file.read()
    with files.open(target, "rb") as file:
        assert file.read() == DATA[::-1]


def test_a_file_of_one_part_is_copied_where_it_is(
    bucket: Signing, files: RemoteFileSystem, tmp_path: Path, target: str
) -> None:
    """Guards what is large but not very: one request, and a copy within the bucket."""
    path = tmp_path / "file"
    path.write_bytes(DATA[: LARGE + 1])
    files.put_hashed(str(path), target, abs)
    assert (len(bucket.asked("PUT")), bucket.joined, len(bucket.files)) == (1, [], 1)
    path.write_bytes(DATA[: LARGE - 1])
    files.put_hashed(str(path), f"{target}.2", abs)
    assert len(bucket.asked("PUT")) == 1


@pytest.mark.parametrize("settings", [{"no_direct": True, "direct_size": 1}, {"direct_size": 1 << 40}])
def test_a_server_can_be_told_to_pass_all_files_on(
    settings: dict[str, Any], bucket: Signing, tmp_path: Path, large: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the switch, and clients of servers that know of no links."""
    with serving_here(tmp_path / "store", artifacts="linking://files", **settings) as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        connection = Connection(server.url)
        files = RemoteFileSystem(connection)
        files.put_hashed(str(large), target, abs)
        with files.open(target, "rb") as file:
            assert file.read() == DATA
        connection.close()
    assert bucket.requests == []


def test_clients_are_sent_to_the_endpoint_that_they_can_reach(
    bucket: Signing, tmp_path: Path, large: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards buckets that have one name for the server and another for everybody else."""
    inner, bucket.made = bucket.url, closed()
    with serving_here(
        tmp_path / "store", artifacts="linking://files", direct_size=LARGE, direct_endpoint=inner
    ) as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        connection = Connection(server.url)
        RemoteFileSystem(connection).put_hashed(str(large), target, abs)
        connection.close()
    assert len(bucket.asked("PUT")) == 3


@pytest.mark.parametrize(
    ("address", "far"),
    [
        *((each, FAR) for each in ("8.8.8.8", "2001:4860:4860::8888")),
        *((each, NEAR) for each in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1")),
        *((each, NEAR) for each in ("::ffff:10.0.0.1", "64:ff9b::a00:1")),
        *((each, HERE) for each in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::")),
        *((each, HERE) for each in ("::ffff:127.0.0.1", "2002:7f00:1::")),
        *((each, NOWHERE) for each in ("169.254.169.254", "fe80::1%eth0", "224.0.0.1", "255.255.255.255")),
        *((each, NOWHERE) for each in ("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe")),
    ],
)  # fmt: skip
def test_how_near_an_address_is(address: str, far: int) -> None:
    """Guards against addresses that are written as others."""
    assert distance(address) == far


HOSTS = ["127.0.0.1", "localhost", "localhost.", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize("peer", ["8.8.8.8", "10.0.0.1", ""])
@pytest.mark.parametrize("host", HOSTS)
def test_a_server_elsewhere_cannot_send_anybody_to_services_of_their_machine(host: str, peer: str) -> None:
    """Guards what listens on a client's machine and trusts whoever connects: nothing does, whatever the name."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        bucket = Bucket(address_of("http://server.example"), lambda: peer)
        link = {"url": f"http://{host}:{listener.getsockname()[1]}/x?signature=s3cret", "headers": {}, "seconds": 60}
        with pytest.raises(Unreached) as caught:
            bucket.send("GET", Link.read(link), {})
        assert "s3cret" not in repr(caught.value)
        with pytest.raises(TimeoutError):
            listener.accept()
        bucket.close()


def test_a_proxy_is_not_asked_for_addresses_of_its_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what a proxy could reach for a server that sends its clients there by number."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.05)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        bucket = Bucket(address_of("http://server.example"), lambda: "")
        link = {"url": "http://169.254.169.254/latest/meta-data", "headers": {}, "seconds": 60}
        with pytest.raises(Unreached, match="no server may"):
            bucket.send("GET", Link.read(link), {})
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_a_link_of_an_encrypted_server_is_encrypted() -> None:
    """Guards files and signatures on their way: a server that speaks TLS cannot send anybody to plain HTTP."""
    bucket = Bucket(address_of("https://server.example"), lambda: "8.8.8.8")
    with pytest.raises(Unreached, match="not encrypted"):
        bucket.send("GET", Link.read({"url": "http://8.8.4.4/x", "headers": {}, "seconds": 60}), {})


@pytest.mark.parametrize(
    "told",
    [
        *({"url": url, "headers": {}, "seconds": 60} for url in (
            "file:///etc/passwd", "ftp://example.org/x", "gopher://example.org/x", "//example.org/x", "/x", "", None, 7,
            "http://", "http://user:password@example.org/x", "http://example.org:99999/x", "http://example.org:0/x",
            "http://example.org/a b", "http://example.org/x\r\nHost: other", "http://exa mple.org/x", "https://é.org/x",
            "http://example.org/ü", "http+unix:///run/docker.sock", f"http://example.org/{'x' * 9000}",
        )),
        *({"url": "http://example.org/x", "headers": headers, "seconds": 60} for headers in (
            {"Authorization": "Bearer x"}, {"Host": "other"}, {"x-ok": "a\r\nHost: other"}, {"x-ok": 7}, {"x ok": "a"},
            [1],
        )),
        {"url": "http://example.org/x", "headers": {}}, {"url": "http://example.org/x", "headers": {}, "seconds": "a"},
        [], None, "http://example.org/x",
    ],
)  # fmt: skip
def test_a_link_that_is_none_is_not_followed(told: Any) -> None:
    """Guards against whatever a server may say."""
    with pytest.raises(Unreached):
        Link.read(told)
