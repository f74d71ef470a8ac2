"""Buckets as a filesystem of fsspec: paths are the bucket and the key, as in ``bucket/folder/file``.

There are no folders but those that objects are in; names are names, never patterns. What is written appears whole or
not at all. Nothing is cached, so that what others do is seen.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem  # noqa: TID253 - nobody imports this who has no files in a bucket

from mlcore.artifacts import temporary_beside
from mlcore_s3.engine import Bucket, Found
from mlcore_s3.linking import join
from mlcore_s3.reading import Reading
from mlcore_s3.writing import Tick, Writing, put_file

__all__ = ["BucketFileSystem"]

_BUFFER = 128 << 10
_AT_ONCE = 32  # small files: each waits for its answer, and most of the time nothing else


class BucketFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """See the buckets that `connect` returns by their names."""

    cachable = False
    atomic_put = True
    at_once = _AT_ONCE
    files_beside_folders = True

    def __init__(self, connect: Callable[[str], Bucket], schemes: tuple[str, ...], *, signs: bool = True) -> None:
        super().__init__()
        self.signs = signs
        self._connect, self._schemes = connect, schemes
        self._buckets, self._guard = dict[str, Bucket](), threading.Lock()

    @property
    def protocol(self) -> tuple[str, ...]:
        """The schemes of the URIs of what is here."""
        return self._schemes

    def _strip_protocol(self, path: Any) -> Any:
        if isinstance(path, list):
            return [self._strip_protocol(each) for each in path]
        text = os.fspath(path)
        scheme, separator, rest = text.partition("://")
        return (rest if separator and scheme in self._schemes else text).strip("/")

    def unstrip_protocol(self, name: str) -> str:
        """Return the URI of a path."""
        bucket, key = self.at(name)
        return bucket.uri_of(key)

    def at(self, path: Any) -> tuple[Bucket, str]:
        """Return the bucket of a path, and the key in it."""
        name, _, key = self._strip_protocol(path).partition("/")
        with self._guard:
            if name not in self._buckets:
                self._buckets[name] = self._connect(name)
            return self._buckets[name], key

    # What there is

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """See `fsspec.AbstractFileSystem.info`; with ``ETag`` and ``mtime``. Raises `FileNotFoundError`."""
        path = self._strip_protocol(path)
        bucket, key = self.at(path)
        if key:
            with suppress(FileNotFoundError):
                return _about(path, bucket.head(key))
        if next(bucket.below(key, limit=1), None) is None and key:
            raise FileNotFoundError(errno.ENOENT, "there is no object", bucket.uri_of(key))
        return _folder(path)

    def exists(self, path: str, **_: Any) -> bool:
        """See `fsspec.AbstractFileSystem.exists`; a server that does not answer is an error."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """See `fsspec.AbstractFileSystem.isfile`."""
        bucket, key = self.at(path)
        return bool(key) and bucket.has(key)

    def isdir(self, path: str) -> bool:
        """See `fsspec.AbstractFileSystem.isdir`: whether there is anything below."""
        bucket, key = self.at(path)
        return next(bucket.below(key, limit=1), None) is not None or not key

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **kwargs: Any) -> Any:
        """See `fsspec.AbstractFileSystem.find`; page by page, and all that is below at once."""
        if maxdepth or withdirs:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **kwargs)
        path = self._strip_protocol(path)
        bucket, key = self.at(path)
        root = path.partition("/")[0]
        found = {f"{root}/{each.key}": each for each in bucket.below(key)}
        if not found and key:
            with suppress(FileNotFoundError):
                found = {path: bucket.head(key)}
        return {name: _about(name, each) for name, each in found.items()} if detail else list(found)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """See `fsspec.AbstractFileSystem.ls`. Raises `FileNotFoundError`."""
        path = self._strip_protocol(path)
        bucket, key = self.at(path)
        root = path.partition("/")[0]
        folders, files = bucket.children(key)
        about = [_folder(f"{root}/{each}") for each in folders]
        about += [_about(f"{root}/{each.key}", each) for each in files]
        if not about and key:
            about = [_about(path, bucket.head(key))]
        return about if detail else [each["name"] for each in about]

    def created(self, path: str) -> Any:
        """See `modified`: an object is never changed, only replaced."""
        return self.modified(path)

    def modified(self, path: str) -> Any:
        """See `fsspec.AbstractFileSystem.modified`."""
        import datetime

        return datetime.datetime.fromtimestamp(self.info(path).get("mtime") or 0, datetime.UTC)

    # Reading

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """See `fsspec.AbstractFileSystem.cat_file`; what is not asked for is not sent."""
        bucket, key = self.at(path)
        if (start or 0) < 0 or (end is not None and end <= (start or 0)):
            start, end, _step = slice(start, end).indices(bucket.head(key).size)
            if start >= end:
                return b""
        return bytes(bucket.get(key, start or 0, end)[1])

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.get_file`; the local file appears when it is whole."""
        tick = abs if callback is None else callback.relative_update
        if hasattr(lpath, "write"):
            with self.open(rpath, "rb") as source:
                _copy(source, lpath, tick)
            return
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        part = temporary_beside(os.path.abspath(lpath))
        try:
            with self.open(rpath, "rb") as source, open(part, "wb") as file:
                _copy(source, file, tick)
            os.replace(part, lpath)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part)

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """See `fsspec.AbstractFileSystem.open`; modes are those of Python, without ``a`` and ``+``."""
        if "b" not in mode:
            named = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
            return io.TextIOWrapper(self.open(path, mode.replace("t", "") + "b", *args, **kwargs), **named)
        return self._open(self._strip_protocol(path), mode, *args, **kwargs)

    def _open(self, path: str, mode: str = "rb", *_: Any, autocommit: bool = True, **__: Any) -> BinaryIO:
        bucket, key = self.at(path)
        if mode == "rb":
            return io.BufferedReader(Reading(bucket, key), _BUFFER)
        if mode in ("wb", "xb"):
            return Writing(bucket, key, create=mode == "xb", autocommit=autocommit)  # type: ignore[return-value]
        raise ValueError(f"objects are opened to be read, or written anew, not in mode {mode!r}")

    # Writing

    def put_hashed(self, lpath: str, rpath: str, tick: Tick) -> tuple[int, str]:
        """Store a local file, and return the size and sha256 of what was stored; tell `tick` of bytes as they go."""
        return put_file(*self.at(rpath), lpath, tick)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.put_file`."""
        if os.path.isdir(lpath):  # folders are there as soon as a file in them is
            return
        tick = abs if callback is None else callback.relative_update
        if mode == "create":
            with open(lpath, "rb") as source, self.open(rpath, "xb") as target:
                _copy(source, target, tick)
        else:
            self.put_hashed(lpath, rpath, tick)

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.pipe_file`; with mode ``create`` only one of several writers succeeds."""
        with self.open(path, "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.touch`."""
        if truncate or not self.isfile(path):
            self.pipe_file(path, b"")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """See `fsspec.AbstractFileSystem.makedirs`: folders are there as soon as a file in them is."""

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """See `makedirs`."""

    def rmdir(self, path: str) -> None:
        """See `makedirs`."""

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.cp_file`; the server copies."""
        (here, source), (there, target) = self.at(path1), self.at(path2)
        if here.head(source).size > here.copied_at_once or (here is not there and there.parts is None):
            with self.open(path1, "rb") as data, self.open(path2, "wb") as file:
                return shutil.copyfileobj(data, file, _BUFFER)
        return here.copy(source, target, there)

    def copy(self, path1: Any, path2: Any, recursive: bool = False, **kwargs: Any) -> None:
        """See `fsspec.AbstractFileSystem.copy`; several at once, and names are no patterns."""
        if isinstance(path1, list):
            return super().copy(path1, path2, recursive=recursive, **kwargs)  # type: ignore[no-any-return]
        if not recursive:
            return self.cp_file(path1, path2)
        old, new = self._strip_protocol(path1), self._strip_protocol(path2)
        names = [each.removeprefix(old) for each in self.find(old)]
        return _each(lambda name: self.cp_file(old + name, new + name), names)

    # What a server of mlcore asks for, see docs/how-to/write-an-artifact-backend.md

    def sign(self, path: str, expiration: int = 100, *, method: str = "GET", endpoint: str = "", **_: Any) -> str:
        """See `fsspec.AbstractFileSystem.sign`: a URL for one method, at the endpoint that others know."""
        bucket, key = self.at(path)
        if bucket.links is None:
            raise NotImplementedError(f"{bucket.uri} has no links")
        return bucket.links.sign(method, key, expiration, endpoint)

    def signed_headers(self, path: str, method: str) -> dict[str, str]:
        """Return what has to be sent with a link."""
        links = self.at(path)[0].links
        return {} if links is None else links.headers(method)

    def join(self, paths: list[str], path: str) -> None:
        """Make one object of others of its bucket. Raises `NotImplementedError` where the server cannot."""
        bucket, key = self.at(path)
        join(bucket, [self.at(each)[1] for each in paths], key)

    def mv(self, path1: str, path2: str, recursive: bool = False, **_: Any) -> None:
        """Move a file, or what is below a folder: copied there, then deleted here."""
        self.copy(path1, path2, recursive=recursive)
        self.rm(path1, recursive=recursive)

    def rm_file(self, path: str) -> None:
        """See `fsspec.AbstractFileSystem.rm_file`. Raises `FileNotFoundError`."""
        bucket, key = self.at(path)
        bucket.head(key)
        bucket.delete([key])

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """See `fsspec.AbstractFileSystem.rm`; a thousand with a request, and names are no patterns."""
        if maxdepth is not None:
            super().rm(path, recursive=recursive, maxdepth=maxdepth)
            return
        for each in path if isinstance(path, list) else [path]:
            bucket, key = self.at(each)
            if not recursive:
                self.rm_file(each)
            elif key:
                found = [inner.key for inner in bucket.below(key)]
                bucket.delete([*found, key] if bucket.has(key) else found)
            else:
                raise ValueError(f"{bucket.uri} is a whole bucket, which is not emptied: name what is in it")


def _about(name: str, found: Found) -> dict[str, Any]:
    return {"name": name, "size": found.size, "type": "file", "ETag": found.tag, "mtime": found.modified}


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _copy(source: Any, target: Any, tick: Tick) -> None:
    while chunk := source.read(_BUFFER):
        target.write(chunk)
        tick(len(chunk))


def _each(work: Callable[[str], object], names: Iterable[str]) -> None:
    """Do the work for all names, some at once; the first failure is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done: Iterator[object] = pool.map(work, names)
        for _ in done:
            pass
