"""Large files straight to and from the bucket of a server: parts of an upload, and ranges of what is read.

The file that is sent is read once, in order, while parts of it are on their way. The MD5 of each part is made of what
its share of the sha256 is made of, and the bucket compares it with what it got: so what is stored has the sha256 that
was announced, or is never completed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, repeat
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, StoreError
from mlcore_local.pausing import pause
from mlcore_remote.buckets import Link, Unreached, said
from mlcore_remote.protocol import API

if TYPE_CHECKING:
    import urllib3

    from mlcore_remote.connection import Answer, Connection

__all__ = ["Part", "Reading", "Stale", "parts_of", "store_part"]

_BLOCK, _AHEAD = 8 << 20, 3  # bytes of a request, and how many come while one is used
_TRIES = 5
_SECONDS, _LONGEST_SECONDS = 0.3, 5.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_MD5 = re.compile("[0-9a-f]{32}")
Part = tuple[int, int, str]  # the first byte, the one after the last, and the MD5


class Stale(StoreError):
    """Say that something else was stored of a file before, which has to be sent again."""


def parts_of(
    chunks: Callable[[int, int], Iterator[bytes]], size: int, sha256: str, direct: Mapping[str, Any]
) -> Iterator[Part]:
    """Yield the parts of a file that the bucket does not have, as it is read; what is there already is compared.

    `direct` is what the server told of an upload. Raises `DigestMismatch` at the end if the file is not what was
    announced, and `Stale` if something else was stored of it before.
    """
    length, there = int(direct["part"]), {int(part["offset"]): str(part["md5"]) for part in direct["received"]}
    whole, stale = hashlib.sha256(), False
    for start in range(0, size, length):
        end = min(start + length, size)
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in chunks(start, end):
            whole.update(chunk)
            digest.update(chunk)
        md5 = digest.hexdigest()
        stale = stale or there.get(start, md5) != md5
        if start not in there and not stale:
            yield start, end, md5
    if whole.hexdigest() != sha256:
        raise DigestMismatch(f"the file changed before it was sent: its sha256 is {whole.hexdigest()}, not {sha256}")
    if stale:
        raise Stale("of the file something else was stored before: all of it is sent again")


def store_part(connection: Connection, id: str, part: Part, chunks: Callable[[int, int], Iterator[bytes]]) -> None:
    """Store a part of an upload in the bucket. Raises `Unreached` if that is of no use, or what the server says."""
    start, end, md5 = part
    asked = {"parts": [{"offset": start, "size": end - start, "md5": md5}]}
    headers = {"Content-Length": str(end - start), "Content-MD5": base64.b64encode(bytes.fromhex(md5)).decode()}

    def ask() -> Any:
        return json.loads(connection.ask(f"{API}/uploads/{id}/links", asked).data)["links"][0]

    denied = 0
    for attempt in range(1, _TRIES + 1):
        answer, why, again = _tried(connection, "PUT", Link.read(_told(ask)), headers, partial(chunks, start, end))
        if answer is not None and answer.status in (200, 201):
            tag = answer.headers.get("ETag", "").strip('"')
            answer.drain_conn()
            if _MD5.fullmatch(tag) and tag != md5:  # of a bucket that encrypts, for one
                raise Unreached("the bucket tells no MD5 of what is stored, so nobody could compare it")
            return
        denied += not again  # once may be a link that was too old
        if attempt == _TRIES or denied > 1:
            raise Unreached(why)
        time.sleep(pause(attempt, _SECONDS, _LONGEST_SECONDS) if again else 0)


def _told(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (KeyError, IndexError, TypeError, ValueError):
        raise Unreached("the server told no link") from None


def _tried(
    connection: Connection,
    method: str,
    link: Link,
    headers: Mapping[str, str],
    body: Callable[[], Iterator[bytes]] | None = None,
) -> tuple[urllib3.BaseHTTPResponse | None, str, bool]:
    """Return the answer to one request, if it was good; else why not, and whether it may pass."""
    import urllib3

    try:
        answer = connection.bucket.send(method, link, headers, body)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        return None, f"the connection to {link.address.base} broke: {type(error).__name__}", True
    if answer.status in (200, 201, 206, 404, 412):
        return answer, f"{link.address.base} answers {answer.status}", False
    return None, said(answer, link), answer.status in _PASSING


class Reading:
    """Read ranges of one file from the bucket, several at once, by a link that is renewed in time."""

    def __init__(self, connection: Connection, run: str, name: str, size: int, etag: str) -> None:
        self._connection, self._size, self._etag, self._name = connection, size, etag, f"{run}/{name}"
        self._path = f"{API}/runs/{quote(run, safe='')}/links/{quote(name, safe='/')}"
        self._link: Link | None = None
        self._tag, self._lock = "", Lock()

    def range(self, start: int, end: int) -> Answer | None:
        """Return the answer with these bytes; None if they have to be asked of the server.

        Raises `ArtifactError` if the file is another one by now.
        """
        from mlcore_remote.connection import Answer

        if not self._connection.bucket.usable:
            return None
        try:
            first = self._block(start, min(start + _BLOCK, end))
        except Unreached as error:
            self._connection.bucket.give_up(error)
            return None
        except ArtifactNotFound:  # the server was started anew without links, or it will say itself what is missing
            return None
        chunks = self._blocks(first, start, end)
        return Answer(206, {}, b"", chunks, chunks.close)

    def _blocks(self, first: bytes, start: int, end: int) -> Generator[bytes, None, None]:
        """Yield what comes after the first block, while some more of it is on its way."""
        yield first
        starts = iter(range(start + len(first), end, _BLOCK))
        coming = deque[Future[bytes]]()
        pool = ThreadPoolExecutor(_AHEAD, "mlcore-read")
        try:
            for at in chain(starts, repeat(end, _AHEAD)):
                if at < end:
                    coming.append(_begun(pool, partial(self._block, at, min(at + _BLOCK, end))))
                if coming and (at == end or len(coming) > _AHEAD):
                    yield coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _block(self, start: int, end: int) -> bytes:
        headers, denied = {"Range": f"bytes={start}-{end - 1}"}, 0
        for attempt in range(1, _TRIES + 1):
            link, tag = self._current()
            if tag:
                headers["If-Match"] = f'"{tag}"'
            answer, why, again = _tried(self._connection, "GET", link, headers)
            if answer is not None and answer.status == 206:
                data, why, again = self._data(answer, link, start, end)
                if data is not None:
                    return data
            elif answer is not None:
                answer.close()
                if answer.status == 412:
                    raise self._replaced()
            denied += not again
            if attempt == _TRIES or denied > 1:
                raise Unreached(why)
            if not again:
                self._forget(link)  # which may have expired
            time.sleep(pause(attempt, _SECONDS, _LONGEST_SECONDS) if again else 0)
        raise AssertionError("the last try returns or raises")

    def _data(
        self, answer: urllib3.BaseHTTPResponse, link: Link, start: int, end: int
    ) -> tuple[bytes | None, str, bool]:
        """Return the bytes of an answer; if they are not what was asked for, why, and whether that may pass."""
        import urllib3

        told = answer.headers.get("Content-Length"), answer.headers.get("Content-Range")
        if told != (str(end - start), f"bytes {start}-{end - 1}/{self._size}"):
            answer.close()
            return None, f"{link.address.base} sends another range than was asked for", False
        try:
            data: bytes = answer.read(decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return None, f"the connection to {link.address.base} broke: {type(error).__name__}", True
        finally:
            answer.release_conn()
        return (data, "", False) if len(data) == end - start else (None, f"{link.address.base} cuts answers off", True)

    def _current(self) -> tuple[Link, str]:
        with self._lock:
            if self._link is None or time.monotonic() > self._link.until:
                told = _told(lambda: dict(json.loads(self._connection.request("GET", self._path).data)))
                if (told.get("etag"), told.get("size")) != (self._etag, self._size):
                    raise self._replaced()
                self._link, self._tag = Link.read(told), str(told.get("tag", ""))
            return self._link, self._tag

    def _forget(self, link: Link) -> None:
        with self._lock:
            if self._link is link:
                self._link = None

    def _replaced(self) -> ArtifactError:
        return ArtifactError(f"{self._name} was replaced while it was read: open it again")


def _begun(pool: ThreadPoolExecutor, work: Callable[[], bytes]) -> Future[bytes]:
    """Let a thread begin with some work, or do it here if there are no more threads, as the interpreter ends."""
    try:
        return pool.submit(work)
    except RuntimeError:
        done = Future[bytes]()
        done.set_result(work())
        return done
