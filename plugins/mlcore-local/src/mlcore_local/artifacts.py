"""Artifacts as files on this machine: each appears whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import IO, Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback  # noqa: TID253 - nobody imports this who has no files
from fsspec.implementations.local import LocalFileSystem  # noqa: TID253 - the same

from mlcore.artifacts import File, temporary_beside

__all__ = ["Files", "open_files"]

_FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file until either is written to
_CHUNK = 1 << 20


def open_files(uri: str) -> tuple[Files, str]:
    """Return the local filesystem and the absolute path of a path or ``file://`` URI."""
    path = uri.removeprefix("file://")
    path = path.removeprefix("localhost") if path.startswith("localhost/") and path != uri else path
    return Files(), os.path.abspath(os.path.expanduser(path))


class Files(LocalFileSystem):  # type: ignore[misc]
    """Write each file under a hidden name, sync it, and move it to its own; copies share blocks where disks can.

    Never a hard link: a file that its owner changes later must not change here.
    """

    atomic_put = True

    def put_hashed(self, lpath: str, rpath: str, tick: Callable[[int], object]) -> tuple[int, str]:
        """Store a local file, and return the size and sha256 of what was stored; tell `tick` of bytes as they go."""
        with open(lpath, "rb", buffering=0) as source, _Whole(self._strip_protocol(rpath)) as file:
            return _copy(source, file, file.temporary, tick)

    def put_file(self, path1: str, path2: str, callback: Callback = DEFAULT_CALLBACK, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.put_file`."""
        path1 = self._strip_protocol(path1)
        if os.path.isdir(path1):
            return self.makedirs(path2, exist_ok=True)  # type: ignore[no-any-return]
        self.put_hashed(path1, path2, callback.relative_update)
        return None

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """See `fsspec.AbstractFileSystem.cp_file`."""
        self.put_file(path1, path2)

    def get_file(self, path1: str, path2: Any, callback: Callback = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        """See `fsspec.AbstractFileSystem.get_file`."""
        path1 = self._strip_protocol(path1)
        if hasattr(path2, "write") or os.path.isdir(path1):
            return super().get_file(path1, path2, **kwargs)  # type: ignore[no-any-return]
        with open(path1, "rb", buffering=0) as source, open(path2, "wb") as file:
            _copy(source, file, path2, callback.relative_update)
        return None

    def cached(self, folder: str, files: Mapping[str, File]) -> str:
        """Return a folder that has these files, wherever they are, from the cache of downloads in `folder`."""
        from mlcore_local.cache import fetch

        return str(fetch(Path(folder), files))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """See `fsspec.AbstractFileSystem.rm`; the root of the disk and the current folder stay."""
        for each in path if isinstance(path, list) else [path]:
            if os.path.realpath(self._strip_protocol(each)) in ("/", os.getcwd()):
                raise ValueError(f"{each!r} is not removed: it is {os.path.realpath(self._strip_protocol(each))}")
        super().rm(path, recursive=recursive, maxdepth=maxdepth)

    def _open(self, path: str, mode: str = "rb", *args: Any, autocommit: bool = True, **kwargs: Any) -> Any:
        if mode not in ("wb", "xb"):
            return super()._open(path, mode, *args, autocommit=autocommit, **kwargs)
        return _Whole(self._strip_protocol(path), exclusive=mode == "xb", autocommit=autocommit)


class _Whole(BufferedWriter):
    """Write a file that appears when it is closed; left by an error, or forgotten, it never does."""

    def __init__(self, path: str, *, exclusive: bool = False, autocommit: bool = True) -> None:
        self.path, self.temporary = path, temporary_beside(path)
        self._exclusive, self._autocommit, self._pending = exclusive, autocommit, False
        fd = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._pending = True
        super().__init__(FileIO(fd, "w"))

    def close(self) -> None:
        if self.closed:
            return
        try:
            self.flush()
            os.fsync(self.fileno())
        except BaseException:
            self.discard()
            raise
        super().close()
        if self._autocommit:
            self.commit()

    def commit(self) -> None:
        """Let the file appear under its name."""
        try:
            if self._exclusive:
                os.link(self.temporary, self.path)  # its only other name goes at once
            else:
                os.replace(self.temporary, self.path)
                self._pending = False
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget what was written."""
        if self._pending:
            self._pending = False
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)
        if not self.closed:
            with contextlib.suppress(OSError):
                self.raw.close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        self.discard()


def _copy(source: IO[bytes], file: IO[bytes], path: str, tick: Callable[[int], object]) -> tuple[int, str]:
    """Clone or copy a file; return the size and sha256 of what `path` then has, whatever becomes of the source."""
    digest, size = hashlib.sha256(), 0
    try:
        fcntl.ioctl(file.fileno(), _FICLONE, source.fileno())
    except OSError:
        written: IO[bytes] | None = None
    else:
        written = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(written) if written else source
        while chunk := data.read(_CHUNK):
            if written is None:
                file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            tick(len(chunk))
    return size, digest.hexdigest()
