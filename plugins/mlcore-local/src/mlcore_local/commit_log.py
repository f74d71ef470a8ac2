"""The commit log: one sync keeps what was written to any number of journals.

A store that promises to survive a loss of power would have to sync each journal that it wrote to before it answers. It
writes the same bytes to one more file instead, with the name of the journal and the place in it, and syncs that. Now
and then the journals themselves are synced, and the log is emptied. Of a log that nobody holds open, its writer died:
what is in it is written to the journals again, which changes nothing unless the machine went down. It is described byte
by byte in docs/reference/folder-store.md.

A file system has to keep, with every sync of a file that grew, how long it is now: that is a second write, which waits
for the first. So the file is made longer ahead of what is written to it, by zeros, which are no entry. Nothing is ever
written over an entry: a log that is emptied is cut off, and grows again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from mlcore.folder import Folder
from mlcore_local.syncing import Syncing

__all__ = ["FOLDER", "CommitLog", "logs", "recover"]

FOLDER = "commits"
_MAGIC = b"mlcorecl"
_HEAD = struct.Struct("<8s36s")  # magic, and when the machine was started: its boot id, or nothing
_ENTRY = struct.Struct("<IHIQ")  # checksum of the rest, lengths of path and data, offset in the journal
_MOST = 8 << 20  # bytes, after which journals are synced: what a start after a crash has to look at
_AHEAD = 256 << 10  # bytes of zeros that are written at once: they take the disk a millisecond
_log = logging.getLogger("mlcore")


class CommitLog:
    """Keep what goes to journals of one store until they are synced. Not thread-safe, and not for the child of a fork.

    Opening it brings back what logs hold whose writers died. Raises `OSError`.
    """

    def __init__(self, folder: Folder) -> None:
        recover(folder.root)
        self._root, self._syncing = folder.root, Syncing()
        self._entries: list[bytes] = []
        self._journals: dict[Path, str] = {}  # written to since they were synced, and their names
        self._end = self._size = _HEAD.size  # of the entries, and of the file
        self._roomy = True  # the disk has room for what is written ahead
        self._path, self._fd = _made(folder.root / FOLDER)

    def add(self, path: Path, offset: int, data: bytes) -> None:
        """Take in what is written to a journal of the store."""
        name = self._journals.get(path)
        if name is None:
            name = self._journals[path] = path.relative_to(self._root).as_posix()
        self._entries.append(_packed(name.encode(), offset, data))

    def commit(self) -> None:
        """Return once the disk has what was taken in. Raises `OSError`: then nothing is promised, close this."""
        data = b"".join(self._entries)
        self._entries.clear()
        if not data:
            return
        end = self._end + len(data)
        if end > self._size and self._roomy:
            self._grow(end + _AHEAD)
        if os.pwrite(self._fd, data, self._end) != len(data):
            raise OSError(28, "No space left on device")
        os.fdatasync(self._fd)
        self._end, self._size = end, max(end, self._size)
        if end - _HEAD.size > _MOST:
            self._empty()

    def close(self) -> None:
        """Sync the journals, and remove the log; one whose journals cannot be synced stays for the next start."""
        try:
            self._empty()
            os.unlink(self._path)
        except OSError as error:
            _log.warning("the commit log %s stays until the store is written to again: %s", self._path, error)
        finally:
            os.close(self._fd)
            self._syncing.close()

    def _grow(self, size: int) -> None:
        """Write zeros up to a size; on a full disk none, which others need more, until the log is emptied."""
        try:
            self._roomy = os.pwrite(self._fd, bytes(size - self._size), self._size) == size - self._size
        except OSError:  # no room, or a limit on how large a file may be
            self._roomy = False
        if not self._roomy:
            os.ftruncate(self._fd, self._end)
        self._size = size if self._roomy else self._end

    def _empty(self) -> None:
        _sync(self._root, self._journals.values(), self._syncing)
        os.ftruncate(self._fd, _HEAD.size)
        self._journals.clear()
        self._end = self._size = _HEAD.size
        self._roomy = True


def recover(root: Path) -> None:
    """Bring to the journals of a store what commit logs hold whose writers died. Raises `OSError`."""
    for path in logs(root):
        with contextlib.suppress(FileNotFoundError):  # another process did it
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if _locked(fd):
                    _replay(root, path)
                    os.unlink(path)
            finally:
                os.close(fd)


def logs(root: Path) -> list[Path]:
    """Return the commit logs of a store, those that are being written to as well."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in (root / FOLDER).iterdir() if path.suffix == ".log")
    return []


def _locked(fd: int) -> bool:
    """Tell whether nobody else holds a log open; where there are no locks, nobody knows."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _made(folder: Path) -> tuple[Path, int]:
    """Make a log that is ours from the start, and known to the disk."""
    folder.mkdir(exist_ok=True)
    while True:
        path = folder / f"{os.urandom(8).hex()}.log"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # without locks it stays when we die, and somebody has to look
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:  # somebody may have taken it for one whose writer died, before we had the lock
            break
        os.close(fd)
    os.write(fd, _HEAD.pack(_MAGIC, _boot()))
    for each in (path, folder, folder.parent):
        _sync_path(each)
    return path, fd


def _boot() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()[:36]
    except OSError:
        return b""


def _packed(path: bytes, offset: int, data: bytes) -> bytes:
    rest = _ENTRY.pack(0, len(path), len(data), offset)[4:] + path + data
    return zlib.crc32(rest).to_bytes(4, "little") + rest


def _entries(content: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield path, offset and data of each entry, up to one that is not whole: it was not acknowledged."""
    at = _HEAD.size
    while at + _ENTRY.size <= len(content):
        checksum, name, size, offset = _ENTRY.unpack_from(content, at)
        middle, end = at + _ENTRY.size + name, at + _ENTRY.size + name + size
        if end > len(content) or zlib.crc32(content[at + 4 : end]) != checksum:
            return
        yield content[at + _ENTRY.size : middle].decode(), offset, content[middle:end]
        at = end


def _replay(root: Path, path: Path) -> None:
    content = path.read_bytes()
    if len(content) < _HEAD.size or not content.startswith(_MAGIC):
        return  # it was just made
    boot = _HEAD.unpack_from(content)[1].rstrip(b"\0")
    went_down, found = not boot or boot != _boot(), dict[str, list[tuple[int, bytes]]]()
    for name, offset, data in _entries(content):
        if PurePosixPath(name).suffix == ".journal" and not {"..", "."} & {*name.split("/")} and name[0] != "/":
            found.setdefault(name, []).append((offset, data))
    for name, parts in found.items() if went_down else ():
        if not parts[0][0]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        _bring_back(root / name, parts)
    if went_down and found:
        _log.warning("the machine went down: %d journals of %s were looked through", len(found), root)
    syncing = Syncing()
    _sync(root, [name for name in found if (root / name).exists()], syncing)
    syncing.close()


def _bring_back(journal: Path, parts: Sequence[tuple[int, bytes]]) -> None:
    create = 0 if parts[0][0] else os.O_CREAT  # a journal that was synced before, and is gone, was removed
    try:
        fd = os.open(journal, os.O_RDWR | create | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except FileNotFoundError:
        return
    try:
        for offset, data in parts:
            if os.fstat(fd).st_size < offset:
                _log.error("%s is shorter than %d bytes, which were synced: see mlcore fsck", journal, offset)
                return
            if os.pread(fd, len(data), offset) != data and os.pwrite(fd, data, offset) != len(data):
                raise OSError(28, "No space left on device")
    finally:
        os.close(fd)


def _sync(root: Path, journals: Iterable[str], syncing: Syncing) -> None:
    """Sync journals, and the folders that lead to them."""
    names = sorted(journals)
    folders = {root / parent for name in names for parent in PurePosixPath(name).parents}
    syncing.all([partial(_sync_if_there, each) for each in [*(root / name for name in names), *sorted(folders)]])


def _sync_if_there(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # what was removed meanwhile needs none
        _sync_path(path)


def _sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
