"""Speak to S3 over kept connections, for what obstore keeps to itself: uploads in parts that outlive a process."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import threading
import urllib.request
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import attrs

from mlcore_s3.credentials import Credentials
from mlcore_s3.failures import Answered
from mlcore_s3.settings import Settings
from mlcore_s3.signing import quoted_path, quoted_query, signed_headers

__all__ = ["Reply", "Speaker"]

_CONNECT, _WAIT = 2.5, 60.0  # seconds
_LIMIT = 16 << 20  # of an answer: a listing of 1,000 long names has far less
_KEPT = 16


@attrs.frozen
class Reply:
    """Hold what a server answered."""

    status: int
    headers: http.client.HTTPMessage
    data: bytes


class Speaker:
    """Send signed requests to one bucket; several threads may use it at once, and a process that was forked."""

    def __init__(self, settings: Settings, bucket: str, keys: Callable[[], Credentials] | None) -> None:
        self._server, self._base = settings.server(bucket)
        self._settings, self._keys = settings, keys
        self._idle, self._lock, self._pid = list[http.client.HTTPConnection](), threading.Lock(), os.getpid()
        parts = urlsplit(self._server)
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._netloc = parts.netloc
        self._context = settings.context() if self._secure else None

    def ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        data: bytes | memoryview = b"",
        headers: Mapping[str, str] | None = None,
        sha256: str | None = None,
    ) -> Reply:
        """Send one request once. Raises `Answered` for what is no success, and `OSError` or `HTTPException`."""
        target = quoted_path(f"{self._base}/{key}" if key else self._base or "/")
        if query:
            target += f"?{quoted_query(query)}"
        sent = {"host": self._netloc, **(headers or {})}
        if self._settings.requester_pays:
            sent["x-amz-request-payer"] = "requester"
        keys = None if self._keys is None else self._keys()
        digest = sha256 or hashlib.sha256(data).hexdigest()
        sent = signed_headers(method, target, sent, digest, keys, self._settings.region)
        reply = self._send(method, target, data, sent)
        if reply.status >= 300:
            region = reply.headers.get("x-amz-bucket-region", "")
            raise Answered.of(reply.status, reply.data.decode(errors="replace"), region)
        return reply

    def _send(self, method: str, target: str, data: bytes | memoryview, headers: Mapping[str, str]) -> Reply:
        connection = self._taken()
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if data or method in ("PUT", "POST"):
                connection.putheader("content-length", str(len(data)))
            connection.endheaders()
            if data:
                try:
                    connection.send(data)
                except (BrokenPipeError, ConnectionResetError):  # it may have answered already, and said why
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        return self._read(connection)
                    raise
            reply = self._read(connection)
        except BaseException:
            connection.close()
            raise
        return reply

    def _read(self, connection: http.client.HTTPConnection) -> Reply:
        answer = connection.getresponse()
        data = answer.read(_LIMIT)
        reply = Reply(answer.status, answer.headers, data)
        if answer.isclosed() and not answer.will_close:
            self._give(connection)
        else:
            connection.close()
        return reply

    def _taken(self) -> http.client.HTTPConnection:
        with self._lock:
            if self._pid != os.getpid():  # these are the parent's
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if _is_quiet(connection):
                    return connection
                connection.close()
        return self._connected()

    def _give(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _KEPT and self._pid == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def __del__(self) -> None:
        for connection in getattr(self, "_idle", ()):
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        scheme, host, port = "https" if self._secure else "http", self._host, self._port
        proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
        there = urlsplit(proxy) if proxy else None
        at = (there.hostname or "", there.port) if there else (host, port)
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(*at, timeout=_CONNECT, context=self._context)
        else:
            connection = http.client.HTTPConnection(*at, timeout=_CONNECT)
        if there:
            connection.set_tunnel(host, port or (443 if self._secure else 80))
        try:
            connection.connect()
        except TimeoutError:  # which, later, would be the server's
            raise OSError(errno.EHOSTUNREACH, "the connection timed out") from None
        connection.sock.settimeout(_WAIT)
        return connection


def _is_quiet(connection: http.client.HTTPConnection) -> bool:
    """Tell whether a kept connection is still open: a server that closed it has left its end to be read."""
    import select

    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)
