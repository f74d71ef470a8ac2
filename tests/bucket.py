"""A filesystem in memory that keeps the contract of artifact backends, for tests to use and to break."""

from __future__ import annotations

import io
from typing import Any

from fsspec import AbstractFileSystem


class Bucket(AbstractFileSystem):
    """Keep files by name, as object stores do: there are no folders, and a file appears when its upload ends."""

    protocol = "bucket"
    cachable = False
    atomic_put = True
    files_beside_folders = True
    own_readers = True

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}

    def below(self, path: str) -> list[str]:
        """Return the files in a folder."""
        return sorted(name for name in self.files if name.startswith(f"{path.rstrip('/')}/"))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path in self.files:
            return {"name": path, "type": "file", "size": len(self.files[path])}
        if self.below(path):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        names = {f"{path}/{name[len(path) + 1 :].partition('/')[0]}" for name in self.below(path)}
        found = [self.info(name) for name in sorted(names)] or [self.info(path)]
        return found if detail else [each["name"] for each in found]

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **_: Any) -> Any:
        names = [path] * (path in self.files) + self.below(path)
        return {name: self.info(name) for name in names} if detail else names

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][start:end]

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> io.BytesIO:
        return self.upload(path) if "w" in mode else self.reader(path)

    def reader(self, path: str) -> io.BytesIO:
        """Open a file to read."""
        return io.BytesIO(self.cat_file(path))

    def upload(self, path: str) -> Upload:
        """Open a file to write."""
        return Upload(self, path)

    def publish(self, path: str, data: bytes) -> None:
        """Let a file appear."""
        self.files[path] = data

    def rm_file(self, path: str) -> None:
        del self.files[path]

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        for name in [path] * (path in self.files) + (self.below(path) if recursive else []):
            self.rm_file(name)


class Upload(io.BytesIO):
    """Publish what was written when it is closed, and not when an error leaves it or nobody closes it."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        super().__init__()
        self.bucket, self.path = bucket, path

    def close(self) -> None:
        if not self.closed:
            self.bucket.publish(self.path, self.getvalue())
        super().close()

    def discard(self) -> None:
        """Forget what was written."""
        super().close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        self.discard()
