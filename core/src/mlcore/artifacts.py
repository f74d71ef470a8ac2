"""Artifacts: files under names that stay within their root, put and got whole, each with its sha256."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO, Any, BinaryIO, TypeVar

import attrs

from mlcore import errors, plugins
from mlcore.journal import check_key

_TEMPORARY = re.compile(r"(^|/)\.mlcore-[0-9a-f]{16}\.tmp(/|$)")
_UNSAFE = re.compile(r"\\|^[A-Za-z]:|^/|//|/$|[. ](/|$)")
_CHUNK = 1 << 20
_THREADS = 8
_LONG = (100 << 20, 200)  # bytes or files from which on a terminal shows how far it is
_R = TypeVar("_R")
Tick = Callable[[int], object]


# Where files are


def open_backend(uri: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return an fsspec filesystem, and the path in it that `uri` means; a URI without scheme is a path.

    Plugins win, then whatever fsspec knows. Raises `NotInstalled` with what would bring it, and `ArtifactError`.
    """
    text = os.fspath(uri)
    scheme, separator, _ = text.partition("://")
    scheme = scheme.partition("::")[0] if separator else "file"
    if scheme not in ("file", *plugins.provided("artifact_backends")):
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations, registry

        if scheme in known_implementations or scheme in registry:
            with _saying("cannot open", text):
                return url_to_fs(text)  # type: ignore[no-any-return]
    return plugins.load("artifact_backends", scheme)(text)  # type: ignore[no-any-return]


# Names, and what the files of a folder are


def safe_path(name: str | os.PathLike[str]) -> str:
    """Return a name that stays below any root, on any system: posix, relative, at most 250 characters.

    Raises `UnsafePath` for what is absolute, has a drive letter, a backslash, control characters, or a part that is
    empty, ``.``, ``..`` or ends with a dot or a space.
    """
    try:
        text = check_key(os.fspath(name))
    except (errors.InvalidValue, TypeError) as error:
        raise errors.UnsafePath(f"{name!r:.80} cannot name a file: {error}") from None
    if _UNSAFE.search(text) or is_temporary(text):
        raise errors.UnsafePath(f"{text!r} cannot name a file: give a relative path as in 'a/loss.png', without '..'")
    return text


def temporary_beside(path: str) -> str:
    """Return a new hidden name in the folder of `path`, for what is not whole yet."""
    return f"{path.rpartition('/')[0]}/.mlcore-{os.urandom(8).hex()}.tmp"


def is_temporary(name: str) -> bool:
    """Tell whether a file is one that was being written, or was left half written by a process that died."""
    return _TEMPORARY.search(name) is not None


@contextmanager
def _saying(what: str, path: object) -> Iterator[None]:
    """Turn what a filesystem raises, which may be anything, into what mlcore does."""
    try:
        yield
    except errors.MlcoreError:
        raise
    except ImportError as error:
        raise errors.NotInstalled(f"{what} {path}: a package that it needs is not installed: {error}") from error
    except FileNotFoundError as error:
        raise errors.ArtifactNotFound(f"{what} {path}: there is no file {error.filename or path}") from error
    except Exception as error:
        raise errors.ArtifactError(f"{what} {path}: {getattr(error, 'strerror', None) or repr(error)}") from error


def _size(path: Path) -> int:
    """Return the size of a regular file. Raises `ArtifactNotFound`, or `UnsafePath` for a device, pipe or folder."""
    with _saying("cannot read", path):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise errors.UnsafePath(f"{path} is no regular file")
    return status.st_size


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a regular file in hexadecimal digits. Raises `ArtifactError`."""
    import hashlib

    _size(Path(path))
    with _saying("cannot read", path), open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by its name; see `files_in`."""
    return {name: hash_file(path) for name, path in files_in(folder).items()}


def files_in(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return every file below a folder by its name: relative, posix, sorted.

    A link to what is inside the folder counts as what it leads to. Raises `UnsafePath` for one that leads out,
    nowhere or in circles, for devices and pipes, and for names that `safe_path` refuses.
    """
    with _saying("cannot read folder", folder):
        return dict(sorted(_walk(Path(folder), "", (Path(os.path.realpath(folder)),))))


def _walk(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    for entry in list(os.scandir(folder)):
        name, real = prefix + entry.name, folder / entry.name
        if entry.is_symlink():
            real = Path(os.path.realpath(real))
            if not real.is_relative_to(above[0]) or real in above or not real.exists():
                raise errors.UnsafePath(f"link {entry.path} leads to {real}, which is no file inside {above[0]}")
        if is_temporary(name):
            continue
        if entry.is_dir():
            yield from _walk(real, f"{name}/", (*above, Path(os.path.realpath(real))))
        else:
            _size(real)
            yield safe_path(name), real


# In and out


@attrs.frozen
class File:
    """Say where a file is, how many bytes it has, and its sha256, empty if that is not known."""

    filesystem: Any
    path: str
    size: int
    sha256: str = ""


def path_in(filesystem: Any, root: str, name: str) -> str:
    """Return the path of `name` below `root`. Raises `UnsafePath`, on this machine also if a link there leads out."""
    path = f"{root.rstrip('/')}/{safe_path(name)}"
    if getattr(filesystem, "local_file", False):
        _inside(path, root)
    return path


def _inside(path: str, root: str | Path) -> None:
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise errors.UnsafePath(f"{path} leads out of {root}, to {real}")


def put(filesystem: Any, root: str, sources: Mapping[str, Path | bytes | IO[bytes]]) -> dict[str, File]:
    """Store local files, bytes or what open files hold under names below `root`; return what was really stored.

    None appears under its name before it is whole. Raises `UnsafePath`, `ArtifactNotFound` or `ArtifactError`.
    """
    paths = {name: path_in(filesystem, root, name) for name in sources}
    sizes = {name: _size(each) if isinstance(each, Path) else 0 for name, each in sources.items()}
    for folder in sorted({path.rpartition("/")[0] for path in paths.values()}):
        with _saying("cannot make folder", folder):
            filesystem.makedirs(folder, exist_ok=True)

    def one(name: str, tick: Tick) -> File:
        with _saying("cannot store", paths[name]):
            return File(filesystem, paths[name], *_put(filesystem, paths[name], sources[name], tick))

    return _each(one, sizes, "storing", filesystem)


def _put(filesystem: Any, path: str, source: Path | bytes | IO[bytes], tick: Tick) -> tuple[int, str]:
    if isinstance(source, Path) and hasattr(filesystem, "put_hashed"):
        return filesystem.put_hashed(str(source), path, tick)  # type: ignore[no-any-return]
    whole = getattr(filesystem, "atomic_put", False)
    written = path if whole else temporary_beside(path)
    try:
        with _opened(source) as data, filesystem.open(written, "wb") as file:
            stored = _digest(data, tick, file.write)
        if not whole:
            _rename(filesystem, written, path)
    except BaseException:
        if not whole:
            with suppress(Exception):
                filesystem.rm_file(written)
        raise
    return stored


def _opened(source: Path | bytes | IO[bytes]) -> IO[bytes]:
    if isinstance(source, Path):
        return open(source, "rb", buffering=0)
    return BytesIO(source) if isinstance(source, bytes) else source


def _rename(filesystem: Any, old: str, new: str) -> None:
    from fsspec import AbstractFileSystem

    if filesystem.isdir(new):
        raise IsADirectoryError(21, "Is a directory")  # into which some would move it
    if type(filesystem).mv is not AbstractFileSystem.mv:
        return filesystem.mv(old, new)  # type: ignore[no-any-return]
    filesystem.cp_file(old, new)  # as fsspec's own would take brackets and stars in a name for a pattern
    return filesystem.rm_file(old)  # type: ignore[no-any-return]


def _digest(data: IO[bytes], tick: Tick, write: Callable[[bytes], object] = len) -> tuple[int, str]:
    import hashlib

    digest, size = hashlib.sha256(), 0
    while chunk := data.read(_CHUNK):
        write(chunk)
        digest.update(chunk)
        size += len(chunk)
        tick(len(chunk))
    return size, digest.hexdigest()


def list_files(filesystem: Any, root: str) -> dict[str, File]:
    """Return all files below `root` by their names, or the one that `root` is by its own; without what is half written.

    Raises `UnsafePath` if one has a name that would lead out of a folder it is got into.
    """
    root = root.rstrip("/")
    if getattr(filesystem, "local_file", False) and os.path.isdir(root):
        return {name: File(filesystem, str(path), path.stat().st_size) for name, path in files_in(root).items()}
    with _saying("cannot list", root):
        filesystem.invalidate_cache()
        found = filesystem.find(root, detail=True)
    names = {root.rpartition("/")[2] if path == root else path.removeprefix(f"{root}/"): path for path in sorted(found)}
    return {
        safe_path(name): File(filesystem, path, found[path]["size"] or 0)
        for name, path in names.items()
        if not is_temporary(name)
    }


def open_file(file: File) -> BinaryIO:
    """Open a file to read its bytes where it is. Raises `ArtifactNotFound` or `ArtifactError`."""
    with _saying("cannot open", file.path):
        return file.filesystem.open(file.path, "rb")  # type: ignore[no-any-return]


def _weighed(file: File, tick: Tick) -> File:
    with _saying("cannot read", file.path), open_file(file) as data:
        return File(file.filesystem, file.path, *_digest(data, tick))


def hash_files(files: Mapping[str, File]) -> dict[str, File]:
    """Read files where they are, and return them with the size and sha256 that they have. Raises `ArtifactError`."""
    return _each(lambda name, tick: _weighed(files[name], tick), _sizes(files), "reading")


def check(files: Mapping[str, File]) -> dict[str, str]:
    """Read files where they are; return what is wrong with those that are not as they should be, by name."""

    def one(name: str, tick: Tick) -> str:
        try:
            return "" if _weighed(files[name], tick).sha256 == files[name].sha256 else "is not what was stored"
        except errors.ArtifactNotFound:
            return "is missing"
        except errors.MlcoreError as error:
            return str(error)

    return {name: wrong for name, wrong in _each(one, _sizes(files), "checking").items() if wrong}


def get(files: Mapping[str, File], folder: Path) -> None:
    """Copy files into a folder by their names, and nowhere else; one that is there already is not copied again.

    Raises `DigestMismatch`, `UnsafePath`, `ArtifactNotFound` or `ArtifactError`.
    """
    with _saying("cannot make folder", folder):
        folder.mkdir(parents=True, exist_ok=True)

    def one(name: str, tick: Tick) -> None:
        file, target = files[name], folder / safe_path(name)
        _inside(str(target.parent), folder)
        if file.sha256 and target.is_file() and not target.is_symlink() and hash_file(target) == file.sha256:
            return
        part = Path(temporary_beside(str(target)))
        try:
            with _saying("cannot get", file.path):
                target.parent.mkdir(parents=True, exist_ok=True)
                with open_file(file) as data, open(part, "wb") as written:
                    _, digest = _digest(data, tick, written.write)
                if digest != (file.sha256 or digest):
                    raise errors.DigestMismatch(f"{file.path} is not what was stored: its sha256 differs")
                os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    _each(one, _sizes(files), "getting", *(file.filesystem for file in files.values()))


def _sizes(files: Mapping[str, File]) -> dict[str, int]:
    return {name: file.size for name, file in files.items()}


def _each(work: Callable[[str, Tick], _R], sizes: Mapping[str, int], label: str, *where: Any) -> dict[str, _R]:
    """Do the work for all names, as many at once as suits where they are; a failure, or Ctrl-C, stops the others."""
    if len(sizes) == 1:  # which works as the interpreter ends, too
        with _progress(sizes, label) as bar:
            return {name: work(name, int if bar is None else bar.update) for name in sizes}

    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    stopped = False
    lock = Lock()
    threads = max((getattr(each, "at_once", _THREADS) for each in where), default=_THREADS)
    with _progress(sizes, label) as bar, ThreadPoolExecutor(threads) as pool:

        def tick(count: int) -> None:
            if stopped:
                raise errors.ArtifactError(f"stopped {label}, as another file failed")
            if bar is not None:
                with lock:
                    bar.update(count)

        futures = {name: pool.submit(work, name, tick) for name in sizes}
        try:
            for done in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
                done.result()
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            stopped = True
            pool.shutdown(cancel_futures=True)
            raise


def _progress(sizes: Mapping[str, int], label: str) -> AbstractContextManager[Any]:
    """Return the bar of what takes long and is watched, else a context of None."""
    if (sum(sizes.values()) < _LONG[0] and len(sizes) < _LONG[1]) or not sys.stderr.isatty():
        return nullcontext()
    import click

    return click.progressbar(length=sum(sizes.values()) or 1, label=label, file=sys.stderr)


# What has no underscore is public.
_OWN = {name for name, each in globals().items() if getattr(each, "__module__", "") == __name__}
__all__ = sorted(name for name in _OWN if not name.startswith("_"))  # noqa: PLE0605 - each stands above, once
