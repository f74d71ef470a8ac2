"""Connections: uvicorn's, with an end to patience.

uvicorn waits for ever for a request that was begun, and keeps as many headers as are sent. A client that opens
connections and says nothing, or a byte a second (slow loris), would so take them all.
"""

from __future__ import annotations

import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from mlcore_server.headers import DEFAULTS
from mlcore_server.limits import LARGEST_HEAD

__all__ = ["Patient"]

_HEAD = 10.0  # seconds from a connection or the first byte of a request to the end of its headers
_PAUSE = 30.0  # seconds between two pieces of a body
_LOOK = 2.5
_LINES = {pair: b"%s: %s\r\n" % pair for pair in DEFAULTS}
_LEFT = frozenset({b"connection", b"transfer-encoding"})  # headers that change how an answer is written
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class _Answering(RequestResponseCycle):
    """Answer as uvicorn does, but for the head of an answer whose length is known.

    It leaves together with the body, as each write is a packet for which the client wakes up; and of the headers that
    all answers have nobody looks at every byte each time.
    """

    _held = b""

    async def send(self, message: Any) -> None:
        """Take a part of an answer; see the ASGI specification."""
        if self._held:
            self.expected_content_length += len(self._held)
            message = {**message, "body": self._held + message.get("body", b"")}
            self._held = b""
        elif not self.response_started and (head := self._head(message)):
            self.response_started, self.waiting_for_100_continue, self.chunked_encoding = True, False, False
            self._held = head
            return
        await super().send(message)

    def _head(self, message: Any) -> bytes:
        """Return the head of an answer, or nothing if it is an unusual one, which uvicorn knows better."""
        if self.access_log or self.disconnected or not self.keep_alive or self.scope["method"] == "HEAD":
            return b""
        length, lines = b"", [STATUS_LINE[message.get("status", 500)]]
        for pair in (*self.default_headers, *message.get("headers", ())):
            line = _LINES.get(pair)
            if line is None:
                name, value = pair
                if name.lower() in _LEFT or HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
                    return b""
                if name == b"content-length":
                    length = value
                line = b"%s: %s\r\n" % pair
            lines.append(line)
        if not length.isdigit():
            return b""
        self.expected_content_length = int(length)
        lines.append(b"\r\n")
        return b"".join(lines)


class Patient(HttpToolsProtocol):
    """Close connections whose client is too slow, and those whose headers have no end."""

    def connection_made(self, transport: Any) -> None:
        """Begin to look at the clock."""
        super().connection_made(transport)
        self._awaits_head, self._awaits_body = True, False
        self._head_size, self._last = 0, self.loop.time()
        self._look = self.loop.call_later(_LOOK, self._look_at_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, if it is not only headers and more headers."""
        if not self._awaits_head:
            self._last = self.loop.time()
        super().data_received(data)
        if self._awaits_head and self._head_size >= 0:
            self._head_size += len(data)
            if self._head_size > 2 * LARGEST_HEAD:  # the last piece may have begun with the request before
                self._refuse(431, "the headers are too large")

    def on_message_begin(self) -> None:
        """Wait for the headers from now on."""
        super().on_message_begin()
        self._awaits_head, self._awaits_body = True, False
        self._head_size, self._last = 0, self.loop.time()

    def on_headers_complete(self) -> None:
        """Wait for the body from now on."""
        self._awaits_head, self._awaits_body, self._last = False, True, self.loop.time()
        super().on_headers_complete()
        self.scope["state"]["cut"] = self.transport.abort
        if type(self.cycle) is RequestResponseCycle:  # whose task has not begun to run
            self.cycle.__class__ = _Answering

    def on_message_complete(self) -> None:
        """Wait for nothing: now it is the client that waits."""
        self._awaits_body = False
        super().on_message_complete()

    def shutdown(self) -> None:
        """End an answer that has no end of its own, as the server stops, and wait for others."""
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        if cycle is not None and not cycle.response_complete:
            cycle.scope["state"].get("ending", int)()
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong as all errors are said."""
        self._refuse(400, msg)

    def _look_at_clock(self) -> None:
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is we who do not take more now
            self._last = self.loop.time()
        waited = self.loop.time() - self._last
        if self._awaits_head and waited > _HEAD:
            self._refuse(408, "the request did not come in time")
        elif self._awaits_body and waited > _PAUSE:
            self.transport.close()
        else:
            self._look = self.loop.call_later(_LOOK, self._look_at_clock)

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        self._head_size = -1
        error = {"type": "StoreError", "message": message, "details": {}}
        body = json.dumps({"error": error, "request_id": ""}).encode()
        head = [b"HTTP/1.1 %d %s" % (status, _PHRASES[status]), b"content-type: application/json", b"connection: close"]
        head += [b"content-length: %d" % len(body), *(b"%s: %s" % pair for pair in DEFAULTS)]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()
