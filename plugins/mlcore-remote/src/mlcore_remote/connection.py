"""One connection to a server: keep-alive, retries, proxies, certificates, tokens, and errors that say what to do.

Everything asked of a server may be asked twice: a batch is stored once whatever happens, by the contract of stores. So
what fails on its way is tried again, a few times, after a pause that grows and is never the same for two clients.
"""

from __future__ import annotations

import gzip
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

import mlcore
from mlcore.errors import AccessDenied, MlcoreError, StoreError
from mlcore.store import to_json
from mlcore_local.pausing import pause
from mlcore_remote.addresses import Address, address_of
from mlcore_remote.credentials import tokens_for, withheld
from mlcore_remote.explaining import explain_answer
from mlcore_remote.protocol import JSON, VERSION_HEADER

if TYPE_CHECKING:
    import urllib3

    from mlcore_remote.buckets import Bucket
    from mlcore_remote.pools import Pool

__all__ = ["ANSWER_BYTES", "Answer", "Body", "Connection", "shared"]

ANSWER_BYTES = 1 << 30  # more than this is not taken into memory
_COMPRESSED = 4_096  # bytes from which on a body is worth its compression
_RETRIED = frozenset({429, 502, 503, 504})
_AT_ONCE = 0.25  # seconds
_SECONDS = 0.3  # to wait after the first attempt
_LONGEST_PAUSE = 30.0  # seconds; a server that asks for more is answered by giving up
_CHUNK = 1 << 16
_TIMES = 10  # as long as for the next piece may be waited for all of an answer, which else could trickle for days

Body = bytes | Callable[[], Iterable[bytes]]  # the second for what is long: called once for each attempt


@attrs.define
class Answer:
    """Hold what a server answered: `status`, `headers`, and the body as `data`, or in `chunks` that come as they do.

    A stream must be read to its end or closed.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes = b""
    chunks: Iterator[bytes] = attrs.field(factory=lambda: iter(()))
    close: Callable[[], None] = lambda: None


class Connection:
    """Ask one server; threads may share it, and the child of a fork gets connections of its own."""

    def __init__(
        self, uri: str, *, connect: float = 5.0, read: float = 60.0, attempts: int = 4, token: str | None = None
    ) -> None:
        """Look at the URI; nothing is connected to before the first request.

        `connect` and `read` are seconds: until there is a connection, and between two pieces of an answer. `attempts`
        is how often a request is sent at most. Without a `token` it is that of `credentials.tokens_for`, with an empty
        one none is sent. Raises `ConfigError`.
        """
        self.address: Address = address_of(uri)
        self.base = self.address.base
        self.connect, self.read, self.attempts, self._given = connect, read, attempts, token
        self.version: str | None = None  # what the server said last, None before the first answer
        self.peer = ""  # the IP address that was last connected to, if it is the server's
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._pool: tuple[Pool, str] | None = None
        self._token: str | None = None
        self._known = False
        self._bucket: Bucket | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base!r})"

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        expected: Iterable[int] = (),
        connect: float | None = None,
        read: float | None = None,
        attempts: int | None = None,
        limit: int = ANSWER_BYTES,
    ) -> Answer:
        """Send a request and return the answer; `path` begins with a slash and is encoded already.

        Raises what the server says, as a class of `mlcore.errors`, for every status of 400 and more that is not
        `expected`; `StoreError` for what happened on the way; `AccessDenied` if the token is missing or wrong.
        """
        left = attempts or self.attempts
        send = _Request(method, path, body, dict(headers or {}), (connect or self.connect, read or self.read))
        for attempt in range(1, left + 1):
            answer, error, asked = self._attempt(send, stream, frozenset(expected), limit)
            if answer is not None:
                return answer
            assert error is not None
            wait = pause(attempt, _SECONDS, _NEVER) if asked is None else asked * random.uniform(1, 1.2)  # noqa: S311
            if attempt == left or asked == _NEVER or wait > _LONGEST_PAUSE:
                raise error
            time.sleep(wait)
        raise AssertionError("a request is sent at least once")

    def ask(self, path: str, question: Mapping[str, Any], **more: Any) -> Answer:
        """Post a question in JSON; see `request`."""
        headers = {"Content-Type": JSON, **more.pop("headers", {})}
        return self.request("POST", path, body=to_json(question), headers=headers, **more)

    @property
    def bucket(self) -> Bucket:
        """The bucket that the server keeps files in, if it has one."""
        if self._pid != os.getpid() or self._bucket is None:
            from mlcore_remote.buckets import Bucket

            self._bucket = Bucket(self.address, lambda: self.peer)
        return self._bucket

    def close(self) -> None:
        """Close what is open; a request opens it again."""
        if self._bucket is not None:
            self._bucket.close()
        if self._pid == os.getpid() and self._pool is not None:
            pool, self._pool = self._pool[0], None
            pool.clear() if hasattr(pool, "clear") else pool.close()

    def _attempt(
        self, send: _Request, stream: bool, expected: frozenset[int], limit: int
    ) -> tuple[Answer | None, Exception | None, float | None]:
        """Return the answer; or the error, and the seconds to wait before the next attempt if that is known."""
        import urllib3

        from mlcore_remote.mishaps import explain_failure

        token = self._current_token()
        try:
            response = self._sent(send, token)
            if response.status == 401 and (other := self._other_token(token)) is not None:
                response.drain_conn()  # a server that was started anew has another token
                response = self._sent(send, token := other)
            self.version = response.headers.get(VERSION_HEADER, self.version)
            if response.status < 300 or response.status in expected:
                return self._answer(response, stream, limit, send.seconds[1]), None, None
            data = _bounded(response, 1 << 20, _TIMES * send.seconds[1])
        except MlcoreError as error:
            return None, error, _NEVER
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            found, again = explain_failure(self.address, error)
            return None, found, None if again else _NEVER
        refused = explain_answer(self.address, response.status, response.headers, data)
        if isinstance(refused, AccessDenied) and self._given is None and (why := withheld(self.address)):
            refused = AccessDenied(f"{refused}; {why}", refused.status)
        if response.status not in _RETRIED:
            return None, refused, _NEVER
        return None, refused, _retry_after(response.headers.get("Retry-After"))

    def _answer(self, response: urllib3.BaseHTTPResponse, stream: bool, limit: int, read: float) -> Answer:
        if not stream:
            seconds = _TIMES * read
            return Answer(response.status, response.headers, _bounded(response, limit, seconds))
        return Answer(response.status, response.headers, b"", self._chunks(response), response.close)

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        import urllib3

        from mlcore_remote.mishaps import explain_failure

        try:
            yield from response.stream(_CHUNK, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise explain_failure(self.address, error)[0] from error
        finally:
            response.release_conn()

    def _sent(self, send: _Request, token: str | None) -> urllib3.BaseHTTPResponse:
        """Send a request; at once again if the connection breaks at once, as one does that was idle for too long."""
        import urllib3

        begin = time.monotonic()
        try:
            return self._send(send, token)
        except urllib3.exceptions.ProtocolError:
            if time.monotonic() - begin > _AT_ONCE:
                raise
            return self._send(send, token)

    def _send(self, send: _Request, token: str | None) -> urllib3.BaseHTTPResponse:
        import urllib3

        headers = {VERSION_HEADER: mlcore.__version__, "Accept-Encoding": "gzip", "User-Agent": _AGENT, **send.headers}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        body: Any = send.body
        if isinstance(body, bytes) and len(body) >= _COMPRESSED and "Content-Encoding" not in headers:
            if send.compressed is None:
                send.compressed = gzip.compress(body, 1, mtime=0)
            if len(send.compressed) < len(body):
                body, headers["Content-Encoding"] = send.compressed, "gzip"
        pool, prefix = self._pool_of_now()
        return pool.urlopen(
            send.method, prefix + send.path, body=body() if callable(body) else body, headers=headers,
            retries=False, redirect=False, preload_content=False, decode_content=True,
            timeout=urllib3.Timeout(connect=send.seconds[0], read=send.seconds[1]),
        )  # fmt: skip

    def _pool_of_now(self) -> tuple[Pool, str]:
        if self._pid != os.getpid():
            self._inherited = self._pool  # of the parent, whose sockets they are: neither used nor closed here
            self._begin()
        with self._lock:
            if self._pool is None:
                from mlcore_remote.pools import make_pool

                self._pool = make_pool(self.address, note=self._note)
            return self._pool

    def _note(self, peer: str) -> None:
        self.peer = peer

    def _tokens(self) -> Iterator[str]:
        return tokens_for(self.address) if self._given is None else iter([self._given])

    def _current_token(self) -> str | None:
        if not self._known:
            self._token, self._known = next(self._tokens(), None), True
        return self._token

    def _other_token(self, refused: str | None) -> str | None:
        """Return a token that was not refused, from a login or a server started since; it is the one from now on."""
        found = next((each for each in self._tokens() if each != refused), None)
        if found is not None:
            self._token = found
        return found


@attrs.define
class _Request:
    method: str
    path: str
    body: Body | None
    headers: dict[str, str]
    seconds: tuple[float, float]
    compressed: bytes | None = None


_NEVER = float("inf")
_AGENT = f"mlcore/{mlcore.__version__}"


def _retry_after(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() and len(value) < 10 else None


def _bounded(response: urllib3.BaseHTTPResponse, limit: int, seconds: float) -> bytes:
    parts, size, end = [], 0, time.monotonic() + seconds
    try:
        while part := response.read1(_CHUNK, decode_content=True):
            size += len(part)
            if size > limit:
                response.close()
                raise StoreError(f"an answer of more than {limit:,} bytes is not taken: ask for less at once")
            if time.monotonic() > end:
                raise TimeoutError
            parts.append(part)
    finally:
        response.release_conn()
    return b"".join(parts)


_shared: dict[tuple[int, str], Connection] = {}


def shared(uri: str) -> Connection:
    """Return the connection of this process to a server that all who ask for the same one share."""
    key = os.getpid(), address_of(uri).base
    return _shared.setdefault(key, Connection(uri))
