"""The cache of downloads: each content once, whatever it is part of, and no more of it than the user's limit.

::

    ~/.cache/mlcore/artifacts/
    ├── lock                    locked alone by who removes something, shared by who says that something is used
    ├── blobs/<sha256>          a content, read-only, its time of change set to the stamp that its digest has
    ├── sets/<digest>/...       files under their names, hard links to blobs, or copies where there are no links
    ├── notes/<digest>          what a set has, and where it was from; changed whenever somebody uses it
    ├── parts/<digest>/<sha256> what is being got of a set, or was left by who was killed at it
    ├── parts/<digest>.lock     locked by who gets that set
    └── using/<random>          locked by a process for as long as it lives, with a line for each set that it uses

A file whose size and time of change are as they were set is taken for unchanged, any other is read again. So there is
no list that could be wrong: whoever is killed leaves whole files under their names, and what can be told from them.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs

from mlcore import errors
from mlcore.artifacts import File, get, hash_file, safe_path, temporary_beside
from mlcore_local.spools import bytes_of

__all__ = ["Kept", "fetch", "kept", "limit", "prune", "size"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOLDERS = ("blobs", "sets", "notes", "parts", "using")
_using = dict[Path, tuple[int, tuple[int, int], set[str]]]()  # by cache: the file that says what this process uses
_scratch = dict[str, Path]()  # sets of this process alone, where the cache cannot be written


@attrs.frozen
class Kept:
    """Describe a set of files: `source` is the path it was got from first, `files` the sha256 of each.

    `size` counts every content of it once, in bytes. `used` is when somebody asked for it last, in seconds since 1970,
    `busy` whether a process lives that did.
    """

    digest: str
    source: str
    files: Mapping[str, str]
    size: int
    used: float
    busy: bool


def limit() -> int:
    """Return how many bytes may be kept. Raises `ConfigError`."""
    return bytes_of("cache_limit")


# Files are got


def fetch(root: Path, files: Mapping[str, File]) -> Path:
    """Return a folder with these files and no others, which stays as long as this process; what is missing is got.

    Raises `DigestMismatch`, `UnsafePath` or another `ArtifactError`.
    """
    for name, file in files.items():
        if not _SHA256.fullmatch(file.sha256):
            raise errors.DigestMismatch(f"{file.path} cannot be compared with what was stored: its sha256 is not known")
        safe_path(name)
    told = json.dumps({name: files[name].sha256 for name in sorted(files)}, separators=(",", ":"))
    digest = sha256(told.encode()).hexdigest()[:32]
    folder = root / "sets" / digest
    try:
        _say_used(root, digest, files)
    except OSError as error:
        if _whole(folder, files):  # a cache that somebody filled for others
            return folder
        if error.errno not in _FULL:
            return _without(digest, files)
    if not _whole(folder, files):
        try:
            with _locked(root / "parts" / f"{digest}.lock", fcntl.LOCK_EX, last=True):
                _fill(root, digest, files)
        except OSError as error:
            raise errors.ArtifactError(f"cannot keep files in the cache {root}: {error.strerror or error}") from error
    return folder


def _fill(root: Path, digest: str, files: Mapping[str, File]) -> None:
    """Make a set whole; on a full disk once more, when what nobody uses has made room."""
    for last in (False, True):
        try:
            _say_used(root, digest, files)
            return _complete(root, digest, files)
        except (OSError, errors.ArtifactError) as error:
            if getattr(error.__cause__ or error, "errno", 0) not in _FULL:
                raise
            shutil.rmtree(root / "parts" / digest, ignore_errors=True)
            if last:
                told = f"the disk of the cache is full, and it keeps only what is in use: {error}"
                raise errors.ArtifactError(f"{told}; make room, or set XDG_CACHE_HOME to a folder elsewhere") from error
            prune(root, max(-1, size(root) - sum(file.size for file in files.values())))
    return None


def _complete(root: Path, digest: str, files: Mapping[str, File]) -> None:
    blobs, parts, folder = root / "blobs", root / "parts" / digest, root / "sets" / digest
    missing = {file.sha256: file for file in files.values() if not _good(blobs / file.sha256, file)}
    if missing:
        prune(root, max(-1, limit() - sum(file.size for file in missing.values())))
        get(missing, parts)
        for name in missing:
            _seal(parts / name, name)
            os.replace(parts / name, blobs / name)
    shutil.rmtree(parts, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _tidy(folder, files)
    for name, file in files.items():
        target = folder / name
        with suppress(FileNotFoundError):
            if _stamped(os.lstat(target), file):
                continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(blobs / file.sha256, target)
    if missing:
        prune(root, limit())  # several may have got something at once


def _link(blob: Path, target: Path) -> None:
    fresh = temporary_beside(str(target))
    try:
        try:
            os.link(blob, fresh)
        except OSError as error:  # there are no links here, or the content has as many as it can have
            if error.errno in _FULL:
                raise
            shutil.copyfile(blob, fresh)
            _seal(Path(fresh), blob.name)
        os.replace(fresh, target)
    finally:
        Path(fresh).unlink(missing_ok=True)


def _without(digest: str, files: Mapping[str, File]) -> Path:
    """Get files into a folder that goes with this process."""
    if digest not in _scratch:
        _scratch[digest] = folder = Path(tempfile.mkdtemp(prefix="mlcore-"))
        atexit.register(_drop, folder, os.getpid())
    get(files, _scratch[digest])
    return _scratch[digest]


def _drop(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a child that was forked
        shutil.rmtree(folder, ignore_errors=True)


# What is unchanged


def _stamp(digest: str) -> int:
    """Return the time of change of a content, in ns: a whole even second, which any disk can keep."""
    return (1_000_000_000 + 2 * int(digest[:6], 16)) * 10**9


def _stamped(status: os.stat_result, file: File) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size == file.size and status.st_mtime_ns == _stamp(file.sha256)


def _seal(path: Path, digest: str) -> None:
    """Say that a file is the content with that digest, after all of it is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.chmod(0o444)
    os.utime(path, ns=(_stamp(digest), _stamp(digest)))


def _good(blob: Path, file: File) -> bool:
    """Tell whether a content is here and right; what may have been changed is read."""
    try:
        status = os.lstat(blob)
    except FileNotFoundError:
        return False
    if _stamped(status, file):
        return True
    if not stat.S_ISREG(status.st_mode) or hash_file(blob) != file.sha256:
        return False
    if os.lstat(blob).st_mtime_ns == status.st_mtime_ns:
        _seal(blob, file.sha256)
    return True


def _whole(folder: Path, files: Mapping[str, File]) -> bool:
    """Tell whether a folder has these files, unchanged, and no others."""
    left = dict(files)
    for name, path in _found(folder):
        file = left.pop(name, None)
        with suppress(FileNotFoundError):
            if file is not None and _stamped(os.lstat(path), file):
                continue
        return False
    return not left and folder.is_dir()


def _found(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and path of all that is no folder below a folder, but for the bytecode that Python leaves there."""
    start = len(str(folder)) + 1
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each != "__pycache__"]
        links = [each for each in folders if os.path.islink(f"{place}/{each}")]
        yield from ((f"{place}/{each}"[start:], f"{place}/{each}") for each in (*names, *links))


def _tidy(folder: Path, files: Mapping[str, File]) -> None:
    """Remove what somebody put into a folder, or left there half made."""
    for name, path in _found(folder):
        if name not in files:
            os.unlink(path)
    for name in files:
        if os.path.isdir(folder / name) and not os.path.islink(folder / name):
            shutil.rmtree(folder / name)


# What is used, and what can go


def _take(path: Path, how: int) -> int:
    """Return a descriptor that holds the lock of a file which is still there when it is taken."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
        try:
            fcntl.flock(handle, how)
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(handle).st_ino:
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever had it removed it


@contextmanager
def _locked(path: Path, how: int, *, last: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which goes with the `last` who needed it."""
    handle = _take(path, how)
    try:
        yield
    finally:
        if last:
            path.unlink(missing_ok=True)
        fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile has a copy of the descriptor
        os.close(handle)


def _say_used(root: Path, digest: str, files: Mapping[str, File]) -> None:
    """Keep a set, there or not yet, from being removed while this process, or a child that it forked, lives."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in _FOLDERS:
        (root / each).mkdir(exist_ok=True)
    with _locked(root / "lock", fcntl.LOCK_SH):
        handle, known = _own(root)
        if digest not in known:
            line = f"\n{digest}\n".encode()  # alone, even if half of another is before it
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            known.add(digest)
        note = root / "notes" / digest
        try:
            os.utime(note)
        except FileNotFoundError:
            source = os.path.commonpath([f"/{file.path}" for file in files.values()] or ["/"])[1:]
            about = {"source": source, "files": {name: [file.sha256, file.size] for name, file in files.items()}}
            _write(note, about)


def _own(root: Path) -> tuple[int, set[str]]:
    """Return the file that says what this process uses; two threads that make one each do no harm."""
    if root in _using:
        handle, which, known = _using[root]
        with suppress(OSError):  # somebody closed all that was open
            status = os.fstat(handle)
            if status.st_nlink and (status.st_dev, status.st_ino) == which:
                return handle, known
    _busy(root)  # what others left
    handle = _take(root / "using" / os.urandom(8).hex(), fcntl.LOCK_EX)
    status = os.fstat(handle)
    _using[root] = handle, (status.st_dev, status.st_ino), set[str]()
    return handle, _using[root][2]


def _write(path: Path, content: Any) -> None:
    fresh = Path(temporary_beside(str(path)))
    try:
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _busy(root: Path) -> set[str]:
    """Return the digests of the sets that live processes use; what dead ones said is removed."""
    found = set[str]()
    for path in (root / "using").glob("*"):
        with suppress(FileNotFoundError):
            if not _abandoned(path):
                found.update(path.read_text(encoding="ascii", errors="replace").split())
    return found


def _abandoned(path: Path) -> bool:
    """Remove a file that nobody holds the lock of, and tell whether it was so."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def kept(root: Path) -> list[Kept]:
    """Return every set that is here, the last used first."""
    busy, found = _busy(root), list[Kept]()
    for note in (root / "notes").glob("*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads(note.read_bytes())
            files = {str(name): str(each[0]) for name, each in about["files"].items()}
            total = sum(dict(map(tuple, about["files"].values())).values())
            used = note.stat().st_mtime
            found.append(Kept(note.name, str(about["source"]), files, total, used, note.name in busy))
    return sorted(found, key=lambda each: (-each.used, each.digest))


def size(root: Path) -> int:
    """Return how many bytes the files of a cache have, each once, however many names it has."""
    sizes = dict[int, int]()
    for each in ("blobs", "sets", "parts"):
        for place, _, names in os.walk(root / each):
            for name in names:
                with suppress(FileNotFoundError):
                    status = os.lstat(f"{place}/{name}")
                    sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def prune(root: Path, most: int) -> list[Kept]:
    """Remove the sets that were used longest ago, until there are no more than `most` bytes; return those.

    What a live process uses stays. What killed ones left half got goes in any case.
    """
    if not root.is_dir():
        return []
    with _locked(root / "lock", fcntl.LOCK_EX):
        for lock in (root / "parts").glob("*.lock"):
            if _abandoned(lock):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        found, gone = kept(root), list[Kept]()
        needed = Counter(digest for each in found for digest in set(each.files.values()))
        _sweep(root, {each.digest for each in found}, set(needed))
        total = size(root)
        for each in reversed(found):
            if total > most and not each.busy:
                total -= _remove(root, each, needed)
                gone.append(each)
    return gone


def _sweep(root: Path, known: set[str], needed: set[str]) -> None:
    """Remove what no note names, as one who was killed while he removed it left it."""
    for folder in (root / "sets").glob("*"):
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
    for blob in (root / "blobs").glob("*"):
        if blob.name not in needed:
            blob.unlink(missing_ok=True)
    for note in (root / "notes").glob(".*"):
        note.unlink(missing_ok=True)


def _remove(root: Path, each: Kept, needed: Counter[str]) -> int:
    """Remove a set, and the contents that no other one has; return how many bytes that frees."""
    freed = 0
    for place, _, names in os.walk(root / "sets" / each.digest):
        for status in (os.lstat(f"{place}/{name}") for name in names):
            freed += status.st_size if status.st_nlink == 1 else 0  # a copy
    shutil.rmtree(root / "sets" / each.digest, ignore_errors=True)
    for digest in set(each.files.values()):
        needed[digest] -= 1
        if not needed[digest]:
            blob = root / "blobs" / digest
            with suppress(FileNotFoundError):
                freed += blob.stat().st_size
                blob.unlink()
    (root / "notes" / each.digest).unlink(missing_ok=True)
    return freed
