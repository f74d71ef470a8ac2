"""Note uploads that are under way on this machine, so that a process that comes later goes on with them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from mlcore.config import user_state

__all__ = ["Note", "old_notes"]

_OLD = 7 * 86_400.0  # seconds after which nobody comes back for an upload


def _folder() -> Path:
    return user_state() / "uploads"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Note:
    """Hold what is known of the upload of one object: its id, the size of its parts, and those that were sent.

    One process has it at a time, which its lock sees to; the lock ends with the process, however that ends.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle, self._lock = path, handle, threading.Lock()
        self.upload, self.key, self.part_size = "", "", 0
        self.sent = dict[int, tuple[str, str]]()
        self._read()

    @classmethod
    def take(cls, bucket: str, key: str) -> Self | None:
        """Return the note of an object, a new one if there is none; None if another process has it, or none can be."""
        path = _folder() / f"{_short(bucket)}-{_short(key)}.jsonl"
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls.locked(path, os.O_CREAT)

    @classmethod
    def locked(cls, path: Path, flags: int = 0) -> Self | None:
        """Return the note in a file."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        except OSError:  # a home folder that cannot be written: there is no going on later, and no harm
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return cls(path, handle)
        except OSError:
            pass
        os.close(handle)
        return None

    def _read(self) -> None:
        with open(os.dup(self._handle), "rb") as file:
            file.seek(0)
            lines = file.read().split(b"\n")[:-1]  # of a process that was killed the last may be cut off
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
            first: dict[str, Any] = json.loads(lines[0])
            self.upload, self.key, self.part_size = str(first["upload"]), str(first["key"]), int(first["part_size"])
            for line in lines[1:]:
                number, sha256, tag = json.loads(line)
                self.sent[int(number)] = (str(sha256), str(tag))

    def begin(self, upload: str, key: str, part_size: int) -> None:
        """Note a new upload, and forget the old one."""
        self.upload, self.key, self.part_size, self.sent = upload, key, part_size, {}
        os.ftruncate(self._handle, 0)
        self._write({"upload": upload, "key": key, "part_size": part_size})

    def add(self, number: int, sha256: str, tag: str) -> None:
        """Note that a part was sent."""
        self.sent[number] = (sha256, tag)
        self._write([number, sha256, tag])

    def _write(self, line: object) -> None:
        with self._lock:
            if self._handle >= 0:
                with contextlib.suppress(OSError):  # a full disk: that part may be sent again
                    os.write(self._handle, json.dumps(line).encode() + b"\n")

    def remove(self) -> None:
        """Forget the upload: it is done."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let others go on with it."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle = -1


def old_notes(bucket: str) -> Iterator[Note]:
    """Yield the notes of a bucket for which nobody came back."""
    for path in _folder().glob(f"{_short(bucket)}-*.jsonl"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _OLD and (note := Note.locked(path)) is not None:
                yield note
