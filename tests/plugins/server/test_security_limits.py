"""How much one request or one client can take from the others."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from mlcore_remote.protocol import BATCHES
from mlcore_server import connections
from serving import Thread, serving_here

JSON = {"Content-Type": "application/json"}
MB = 1 << 20
PACKED = gzip.compress(b"{}", mtime=0)
TERM = {"family": "params", "name": "a"}
HERS, HIS = "her-token-0123456789-abcdefghijklmnop", "his-token-0123456789-abcdefghijklmnop"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve with the limits that a server has by default."""
    with serving_here(tmp_path_factory.mktemp("limits") / "store", no_token=True) as server:
        server.post("/api/v1/batches", {"batches": [batch([created(uuid4().hex)])]})
        server.post("/api/v1/find", {"kind": "run"})  # the first question loads what answers questions
        yield server


def created(id: str, **fields: Any) -> dict[str, Any]:
    """Return an event that makes a run."""
    return {"type": "Created", "kind": "run", "id": id, "fields": fields}


def batch(events: list[dict[str, Any]], home: str = "") -> dict[str, Any]:
    """Return a batch of one record."""
    return {
        "source": uuid4().hex, "home": home or uuid4().hex, "records": [{"number": 1, "stamp": 1, "events": events}]
    }  # fmt: skip


def term(name: str, value: str) -> dict[str, Any]:
    """Return one clause of a query."""
    return {"term": {"family": "params", "name": name}, "op": "=", "value": value}


def deep(levels: int) -> bytes:
    """Return a query in which that many `not` stand in each other."""
    return (
        b'{"kind": "run", "query": {"where": '
        + b'{"not":' * levels
        + json.dumps(term("a", "1")).encode()
        + b"}" * (levels + 2)
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/batches", b"[" * 100_000),
        ("/api/v1/batches", b"[" * 5_000_000),
        ("/api/v1/find", deep(5_000)),
        ("/api/v1/find", deep(199)),
        ("/api/v1/get", b'{"kind": "run", "ids": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
        ("/api/v1/find", json.dumps({"kind": "run", "query": {"where": {"or": [term("a", "1")] * 2_000}}}).encode()),
        ("/api/v1/find", json.dumps({"kind": "run", "query": {"order": [{"term": TERM}] * 2_000}}).encode()),
        ("/api/v1/find", json.dumps({"kind": "run", "query": {"limit": 10**30}}).encode()),
        ("/api/v1/find", json.dumps({"kind": "run", "query": {"limit": -1}}).encode()),
        ("/api/v1/find", json.dumps({"kind": "run", "query": {"token": "junk"}}).encode()),
        ("/api/v1/find", b'{"kind": "run", "query": {"limit": ' + b"9" * 5_000 + b"}}"),
        ("/api/v1/get", json.dumps({"kind": "run", "ids": ["x"] * 1_000_000}).encode()),
        ("/api/v1/series", json.dumps({"kind": "run", "ids": ["x"], "max_points": 10**30}).encode()),
        ("/api/v1/batches", json.dumps({"batches": [batch([created("x" * 10**6)])]}).encode()),
        ("/api/v1/batches", json.dumps({"batches": [batch([created("x", name="y" * 10**6)])]}).encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)  # fmt: skip
def test_what_is_too_deep_too_long_or_too_many_is_refused_at_once(server: Thread, path: str, body: bytes) -> None:
    """I1, I2, I3: in less than a second, by name, never with a 500."""
    began = time.perf_counter()
    answer = server.ask("POST", path, body, JSON)
    took = time.perf_counter() - began
    if answer.status == 200:  # understood, and refused one by one
        (result,) = answer.json["results"]
        assert result["type"] in ("Malformed", "InvalidValue", "Refused")
    else:
        assert answer.status in (400, 413) and answer.json["error"]["message"]
        assert len(answer.body) < 2_000
    assert took < 1, f"{took:.2f} s"


def test_a_pattern_that_fits_in_many_ways_is_answered_in_time(server: Thread) -> None:
    """I2: `like '%a%a%a...'` against a long text does not try them all."""
    home = uuid4().hex
    event = {"type": "AttributesSet", "kind": "run", "id": home, "family": "tags", "values": {"t": "a" * 30_000}}
    answer = server.post("/api/v1/batches", {"batches": [batch([created(home), event], home)]})
    assert answer.json == {"results": [None]}
    clause = {"term": {"family": "tags", "name": "t"}, "op": "like", "value": "%a" * 200 + "b"}
    began = time.perf_counter()
    assert server.post("/api/v1/find", {"kind": "run", "query": {"where": clause}}).status in (200, 400)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("kind", ["application/json", BATCHES])
def test_a_body_over_the_limit_is_413_however_it_comes(server: Thread, kind: str) -> None:
    """I1, I6: told beforehand, in chunks without a word, or packed a thousandfold."""
    limit = server.app.service.settings.max_body
    bomb = gzip.compress(b" " * (limit + 1))
    assert len(bomb) < limit // 500
    answer = server.ask("POST", "/api/v1/batches", bomb, {"Content-Type": kind, "Content-Encoding": "gzip"})
    assert answer.status == 413 and answer.json["error"]["message"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        head = f"POST /api/v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Content-Length: {limit + 1}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    with (
        serving_here(server.app.service.settings.store, no_token=True, max_body=MB) as small,
        socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection,
    ):
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(17):
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip", 400), ("gzip", PACKED[:-4], 400), ("gzip", b"", 400),
        ("gzip", PACKED * 2, 400), ("br", b"{}", 415), ("gzip, gzip", PACKED, 415),
        ("deflate", b"{}", 415),
    ],
)  # fmt: skip
def test_what_is_packed_wrongly_is_refused(server: Thread, encoding: str, body: bytes, status: int) -> None:
    """I6."""
    headers = {**JSON, "Content-Encoding": encoding}
    assert server.ask("POST", "/api/v1/find", body, headers).status == status


def test_headers_without_end_are_cut_off(server: Thread) -> None:
    """I1: many, long, or never complete; uvicorn itself would keep them all."""
    assert server.ask("GET", "/version", None, {f"X-{number}": "" for number in range(101)}).status == 431
    assert server.ask("GET", "/version", None, {"X": "y" * 33_000}).status == 431
    assert server.ask("GET", "/version?" + "y" * 33_000).status == 431
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: ")
        sent = 0
        with suppress(OSError):
            while sent < 64 * MB:
                sent += connection.send(b"y" * 65536)
        assert sent < 16 * MB


def test_two_hundred_slow_clients_keep_nobody_waiting_and_are_cut_off(
    server: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I4: slow loris, in the headers and in the body."""
    monkeypatch.setattr(connections, "_HEAD", 1.0)
    monkeypatch.setattr(connections, "_PAUSE", 1.0)
    monkeypatch.setattr(connections, "_LOOK", 0.2)
    head = b"POST /api/v1/find HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    heads = (b"", b"GET /version HTTP/1.1\r\nHo", head + b"Content-Length: 1000\r\n\r\n{")
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(200)]
    for number, each in enumerate(slow):
        each.sendall(heads[number % 3])
    times = []
    for _ in range(100):
        began = time.perf_counter()
        assert server.get("/version").status == 200
        times.append(time.perf_counter() - began)
    assert sorted(times)[98] < 1
    for number, each in enumerate(slow):
        got = each.recv(65536)
        assert got == b"" or got.startswith(b"HTTP/1.1 408 "), number
        each.close()


def test_a_client_that_asks_too_often_waits_and_others_do_not(server: Thread) -> None:
    """I4: by token and address; the limit is far above what one process can answer."""
    assert server.app.service.settings.rate_limit >= 10_000
    with serving_here(server.app.service.settings.store, token=f"{HERS}\n{HIS}", rate_limit=2) as other:
        statuses = []
        for _ in range(100):
            other.token = HERS
            answer = other.get("/version")
            statuses.append(answer.status)
            if answer.status == 429:
                assert answer.headers["retry-after"] == "1"
                other.token = HIS
                break
        assert statuses[-1] == 429 and statuses.count(200) >= 2
        assert other.get("/version").status == 200
