"""Write objects: whole files with their sha256, in parts that are sent at once, and streams as they come.

What was sent of a file by a process that was killed, or broken off, is noted on its machine, and not sent again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import IO, TYPE_CHECKING, Any

from mlcore.errors import ArtifactError
from mlcore_s3.notes import Note, old_notes
from mlcore_s3.workers import WRITTEN, submit

if TYPE_CHECKING:
    from mlcore_s3.engine import Bucket, Parts

__all__ = ["Writing", "put_file"]

_PART = 8 << 20
_LARGEST = 64 << 20  # bytes of a part at most, so that memory is bounded: 640 GB in ten thousand
_AT_ONCE = 8
_GROWS = 500  # parts of a stream after which they are twice as large
Tick = Callable[[int], object]
_swept = set[str]()


def put_file(bucket: Bucket, key: str, path: str, tick: Tick) -> tuple[int, str]:
    """Store a local file; return the size and sha256 of what was stored, and tell `tick` of bytes as they arrive.

    What `tick` raises stops it. Then, and if the server fails for too long, the parts that arrived wait to be gone on
    with, on this machine. The object appears when it is whole.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _PART:
            if bucket.parts is None:
                return _put_stream(bucket, key, file, tick)
            return _put_parts(bucket, bucket.parts, key, file, size, tick)
        WRITTEN.take(size)
        try:
            data = _read(file, size)
            tick(0)  # which may say to stop
            bucket.put(key, memoryview(data))
            tick(len(data))
            return len(data), hashlib.sha256(data).hexdigest()
        finally:
            WRITTEN.give(size)


def _read(file: IO[bytes], count: int) -> bytearray:
    """Return so many bytes, fewer only at the end of the file."""
    buffer = bytearray(count)
    done = 0
    with memoryview(buffer) as view:
        while done < count and (more := file.readinto(view[done:])):  # type: ignore[attr-defined]
            done += more
    del buffer[done:]
    return buffer


def _put_stream(bucket: Bucket, key: str, file: IO[bytes], tick: Tick) -> tuple[int, str]:
    """Store a large file where parts cannot be gone on with."""
    stored = [(0, "")]

    def chunks() -> Iterator[bytes]:
        digest, size = hashlib.sha256(), 0
        tick(-stored[0][0])  # of a try before
        file.seek(0)
        while chunk := file.read(_PART):
            digest.update(chunk)
            size += len(chunk)
            stored[0] = size, digest.hexdigest()
            tick(len(chunk))
            yield chunk

    WRITTEN.take(_PART * _AT_ONCE)
    try:
        bucket.stream(key, chunks, _PART, _AT_ONCE)
    finally:
        WRITTEN.give(_PART * _AT_ONCE)
    return stored[0]


def _put_parts(bucket: Bucket, parts: Parts, key: str, file: IO[bytes], size: int, tick: Tick) -> tuple[int, str]:
    note = Note.take(bucket.identity, key)
    sending, part_size = _begun(bucket, parts, key, size, note)
    try:
        digest, stored = hashlib.sha256(), 0
        while True:
            WRITTEN.take(part_size)
            try:
                data = _read(file, part_size)
                digest.update(data)
            except BaseException:
                WRITTEN.give(part_size)
                raise
            if not data:
                WRITTEN.give(part_size)
                break
            stored += len(data)
            sending.add(data, part_size, tick)
        sending.finish(tick)
    except BaseException:
        sending.stop(abort=note is None)
        if note is not None:
            note.close()
        raise
    if note is not None:
        note.remove()
    _sweep(bucket, parts)
    return stored, digest.hexdigest()


def _begun(bucket: Bucket, parts: Parts, key: str, size: int, note: Note | None) -> tuple[_Sending, int]:
    """Return an upload to go on with, or else a new one, and the size of its parts."""
    try:
        if note is not None and note.upload and note.part_size:
            upload = note.upload
            if (there := bucket.ask(lambda: parts.received(key, upload), key)) is not None:
                return _Sending(bucket, parts, key, upload, note, there), note.part_size
        part_size = _PART
        while part_size < _LARGEST and part_size * (parts.most - 1) < size:
            part_size *= 2
        upload = bucket.ask(lambda: parts.begin(key), key)
        if note is not None:
            note.begin(upload, key, part_size)
        return _Sending(bucket, parts, key, upload, note), part_size
    except BaseException:
        if note is not None:
            note.remove() if not note.upload else note.close()
        raise


def _sweep(bucket: Bucket, parts: Parts) -> None:
    """Once in a process, let the server forget what was begun from this machine long ago."""
    if bucket.identity in _swept:
        return
    _swept.add(bucket.identity)
    for note in old_notes(bucket.identity):
        with contextlib.suppress(Exception):
            if note.upload:
                parts.abort(note.key, note.upload)
            note.remove()
        note.close()


class _Sending:
    """Send the parts of one upload, several at once; none that the server has already."""

    def __init__(
        self,
        bucket: Bucket,
        parts: Parts,
        key: str,
        upload: str,
        note: Note | None = None,
        there: Mapping[int, tuple[str, int]] | None = None,
    ) -> None:
        self._bucket, self._parts, self._key, self._upload = bucket, parts, key, upload
        self._note, self._there = note, there or {}
        self._tags, self._waiting = dict[int, str](), deque[tuple[int, Future[int]]]()  # bytes held, and those sent
        self._number, self._stopped = 0, False

    def add(self, data: bytearray, held: int, tick: Tick) -> None:
        """Send the next part, for which `held` bytes of the budget were taken."""
        self._number += 1
        number = self._number
        self._waiting.append((held, submit(lambda: self._send(number, data, held))))
        while len(self._waiting) >= _AT_ONCE or (self._waiting and self._waiting[0][1].done()):
            self._wait(tick)

    def _wait(self, tick: Tick) -> None:
        tick(self._waiting[0][1].result())
        self._waiting.popleft()

    def _send(self, number: int, data: bytearray, held: int) -> int:
        try:
            if self._stopped:
                raise ArtifactError(f"stopped writing {self._bucket.uri_of(self._key)}")
            sha256, key, upload = hashlib.sha256(data).hexdigest(), self._key, self._upload
            tag = self._tag_there(number, data, sha256)
            if tag is None:
                view = memoryview(data)
                tag = self._bucket.ask(
                    lambda: self._parts.send(key, upload, number, view, sha256), key, lambda: self._stopped
                )
                if self._note is not None:
                    self._note.add(number, sha256, tag)
            self._tags[number] = tag
            return len(data)
        finally:
            WRITTEN.give(held)

    def _tag_there(self, number: int, data: bytearray, sha256: str) -> str | None:
        """Return the tag of a part that the server has as it is here: noted so, or by its MD5."""
        tag, size = self._there.get(number, ("", -1))
        if size != len(data):
            return None
        noted = self._note is not None and self._note.sent.get(number) == (sha256, tag)
        return tag if noted or hashlib.md5(data, usedforsecurity=False).hexdigest() == tag else None

    def finish(self, tick: Tick = abs) -> None:
        """Wait for all parts, and let the object appear."""
        while self._waiting:
            self._wait(tick)
        key, upload, tags = self._key, self._upload, dict(self._tags)
        self._bucket.ask(lambda: self._parts.finish(key, upload, tags), key)

    def stop(self, *, abort: bool) -> None:
        """Send no more; with `abort` let the server forget what it has."""
        self._stopped = True
        for held, future in self._waiting:
            if future.cancel():
                WRITTEN.give(held)
        for _, future in self._waiting if abort else ():  # as a part that came later would stay
            with contextlib.suppress(BaseException):
                future.result()
        if abort:
            with contextlib.suppress(Exception):
                self._parts.abort(self._key, self._upload)


class Writing(io.RawIOBase):
    """Take in an object, which appears when this is closed; left by an error, or forgotten, it never does."""

    def __init__(self, bucket: Bucket, key: str, *, create: bool = False, autocommit: bool = True) -> None:
        super().__init__()
        self._bucket, self._key, self._create, self._autocommit = bucket, key, create, autocommit
        self._buffer, self._position, self._size, self._count = bytearray(), 0, _PART, 0
        self._sending: _Sending | None = None
        self._file: IO[bytes] | None = None
        self._done = False

    def writable(self) -> bool:
        """Tell that it is."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def write(self, data: Any) -> int:
        """Take in some bytes."""
        if self.closed or self._done:
            raise ValueError(f"{self._bucket.uri_of(self._key)} is closed")
        with memoryview(data).cast("B") as view:
            for start in range(0, len(view), _PART):
                self._buffer += view[start : start + _PART]
                while len(self._buffer) > self._size:
                    self._pass_on()
            self._position += len(view)
            return len(view)

    def _pass_on(self) -> None:
        """Send a part, or keep it on this machine where there are no parts."""
        parts = self._bucket.parts
        if parts is None:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - closed with this
            self._file.write(self._buffer)
            self._buffer.clear()
            return
        if self._sending is None:
            upload = self._bucket.ask(lambda: parts.begin(self._key), self._key)
            self._sending = _Sending(self._bucket, parts, self._key, upload)
        data, self._buffer = self._buffer[: self._size], self._buffer[self._size :]
        WRITTEN.take(self._size)
        self._sending.add(data, self._size, abs)
        self._count += 1
        if self._count % _GROWS == 0:
            self._size = min(self._size * 2, _LARGEST)

    def close(self) -> None:
        """Let the object appear, unless it was discarded."""
        if self.closed:
            return
        try:
            if not self._done and self._autocommit:
                self.commit()
        except BaseException:
            self.discard()
            raise
        finally:
            super().close()

    def commit(self) -> None:
        """Let the object appear under its name."""
        if self._file is None and self._sending is None:
            self._bucket.put(self._key, memoryview(self._buffer), create=self._create)
        else:
            if self._create and self._bucket.has(self._key):
                raise FileExistsError(errno.EEXIST, "there is an object already", self._bucket.uri_of(self._key))
            if self._buffer:
                self._pass_on()
            if self._sending is not None:
                self._sending.finish()
            elif self._file is not None:
                _put_stream(self._bucket, self._key, self._file, abs)
        self._done, self._sending = True, None
        self.discard()

    def discard(self) -> None:
        """Forget what was written."""
        self._done = True
        if self._sending is not None:
            self._sending.stop(abort=True)
            self._sending = None
        if self._file is not None:
            self._file.close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        self.discard()
        super().close()
