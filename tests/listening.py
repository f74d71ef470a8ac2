"""Listen to a server's live events, without any code of mlcore's client."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from serving import Serving


class Event(NamedTuple):
    """Hold one event; what has no name is a stored batch."""

    name: str
    id: str | None
    data: Any
    at: float


class Listener:
    """Hold a connection to live events, and read it event by event."""

    def __init__(
        self, server: Serving, asked: dict[str, str], headers: dict[str, str], *, buffer: int | None = None
    ) -> None:
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", server.port))
        query = f"?{urlencode(asked)}" if asked else ""
        given = {"Host": f"127.0.0.1:{server.port}", "Authorization": f"Bearer {server.token}", **headers}
        lines = [f"GET /api/v1/events/live{query} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        self._rest, self._whole = b"", deque[bytes]()

    def blocks(self) -> Iterator[bytes]:
        """Yield blocks, comments as well, until the server ends the stream."""
        while True:
            while self._whole:
                yield self._whole.popleft()
            line = self._file.readline()
            if not line:
                raise ConnectionResetError("the stream was cut")
            if not (size := int(line, 16)):
                return
            self._rest += self._file.read(size)
            self._file.readline()
            *whole, self._rest = self._rest.split(b"\n\n")
            self._whole += whole

    def events(self) -> Iterator[Event]:
        """Yield events until the server ends the stream."""
        for block in self.blocks():
            lines = [line.partition(b": ") for line in block.split(b"\n")]
            fields = {name: value for name, _, value in lines if name}
            if b"data" in fields:
                id = fields[b"id"].decode() if b"id" in fields else None
                yield Event(fields.get(b"event", b"").decode(), id, json.loads(fields[b"data"]), time.monotonic())

    def close(self) -> None:
        """Go away."""
        self._file.close()
        self.socket.close()


@contextmanager
def listening(
    server: Serving, headers: dict[str, str] | None = None, *, buffer: int | None = None, **asked: str
) -> Iterator[Listener]:
    """Yield a listener; `asked` are the parameters."""
    listener = Listener(server, asked, headers or {}, buffer=buffer)
    try:
        yield listener
    finally:
        listener.close()
