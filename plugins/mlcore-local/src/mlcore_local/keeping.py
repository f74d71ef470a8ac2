"""Keep files in a spool until they are uploaded: as a clone where that can be, as a copy, or by where they lie."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from mlcore.artifacts import hash_file, safe_path
from mlcore.errors import ArtifactError, ArtifactNotFound, UnsafePath
from mlcore_local.spools import Spool, bytes_of, write_json

__all__ = ["File", "find", "keep", "lock", "pending", "used"]

_FICLONE = 0x40049409
_COPIED = 64 << 20  # bytes; what is larger and cannot be cloned stays where it is
_COUNT_SECONDS = 30.0
_FOLDER, _COPY = "kept", ".file"
lock = threading.Lock()  # between who keeps a file anew and who forgets the one before
_used: dict[Path, tuple[float, int]] = {}  # when it was counted what copies take, and how much


@attrs.frozen
class File:
    """Tell of a file that waits: the `name` it was logged as, where it is, and what it was like then."""

    note: Path
    name: str
    path: Path
    size: int
    changed: int
    sha256: str

    @property
    def copied(self) -> bool:
        """Whether it is a clone or a copy, which nobody else changes."""
        return self.path.parent == self.note.parent

    def remove(self) -> None:
        """Forget it, and the copy of it."""
        with suppress(OSError):
            self.note.unlink(missing_ok=True)
            if self.copied:
                self.path.unlink(missing_ok=True)


def find(folder: Path, name: str) -> File | None:
    """Return what waits under a name in the folder of a run."""
    return _read(_note(folder, name))


def pending(folder: Path) -> list[File]:
    """Return the files of a run that wait."""
    with suppress(FileNotFoundError):
        notes = sorted(path for path in (folder / _FOLDER).iterdir() if path.suffix == ".json")
        return [file for file in map(_read, notes) if file is not None]
    return []


def used(spool: Spool) -> int:
    """Return how many bytes of copies wait in a spool."""
    return sum(_copies(spool))


def _copies(spool: Spool) -> Iterator[int]:
    for path in (spool.root / "runs").glob(f"*/*/{_FOLDER}/*{_COPY}"):
        with suppress(FileNotFoundError):
            yield path.stat().st_size


def _note(folder: Path, name: str) -> Path:
    return folder / _FOLDER / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _read(note: Path) -> File | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(note.read_bytes())
        path = note.parent / found["path"]  # that of a copy is relative
        return File(note, found["name"], path, found["size"], found["changed"], found["sha256"])
    return None


def keep(spool: Spool, run_id: str, sources: Mapping[str, Any], *, passing: bool) -> tuple[dict[str, Any], list[str]]:
    """Keep files for an upload; return the records of those that are kept, and why others are not.

    What is `passing` is copied, whatever its size. Raises `ArtifactNotFound`, `UnsafePath` or `ArtifactError`.
    """
    for name, source in sources.items():
        safe_path(name)
        if isinstance(source, Path):
            _status(source)
    folder, records, refused = spool.run_folder(run_id), dict[str, Any](), list[str]()
    for name, source in sources.items():
        try:
            with lock:
                file = _kept(spool, _note(folder, name), name, source, passing=passing)
        except OSError as error:
            refused.append(f"{name}: {error.strerror or error}")
        else:
            records[name] = {"sha256": file.sha256, "size": file.size}
    return records, refused


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ArtifactNotFound(f"cannot read {path}: there is no file {path}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePath(f"{path} is no regular file")
    return status


def _kept(spool: Spool, note: Path, name: str, source: Any, *, passing: bool) -> File:
    note.parent.mkdir(parents=True, exist_ok=True)
    path, before = note.parent / f"{os.urandom(8).hex()}{_COPY}", _read(note)
    status = _status(source) if isinstance(source, Path) else None
    try:
        if status is None:
            _make_room(spool, len(source))
            path.write_bytes(source)
            size, digest = len(source), hashlib.sha256(source).hexdigest()
        elif _clone(source, path):
            size, digest = path.stat().st_size, hash_file(path)
        elif passing or status.st_size <= _COPIED:
            _make_room(spool, status.st_size)
            size, digest = _copy(source, path)
        else:
            size, digest, path = status.st_size, hash_file(source), source.absolute()
        changed = 0 if status is None else status.st_mtime_ns
        file = File(note, name, path, size, changed, digest)
        where = path.name if file.copied else str(path)
        write_json(note, {"name": name, "path": where, "size": size, "changed": changed, "sha256": digest})
    except BaseException:
        if path.parent == note.parent:
            path.unlink(missing_ok=True)
        raise
    if before is not None and before.copied:
        before.path.unlink(missing_ok=True)
    return file


def _clone(source: Path, path: Path) -> bool:
    """Make a clone, which shares its blocks with the source until one of them changes; False where that cannot be."""
    try:
        with open(source, "rb") as old, open(path, "xb") as new:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        return False
    return True


def _copy(source: Path, path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open(source, "rb", buffering=0) as old, open(path, "xb", buffering=0) as new:
        while chunk := old.read(1 << 20):
            digest.update(chunk)
            size += new.write(chunk)
    return size, digest.hexdigest()


def _make_room(spool: Spool, size: int) -> None:
    """Count what is copied. Raises `OSError` if it would be too much."""
    counted, total = _used.get(spool.root, (-_COUNT_SECONDS, 0))
    if time.monotonic() - counted >= _COUNT_SECONDS:
        counted, total = time.monotonic(), used(spool)
    if total + size > bytes_of("spool_limit"):
        limit = f"the spool holds {total:,} bytes, and spool_limit is {bytes_of('spool_limit'):,}"
        raise OSError(errno.EDQUOT, f"{size:,} bytes have no room: {limit}")
    _used[spool.root] = counted, total + size
