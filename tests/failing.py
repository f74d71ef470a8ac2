"""A proxy before an HTTP server that breaks what it is told to: answers, connections, bodies; and counts requests."""

from __future__ import annotations

import http.client
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs

_RESET = struct.pack("ii", 1, 0)  # a closed connection is reset, without a farewell
_XML = (
    "<?xml version='1.0'?><Error><Code>{}</Code><Message>the proxy says so</Message><Region>eu-north-1</Region></Error>"
)


@attrs.frozen
class Request:
    """Say what came: `status` is what the server behind answered, 0 if it never heard of it."""

    method: str
    path: str
    size: int
    status: int


class Failing(ThreadingHTTPServer):
    """Pass requests on, and break the `share` of them that fit `pattern` in the way of `fault`.

    ``503 SlowDown`` and its like: not passed on, but answered so. ``reset request``: the connection is reset in the
    middle of the body. ``reset answer`` and ``cut answer``: half of the body comes, and then a reset or an orderly
    end. ``lost``: the server did it, and the answer never comes. ``short``: half of the body comes, and the head says
    that this is all. ``error in 200``: an error in XML with status 200. ``slow``: a pause before and in the middle of
    the answer. Of one request, told by its method and path, at most `most` are broken.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, seed: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.target, self.fault, self.pattern, self.share, self.most = port, "", ".", 1.0, 2
        self.pause = 0.0
        self.requests: list[Request] = []
        self.broken = Counter[str]()
        self.busy = 0
        self.lock, self.random = threading.Lock(), random.Random(seed)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def breaks(self, method: str, path: str) -> bool:
        """Tell whether a request is to be broken, and count it."""
        with self.lock:
            what = f"{method} {path}"
            if not self.fault or not re.search(self.pattern, what) or self.broken[what] >= self.most:
                return False
            if self.random.random() >= self.share:
                return False
            self.broken[what] += 1
            return True

    def quiet(self) -> None:
        """Wait until no request is under way."""
        deadline = time.monotonic() + 60
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.02)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away: they are killed on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Failing

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(OSError):
            super().handle_one_request()
            return
        self.close_connection = True

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # whatever the method
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        with self.server.lock:
            self.server.busy += 1
        try:
            self._work()
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _work(self) -> None:
        fault = self.server.fault if self.server.breaks(self.command, self.path) else ""
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "reset request":
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True  # whoever sent it was killed
            return None
        if fault[:3].isdigit():
            self._note(0)
            return self._send(int(fault[:3]), {"Content-Type": "application/xml"}, _XML.format(fault[4:]).encode())
        time.sleep(self.server.pause)
        status, headers, content = self._ask(body)
        self._note(status)
        if fault == "lost":
            return self._reset()
        if fault == "error in 200":
            return self._send(200, {"Content-Type": "application/xml"}, _XML.format("InternalError").encode())
        return self._send(status, headers, content, fault)

    def _note(self, status: int) -> None:
        with self.server.lock:
            size = int(self.headers.get("Content-Length") or 0)
            self.server.requests.append(Request(self.command, self.path, size, status))

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length") or "0"
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: dict[str, str], content: bytes, fault: str = "") -> None:
        if fault == "short":
            content = content[: len(content) // 2]
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        half = len(content) // 2
        if fault == "slow":
            time.sleep(0.3)
        self.wfile.write(content[:half])
        if fault == "reset answer":
            return self._reset()
        if fault == "cut answer":
            self.close_connection = True
            return None
        if fault == "slow":
            time.sleep(0.3)
        self.wfile.write(content[half:])
        return None

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.close()


_OF_THE_CONNECTION = ("connection", "content-length", "keep-alive", "transfer-encoding")


@contextmanager
def failing(port: int, seed: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Failing]:
    """Yield a proxy before a server of this machine, which speaks TLS if it is given a context for that."""
    found = Failing(port, seed, tls)
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()
