"""What may stand at the other end, or between: scripted servers, a proxy, a door of TLS. All real, all on loopback."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Request(NamedTuple):
    """Hold a request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """Return an answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_request(connection: socket.socket) -> Request | None:
    """Return the next request of a connection, None at its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    return Request(line, headers, body)


class Peer:
    """Listen on loopback; every connection is served by a thread."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._one, args=[connection], daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)

    def close(self) -> None:
        """Stop listening and cut all connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)


class Scripted(Peer):
    """Answer each request with what a function says: bytes, None to cut the connection, or silence."""

    SILENCE = b"silence"

    def __init__(self, script: Callable[[Request], bytes | None]) -> None:
        self.requests: list[Request] = []
        self._script = script
        self._ended = threading.Event()
        super().__init__(self._talk)

    def _talk(self, connection: socket.socket) -> None:
        while (request := read_request(connection)) is not None:
            self.requests.append(request)
            said = self._script(request)
            if said == self.SILENCE:
                self._ended.wait(30)
                return
            if said is None:
                return
            connection.sendall(said)
            if b"Connection: close" in said[:500]:
                return

    def close(self) -> None:
        self._ended.set()
        super().close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def scripted(script: Callable[[Request], bytes | None] | list[bytes | None]) -> Iterator[Scripted]:
    """Yield a server that answers what a function says, or one answer after the other and then the last again."""
    if isinstance(script, list):
        left = list(script)

        def one_after_the_other(request: Request) -> bytes | None:
            return left.pop(0) if len(left) > 1 else left[0]

        script = one_after_the_other
    peer = Scripted(script)
    try:
        yield peer
    finally:
        peer.close()


def pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(one, selectors.EVENT_READ, other)
        waiting.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in waiting.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                while True:
                    part = source.recv(65_536)
                    if not part:
                        return
                    key.data.sendall(part)
                    if not (isinstance(source, ssl.SSLSocket) and source.pending()):
                        break


class Proxy(Peer):
    """Be a proxy: tunnel what is asked for with CONNECT, and forward what comes with a whole URL; `seen` is what."""

    def __init__(self, password: str | None = None) -> None:
        self.seen: list[Request] = []
        self._password = password
        super().__init__(self._talk)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _talk(self, connection: socket.socket) -> None:
        while (request := read_request(connection)) is not None:
            self.seen.append(request)
            method, target, _ = request.line.split()
            if self._password is not None and request.headers.get("proxy-authorization") != self._password:
                connection.sendall(answer("407 Proxy Authentication Required", Connection="close"))
                return
            if method == "CONNECT":
                port = int(target.rpartition(":")[2])  # every name is this machine's here
                with socket.create_connection(("127.0.0.1", port)) as other:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    pump(connection, other)
                return
            self._forward(connection, request, target)

    def _forward(self, connection: socket.socket, request: Request, target: str) -> None:
        host, _, path = target.removeprefix("http://").partition("/")
        headers = {**request.headers, "connection": "close"}
        head = [f"{request.line.split()[0]} /{path} HTTP/1.1", *(f"{name}: {each}" for name, each in headers.items())]
        with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))) as other:
            other.sendall("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + request.body)
            while part := other.recv(65_536):
                connection.sendall(part)
        connection.shutdown(socket.SHUT_RDWR)


class Door(Peer):
    """Take TLS off: whoever connects speaks to the server at another port."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        super().__init__(self._talk)

    def _talk(self, connection: socket.socket) -> None:
        with (
            self._context.wrap_socket(connection, server_side=True) as inside,
            socket.create_connection(("127.0.0.1", self._port)) as other,
        ):
            pump(inside, other)
