"""What the server says of a file, and the two things that are done with one: it is read, or it is written."""

from __future__ import annotations

import errno
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import attrs

from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, StoreError

__all__ = [
    "CHUNK",
    "FULL",
    "ID",
    "IN_THE_WAY",
    "RUN",
    "STALE_SECONDS",
    "Found",
    "Gone",
    "Incomplete",
    "Interval",
    "Link",
    "Linked",
    "Part",
    "Place",
    "Reader",
    "Replaced",
    "Staged",
    "Staging",
    "Unkept",
    "Writing",
    "gaps",
    "merged",
    "reached",
    "sha256_of",
]

STALE_SECONDS = 72 * 3600  # a weekend, after which what nobody went on with is removed
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
CHUNK = 1 << 20
RUN = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what a batch may have as its home
ID = re.compile(rf"({RUN.pattern})\.[0-9a-f]{{32}}")  # of an upload: its run, and which file it is to be
Interval = tuple[int, int]  # of bytes: the first, and the one after the last


class Unkept(ArtifactError):
    """Refuse to keep a file, for a reason that trying again does not change: `status` is the one of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gone(ArtifactNotFound):
    """Say that there is no upload of that id."""

    def __init__(self, id: str) -> None:
        why = "it was completed, given up, or removed as nobody went on with it"
        super().__init__(f"there is no upload {id}: {why}; announce it again")


class Replaced(StoreError):
    """Say that a file was replaced while it was read."""

    status = 409


class Incomplete(StoreError):
    """Say that an upload lacks bytes, which its sender did not know."""

    status = 409


@attrs.frozen
class Found:
    """Describe a file: `modified` in s since 1970 if that is known, `sha256` empty if it is not.

    `etag` differs whenever the content does; `direct` says that there may be a link to it.
    """

    size: int
    etag: str
    sha256: str = ""
    modified: float | None = None
    direct: bool = False


class Reader(Protocol):
    """Read an open file, by one request, in order."""

    found: Found

    def read(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset` on, none only at the end of the file. Raises `Replaced`."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Writing(Protocol):
    """Take in a file that nobody sees before it is whole."""

    def write(self, data: bytes) -> None:
        """Take in the next bytes."""
        ...

    def commit(self, sha256: str) -> None:
        """Let the file appear under its name, instead of what had it before."""
        ...

    def discard(self) -> None:
        """Forget the file, unless it appeared."""
        ...


@attrs.frozen
class Link:
    """Hold the URL by which whoever has it may do one thing with one object for a while, and what to send along."""

    url: str = attrs.field(repr=False)  # it is as good as a password
    headers: dict[str, str]
    seconds: int


@attrs.frozen
class Linked:
    """Hold a link to a file, and which file that is: `tag` is the ETag that the bucket has for it, or empty."""

    link: Link
    found: Found
    tag: str


@attrs.frozen(order=True)
class Part:
    """Say what a part of a file is that goes past the server: where it begins, its size and its MD5."""

    offset: int
    size: int
    md5: str


class Place(ABC):
    """Hold the files of one run. Every name was passed by `mlcore.artifacts.safe_path`."""

    @abstractmethod
    def open(self, name: str) -> Reader:
        """Open a file. Raises `FileNotFoundError`."""

    @abstractmethod
    def files(self, prefix: str) -> dict[str, int]:
        """Return the sizes of the file `prefix` and of all below the folder of that name, of all if it is empty."""

    @abstractmethod
    def write(self, name: str) -> Writing:
        """Begin a new file. Raises an `OSError` of `IN_THE_WAY` if it cannot have the name; so does `commit`."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file. Raises `FileNotFoundError`."""

    @abstractmethod
    def free(self) -> int | None:
        """Return how many bytes there is room for, None if that is not known."""

    @abstractmethod
    def staging(self) -> Staging:
        """Return where parts of its files are kept."""

    def link(self, name: str) -> Linked | None:  # noqa: ARG002 - for those that can
        """Return by what a file may be read without the server, None if by nothing. Raises `FileNotFoundError`."""
        return None


@attrs.frozen
class Staged:
    """Say what is uploaded in parts: to be the file `path` of `run`."""

    id: str
    run: str
    path: str
    size: int
    sha256: str


class Staging(ABC):
    """Keep what was uploaded of files that are not whole, where all servers of one place find it."""

    def direct_part(self, size: int) -> int:  # noqa: ARG002 - for those that can
        """Return how long the parts of such a file are that go past the server, 0 if none do."""
        return 0

    def direct(self, id: str) -> list[Part]:  # noqa: ARG002 - for those that can
        """Return the parts that went past the server, are whole, and are what was announced."""
        return []

    def link(self, id: str, part: Part) -> Link:  # noqa: ARG002 - for those that can
        """Return by what a part may be stored without the server; only where `direct_part` is not 0."""
        raise ArtifactNotFound("there is no link to this part: send it to the server")

    @abstractmethod
    def create(self, staged: Staged) -> None:
        """Note what is to be uploaded; what of it is there already stays."""

    @abstractmethod
    def find(self, id: str) -> Staged:
        """Return what was noted. Raises `Gone`."""

    @abstractmethod
    def received(self, id: str) -> list[Interval]:
        """Return which bytes are there. Raises `Gone`."""

    @abstractmethod
    def part(self, id: str, offset: int, *, checked: bool) -> Writing:
        """Begin to write bytes at an offset. What was written before it is discarded counts, unless it is `checked`.

        Raises `Gone`, and `BlockingIOError` while the file is completed.
        """

    @abstractmethod
    def complete(self, staged: Staged, place: Place) -> None:
        """Let the file appear, and forget the upload.

        Raises `Incomplete`, `DigestMismatch`, `Gone`, or `BlockingIOError` while somebody else writes or completes.
        """

    @abstractmethod
    def remove(self, id: str) -> None:
        """Forget an upload and all that is there of it."""

    @abstractmethod
    def clean(self, before: float) -> int:
        """Remove what was last written to before a time, in s since 1970; return how many."""


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Return intervals in order, joined where they meet or overlap."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > start:
            found.append((start, end))
    return found


def reached(intervals: Sequence[Interval]) -> int:
    """Return up to which offset nothing is missing."""
    return next((end for start, end in merged(intervals) if start == 0), 0)


def gaps(intervals: Sequence[Interval], size: int) -> list[Interval]:
    """Return what is missing of a file."""
    whole = [(0, 0), *merged(intervals), (size, size)]
    return [(end, start) for (_, end), (start, _) in pairwise(whole) if start > end]


def sha256_of(chunks: Iterator[bytes], staged: Staged, write: Callable[[bytes], object] = len) -> str:
    """Hash, and write, what was uploaded. Raises `DigestMismatch` if it is not what was promised."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        write(chunk)
    if digest.hexdigest() != staged.sha256:
        told = f"its sha256 is {digest.hexdigest()}, not {staged.sha256}: the file changed while it was sent"
        raise DigestMismatch(f"{staged.path} of run {staged.run} is not what was announced, {told}")
    return staged.sha256
