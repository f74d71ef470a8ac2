"""Ask a server over connections that are kept, one request after the other on each: the same for every server.

The requests are made before, so that what is timed is sending bytes and looking for the end of the answer.
"""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any


class LoadError(Exception):
    """Say that a server did not answer, or not as it should."""


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a request."""
    named = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def asking(method: str, path: str, what: Any) -> bytes:
    """Return a request with JSON."""
    return request(method, path, json.dumps(what).encode(), {"Content-Type": "application/json"})


@dataclass
class Load:
    """Hold what a run of requests took."""

    seconds: float
    latencies: list[float] = field(repr=False)

    @property
    def each(self) -> float:
        """Seconds a request, of all connections together."""
        return self.seconds / len(self.latencies)

    @property
    def late(self) -> float:
        """Seconds that one in a hundred takes, or longer."""
        return sorted(self.latencies)[len(self.latencies) * 99 // 100]


class Connection:
    """Hold a connection that is kept."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def ask(self, wanted: bytes) -> bytes:
        """Send one request and return the body of its answer. Raises `LoadError`."""
        self.socket.sendall(wanted)
        while (body := self.receive()) is None:
            pass
        return body

    def receive(self) -> bytes | None:
        """Return the answer's body once all of it is there. Raises `LoadError`."""
        more = self.socket.recv(1 << 18)
        if not more:
            raise LoadError(f"the connection was closed: {self._received[:200]!r}")
        self._received += more
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or not _complete(head, body):
            return None
        self._received = b""
        if not head.startswith(b"HTTP/1.1 2"):
            raise LoadError(f"{head.splitlines()[0]!r}: {body[:200]!r}")
        return body

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def _complete(head: bytes, body: bytes) -> bool:
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) >= int(value)
        if name == b"transfer-encoding":
            return body.endswith(b"0\r\n\r\n")
    return True


def load(connections: list[Connection], requests: list[deque[bytes]], seconds: float) -> Load:
    """Send requests of a queue each over all connections at once, for so long or until they are used up.

    Raises `LoadError`.
    """
    waiting = select.epoll()
    by_number = {each.socket.fileno(): (each, queue) for each, queue in zip(connections, requests, strict=True)}
    sent: dict[int, float] = {}
    latencies = []
    start = perf_counter()
    for number, (connection, queue) in by_number.items():
        waiting.register(number, select.EPOLLIN)
        sent[number] = perf_counter()
        connection.socket.sendall(queue.popleft())
    while sent:
        ready = waiting.poll(60)
        if not ready:
            raise LoadError("no answer for a minute")
        for number, _ in ready:
            connection, queue = by_number[number]
            if connection.receive() is None:
                continue
            now = perf_counter()
            latencies.append(now - sent.pop(number))
            if queue and now - start < seconds:
                sent[number] = now
                connection.socket.sendall(queue.popleft())
    waiting.close()
    return Load(perf_counter() - start, latencies)


def queues(requests: Iterable[bytes], connections: int) -> list[deque[bytes]]:
    """Deal requests out."""
    dealt: list[deque[bytes]] = [deque() for _ in range(connections)]
    for index, each in enumerate(requests):
        dealt[index % connections].append(each)
    return dealt
