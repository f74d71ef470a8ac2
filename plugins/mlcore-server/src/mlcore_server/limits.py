"""Limits: how large, how deep and how often, so that no request and no client takes the server from the others."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from mlcore.errors import Malformed, Refused

__all__ = ["LARGEST_HEAD", "Failures", "Rate", "TooLarge", "bounded", "head_fits", "too_large"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
MOST_HEADERS = 100
LARGEST_HEAD = 32 << 10


def head_fits(headers: list[tuple[bytes, bytes]], path: bytes) -> bool:
    """Return whether a request's head is of a size that clients with nothing to hide send."""
    size = len(path)
    for name, value in headers:
        size += len(name) + len(value)
    return len(headers) <= MOST_HEADERS and size <= LARGEST_HEAD


class TooLarge(Refused):
    """Say that a body is larger than this server takes; sending it again as it is will not help."""

    status = 413


def bounded(receive: Receive, headers: Mapping[bytes, bytes], most: int) -> Receive:
    """Return a `receive` that gives out at most `most` bytes. Raises `TooLarge`, at once where the length is told."""
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit() or len(length) > 18:
            raise Malformed("the Content-Length is no number")
        if int(length) > most:
            raise too_large(most)
        return receive  # nobody can send more than that
    if b"transfer-encoding" not in headers:
        return receive
    taken = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise too_large(most)
        return message

    return limited


def too_large(most: int) -> TooLarge:
    """Return the error for a body of more than `most` bytes."""
    return TooLarge(f"the body is over the limit of {most:,} bytes: send less at once")


class Rate:
    """Count the requests of every client in this second."""

    def __init__(self, most: int) -> None:
        """Let every client make `most` requests a second in this process; 0 is as many as it likes."""
        self._most, self._second = most, 0
        self._counts: dict[str, int] = {}

    def allows(self, client: str) -> bool:
        """Return whether a client may make one more request now."""
        if not self._most:
            return True
        if (second := int(time.monotonic())) != self._second:
            self._second = second
            self._counts.clear()
        count = self._counts[client] = self._counts.get(client, 0) + 1
        return count <= self._most


_SLOT = struct.Struct("16s5d")
_GROUP, _GROUPS = 8, 512


class Failures:
    """Remember which addresses showed wrong tokens lately, for all processes of a server alike.

    What is remembered stands in a small file that they share: for each address when its last five failures were. An
    address that has had five within the window is not asked again before the window is over.
    """

    def __init__(self, file: Path | None, window: float) -> None:
        """Share `file` with the other processes, or remember for this one only; 0 for `window` forgets at once."""
        self._window, size = window, _SLOT.size * _GROUP * _GROUPS
        if file is None:
            self._memory = mmap.mmap(-1, size)
            return
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def wait(self, address: str) -> int:
        """Return for how many seconds an address is not asked; 0 if it may try."""
        times = self._find(self._mark(address))[1]
        oldest = min(times)
        left = oldest + self._window - time.monotonic() if 0 < oldest <= time.monotonic() else 0
        return int(left) + 1 if left > 0 else 0

    def add(self, address: str) -> None:
        """Remember that an address showed a wrong token."""
        mark = self._mark(address)
        at, times = self._find(mark)
        _SLOT.pack_into(self._memory, at, mark, *sorted((*times[1:], time.monotonic())))

    def _mark(self, address: str) -> bytes:
        # one customer of a provider has a /64 of IPv6: 2^64 addresses are one client
        shown = ":".join(address.split(":")[:4]) if ":" in address and "." not in address else address
        return hashlib.blake2b(shown.encode("utf-8", "replace"), digest_size=16).digest()

    def _find(self, mark: bytes) -> tuple[int, tuple[float, ...]]:
        """Return where an address stands, and its times, the oldest first; else the place that was idle longest."""
        begin = int.from_bytes(mark[:4], "little") % _GROUPS * _GROUP * _SLOT.size
        idle, last = begin, float("inf")
        for at in range(begin, begin + _GROUP * _SLOT.size, _SLOT.size):
            found, *times = _SLOT.unpack_from(self._memory, at)
            if found == mark:
                return at, tuple(sorted(times))
            if max(times) < last:
                idle, last = at, max(times)
        return idle, (0.0,) * 5
