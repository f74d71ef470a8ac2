"""Links to files in a bucket: for who may read or write the run, to one object, and nothing appears before its time."""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from serving import Answer, Serving, Thread, serving_here
from signing_bucket import Signing, signing_bucket

PART = 1 << 20
DATA = os.urandom(5 << 19)
SHA256 = hashlib.sha256(DATA).hexdigest()
WRITER, READER = "writer-token-0123456789-abcdefghij", "reader-token-0123456789-abcdefghij"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Signing]:
    """Provide a bucket that signs."""
    monkeypatch.setattr("mlcore_server.signing._PART", PART)
    with signing_bucket() as found:
        yield found


@pytest.fixture
def server(bucket: Signing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve a store with its files in that bucket, to one who may write and one who may read."""
    settings = {"token": f"w={WRITER}\nr={READER}:read", "artifacts": "linking://files", "direct_size": PART}
    with serving_here(tmp_path_factory.mktemp("served") / "store", **settings) as found:
        found.token = WRITER
        yield found


@pytest.fixture
def run() -> str:
    """Return the id of a run."""
    return os.urandom(16).hex()


def announce(server: Serving, run: str, **other: Any) -> Answer:
    """Announce a file, by default the one of this module."""
    return server.post("/api/v1/uploads", {"run": run, "path": "a/b.bin", "size": len(DATA), "sha256": SHA256, **other})


def part(number: int, **other: Any) -> dict[str, Any]:
    """Return what is told of a part."""
    data = DATA[number * PART : (number + 1) * PART]
    return {"offset": number * PART, "size": len(data), "md5": hashlib.md5(data).hexdigest(), **other}


def links(server: Serving, id: str, *parts: Any) -> Answer:
    """Ask for links to parts."""
    return server.post(f"/api/v1/uploads/{id}/links", {"parts": list(parts)})


def use(link: dict[str, Any], method: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Do with a link what it is for, or something else."""
    parts = urlsplit(link["url"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request(method, f"{parts.path}?{parts.query}", body, {**link["headers"], **headers})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def upload(server: Serving, run: str, **other: Any) -> str:
    """Store all parts of the file in the bucket, and return the id of the upload."""
    id = announce(server, run, **other).json["id"]
    for number, link in enumerate(links(server, id, *(part(number) for number in range(3))).json["links"]):
        assert use(link, "PUT", DATA[number * PART : (number + 1) * PART])[0] == 200
    return str(id)


def test_a_file_appears_when_it_is_completed_and_not_before(server: Thread, bucket: Signing, run: str) -> None:
    """Guards what others see: parts lie elsewhere, and the bucket makes the file of them at once."""
    told = announce(server, run).json
    assert told["direct"] == {"part": PART, "received": []}
    id = upload(server, run)
    assert server.get(f"/api/v1/runs/{run}/files").json["files"] == []
    assert server.get(f"/api/v1/uploads/{id}").json["direct"]["received"] == [part(0), part(1), part(2)]
    done = server.ask("POST", f"/api/v1/uploads/{id}/complete")
    assert (done.status, done.json) == (201, {"path": "a/b.bin", "size": len(DATA), "sha256": SHA256})
    assert list(bucket.files) == [f"files/{run}/artifacts/a/b.bin"]
    assert server.get(f"/api/v1/runs/{run}/files/a/b.bin").body == DATA
    assert server.ask("HEAD", f"/api/v1/runs/{run}/files/a/b.bin").headers["mlcore-direct"] == "1"
    link = server.get(f"/api/v1/runs/{run}/links/a/b.bin")
    assert link.headers["cache-control"] == "no-store"
    assert use(link.json, "GET", None, Range="bytes=5-9") == (206, DATA[5:10])
    assert (link.json["size"], link.json["tag"]) == (len(DATA), hashlib.md5(DATA).hexdigest())


def test_only_who_may_write_is_given_links_to_write(server: Thread, bucket: Signing, run: str) -> None:
    """Guards against readers that write, and strangers that read."""
    id = upload(server, run)
    server.ask("POST", f"/api/v1/uploads/{id}/complete")
    id = announce(server, run, path="other").json["id"]
    server.token = READER
    assert server.get(f"/api/v1/runs/{run}/links/a/b.bin").status == 200
    assert links(server, id, part(0)).status == 403
    server.token = "nobody-token-0123456789-abcdefghij"
    assert links(server, id, part(0)).status == 401
    answer = server.get(f"/api/v1/runs/{run}/links/a/b.bin")
    assert (answer.status, b"http" in answer.body) == (401, False)


def test_a_link_does_one_thing_with_one_object_for_a_while(server: Thread, bucket: Signing, run: str) -> None:
    """Guards what somebody could make of a link: another method, another object, a longer life."""
    id = upload(server, run)
    server.ask("POST", f"/api/v1/uploads/{id}/complete")
    read = server.get(f"/api/v1/runs/{run}/links/a/b.bin").json
    assert use(read, "PUT", b"x")[0] == 403
    for other in (read["url"].replace("b.bin", "c.bin"), read["url"].replace("until=1", "until=2"), read["url"][:-1]):
        assert use({**read, "url": other}, "GET")[0] == 403
    write = links(server, announce(server, run, path="other").json["id"], part(0)).json["links"][0]
    assert use(write, "GET")[0] == 403
    assert read["seconds"] == write["seconds"] == 300
    (stored,) = [path for path in bucket.files if path.endswith("b.bin")]
    for seconds, status in ((10, 200), (-1, 403)):
        assert use({**read, "url": bucket.sign(stored, seconds)}, "GET")[0] == status


@pytest.mark.parametrize("tags", [True, False])
def test_a_part_that_is_not_what_was_told_does_not_count(tags: bool, server: Thread, bucket: Signing, run: str) -> None:
    """Guards the file against parts that are cut or broken: size and MD5 of the object are compared."""
    bucket.tags = tags
    id = announce(server, run).json["id"]
    first, second, last = links(server, id, part(0), part(1), part(2)).json["links"]
    assert use(first, "PUT", DATA[: PART - 1])[0] == 200
    assert use(second, "PUT", DATA[:PART])[0] == 200
    assert use(last, "PUT", DATA[2 * PART :])[0] == 200
    received = server.get(f"/api/v1/uploads/{id}").json["direct"]["received"]
    assert received == ([part(2)] if tags else [])
    answer = server.ask("POST", f"/api/v1/uploads/{id}/complete")
    assert (answer.status, server.get(f"/api/v1/runs/{run}/files").json["files"]) == (409, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 1}, {"offset": -PART}, {"offset": 3 * PART}, {"offset": "0"}, {"offset": True}, {"offset": None},
        {"size": 0}, {"size": PART - 1}, {"size": PART + 1}, {"size": 1 << 70}, {"size": "1"}, {"size": 1.0},
        {"md5": ""}, {"md5": "x" * 32}, {"md5": "A" * 32}, {"md5": "../../../../../../../etc/passwd"}, {"md5": 7},
        {"md5": "0" * 31 + "\n"},
    ],
)  # fmt: skip
def test_what_is_no_part_of_the_file_has_no_link(wrong: Any, server: Thread, bucket: Signing, run: str) -> None:
    """Guards the names of objects, and the grid on which parts lie."""
    id = announce(server, run).json["id"]
    assert links(server, id, part(0), part(0, **wrong)).status == 400
    assert "signature" not in links(server, id, part(0, **wrong)).body.decode()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"parts": 7}', b'{"parts": [7]}', b'{"parts": [{}]}', b"\xff"])
def test_what_is_no_question_for_links_is_refused(body: bytes, server: Thread, bucket: Signing, run: str) -> None:
    """Guards against bodies of any kind."""
    id = announce(server, run).json["id"]
    answer = server.ask("POST", f"/api/v1/uploads/{id}/links", body, {"Content-Type": "application/json"})
    assert answer.status == 400


@pytest.mark.parametrize(
    "name", ["../x", "..%2fx", "%2e%2e%2fx", "%252e%252e%252fx", "a/../../x", "/etc/passwd", "a%5cb", "a%00", "."]
)
def test_no_name_leads_a_link_out_of_its_run(name: str, server: Thread, bucket: Signing, run: str) -> None:
    """Guards the rest of the bucket."""
    bucket.publish("files/x", DATA)
    answer = server.get(f"/api/v1/runs/{run}/links/{name}")
    assert answer.status in (400, 404)
    assert b"signature" not in answer.body


def test_what_has_no_link_says_so(server: Thread, bucket: Signing, run: str) -> None:
    """Guards small files and those that are not there."""
    server.ask("PUT", f"/api/v1/runs/{run}/files/small", b"x")
    assert "mlcore-direct" not in server.ask("HEAD", f"/api/v1/runs/{run}/files/small").headers
    answer = server.get(f"/api/v1/runs/{run}/links/small")
    assert (answer.status, answer.json["error"]["type"]) == (404, "ArtifactNotFound")
    assert server.get(f"/api/v1/runs/{run}/links/nothing").status == 404
    told = announce(server, run, size=10, sha256=hashlib.sha256(bytes(10)).hexdigest()).json
    assert "direct" not in told
    assert links(server, told["id"], part(0)).status == 404


def test_a_link_that_is_used_once_more_afterwards_changes_nothing(server: Thread, bucket: Signing, run: str) -> None:
    """Guards files that are there: a link leads to a part, which is cleaned up, and never to the file."""
    id = announce(server, run).json["id"]
    told = links(server, id, *(part(number) for number in range(3))).json["links"]
    for number, link in enumerate(told):
        use(link, "PUT", DATA[number * PART : (number + 1) * PART])
    server.ask("POST", f"/api/v1/uploads/{id}/complete")
    assert use(told[0], "PUT", bytes(PART))[0] == 200
    assert server.get(f"/api/v1/runs/{run}/files/a/b.bin").body == DATA
    assert server.ask("POST", f"/api/v1/uploads/{id}/complete").status == 404
    from mlcore_server.far_place import FarStaging

    assert FarStaging(bucket, "files/.uploads").clean(1.0) == 1
    assert list(bucket.files) == [f"files/{run}/artifacts/a/b.bin"]


def test_an_upload_that_is_given_up_leaves_nothing(server: Thread, bucket: Signing, run: str) -> None:
    """Guards the bucket's bill."""
    id = upload(server, run)
    assert server.ask("DELETE", f"/api/v1/uploads/{id}").status == 204
    assert bucket.files == {}


def test_no_log_has_a_link(bucket: Signing, run: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Guards logs, which more people read than may read files."""
    settings = {"log_level": "debug", "audit_log": str(tmp_path / "audit"), "direct_size": PART}
    with serving_here(tmp_path / "store", artifacts="linking://files", **settings) as server:
        id = upload(server, run)
        server.ask("POST", f"/api/v1/uploads/{id}/complete")
        server.get(f"/api/v1/runs/{run}/links/a/b.bin")
        server.get("/metrics")
    told = "".join(capfd.readouterr()) + (tmp_path / "audit").read_text()
    assert f"/api/v1/runs/{run}/links/a/b.bin" in told
    assert f"/api/v1/uploads/{id}/links" in told
    assert "signature" not in told
    assert bucket.url not in told
