"""What a job prints, as files of bounded size: the beginning, and the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

__all__ = ["HEAD", "PART", "Output", "follow", "shortened", "whole"]

HEAD = 4 << 20  # bytes of the beginning that are kept
PART = 4 << 20  # bytes of one of the two last parts
_PREFIX = "output."
_POLL_SECONDS = 0.1


class Output:
    """Write what comes into parts named by where they begin, and forget those in the middle.

    What the disk does not take is counted in `dropped`: the job goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.size, self.dropped, self.reason = folder, 0, 0, ""
        self._parts: list[int] = []
        self._fd, self._room = -1, 0

    def write(self, data: bytes) -> None:
        """Take in what was printed."""
        rest = memoryview(data)
        while rest:
            try:
                if not self._room:
                    self._next()
                done = os.write(self._fd, rest[: self._room])
            except OSError as error:
                self.dropped, self.reason = self.dropped + len(rest), error.strerror or str(error)
                self.size += len(rest)
                self._shut()  # what comes next begins a part of its own, where it belongs
                return
            self.size, self._room, rest = self.size + done, self._room - done, rest[done:]

    def close(self) -> None:
        """Close the last part."""
        self._shut()

    def _next(self) -> None:
        self._shut()
        while len(self._parts) > 2:
            with suppress(OSError):
                os.unlink(self.folder / f"{_PREFIX}{self._parts.pop(1)}")
        path = self.folder / f"{_PREFIX}{self.size}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._room = PART if self._parts else HEAD
        self._parts.append(self.size)

    def _shut(self) -> None:
        fd, self._fd, self._room = self._fd, -1, 0
        if fd >= 0:
            os.close(fd)


def _parts(folder: Path) -> list[int]:
    with suppress(OSError):
        names = (name.removeprefix(_PREFIX) for name in os.listdir(folder) if name.startswith(_PREFIX))
        return sorted(int(name) for name in names if name.isdecimal())
    return []


def _read(folder: Path, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield what is there from a place on, each piece with the place after it; a gap is told of."""
    parts = _parts(folder)
    for start, end in zip_longest(parts, parts[1:]):
        if end is not None and end <= at:
            continue
        with suppress(FileNotFoundError), open(folder / f"{_PREFIX}{start}", "rb") as file:
            if start > at:
                yield start, _gap(start - at)
                at = start
            file.seek(at - start)
            while data := file.read(1 << 16):
                at += len(data)
                yield at, data


def whole(folder: Path) -> Iterator[bytes]:
    """Yield what is kept of an output, with a line for what is not."""
    for _, data in _read(folder, 0):
        yield data


def shortened(data: bytes, most: int) -> bytes:
    """Return the beginning and the end of an output, `most` bytes of each."""
    if len(data) <= 2 * most:
        return data
    return data[:most] + _gap(len(data) - 2 * most) + data[-most:]


def _gap(size: int) -> bytes:
    return f"\n... {size:,} bytes left out ...\n".encode()


def follow(folder: Path, ended: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what is kept of an output as it comes, until `ended` says so."""
    at, last = 0, False
    while True:
        for after, data in _read(folder, at):
            at = after
            yield data
        if last:
            return
        if not (last := ended()):  # else one more look: what came before it ended
            time.sleep(_POLL_SECONDS)
