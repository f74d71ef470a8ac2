"""Files of runs in a folder of this machine, in which no link and no name leads out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from mlcore.artifacts import is_temporary, safe_path
from mlcore.errors import UnsafePath
from mlcore.store import from_json, to_json
from mlcore_server.kept import (
    CHUNK,
    ID,
    Found,
    Gone,
    Incomplete,
    Interval,
    Place,
    Staged,
    Staging,
    gaps,
    merged,
    sha256_of,
)

__all__ = ["LocalPart", "LocalPlace", "LocalReader", "LocalStaging", "LocalWriting", "made", "sign", "write_all"]

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = _READ | os.O_DIRECTORY
_NOTE = "user.mlcore.sha256"
_NOTED_BYTES = 8 << 20  # written between two notes of how far it came
_TRIES = 5


class LocalPlace(Place):
    """Hold the files of a run below a folder, `top`, of which the operator of the server said that it is theirs.

    Every folder on the way from there is opened by itself and not if it is a link, so nobody who may write there can
    lead the server elsewhere, not even by being quick. A link among the files counts as what it leads to, if that is
    among the files.
    """

    def __init__(self, top: Path, inner: str, uploads: Path) -> None:
        self._top, self._inner, self._uploads = os.path.realpath(top), inner, uploads
        self._root = f"{self._top}/{inner}"

    def open(self, name: str) -> LocalReader:
        """See `Place.open`."""
        with self._parent(name) as (folder, last):
            file = os.open(last, _READ | os.O_NONBLOCK, dir_fd=folder)  # which a pipe without a writer would need
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FileNotFoundError(errno.ENOENT, "no regular file", name)
            return LocalReader(file)
        except BaseException:
            os.close(file)
            raise

    def files(self, prefix: str) -> dict[str, int]:
        """See `Place.files`; links to folders are not followed."""
        found = dict[str, int]()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if prefix:
                with contextlib.closing(self.open(prefix)) as reader:
                    return {prefix: reader.found.size}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._folder(self._parts(prefix)) as top:
            for inner, _, names, folder in os.fwalk(".", dir_fd=top):
                below = "/".join(filter(None, (prefix, inner[2:])))
                for name in names:
                    path = f"{below}/{name}" if below else name
                    if (size := self._size(path, name, folder)) is not None:
                        found[path] = size
        return found

    def _size(self, path: str, name: str, folder: int) -> int | None:
        """Return the size of a file of the list, None if it is none that could be asked for."""
        with contextlib.suppress(OSError, UnsafePath):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if safe_path(path) and stat.S_ISREG(status.st_mode):
                return status.st_size
            if stat.S_ISLNK(status.st_mode):
                with contextlib.closing(self.open(path)) as reader:
                    return reader.found.size
        return None

    def write(self, name: str) -> LocalWriting:
        """See `Place.write`."""
        self._parts(name)
        return LocalWriting(self, name, self._uploads)

    def remove(self, name: str) -> None:
        """See `Place.remove`; folders that are empty then go, too."""
        with self._parent(name) as (folder, last):
            if stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
                raise FileNotFoundError(errno.ENOENT, "a folder", name)
            os.unlink(last, dir_fd=folder)
        parts = self._parts(name)[:-1]
        with contextlib.suppress(OSError):  # until one is not empty
            while len(parts) > len(self._inner.split("/")):
                with self._folder(parts[:-1]) as folder:
                    os.rmdir(parts.pop(), dir_fd=folder)

    def free(self) -> int | None:
        """See `Place.free`."""
        with contextlib.suppress(OSError):
            status = os.statvfs(self._top)
            return status.f_bavail * status.f_frsize
        return None

    def staging(self) -> LocalStaging:
        """See `Place.staging`."""
        return LocalStaging(self._uploads)

    def move(self, source: str, name: str) -> None:
        """Let a file of the same disk appear under a name."""
        for left in reversed(range(_TRIES)):
            try:
                with self._parent(name, make=True) as (folder, last):
                    return os.replace(source, last, dst_dir_fd=folder)
            except FileNotFoundError:  # somebody removed the folder, which was empty
                if not left or not os.path.lexists(source):
                    raise
        return None

    def _parts(self, name: str) -> list[str]:
        """Return the folders from the top on that lead to a name, and its last part. Raises `UnsafePath`."""
        real = os.path.realpath(f"{self._root}/{name}") if name else self._root
        if real != self._root and not real.startswith(f"{self._root}/"):
            raise UnsafePath(f"{name!r} leads out of the files of its run")
        return real.removeprefix(f"{self._top}/").split("/")

    @contextlib.contextmanager
    def _parent(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        *parts, last = self._parts(name)
        with self._folder(parts, make=make) as folder:
            yield folder, last

    @contextlib.contextmanager
    def _folder(self, parts: list[str], *, make: bool = False) -> Iterator[int]:
        folder = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=folder)
                inner = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link, of which some systems say that it is no folder
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
            raise
        finally:
            os.close(folder)


class LocalReader:
    """Read a file as it was when it was opened, whatever is put under its name later."""

    def __init__(self, file: int) -> None:
        self._file = file
        status, sha256 = os.fstat(file), ""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no system has to have such attributes
            sha256, size, modified = os.getxattr(file, _NOTE).decode().split()
            if (int(size), int(modified)) != (status.st_size, status.st_mtime_ns):
                sha256 = ""
        etag = sha256 or f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"
        self.found = Found(status.st_size, etag, sha256, status.st_mtime_ns / 1e9)

    def read(self, offset: int, count: int) -> bytes:
        """See `Reader.read`."""
        return os.pread(self._file, count, offset)

    def close(self) -> None:
        """See `Reader.close`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LocalWriting:
    """Write a file beside the others, and move it to its name when it is whole and on the disk."""

    def __init__(self, place: LocalPlace, name: str, uploads: Path) -> None:
        self._place, self._name = place, name
        self.path = f"{made(uploads)}/.mlcore-{os.urandom(8).hex()}.tmp"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)

    def write(self, data: bytes) -> None:
        """See `Writing.write`."""
        write_all(self._file, data)

    def commit(self, sha256: str) -> None:
        """See `Writing.commit`."""
        sign(self._file, sha256)
        self._place.move(self.path, self._name)
        self.path = ""

    def discard(self) -> None:
        """See `Writing.discard`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.path = ""


def made(folder: Path) -> Path:
    """Return a folder that only this user can enter, made if it is not there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_all(file: int, data: bytes, offset: int | None = None) -> None:
    """Write bytes, all of them, as the system may write a part. Raises `OSError`."""
    view = memoryview(data)
    while view:
        count = os.write(file, view) if offset is None else os.pwrite(file, view, offset)
        view, offset = view[count:], None if offset is None else offset + count


def sign(file: int, sha256: str) -> None:
    """Put a file on the disk, and note its sha256 with it, which is good as long as it has this size and time."""
    os.fsync(file)
    status = os.fstat(file)
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(file, _NOTE, f"{sha256} {status.st_size} {status.st_mtime_ns}".encode())


class LocalStaging(Staging):
    """Keep each upload in a folder: `state.json`, `data` with holes, and `done`, a line for what is there of it."""

    def __init__(self, uploads: Path) -> None:
        self._uploads = uploads

    def create(self, staged: Staged) -> None:
        """See `Staging.create`."""
        folder = made(made(self._uploads) / staged.id)
        if not (folder / "state.json").exists():
            for name in ("data", "done"):
                os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666))
            temporary = folder / f".mlcore-{os.urandom(8).hex()}.tmp"
            temporary.write_bytes(to_json(attrs.asdict(staged)))
            temporary.replace(folder / "state.json")

    def find(self, id: str) -> Staged:
        """See `Staging.find`."""
        try:
            return Staged(**from_json((self._uploads / id / "state.json").read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise Gone(id) from error

    def received(self, id: str) -> list[Interval]:
        """See `Staging.received`."""
        try:
            lines = (self._uploads / id / "done").read_bytes().split(b"\n")[:-1]  # the last one may be half there
        except OSError as error:
            raise Gone(id) from error
        return merged([(int(start), int(end)) for start, end in (line.split() for line in lines)])

    def part(self, id: str, offset: int, *, checked: bool) -> LocalPart:
        """See `Staging.part`."""
        try:
            return LocalPart(self._uploads / id, offset, checked)
        except FileNotFoundError as error:
            raise Gone(id) from error

    def complete(self, staged: Staged, place: Place) -> None:
        """See `Staging.complete`; the file is read once, to be hashed, and moved."""
        assert isinstance(place, LocalPlace)
        path = self._uploads / staged.id / "data"
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise Gone(staged.id) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of by the system, if this process is killed
            if missing := gaps(self.received(staged.id), staged.size):
                raise Incomplete(f"bytes are missing of {staged.path}: {missing[:10]}")
            os.ftruncate(file, staged.size)
            chunks = (os.pread(file, CHUNK, offset) for offset in range(0, staged.size, CHUNK))
            sign(file, sha256_of(chunks, staged))
            place.move(str(path), staged.path)
        finally:
            os.close(file)
        self.remove(staged.id)

    def remove(self, id: str) -> None:
        """See `Staging.remove`."""
        shutil.rmtree(self._uploads / id, ignore_errors=True)

    def clean(self, before: float) -> int:
        """See `Staging.clean`; files that were sent in one request, by a server that died, go as well."""
        count = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self._uploads) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    inner = [f"{entry.path}/{name}" for name in ("data", "done")]
                    written = [path for path in inner if os.path.lexists(path)] or [entry.path]
                    if max(os.lstat(path).st_mtime for path in written) < before:
                        count += 1
                        if is_temporary(entry.name) and not entry.is_dir(follow_symlinks=False):
                            os.unlink(entry.path)
                        elif ID.fullmatch(entry.name):
                            self.remove(entry.name)
        return count


class LocalPart:
    """Write a part of a file that is not whole, and note from time to time how far that came.

    It holds a lock that `LocalStaging.complete` wants for itself: nobody writes to a file that others see.
    """

    def __init__(self, folder: Path, offset: int, checked: bool) -> None:
        self._noted = self._offset = offset
        self._checked = checked
        self._done = self._file = -1
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(folder / "data", flags)
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self._done = os.open(folder / "done", flags | os.O_APPEND)
            if not os.path.samestat(os.stat(folder / "data"), os.fstat(self._file)):
                raise FileNotFoundError(errno.ENOENT, "completed", str(folder))
        except BaseException:
            self.discard()
            raise

    def write(self, data: bytes) -> None:
        """See `Writing.write`."""
        write_all(self._file, data, self._offset)
        self._offset += len(data)
        if self._offset - self._noted >= _NOTED_BYTES:
            self._note()

    def _note(self) -> None:
        if self._offset > self._noted and self._done >= 0 and not self._checked:
            os.write(self._done, f"{self._noted} {self._offset}\n".encode())
            self._noted = self._offset

    def commit(self, sha256: str) -> None:
        """Note what was written; see `Staging.part`."""
        self._checked = False
        self._note()

    def discard(self) -> None:
        """Note what was written, if that may be, and let go."""
        try:
            self._note()
        finally:
            for file in (self._file, self._done):
                if file >= 0:
                    os.close(file)
            self._file = self._done = -1
