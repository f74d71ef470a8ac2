"""Ask a bucket, of any cloud that obstore knows: again when its server fails, and with errors that say what to do.

`Bucket` is what `mlcore_s3.filesystem.BucketFileSystem` stands on. A cloud gives it an obstore store, a function that
explains errors, and where it can, `Parts`: uploads that another process can go on with.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import attrs

from mlcore.errors import ArtifactError, MlcoreError
from mlcore_s3.failures import Answered, answer_in, is_passing, never_connected

__all__ = ["Bucket", "Found", "Links", "Parts"]

_CONNECTING = 6.0  # seconds for which a server is looked for that cannot be reached
_FIRST, _LONGEST = 0.1, 4.0  # seconds before the second try, and between two at most
_PAGE = 1_000
_LARGE = 1 << 20  # bytes from which a connection is worth its own timeouts
_R = TypeVar("_R")
_USED_BY = list[int]()  # the process whose threads obstore's requests are made in


@attrs.frozen
class Found:
    """Tell of one object: its key, size, tag, and when it was written, in seconds since 1970."""

    key: str
    size: int
    tag: str | None = None
    modified: float | None = None

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Found:
        """Read what obstore tells."""
        when = meta.get("last_modified")
        return cls(meta["path"], meta["size"], meta.get("e_tag"), when.timestamp() if when else None)


class Parts(Protocol):
    """Write to a bucket by ways that obstore does not offer; each call is one request, which the engine repeats.

    `smallest` is the size in bytes that each part but the last must have, `most` how many there may be.
    """

    smallest: int
    most: int

    def put(self, key: str, data: bytes | memoryview, *, create: bool = False) -> None:
        """Store a small object; with `create` only if there is none of that name."""

    def copy(self, source: str, key: str) -> None:
        """Copy an object there, of which `source` is bucket and key."""

    def begin(self, key: str) -> str:
        """Begin an upload, and return its id."""

    def send(self, key: str, upload: str, number: int, data: bytes | memoryview, sha256: str) -> str:
        """Send a part; return its tag. Parts are numbered from 1."""

    def add(self, key: str, upload: str, number: int, source: str) -> str:
        """Let the server take a part from an object of its own, of which `source` is bucket and key; return its tag."""

    def received(self, key: str, upload: str) -> dict[int, tuple[str, int]] | None:
        """Return tag and size of each part that the server has; None if it knows of no such upload."""

    def finish(self, key: str, upload: str, tags: Mapping[int, str]) -> None:
        """Make the object of its parts, which appears with this."""

    def abort(self, key: str, upload: str) -> None:
        """Let the server forget an upload and its parts."""


class Links(Protocol):
    """Make links to objects, without a question to the server."""

    def headers(self, method: str) -> dict[str, str]:
        """Return what has to be sent with a link for this method."""

    def sign(self, method: str, key: str, seconds: int, endpoint: str = "") -> str:
        """Return a URL for one method and one object, at another endpoint than that of the bucket if one is given."""


class Bucket:
    """Read and write the objects of one bucket, from several threads.

    `explain(error, uri)` returns what to raise for what obstore or `parts` raised. Where `plain` is false, objects are
    written by `parts` alone, with headers that obstore does not send. `identity` tells buckets of one name
    apart; objects of more than `copied_at_once` bytes are copied by way of this machine. `streams` is the store for
    large objects where there are no parts: one that asks again by itself, as else all of them would be sent anew.
    """

    def __init__(
        self,
        uri: str,
        store: Any,
        explain: Callable[[Exception, str], Exception],
        *,
        parts: Parts | None = None,
        patience: float = 30.0,
        plain: bool = True,
        identity: str = "",
        copied_at_once: int = 1 << 62,
        links: Links | None = None,
        streams: Any = None,
    ) -> None:
        self.uri, self.store, self.parts, self.links = uri, store, parts, links
        self._streams = store if streams is None else streams
        self.identity, self.copied_at_once = identity or uri, copied_at_once
        self._explain, self._patience, self._plain = explain, patience, plain

    @property
    def name(self) -> str:
        """The name of the bucket."""
        return self.uri.rpartition("/")[2].rpartition("@")[2]

    def uri_of(self, key: str) -> str:
        """Return the URI of an object."""
        return f"{self.uri}/{key}" if key else self.uri

    def ask(self, work: Callable[[], _R], key: str = "", stopped: Callable[[], bool] = bool) -> _R:
        """Do what asks the server, again while it fails, with growing and random pauses.

        Raises `FileNotFoundError`, `FileExistsError` or `ArtifactError`, within the patience, or a few seconds if
        there is no such server.
        """
        began, pause = time.monotonic(), _FIRST
        while True:
            try:
                return work()
            except Exception as error:
                if isinstance(error, MlcoreError) and not isinstance(error, Answered):
                    raise
                passed = time.monotonic() - began
                patience = min(_CONNECTING, self._patience) if never_connected(error) else self._patience
                if stopped() or not is_passing(error) or passed + pause > patience:
                    raise self._explain(error, self.uri_of(key)) from None  # whose text may hold what was signed
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that those who failed together part
            pause = min(pause * 2, _LONGEST)

    def _obstore(self) -> Any:
        """Return obstore's functions. Raises `ArtifactError` in a process whose parent used them before it forked."""
        import obstore

        if not _USED_BY:
            _USED_BY.append(os.getpid())
        elif _USED_BY[0] != os.getpid():
            raise ArtifactError(
                f"{self.uri}: this process was forked from one that used a bucket, which that does not survive: start"
                " processes by multiprocessing's method 'spawn' or 'forkserver', or use buckets only in those"
            )
        return obstore

    # Reading

    def head(self, key: str) -> Found:
        """Return what there is under a key. Raises `FileNotFoundError`."""
        obstore = self._obstore()
        return Found.of(self.ask(lambda: obstore.head(self.store, key), key))

    def get(self, key: str, start: int = 0, end: int | None = None, tag: str | None = None) -> tuple[Found, Any]:
        """Return an object and its bytes from `start` to before `end`, if it still has the `tag`.

        There may be fewer if it is shorter. Raises `FileNotFoundError` and `ArtifactError`.
        """
        obstore = self._obstore()
        options: dict[str, Any] = {"if_match": tag} if tag else {}
        if start or end is not None:
            options["range"] = {"offset": start} if end is None else (start, end)

        def once() -> tuple[Found, Any]:
            try:
                result = obstore.get(self.store, key, options=options)
            except Exception as error:
                answer = answer_in(error)
                if answer is None or answer.status != 416:
                    raise
                return Found.of(obstore.head(self.store, key)), b""  # it has no byte there
            found = Found.of(result.meta)
            data = memoryview(result.bytes())
            wanted = max(0, min(found.size, found.size if end is None else end) - start)
            if len(data) != wanted:
                raise ConnectionError(f"{len(data)} bytes came of {wanted}")
            return found, data

        return self.ask(once, key)

    def below(self, folder: str, after: str | None = None, limit: int = 0) -> Iterator[Found]:
        """Yield what there is below a folder, by key, page by page; of `limit` objects as few pages as it takes."""
        obstore = self._obstore()
        size = min(limit, _PAGE) if limit else _PAGE
        pages: Iterator[Sequence[Mapping[str, Any]]] | None = None

        def page() -> Sequence[Mapping[str, Any]]:
            nonlocal pages
            if pages is None:
                pages = iter(obstore.list(self.store, folder or None, offset=after, chunk_size=size))
            try:
                return next(pages, [])
            except Exception:
                pages = None  # go on behind the last page that came
                raise

        while found := self.ask(page, folder):
            yield from map(Found.of, found)
            after = found[-1]["path"]

    def children(self, folder: str) -> tuple[list[str], list[Found]]:
        """Return the folders and the objects right below a folder."""
        obstore = self._obstore()
        result = self.ask(lambda: obstore.list_with_delimiter(self.store, folder or None), folder)
        return list(result["common_prefixes"]), [Found.of(each) for each in result["objects"]]

    # Writing

    def put(self, key: str, data: bytes | memoryview, *, create: bool = False) -> None:
        """Store an object in one request; with `create` only if there is none. Raises `FileExistsError`."""
        if self.parts is not None and (len(data) > _LARGE or not self._plain):
            parts = self.parts
            return self.ask(lambda: parts.put(key, data, create=create), key)
        obstore, mode = self._obstore(), "create" if create else "overwrite"
        put = obstore.put
        self.ask(lambda: put(self.store, key, data, mode=mode, use_multipart=False), key)
        return None

    def stream(self, key: str, chunks: Callable[[], Iterator[bytes]], size: int, at_once: int) -> None:
        """Store a large object from what `chunks` begins to yield at each try."""
        obstore = self._obstore()
        self.ask(lambda: obstore.put(self._streams, key, chunks(), chunk_size=size, max_concurrency=at_once), key)

    def has(self, key: str) -> bool:
        """Tell whether there is an object under a key."""
        try:
            self.head(key)
        except FileNotFoundError:
            return False
        return True

    def copy(self, source: str, key: str, there: Bucket | None = None) -> None:
        """Copy an object of this bucket within it, or to another of the same server."""
        target = there or self
        if target.parts is not None:
            parts, name = target.parts, f"{self.name}/{source}"
            return self.ask(lambda: parts.copy(name, key), source)
        if there is not None and there is not self:
            raise ArtifactError(
                f"{self.uri_of(source)} cannot be copied to {there.uri}: copy it by way of this machine"
            )
        obstore = self._obstore()
        self.ask(lambda: obstore.copy(self.store, source, key), source)
        return None

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, a thousand with a request where the server can; one that is not there is none."""
        obstore = self._obstore()
        for start in range(0, len(keys), _PAGE):
            some = list(keys[start : start + _PAGE])
            self.ask(lambda some=some: obstore.delete(self.store, some), keys[start])  # type: ignore[misc]
