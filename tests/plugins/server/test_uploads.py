"""Large files in parts: in any order, from anywhere, again after a crash of either side, and whole or not at all."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Answer, Serving, Thread, serving, serving_here

PART = 16 << 20
DATA = os.urandom(1 << 20) * 40  # two parts and a half
SHA256 = hashlib.sha256(DATA).hexdigest()
UPLOADS = "/api/v1/uploads"


@pytest.fixture(scope="module", params=["folder", "memory"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Thread]:
    """Serve a store that keeps files in its folder, and one that keeps them in a filesystem of fsspec."""
    folder = tmp_path_factory.mktemp("served")
    settings = {} if request.param == "folder" else {"artifacts": f"memory://{folder}"}
    with serving_here(folder / "store", **settings) as found:
        yield found


@pytest.fixture
def run() -> str:
    """Return the id of a run."""
    return os.urandom(16).hex()


def announce(server: Serving, run: str, **other: Any) -> Answer:
    """Announce a file, by default the one of this module."""
    return server.post(UPLOADS, {"run": run, "path": "large/file.bin", "size": len(DATA), "sha256": SHA256, **other})


def path_of(answer: Answer) -> str:
    """Return where an upload is."""
    assert answer.status == 201, answer
    assert answer.headers["location"] == f"{UPLOADS}/{answer.json['id']}"
    return answer.headers["location"]


def part(number: int) -> bytes:
    """Return one part of the file."""
    return DATA[(number - 1) * PART : number * PART]


def whole(server: Serving, run: str) -> bytes:
    """Return the file as it is served."""
    return server.get(f"/api/v1/runs/{run}/files/large/file.bin").body


def left(server: Thread) -> list[str]:
    """Return what is kept of files that are not whole."""
    folder = Path(server.app.service.store.root) / "uploads"
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def test_parts_come_in_any_order_and_the_file_when_it_is_whole(server: Thread, run: str) -> None:
    """Guards the way of a large file: numbered parts and offsets, and nothing to be seen before the end."""
    path = path_of(announce(server, run))
    assert server.ask("PUT", f"{path}/parts/2", part(2)).status == 204
    assert server.ask("HEAD", path).headers["upload-offset"] == "0"
    answer = server.ask("PATCH", path, part(1)[:1000], {"Upload-Offset": "0"})
    assert (answer.status, answer.headers["upload-offset"]) == (204, "1000")
    assert server.get(path).json["received"] == [[0, 1000], [PART, 2 * PART]]
    missing = server.ask("POST", f"{path}/complete")
    assert missing.status == 409
    assert f"(1000, {PART})" in missing.json["error"]["message"]
    assert server.ask("HEAD", f"/api/v1/runs/{run}/files/large/file.bin").status == 404
    assert server.get(f"/api/v1/runs/{run}/files").json["files"] == []
    assert server.ask("PATCH", path, part(1)[900:], {"Upload-Offset": "900"}).status == 204  # some of it twice
    assert server.ask("PUT", f"{path}/parts/3", part(3)).headers["upload-offset"] == str(len(DATA))
    assert server.ask("POST", f"{path}/complete").json == {
        "path": "large/file.bin", "size": len(DATA), "sha256": SHA256,
    }  # fmt: skip
    assert whole(server, run) == DATA
    assert server.get(path).status == server.ask("POST", f"{path}/complete").status == 404
    assert left(server) == []


def test_who_announces_the_same_file_again_goes_on(server: Thread, run: str) -> None:
    """Guards clients that died and remember nothing: the upload has its id of run, name, size and sha256."""
    path = path_of(announce(server, run))
    server.ask("PUT", f"{path}/parts/1", part(1))
    again = announce(server, run)
    assert path_of(again) == path
    assert again.json["received"] == [[0, PART]]
    others = [{"path": "other"}, {"size": len(DATA) + 1}, {"sha256": "0" * 64}, {"run": os.urandom(16).hex()}]
    for other in others:
        answer = announce(server, **{"run": run, **other})
        assert answer.json["received"] == []
        assert server.ask("DELETE", path_of(answer)).status == 204
    assert server.ask("DELETE", path).status == 204
    assert server.ask("DELETE", path).status == 404
    assert left(server) == []


def test_what_is_not_as_announced_does_not_appear(server: Thread, run: str) -> None:
    """Guards against a file that changed while it was sent: it is refused, and the next one starts from nothing."""
    server.ask("PUT", f"/api/v1/runs/{run}/files/large/file.bin", b"old")
    path = path_of(announce(server, run, size=10))
    assert server.ask("PATCH", path, b"0123456789", {"Upload-Offset": "0"}).status == 204
    answer = server.ask("POST", f"{path}/complete")
    assert (answer.status, answer.json["error"]["type"]) == (409, "DigestMismatch")
    assert whole(server, run) == b"old"
    assert announce(server, run, size=10).json["received"] == []
    server.ask("DELETE", path)


def test_a_part_that_was_broken_on_its_way_does_not_count(server: Thread, run: str) -> None:
    """Guards large files on bad lines: of a part whose sha256 is told and does not fit, nothing stays."""
    path = path_of(announce(server, run))
    answer = server.ask("PUT", f"{path}/parts/1", bytes(PART), {"Mlcore-Sha256": "0" * 64})
    assert (answer.status, answer.json["error"]["type"]) == (409, "DigestMismatch")
    assert server.get(path).json["received"] == []
    sha256 = hashlib.sha256(part(1)).hexdigest()
    assert server.ask("PUT", f"{path}/parts/1", part(1), {"Mlcore-Sha256": sha256}).status == 204
    assert server.get(path).json["received"] == [[0, PART]]
    server.ask("DELETE", path)


def test_nothing_beyond_the_announced_size_is_taken(server: Thread, run: str) -> None:
    """Guards the disk: of a file there are as many bytes as were announced, and no more."""
    path = path_of(announce(server, run))
    assert server.ask("PATCH", path, b"12", {"Upload-Offset": str(len(DATA) - 1)}).status == 413
    assert server.ask("PATCH", path, b"1", {"Upload-Offset": str(1 << 70)}).status == 413
    assert server.ask("PUT", f"{path}/parts/1", bytes(PART + 1)).status == 413
    assert server.ask("PUT", f"{path}/parts/4", b"1").status == 413
    for wrong in ("", "x", "-1"):
        assert server.ask("PATCH", path, b"1", {"Upload-Offset": wrong}).status == 400
    assert server.get(path).json["received"] == []
    server.ask("DELETE", path)


def test_an_empty_file_can_be_sent_in_no_parts(server: Thread, run: str) -> None:
    """Guards the smallest of large files."""
    path = path_of(announce(server, run, size=0, sha256=hashlib.sha256().hexdigest()))
    assert server.ask("POST", f"{path}/complete").status == 201
    assert server.get(f"/api/v1/runs/{run}/files/large/file.bin").status == 200


def test_of_several_that_complete_an_upload_all_see_the_file(server: Thread, run: str) -> None:
    """Guards clients that ask twice: the file is there once, and nobody gets an error that means it is not."""
    path = path_of(announce(server, run))
    for number in (1, 2, 3):
        server.ask("PUT", f"{path}/parts/{number}", part(number))
    statuses = list[int]()
    threads = [
        threading.Thread(target=lambda: statuses.append(server.ask("POST", f"{path}/complete").status))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 201 in statuses
    assert set(statuses) <= {201, 202, 404}
    assert whole(server, run) == DATA


# Both sides may die


def begin(server: Serving, path: str, length: int, body: bytes) -> socket.socket:
    """Send the beginning of a file, and return the connection."""
    connection = socket.create_connection(("127.0.0.1", server.port), 30)
    lines = [
        f"PATCH {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {server.token}", "Upload-Offset: 0",
        f"Content-Length: {length}", "", "",
    ]  # fmt: skip
    connection.sendall("\r\n".join(lines).encode() + body)
    return connection


def reached(server: Serving, path: str, offset: int) -> int:
    """Wait until so much of a file is there; return how much."""
    deadline = time.monotonic() + 30
    found = -1
    while found < offset and time.monotonic() < deadline:
        found = int(server.ask("HEAD", path).headers["upload-offset"])
    assert found >= offset
    return found


def test_what_came_before_a_client_died_is_kept(tmp_path: Path, run: str) -> None:
    """Guards slow lines: a request that is cut off has brought what it has brought."""
    with serving_here(tmp_path / "store") as server:
        path = path_of(announce(server, run))
        begin(server, path, len(DATA), DATA[: 25 << 20]).close()
        offset = reached(server, path, 24 << 20)
        assert server.ask("PATCH", path, DATA[offset:], {"Upload-Offset": str(offset)}).status == 204
        assert server.ask("POST", f"{path}/complete").status == 201
        assert whole(server, run) == DATA


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path, run: str) -> None:
    """Guards uploads from the server's end: after SIGKILL at half of it, half of it is there."""
    with serving(tmp_path / "store") as server:
        path = path_of(announce(server, run))
        connection = begin(server, path, len(DATA), DATA[: 20 << 20])
        reached(server, path, 8 << 20)
        server.kill()
        connection.close()
        server.start()
        assert server.get(f"/api/v1/runs/{run}/files").json["files"] == []
        offset = reached(server, path, 8 << 20)
        server.ask("PATCH", path, DATA[offset:], {"Upload-Offset": str(offset)})
        assert server.ask("POST", f"{path}/complete").status == 201
        assert whole(server, run) == DATA


def test_several_servers_of_one_place_take_parts_of_one_file(tmp_path: Path, run: str) -> None:
    """Guards servers behind a balancer: each part may go to another one."""
    with serving(tmp_path / "store") as one, serving_here(tmp_path / "store") as two:
        path = path_of(announce(one, run))
        assert two.ask("PUT", f"{path}/parts/1", part(1)).status == 204
        assert one.ask("PUT", f"{path}/parts/3", part(3)).status == 204
        assert path_of(announce(two, run)) == path
        assert two.ask("PUT", f"{path}/parts/2", part(2)).headers["upload-offset"] == str(len(DATA))
        assert one.ask("POST", f"{path}/complete").status == 201
        assert whole(two, run) == DATA


def test_what_nobody_goes_on_with_is_removed_after_three_days(tmp_path: Path, run: str) -> None:
    """Guards the disk from forgotten uploads, and those that are going on from being forgotten."""
    with serving_here(tmp_path / "store") as server:
        ids = [announce(server, run, path=name).json["id"] for name in ("old", "new")]
        old = time.time() - 73 * 3600
        for id in ids:
            for name in ("data", "done"):
                os.utime(tmp_path / "store" / "uploads" / id / name, (old, old))
        server.ask("PATCH", f"{UPLOADS}/{ids[1]}", b"x", {"Upload-Offset": "0"})
    with serving_here(tmp_path / "store") as server:
        server.ask("PUT", f"/api/v1/runs/{run}/files/x", b"")
        deadline = time.monotonic() + 20
        while (tmp_path / "store" / "uploads" / ids[0]).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left(server) == [ids[1]]


def test_nobody_writes_to_a_file_that_others_see(tmp_path: Path, run: str) -> None:
    """Guards a file from a part that is still on its way: it is completed afterwards, or the part comes too late."""
    with serving_here(tmp_path / "store") as server:
        path = path_of(announce(server, run))
        for number in (1, 2, 3):
            server.ask("PUT", f"{path}/parts/{number}", part(number))
        connection = begin(server, path, 1000, bytes(10))
        time.sleep(0.3)
        assert server.ask("POST", f"{path}/complete").status == 202
        connection.sendall(DATA[10:1000])  # the ten bytes that came are not those of the file
        connection.recv(1000)
        connection.close()
        answer = server.ask("POST", f"{path}/complete")
        assert (answer.status, answer.json["error"]["type"]) == (409, "DigestMismatch")
        assert server.get(f"/api/v1/runs/{run}/files").json["files"] == []
