"""Read an object as a file: in ranges that grow, several ahead of a reader who wants all of it."""

from __future__ import annotations

import errno
import io
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from mlcore.errors import ArtifactError
from mlcore_s3.workers import READ, submit

if TYPE_CHECKING:
    from mlcore_s3.engine import Bucket

__all__ = ["Reading"]

_FIRST, _SEEKING, _LARGEST = 1 << 20, 256 << 10, 8 << 20  # bytes: of a file's beginning, of elsewhere, of any range
_AHEAD = 6


class Reading(io.RawIOBase):
    """Read an object, the same one from beginning to end: if it is replaced meanwhile, that is an error."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        super().__init__()
        self._bucket, self._key, self._position = bucket, key, 0
        found, data = bucket.get(key, 0, _FIRST)
        self.size, self._tag = found.size, found.tag
        self._start, self._block = 0, memoryview(data)
        self._length = _FIRST
        self._ahead = deque[tuple[int, int, Future[memoryview]]]()  # start and end of what comes

    def readable(self) -> bool:
        """Tell that it is."""
        return True

    def seekable(self) -> bool:
        """Tell that it is."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, and return it."""
        position = offset + (0, self._position, self.size)[whence]
        if position < 0:
            raise OSError(errno.EINVAL, f"{position} is before the beginning", self._bucket.uri_of(self._key))
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        """Read some bytes, fewer only where a range ends."""
        if self._position >= self.size:
            return 0
        inner = self._position - self._start
        if not 0 <= inner < len(self._block):
            self._next()
            inner = self._position - self._start
        with memoryview(buffer).cast("B") as view:
            count = min(len(view), len(self._block) - inner)
            view[:count] = self._block[inner : inner + count]
        self._position += count
        return count

    def _next(self) -> None:
        """Fetch the range that the position is in, and begin with those that come after it."""
        here, follows = self._position, self._position == self._start + len(self._block)
        while self._ahead and not self._ahead[0][0] <= here < self._ahead[0][1]:
            self._drop()
        if self._ahead:
            start, end, future = self._ahead.popleft()
            try:
                data = future.result()
            finally:
                READ.give(end - start)
        else:
            self._length = min(self._length * 4, _LARGEST) if follows else _SEEKING
            start, end = here, min(here + self._length, self.size)
            if self._length == _LARGEST:
                self._look_ahead(end)
            data = self._fetch(start, end)
        self._start, self._block = start, data
        if self._length == _LARGEST:
            self._look_ahead(end)

    def _look_ahead(self, start: int) -> None:
        if self._ahead:
            start = self._ahead[-1][1]
        while start < self.size and len(self._ahead) < _AHEAD:
            first, last = start, min(start + _LARGEST, self.size)
            if not READ.take(last - first, wait=False):  # others read, too: the next range comes when it is wanted
                return
            self._ahead.append((first, last, submit(partial(self._fetch, first, last))))
            start = last

    def _fetch(self, start: int, end: int) -> memoryview:
        _, data = self._bucket.get(self._key, start, end, self._tag)
        if len(data) != end - start:
            raise ArtifactError(f"{self._bucket.uri_of(self._key)} was replaced while it was read: open it again")
        return memoryview(data)

    def _drop(self) -> None:
        start, end, future = self._ahead.popleft()
        if future.cancel():
            READ.give(end - start)
        else:  # it is on its way, and held until it is here
            future.add_done_callback(lambda _: READ.give(end - start))

    def close(self) -> None:
        """Forget what was read ahead."""
        if not self.closed:
            while self._ahead:
                self._drop()
            self._block = memoryview(b"")
        super().close()
