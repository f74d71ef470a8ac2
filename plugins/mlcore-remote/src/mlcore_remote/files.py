"""Files of runs on a server, as a filesystem of fsspec under the schemes ``mlcore+http``, ``mlcore+https`` and so on.

A path in it is the id of a run and the name of a file, as in ``0190.../plots/loss.png``. `mlcore.artifacts.put` on what
`open_files` returns stores files whole, each with its sha256 checked by the server. Of a large one that was sent in
part before, by this process or one that died, only the rest is sent::

    from mlcore import artifacts

    filesystem, root = artifacts.open_backend(store.place(run_id))
    artifacts.put(filesystem, root, {"model.bin": Path("model.bin")})

Who knows size and sha256 already calls `upload`, which does not read the file to hash it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from fsspec import AbstractFileSystem  # noqa: TID253 - nobody imports this who has no files on a server

from mlcore.artifacts import temporary_beside
from mlcore.errors import ArtifactError, ArtifactNotFound, StoreError
from mlcore_remote.sending import Tick, file_path, send, sha256_of

if TYPE_CHECKING:
    from mlcore_remote.connection import Answer, Connection
    from mlcore_remote.straight import Reading

__all__ = ["RemoteFileSystem", "open_files", "upload"]

_URI = re.compile(r"(mlcore\+(?:https?|http\+unix)://.*?)/runs/([A-Za-z0-9_-]{1,64})/files(?:/(.*))?", re.DOTALL)
_BUFFER = 1 << 20
_LISTED = 10_000
_TRIES = 5
_FIRST, _LAST = 4 << 20, 256 << 20  # bytes of the first range of a reader, and of the longest
_ANY = 1 << 62


def open_files(uri: str) -> tuple[RemoteFileSystem, str]:
    """Return the filesystem and the path that a URI such as ``mlcore+https://host/runs/ID/files`` means."""
    fit = _URI.fullmatch(uri)
    if fit is None:
        raise ArtifactError(f"{uri} names no files of a run: mlcore+https://host/runs/ID/files does")
    from mlcore_remote.connection import shared

    server, run, name = fit.groups()
    return RemoteFileSystem(shared(server.removeprefix("mlcore+"))), "/".join(filter(None, (run, name)))


def upload(uri: str, name: str, path: str | os.PathLike[str], *, size: int, sha256: str, tick: Tick = abs) -> None:
    """Store a file of this machine as `name` below `uri`, going on where it stopped if it was begun before.

    `size` and `sha256` are what it had when it was logged. Raises `DigestMismatch` if it has changed, another
    `ArtifactError` or `FileNotFoundError` if it will never go, and `StoreError` if it may go later.
    """
    filesystem, root = open_files(uri)
    filesystem.send(f"{root}/{name}", path, size, sha256, tick)


class RemoteFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """See what runs keep on one server; there are no folders but those that files are in."""

    protocol = ("mlcore+http", "mlcore+https", "mlcore+http+unix")
    cachable = False
    atomic_put = True

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return os.fspath(path).strip("/")

    # What there is

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """See `fsspec.AbstractFileSystem.info`; with `sha256` and `ETag` where the server knows them."""
        path = self._strip_protocol(path)
        run, name = _split(path)
        if name:
            with contextlib.suppress(FileNotFoundError):
                return {"name": path, "type": "file", **self.about(path)}
        if next(self._listed(run, name, 1), None) is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
        return {"name": path, "size": 0, "type": "directory"}

    def about(self, path: str) -> dict[str, Any]:
        """Return size, ETag and sha256 of a file, the last one None where it is not known, and what `straight` asks."""
        answer = self.ask("HEAD", path, expected=[404])
        if answer.status == 404:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
        named = {"ETag": answer.headers.get("ETag"), "sha256": answer.headers.get("Mlcore-Sha256")}
        named["direct"] = answer.headers.get("Mlcore-Direct")
        return {"size": int(answer.headers["Content-Length"]), **named}

    def straight(self, path: str, about: dict[str, Any]) -> Reading | None:
        """Return what reads a file from the bucket itself, None if only the server has it."""
        if not about["direct"]:
            return None
        from mlcore_remote.straight import Reading

        return Reading(self._connection, *_split(path), about["size"], str(about["ETag"]).strip('"'))

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **kwargs: Any) -> Any:
        """See `fsspec.AbstractFileSystem.find`; asks for all that is below at once."""
        if maxdepth or withdirs:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **kwargs)
        run, name = _split(self._strip_protocol(path))
        found = {f"{run}/{each}": size for each, size in self._listed(run, name)}
        about = {each: {"name": each, "size": size, "type": "file"} for each, size in found.items()}
        return about if detail else list(about)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """See `fsspec.AbstractFileSystem.ls`."""
        path = self._strip_protocol(path)
        about = dict[str, dict[str, Any]]()
        for each, size in self._listed(*_split(path)):
            inner, *deeper = f"{_split(path)[0]}/{each}".removeprefix(f"{path}/").split("/", 1)
            name = path if f"{_split(path)[0]}/{each}" == path else f"{path}/{inner}"
            kind = {"size": 0, "type": "directory"} if deeper and name != path else {"size": size, "type": "file"}
            about[name] = {"name": name, **kind}
        if not about:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
        return list(about.values()) if detail else list(about)

    def _listed(self, run: str, prefix: str, limit: int = _LISTED) -> Iterator[tuple[str, int]]:
        after = ""
        while True:
            query = f"?limit={limit}&prefix={quote(prefix, safe='')}&after={quote(after, safe='')}"
            answer = json.loads(self.ask("GET", run, query).data)
            for each in answer["files"]:
                yield str(each["path"]), int(each["size"])
            if not (after := answer["next"]):
                return

    # Reading

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """See `fsspec.AbstractFileSystem.cat_file`; what is not asked for is not sent."""
        path = self._strip_protocol(path)
        if (start or 0) < 0 or (end is not None and end <= (start or 0)):
            start, end, _step = slice(start, end).indices(self.about(path)["size"])
            if start >= end:
                return b""
        headers = {} if start is end is None else {"Range": f"bytes={start or 0}-{'' if end is None else end - 1}"}
        answer = self.ask("GET", path, headers=headers, expected=[416], limit=_ANY)
        return bytes(answer.data) if answer.status != 416 else b""

    def get_file(self, rpath: str, lpath: Any, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.get_file`; the local file appears when it is whole."""
        if hasattr(lpath, "write"):
            with self.open(rpath, "rb") as source:
                return shutil.copyfileobj(source, lpath, _BUFFER)
        part = temporary_beside(os.path.abspath(lpath))
        try:
            with self.open(rpath, "rb") as source, open(part, "wb") as file:
                shutil.copyfileobj(source, file, _BUFFER)
            os.replace(part, lpath)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    def _open(self, path: str, mode: str = "rb", *_: Any, autocommit: bool = True, **__: Any) -> BinaryIO:
        path = self._strip_protocol(path)
        if mode == "rb":
            return io.BufferedReader(_Remote(self, path), _BUFFER)
        if mode == "wb":
            return _Writing(self, path, autocommit=autocommit)  # type: ignore[return-value]
        raise ValueError(f"files on a server are opened to be read, or written anew, not in mode {mode!r}")

    # Writing

    def put_hashed(self, lpath: str, rpath: str, tick: Tick) -> tuple[int, str]:
        """Store a local file, and return the size and sha256 of what was stored; tell `tick` of bytes as they go."""
        with open(lpath, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            sha256 = sha256_of(file.fileno(), size)
            self.send_open(rpath, file.fileno(), size, sha256, tick)
        return size, sha256

    def send(self, path: str, local: str | os.PathLike[str], size: int, sha256: str, tick: Tick = abs) -> None:
        """Store a local file whose size and sha256 are known; see `upload`."""
        with open(local, "rb", buffering=0) as file:
            self.send_open(path, file.fileno(), size, sha256, tick)

    def send_open(self, path: str, file: int, size: int, sha256: str, tick: Tick = abs) -> None:
        """Store what an open file has; see `send`."""
        send(self._connection, *_split(self._strip_protocol(path)), file, size, sha256, tick)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.put_file`."""
        if not os.path.isdir(lpath):  # folders are there as soon as a file in them is
            self.put_hashed(lpath, rpath, abs if callback is None else callback.relative_update)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """See `fsspec.AbstractFileSystem.makedirs`: folders are there as soon as a file in them is."""

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """See `makedirs`."""

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.cp_file`; the file comes here and goes back."""
        with self.open(path1, "rb") as source, self.open(path2, "wb") as target:
            shutil.copyfileobj(source, target, _BUFFER)

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        """Move one file."""
        self.cp_file(path1, path2)
        self.rm_file(path1)

    def rm_file(self, path: str) -> None:
        """See `fsspec.AbstractFileSystem.rm_file`."""
        path = self._strip_protocol(path)
        self.ask("DELETE", path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """See `fsspec.AbstractFileSystem.rm`; names are names, not patterns."""
        if maxdepth is not None:
            return super().rm(path, recursive=recursive, maxdepth=maxdepth)  # type: ignore[no-any-return]
        for each in path if isinstance(path, list) else [path]:
            inner = self._strip_protocol(each)
            for name in self.find(inner) if recursive else [inner]:
                self.rm_file(name)
        return None

    def ask(self, method: str, path: str, query: str = "", **more: Any) -> Answer:
        """Ask the server about a file, or with a query about the files of a run. Raises `FileNotFoundError`."""
        try:
            return self._connection.request(method, file_path(*_split(path)) + query, **more)
        except ArtifactNotFound as error:
            raise FileNotFoundError(errno.ENOENT, str(error), path) from error


class _Remote(io.RawIOBase):
    """Read a file in ranges, each twice as long as the last as long as all of it is wanted."""

    def __init__(self, filesystem: RemoteFileSystem, path: str) -> None:
        super().__init__()
        about = filesystem.about(path)
        self.size, self._etag = about["size"], about["ETag"]
        self._straight = filesystem.straight(path, about)
        self._filesystem, self._path, self._position = filesystem, path, 0
        self._answer: Answer | None = None
        self._left, self._end, self._length = memoryview(b""), 0, _FIRST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + (0, self._position, self.size)[whence]
        if position < 0:
            raise ValueError(f"{position} is before the beginning of {self._path}")
        if position != self._position:
            self._forget()
            self._position, self._length = position, _FIRST
        return position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self.size:
            return 0
        for _ in range(_TRIES):
            try:
                self._left = self._left or self._next()
                break
            except StoreError:  # cut off: go on from here, if it is still the same file
                self._forget()
        else:
            self._left = self._next()
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left, self._position = self._left[count:], self._position + count
        return count

    def readall(self) -> bytes:
        parts = []
        while self._position < self.size:
            buffer = bytearray(min(_BUFFER, self.size - self._position))
            parts.append(bytes(memoryview(buffer)[: self.readinto(buffer)]))
        return b"".join(parts)

    def _next(self) -> memoryview:
        """Return what comes next, of which there is something. Raises `StoreError` if the connection is cut off."""
        if self._answer is None or self._position >= self._end:
            self._forget()
            self._end = min(self._position + self._length, self.size)
            self._length = min(self._length * 2, _LAST)
            self._answer = None if self._straight is None else self._straight.range(self._position, self._end)
        if self._answer is None:
            headers = {"Range": f"bytes={self._position}-{self._end - 1}", "If-Match": str(self._etag)}
            answer = self._filesystem.ask("GET", self._path, headers=headers, stream=True, expected=[412, 416])
            if answer.status != 206:
                answer.close()
                raise ArtifactError(f"{self._path} was replaced while it was read: open it again")
            self._answer = answer
        chunk = next(self._answer.chunks, b"")
        if not chunk:
            raise StoreError(f"{self._path} was cut off at byte {self._position}")
        return memoryview(chunk)

    def _forget(self) -> None:
        if self._answer is not None:
            if self._position < self._end:
                self._answer.close()
            else:
                next(self._answer.chunks, None)  # its end, after which the connection is free for others
        self._answer, self._left = None, memoryview(b"")

    def close(self) -> None:
        if not self.closed:
            self._forget()
        super().close()


class _Writing(io.RawIOBase):
    """Take in a file, and send it when it is closed; left by an error, or forgotten, it is not sent."""

    def __init__(self, filesystem: RemoteFileSystem, path: str, *, autocommit: bool) -> None:
        super().__init__()
        self._filesystem, self._path, self._autocommit, self._sent = filesystem, path, autocommit, False
        self._digest, self._size = hashlib.sha256(), 0
        self._data: IO[bytes] = tempfile.TemporaryFile(prefix="mlcore-")  # noqa: SIM115 - closed by `discard`

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        count = self._data.write(data)
        self._digest.update(data)
        self._size += count
        return count

    def close(self) -> None:
        if self.closed:
            return
        if self._autocommit:
            self.commit()
        super().close()

    def commit(self) -> None:
        """Send the file."""
        try:
            if not self._sent:
                self._data.flush()
                self._filesystem.send_open(self._path, self._data.fileno(), self._size, self._digest.hexdigest())
                self._sent = True
        finally:
            self._data.close()

    def discard(self) -> None:
        """Forget what was written."""
        self._sent = True
        self._data.close()
        super().close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        self.discard()


def _split(path: str) -> tuple[str, str]:
    run, _, name = path.partition("/")
    return run, name
