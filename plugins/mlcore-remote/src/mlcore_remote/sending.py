"""Send a file of any size: a small one in one request, a large one in parts that go on where they stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlcore.errors import AccessDenied, ArtifactError, ArtifactNotFound, MlcoreError, NotSupported, Refused, StoreError
from mlcore_remote.protocol import API

if TYPE_CHECKING:
    from mlcore_remote.connection import Connection

__all__ = ["SMALL", "Tick", "file_path", "send", "sha256_of"]

SMALL = 8 << 20  # bytes that go in one request
_CHUNK = 1 << 20
_THREADS = 4
_ROUNDS = 6  # in which nothing more arrives, before it is given up
_SECONDS = 0.5  # to wait after the first of them, then twice as long each time
_ATTEMPTS = 7  # of a small file: some 13 s, in which a server starts anew
_COMPLETING = 300.0  # seconds that an answer may take for which the server reads a file
Tick = Callable[[int], object]


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
        """Send what is missing, until nothing is, and let the file appear."""
        most, idle = -1, 0
        while True:
            about = self._announce()
            there = sum(end - start for start, end in about["received"])
            self._told(there)
            idle, most = (0, there) if there > most else (idle + 1, most)
            if idle:
                time.sleep(_SECONDS * 2**idle * random.uniform(0.5, 1.5))  # noqa: S311 - so that not all come at once
            try:
                self._parts(about)
                if self._complete(about["id"]):
                    return self._told(self._size)
            except MlcoreError as error:
                if idle >= _ROUNDS or not _passes(error):
                    raise

    def _announce(self) -> dict[str, Any]:
        return dict(json.loads(self._connection.ask(f"{API}/uploads", self._announced).data))

    def _parts(self, about: dict[str, Any]) -> None:
        """Send the parts that are not there, some of them at once; the first that fails stops the others."""
        path, length = f"{API}/uploads/{about['id']}/parts", int(about["part"])
        failed = False

        def one(number: int, start: int, end: int) -> None:
            if not failed:
                headers, body = {"Content-Length": str(end - start)}, partial(_chunks, self._file, start, end)
                self._connection.request("PUT", f"{path}/{number}", body=body, headers=headers)
                self._told(end - start, more=True)

        bounds = [(start, min(start + length, self._size)) for start in range(0, self._size, length)]
        missing = [
            (number, start, end)
            for number, (start, end) in enumerate(bounds, 1)
            if not any(first <= start and end <= last for first, last in about["received"])
        ]
        with ThreadPoolExecutor(_THREADS, "mlcore-send") as pool:
            done, _ = wait([pool.submit(one, *each) for each in missing], return_when=FIRST_EXCEPTION)
            failed = any(each.exception() for each in done)
        for each in done:
            each.result()

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


def _passes(error: MlcoreError) -> bool:
    """Tell whether it may go better next time: the server was away, or had forgotten the upload."""
    final = isinstance(error, Refused | AccessDenied | NotSupported)
    return isinstance(error, StoreError | ArtifactNotFound) and not final
