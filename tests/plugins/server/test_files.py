"""Files of runs over HTTP: what is sent for what is asked, and that a file is there whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlcore
from serving import Answer, Process, Serving, Thread, serving, serving_here

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve a store in a folder."""
    with serving_here(tmp_path_factory.mktemp("served") / "store") as found:
        yield found


@pytest.fixture
def files(server: Thread) -> str:
    """Return the path of the files of a new run, with one file."""
    path = f"/api/v1/runs/{os.urandom(16).hex()}/files"
    assert server.ask("PUT", f"{path}/a/name.bin", DATA).status == 201
    return path


def root_of(server: Thread) -> Path:
    """Return the folder of the store."""
    return Path(server.app.service.store.root)


def all_below(folder: Path) -> set[str]:
    """Return every file below a folder, of whatever kind."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def error_of(answer: Answer) -> tuple[int, str]:
    """Return status and type of an error."""
    return answer.status, answer.json["error"]["type"]


# Reading


@pytest.mark.parametrize(
    ("asked", "status", "found"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=5-5", 206, slice(5, 6)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=-99999", 206, slice(None)),
        ("bytes=10000-99999", 206, slice(10_000, None)),
        ("bytes=10240-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=0-1,3-4", 416, None),
        ("bytes=9-3", 200, slice(None)),
        ("bytes=a-b", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_a_range_is_sent_alone(server: Thread, files: str, asked: str, status: int, found: slice | None) -> None:
    """Guards readers of a part of a large file; what is no range is as if it were not there, as RFC 9110 has it."""
    answer = server.get(f"{files}/a/name.bin", Range=asked)
    assert answer.status == status
    if found is None:
        assert answer.headers["content-range"] == "bytes */10240"
        return
    assert answer.body == DATA[found]
    if status == 206:
        start, end, _ = found.indices(len(DATA))
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10240"


def test_a_client_that_has_the_file_is_not_sent_it_again(server: Thread, files: str) -> None:
    """Guards caches, and readers of ranges that belong together."""
    path = f"{files}/a/name.bin"
    etag = server.ask("HEAD", path).headers["etag"]
    assert etag == f'"{SHA256}"'
    assert server.get(path, **{"If-None-Match": f'"x", W/{etag}'}).status == 304
    assert server.get(path, **{"If-None-Match": "*"}).status == 304
    assert server.get(path, **{"If-None-Match": '"x"'}).body == DATA
    assert server.get(path, **{"If-Match": etag, "Range": "bytes=0-1"}).body == DATA[:2]
    assert server.get(path, **{"If-Match": '"x"', "Range": "bytes=0-1"}).status == 412
    assert server.get(path, **{"If-Range": etag, "Range": "bytes=0-1"}).status == 206
    assert server.get(path, **{"If-Range": '"x"', "Range": "bytes=0-1"}).body == DATA


def test_head_says_all_that_get_does(server: Thread, files: str) -> None:
    """Guards those who look before they read."""
    path = f"{files}/a/name.bin"
    head, got = server.ask("HEAD", path), server.get(path)
    changing = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in got.headers.items() if k not in changing
    }
    assert head.body == b""
    assert head.headers["content-length"] == "10240"
    assert head.headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"


def test_a_browser_keeps_a_file_and_runs_nothing_of_it(server: Thread, files: str) -> None:
    """Guards whoever looks at another one's report: no type, no script, no frame, whatever the file claims to be."""
    assert server.ask("PUT", f"{files}/%C3%A9vil.html", b"<script>alert(1)</script>").status == 201
    for path in (f"{files}/%C3%A9vil.html", f"{files}/a/name.bin"):
        headers = server.get(path).headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("sandbox")
    assert "%C3%A9vil.html" in server.get(f"{files}/%C3%A9vil.html").headers["content-disposition"]


def test_a_change_is_noticed_where_the_digest_is_not_known(server: Thread, files: str) -> None:
    """Guards files that others put into the folder: their ETag is another one as soon as they are."""
    run = files.split("/")[4]
    path = root_of(server) / "runs" / run[-2:] / run / "artifacts" / "a" / "name.bin"
    before = server.ask("HEAD", f"{files}/a/name.bin").headers
    path.write_bytes(DATA[::-1])
    after = server.ask("HEAD", f"{files}/a/name.bin").headers
    assert after["etag"] != before["etag"]
    assert "mlcore-sha256" not in after
    asked = server.ask("HEAD", f"{files}/a/name.bin", None, {"Want-Repr-Digest": "sha-256=10"})
    assert asked.headers["mlcore-sha256"] == hashlib.sha256(DATA[::-1]).hexdigest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Range", f"bytes={'9' * 5000}-"),
        ("Range", "bytes=0-" + ",0-" * 3000),
        ("Range", "bytes=\xb2-\xe9"),
        ("If-Match", "\xff"),
        ("If-None-Match", "," * 5000),
        ("If-Range", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("Want-Repr-Digest", "sha-256=\xff"),
        ("Content-Digest", "sha-256=:\xe9:"),
        ("Content-Digest", "=,=,:,;"),
        ("Mlcore-Sha256", "\xe9" * 64),
        ("Upload-Offset", "9" * 5000),
        ("Upload-Offset", "\xb2"),
    ],
)
def test_no_header_makes_the_server_fail(server: Thread, files: str, name: str, value: str) -> None:
    """Guards the server's log: whatever a header says, the answer is never that the server is at fault."""
    upload = server.post("/api/v1/uploads", {"run": "0" * 32, "path": "x", "size": 1, "sha256": "0" * 64}).json["id"]
    for method, path in (
        ("GET", f"{files}/a/name.bin"),
        ("HEAD", f"{files}/a/name.bin"),
        ("PUT", f"{files}/new"),
        ("PATCH", f"/api/v1/uploads/{upload}"),
        ("PUT", f"/api/v1/uploads/{upload}/parts/1"),
    ):
        answer = server.ask(method, path, None if method in ("GET", "HEAD") else b"x", {name: value})
        assert answer.status < 500, (method, answer)
    server.ask("DELETE", f"/api/v1/uploads/{upload}")


# Lists


def test_a_list_comes_in_pages_and_has_what_is_below_a_name(server: Thread, files: str) -> None:
    """Guards large runs, and folders whose names only begin alike."""
    for name in ("a/b/c", "ab", "z"):
        server.ask("PUT", f"{files}/{name}", name.encode())
    assert server.get(files).json == {
        "files": [
            {"path": "a/b/c", "size": 5}, {"path": "a/name.bin", "size": 10_240},
            {"path": "ab", "size": 2}, {"path": "z", "size": 1},
        ],
        "next": None,
    }  # fmt: skip
    assert [each["path"] for each in server.get(f"{files}?prefix=a").json["files"]] == ["a/b/c", "a/name.bin"]
    assert [each["path"] for each in server.get(f"{files}?prefix=ab").json["files"]] == ["ab"]
    first = server.get(f"{files}?limit=3").json
    assert first["next"] == "ab"
    assert server.get(f"{files}?limit=3&after={first['next']}").json == {
        "files": [{"path": "z", "size": 1}], "next": None,
    }  # fmt: skip
    assert server.get(f"{files}?prefix=nothing").json["files"] == []
    for wrong in ("limit=0", "limit=x", "limit=99999", "prefix=../x"):
        assert server.get(f"{files}?{wrong}").status == 400


def test_what_is_removed_is_gone_and_nothing_else_is(server: Thread, files: str) -> None:
    """Guards neighbours; a folder that is empty then makes room for a file of its name."""
    server.ask("PUT", f"{files}/b", b"x")
    assert server.ask("DELETE", f"{files}/a/name.bin").status == 204
    assert server.ask("DELETE", f"{files}/a/name.bin").status == 404
    assert server.ask("PUT", f"{files}/a", b"y").status == 201
    assert [each["path"] for each in server.get(files).json["files"]] == ["a", "b"]


# Whole or not at all


@pytest.mark.parametrize(
    "headers",
    [
        {"Mlcore-Sha256": "0" * 64},
        {"Content-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"},
        {"Mlcore-Sha256": "x"},
        {"Content-Digest": "sha-256=:x:"},
        {"Content-Encoding": "gzip"},
        {"Content-Range": "bytes 0-1/2"},
    ],
)
def test_what_is_not_as_announced_is_not_kept(server: Thread, files: str, headers: dict[str, str]) -> None:
    """Guards the file that is there from one that was broken on its way."""
    before = all_below(root_of(server))
    for name in ("a/name.bin", "new"):
        assert server.ask("PUT", f"{files}/{name}", b"other", headers).status in (400, 409, 415)
    assert all_below(root_of(server)) == before
    assert server.get(f"{files}/a/name.bin").body == DATA


def test_a_digest_that_fits_is_confirmed(server: Thread, files: str) -> None:
    """Guards those who ask to have it checked."""
    value = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    answer = server.ask("PUT", f"{files}/new", b"x", {"Content-Digest": f"md5=:AAAA:, sha-256=:{value}:"})
    assert answer.status == 201
    assert answer.json == {"path": "new", "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}


def send(server: Serving, head: str, body: bytes) -> socket.socket:
    """Send a request as it is, and return the connection."""
    found = socket.create_connection(("127.0.0.1", server.port), 30)
    lines = [head, "Host: 127.0.0.1", f"Authorization: Bearer {server.token}", "", ""]
    found.sendall("\r\n".join(lines).encode() + body)
    return found


def settled(server: Serving, path: str, files: str, expected: set[str]) -> None:
    """Wait until the server has noticed that a client went away."""
    deadline = time.monotonic() + 20
    folder = Path(path)
    while all_below(folder) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all_below(folder) == expected
    assert server.get(f"{files}/a/name.bin").body == DATA


@pytest.mark.parametrize("length", ["Content-Length: 4000000", "Transfer-Encoding: chunked"])
def test_half_a_file_is_none(server: Thread, files: str, length: str) -> None:
    """Guards against short files: a client that dies half way leaves what was there before, and nothing beside it."""
    root = root_of(server)
    before = all_below(root)
    half = b"x" * 2_000_000
    body = half if "Content" in length else b"%x\r\n%b\r\n" % (len(half), half)
    for name in ("a/name.bin", "new"):
        connection = send(server, f"PUT {files}/{name} HTTP/1.1\r\n{length}", body)
        deadline = time.monotonic() + 20
        while all_below(root) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(all_below(root) - before) == 1  # what comes is kept beside the others
        connection.close()
        settled(server, str(root), files, before)


def test_a_killed_server_leaves_no_half_file_and_cleans_up_later(tmp_path: Path) -> None:
    """Guards the same for the other side: what was there stays, and what is left over is removed after three days."""
    with serving(tmp_path / "store") as server:
        files = f"/api/v1/runs/{os.urandom(16).hex()}/files"
        server.ask("PUT", f"{files}/a/name.bin", DATA)
        before = all_below(tmp_path / "store")
        connection = send(server, f"PUT {files}/a/name.bin HTTP/1.1\r\nContent-Length: 4000000", b"x" * 3_000_000)
        deadline = time.monotonic() + 20
        while all_below(tmp_path / "store") == before and time.monotonic() < deadline:
            time.sleep(0.01)
        server.kill()
        connection.close()
        (left,) = all_below(tmp_path / "store") - before
        server.start()
        assert server.get(f"{files}/a/name.bin").body == DATA
        assert [each["path"] for each in server.get(files).json["files"]] == ["a/name.bin"]
        old = time.time() - 73 * 3600
        os.utime(tmp_path / "store" / left, (old, old))
        server.ask("PUT", f"{files}/b", b"")
        deadline = time.monotonic() + 20
        while (tmp_path / "store" / left).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not (tmp_path / "store" / left).exists()


def test_a_full_disk_is_told_of_and_leaves_nothing(tmp_path: Path) -> None:
    """Guards the disk of the server: 507, nothing of the file stays, and the server goes on."""
    with serving(tmp_path / "store") as server:
        files = f"/api/v1/runs/{os.urandom(16).hex()}/files"
        server.ask("PUT", f"{files}/a/name.bin", DATA)
        before = all_below(tmp_path / "store")
        _limit(server, 3_000_000)
        for name in ("a/name.bin", "new"):
            assert error_of(server.ask("PUT", f"{files}/{name}", b"x" * 4_000_000)) == (507, "ArtifactError")
        assert all_below(tmp_path / "store") == before
        huge = {"run": "0" * 32, "path": "huge", "size": 1 << 55, "sha256": "0" * 64}
        assert error_of(server.post("/api/v1/uploads", huge)) == (507, "ArtifactError")
        assert server.get(f"{files}/a/name.bin").body == DATA
        assert server.ask("PUT", f"{files}/new", b"x" * 2_000_000).status == 201


def _limit(server: Process, size: int) -> None:
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_large_files_do_not_grow_the_server(tmp_path: Path) -> None:
    """Guards the server's memory: it has a few pieces of a file at a time, whatever its size."""
    with serving(tmp_path / "store") as server:
        files = f"/api/v1/runs/{os.urandom(16).hex()}/files"
        assert server.process is not None
        status = Path(f"/proc/{server.process.pid}/status")
        assert server.ask("PUT", f"{files}/small", b"x" * 4_000_000).status == 201
        assert len(server.get(f"{files}/small").body) == 4_000_000
        before = _peak(status)
        size = 200 << 20
        connection = send(server, f"PUT {files}/large HTTP/1.1\r\nContent-Length: {size}", b"")
        for _ in range(size >> 20):
            connection.sendall(bytes(1 << 20))
        assert connection.recv(1000).startswith(b"HTTP/1.1 201")
        connection.close()
        assert _read(server, f"{files}/large") > size
        assert _peak(status) - before < 48 << 10


def _read(server: Serving, path: str) -> int:
    """Return the size of an answer, of which nothing is kept."""
    count = 0
    with send(server, f"GET {path} HTTP/1.1\r\nConnection: close", b"") as connection:
        while data := connection.recv(1 << 20):
            count += len(data)
    return count


def _peak(status: Path) -> int:
    """Return the most memory that a process ever had, in kB."""
    return int(status.read_text().partition("VmHWM:")[2].split()[0])


# One store, whoever opens it


def test_a_run_has_the_same_files_by_http_and_in_its_folder(server: Thread) -> None:
    """Guards the one layout: what is logged here is served, and what is put there is read here."""
    with mlcore.Client(root_of(server)).start_run() as run:
        run.log_text("here", "from/here.txt")
    files = f"/api/v1/runs/{run.id}/files"
    assert server.get(f"{files}/from/here.txt").body == b"here"
    assert server.ask("PUT", f"{files}/from/there.txt", b"there").status == 201
    folder = run.artifacts.get("from/here.txt").parent
    assert (folder / "there.txt").read_bytes() == b"there"


def test_a_server_of_a_database_keeps_files_where_it_is_told(tmp_path: Path) -> None:
    """Guards stores without folders: the files are below ``--artifacts``, or the answer says how to have them there."""
    files = f"/api/v1/runs/{'a' * 32}/files"
    with serving_here(f"sqlite:///{tmp_path}/db.sqlite", artifacts=str(tmp_path / "files")) as server:
        assert server.ask("PUT", f"{files}/x", b"1").status == 201
        assert (tmp_path / "files" / ("a" * 32) / "artifacts" / "x").read_bytes() == b"1"
    with serving_here(f"sqlite:///{tmp_path}/db.sqlite") as server:
        answer = server.ask("PUT", f"{files}/x", b"1")
        assert error_of(answer) == (501, "NotSupported")
        assert "--artifacts" in answer.json["error"]["message"]


def test_a_run_with_files_in_its_folder_keeps_them_there(tmp_path: Path) -> None:
    """Guards stores that are older than their server's ``--artifacts``: nothing that was logged is lost from sight."""
    with mlcore.Client(tmp_path / "store").start_run() as run:
        run.log_text("old", "old.txt")
    with serving_here(tmp_path / "store", artifacts=str(tmp_path / "files")) as server:
        assert server.get(f"/api/v1/runs/{run.id}/files/old.txt").body == b"old"
        assert server.ask("PUT", f"/api/v1/runs/{run.id}/files/new.txt", b"new").status == 201
        assert server.ask("PUT", f"/api/v1/runs/{'b' * 32}/files/new.txt", b"new").status == 201
    assert all_below(tmp_path / "files") == {f"{'b' * 32}/artifacts/new.txt"}
