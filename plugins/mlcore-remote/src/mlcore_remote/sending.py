"""Send a file of any size: a small one in one request, a large one in parts that go on where they stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from mlcore.errors import (
    AccessDenied,
    ArtifactError,
    ArtifactNotFound,
    DigestMismatch,
    MlcoreError,
    NotSupported,
    Refused,
    StoreError,
)
from mlcore_local.pausing import pause
from mlcore_remote.protocol import API

if TYPE_CHECKING:
    from mlcore_remote.connection import Connection

__all__ = ["SMALL", "Tick", "file_path", "send", "sha256_of"]

SMALL = 8 << 20  # bytes that go in one request
_CHUNK = 1 << 20
_THREADS = 4
_ROUNDS = 6  # in which nothing more arrives, before it is given up
_SECONDS, _LONGEST_SECONDS = 1.5, 60.0  # to wait after the first of them, and at most
_ATTEMPTS = 7  # of a small file: some 13 s, in which a server starts anew
_COMPLETING = 300.0  # seconds that an answer may take for which the server reads a file
Tick = Callable[[int], object]
Interval = tuple[int, int]
_T = TypeVar("_T")


def file_path(run: str, name: str) -> str:
    """Return the path of a file on the server."""
    return f"{API}/runs/{quote(run, safe='')}/files" + (f"/{quote(name, safe='/')}" if name else "")


def sha256_of(file: int, size: int) -> str:
    """Return the sha256 of the first `size` bytes of an open file."""
    digest = hashlib.sha256()
    for chunk in _chunks(file, 0, size):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        chunk = os.pread(file, min(_CHUNK, end - start), start)
        if not chunk:
            raise ArtifactError("the file became shorter while it was sent")
        yield chunk
        start += len(chunk)


def send(connection: Connection, run: str, name: str, file: int, size: int, sha256: str, tick: Tick = abs) -> None:
    """Store what an open file has as file `name` of a run; the server checks its sha256.

    Of a large file that was sent before, in part, by whatever process, only the rest is sent.
    """
    if size > SMALL:
        return _Sending(connection, run, name, file, size, sha256, tick).send()
    headers = {"Mlcore-Sha256": sha256, "Content-Length": str(size)}
    body = partial(_chunks, file, 0, size)
    connection.request("PUT", file_path(run, name), body=body, headers=headers, attempts=_ATTEMPTS)
    tick(size)
    return None


class _Sending:
    def __init__(
        self, connection: Connection, run: str, name: str, file: int, size: int, sha256: str, tick: Tick
    ) -> None:
        self._connection, self._file, self._size, self._sha256, self._tick = connection, file, size, sha256, tick
        self._announced = {"run": run, "path": name, "size": size, "sha256": sha256}
        self._path, self._ticked, self._lock = file_path(run, name), 0, Lock()

    def send(self) -> None:
        """Send what is missing, until nothing is, and let the file appear; a server that goes away is waited for."""
        about, most, idle = self._announce(), -1, 0
        while True:
            there = sum(end - start for start, end in about["received"])
            self._told(there)
            idle, most = (1, there) if there > most else (idle + 1, most)
            try:
                self._rest(about)
                if self._complete(about["id"]):
                    return self._told(self._size)
                about = self._announce()
            except MlcoreError as error:
                if idle > _ROUNDS or not _passes(error):
                    raise
                time.sleep(pause(idle, _SECONDS, _LONGEST_SECONDS))
                with contextlib.suppress(StoreError):  # else what was known is tried again
                    about = self._announce()

    def _announce(self) -> dict[str, Any]:
        return dict(json.loads(self._connection.ask(f"{API}/uploads", self._announced).data))

    def _rest(self, about: dict[str, Any]) -> None:
        """Send what is not there, in pieces, some of them at once; the first that fails stops the others."""
        if about.get("direct") and self._connection.bucket.usable and self._straight(about):
            return
        about = self._announce() if about.get("direct") else about

        path, length = f"{API}/uploads/{about['id']}", int(about["part"])

        def one(item: Interval) -> None:
            start, end = item
            headers = {"Content-Length": str(end - start), "Upload-Offset": str(start)}
            body = partial(_chunks, self._file, start, end)
            self._connection.request("PATCH", path, body=body, headers=headers)
            self._told(end - start, more=True)

        ends = [0, *(end for _, end in about["received"])]
        gaps = zip(ends, [*(start for start, _ in about["received"]), self._size], strict=True)
        pieces = [(at, min(at + length, stop)) for start, stop in gaps for at in range(start, stop, length)]
        _together(one, iter(pieces), len(pieces))

    def _straight(self, about: dict[str, Any]) -> bool:
        """Send what is not there straight to the bucket; False if that is of no use from here."""
        from mlcore_remote.buckets import Unreached
        from mlcore_remote.straight import Part, Stale, parts_of, store_part

        chunks = partial(_chunks, self._file)

        def one(part: Part) -> None:
            store_part(self._connection, about["id"], part, chunks)
            self._told(part[1] - part[0], more=True)

        try:
            parts = parts_of(chunks, self._size, self._sha256, about["direct"])
            _together(one, parts, -(-self._size // int(about["direct"]["part"])))
        except Unreached as error:
            self._connection.bucket.give_up(error)
            return False
        except (DigestMismatch, Stale):
            with contextlib.suppress(MlcoreError):
                self._connection.request("DELETE", f"{API}/uploads/{about['id']}", expected=[404])
            raise
        return True

    def _complete(self, id: str) -> bool:
        """Let the file appear; False if the upload must be announced again."""
        while True:
            try:
                answer = self._connection.request("POST", f"{API}/uploads/{id}/complete", read=_COMPLETING)
            except ArtifactNotFound:  # it is there if only the answer was lost, or another process was faster
                return self._is_there()
            if answer.status != 202:
                return True
            time.sleep(float(answer.headers.get("Retry-After", 1)))

    def _is_there(self) -> bool:
        headers = {"Want-Repr-Digest": "sha-256=10"}
        found = self._connection.request("HEAD", self._path, headers=headers, expected=[404], read=_COMPLETING)
        return found.status == 200 and found.headers.get("Mlcore-Sha256") == self._sha256

    def _told(self, count: int, *, more: bool = False) -> None:
        """Tell how far it is; what was sent twice is told of once."""
        with self._lock:
            reached = min(self._ticked + count if more else max(count, self._ticked), self._size)
            step, self._ticked = reached - self._ticked, reached
        if step:
            self._tick(step)


def _together(work: Callable[[_T], None], items: Iterator[_T], count: int) -> None:
    """Do the work for all items, in this thread and, unless the interpreter ends already, in some others.

    Items are asked for by one thread at a time, while the others work. The first that fails stops the others.
    """
    lock, failed = Lock(), list[BaseException]()

    def go() -> None:
        try:
            while not failed:
                with lock:
                    item = next(items, None)
                if item is None:
                    return
                work(item)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that was asked
            failed.append(error)

    threads = [Thread(target=go, name="mlcore-send", daemon=True) for _ in range(min(_THREADS, count) - 1)]
    with contextlib.suppress(RuntimeError):
        for thread in threads:
            thread.start()
    go()
    for thread in threads:
        if thread.ident is not None:
            thread.join()
    if failed:
        raise failed[0]


def _passes(error: MlcoreError) -> bool:
    """Tell whether it may go better next time: the server was away, or had forgotten the upload."""
    final = isinstance(error, Refused | AccessDenied | NotSupported)
    return isinstance(error, StoreError | ArtifactNotFound) and not final
