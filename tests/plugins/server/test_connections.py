"""What goes over a connection, byte by byte: answers leave whole, and each where it ends."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from mlcore.testing import new_id, run_batch
from mlcore_local import FolderStore
from serving import Thread, serving_here

ASKED = b"%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve a store with a run."""
    store = tmp_path_factory.mktemp("connections") / "store"
    FolderStore(store).append(run_batch(new_id()))
    with serving_here(store, no_token=True) as server:
        yield server


@pytest.fixture
def connection(server: Thread) -> Iterator[socket.socket]:
    """Return a connection to it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        yield connection


def parts(answer: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return the first line of an answer, its headers, and what comes after them."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    assert len(headers) == len(lines)
    return first, headers, rest


def more(connection: socket.socket) -> bytes:
    """Return what comes next."""
    received = connection.recv(1 << 16)
    assert received, "the connection was closed"
    return received


def test_an_answer_comes_in_one_piece(connection: socket.socket) -> None:
    """Guards what an answer costs: a head that is sent before its body is a call more here, and a wake-up there."""
    for _ in range(20):
        connection.sendall(ASKED % (b"GET /version", b"X-Request-Id: mine\r\n"))
        first, headers, body = parts(more(connection))
        assert first == b"HTTP/1.1 200 OK"
        assert len(body) == int(headers[b"content-length"])
        assert "durability" in json.loads(body)
        assert headers[b"x-request-id"] == b"mine"
        assert {b"date", b"content-type", b"content-security-policy", b"mlcore-version"} <= headers.keys()


def test_a_question_for_the_head_alone_gets_no_body(connection: socket.socket) -> None:
    """Guards the answers that have a length and no body: what comes next is the next answer."""
    connection.sendall(ASKED % (b"HEAD /version", b""))
    first, headers, body = parts(more(connection))
    assert (first, body) == (b"HTTP/1.1 200 OK", b"")
    assert int(headers[b"content-length"]) > 0
    connection.sendall(ASKED % (b"GET /version", b""))
    assert parts(more(connection))[0] == b"HTTP/1.1 200 OK"


def test_questions_that_do_not_wait_are_answered_in_their_order(connection: socket.socket) -> None:
    """Guards pipelining: an answer that is held back for its body is held back for no other."""
    wanted = [b"/version", b"/nothing", b"/version", b"/livez"]
    connection.sendall(
        b"".join(ASKED % (b"GET " + path, b"X-Request-Id: %d\r\n" % at) for at, path in enumerate(wanted))
    )
    found, received = list[tuple[bytes, bytes]](), b""
    while len(found) < len(wanted):
        received += more(connection)
        while b"\r\n\r\n" in received:
            first, headers, rest = parts(received)
            size = int(headers[b"content-length"])
            if len(rest) < size:
                break
            found.append((first[9:12], headers[b"x-request-id"]))
            received = rest[size:]
    assert found == [(b"200", b"0"), (b"404", b"1"), (b"200", b"2"), (b"200", b"3")]


def test_a_connection_that_is_to_be_closed_is_closed_after_the_answer(connection: socket.socket) -> None:
    """Guards clients that read to the end."""
    connection.sendall(ASKED % (b"GET /version", b"Connection: close\r\n"))
    received = b""
    while more := connection.recv(1 << 16):
        received += more
    _, headers, body = parts(received)
    assert headers[b"connection"] == b"close"
    assert len(body) == int(headers[b"content-length"])


def test_an_answer_without_a_length_comes_in_chunks(connection: socket.socket) -> None:
    """Guards streams, whose head must not wait."""
    connection.sendall(ASKED % (b"GET /api/v1/events", b"Accept: application/x-ndjson\r\n"))
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received += more(connection)
    first, headers, _ = parts(received)
    assert (first, headers[b"transfer-encoding"]) == (b"HTTP/1.1 200 OK", b"chunked")
    assert b"content-length" not in headers
