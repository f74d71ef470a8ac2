"""A TCP proxy between a client and a server, which makes the network as bad as a test wants it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_RESET = struct.pack("ii", 1, 0)  # a closed connection is reset, without a farewell


class Proxy:
    """Pass on what comes, or not.

    `delay` is in seconds, before each piece of a request. In a `hole` nothing that comes is passed on, and nothing is
    answered. `cut` is how many answers are still to be cut off: the server did what was asked, and the client does not
    hear of it. While `refusing` no connection is taken.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.delay, self.hole, self.cut, self.refusing = 0.0, False, 0, False
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.refusing:
            return self._drop(client)
        try:
            server = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            return self._drop(client)
        server.settimeout(None)
        with self._lock:
            self._open |= {client, server}
        for one, other, answers in ((client, server, False), (server, client, True)):
            threading.Thread(target=self._pass, args=(one, other, answers), daemon=True).start()
        return None

    def _pass(self, one: socket.socket, other: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                if not answers:
                    time.sleep(self.delay)
                while self.hole:
                    time.sleep(0.05)
                if answers and self.cut > 0:
                    self.cut -= 1
                    break
                other.sendall(data)
        self._drop(one)
        self._drop(other)

    def _drop(self, each: socket.socket) -> None:
        with self._lock:
            self._open.discard(each)
        with suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            each.close()

    def drop_all(self) -> None:
        """Reset every connection."""
        for each in list(self._open):
            self._drop(each)

    def close(self) -> None:
        """Take no connection any more, and end all."""
        self._socket.close()
        self.hole = False
        self.drop_all()


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """Yield a proxy before a server of this machine."""
    found = Proxy(port)
    try:
        yield found
    finally:
        found.close()
