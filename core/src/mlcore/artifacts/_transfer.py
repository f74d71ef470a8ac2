"""Put files into a filesystem and get them back: whole or not at all, several at once, with what they weigh."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import attrs

from mlcore.artifacts._names import check_file, files_in, hash_file, is_temporary, safe_path, temporary_beside
from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, MlcoreError, UnsafePath

__all__ = ["File", "check", "get", "hash_files", "list_files", "open_file", "path_in", "put"]

_CHUNK = 1 << 20
_THREADS = 8
_LONG = (100 << 20, 200)  # bytes or files from which on a terminal shows how far it is
_T = TypeVar("_T")
_R = TypeVar("_R")
Source = Path | bytes | IO[bytes]
Tick = Callable[[int], None]


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
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(root)):
            raise UnsafePath(f"{path} leads out of {root}, to {real}")
    return path


def put(filesystem: Any, root: str, sources: Mapping[str, Source]) -> dict[str, File]:
    """Store local files, bytes or what open files hold under names below `root`; return what was really stored.

    None appears under its name before it is whole. Raises `UnsafePath`, `ArtifactNotFound` or `ArtifactError`.
    """
    places = {name: path_in(filesystem, root, name) for name in sources}
    total = sum(map(_size, sources.values()))
    for folder in sorted({path.rpartition("/")[0] for path in places.values()}):
        with _saying("cannot make folder", folder):
            filesystem.makedirs(folder, exist_ok=True)

    def one(name: str, tick: Tick) -> File:
        with _saying("cannot store", places[name]):
            return _put(filesystem, places[name], sources[name], tick)

    return dict(zip(places, _each(one, list(places), total, "storing"), strict=True))


def _size(source: Source) -> int:
    return check_file(source) if isinstance(source, Path) else len(source) if isinstance(source, bytes) else 0


def _put(filesystem: Any, path: str, source: Source, tick: Tick) -> File:
    if isinstance(source, Path) and hasattr(filesystem, "put_hashed"):
        digest, size = filesystem.put_hashed(str(source), path, callback=_callback(tick))
        return File(filesystem, path, size, digest)
    whole = getattr(filesystem, "atomic_put", False)
    written = path if whole else temporary_beside(path)
    try:
        with _reader(source) as data, filesystem.open(written, "wb") as file:
            digest, size = _digest(data, tick, file.write)
        if not whole:
            if filesystem.isdir(path):
                raise IsADirectoryError(21, "there is a folder of that name")  # into which some would move it
            _rename(filesystem, written, path)
    except BaseException:
        if not whole:
            with suppress(Exception):
                filesystem.rm_file(written)
        raise
    return File(filesystem, path, size, digest)


def _reader(source: Source) -> IO[bytes]:
    if isinstance(source, Path):
        return open(source, "rb", buffering=0)
    return BytesIO(source) if isinstance(source, bytes) else source


def _rename(filesystem: Any, old: str, new: str) -> None:
    from fsspec import AbstractFileSystem

    if type(filesystem).mv is not AbstractFileSystem.mv:
        filesystem.mv(old, new)
    else:  # fsspec's own would take brackets and stars in a name for a pattern
        filesystem.cp_file(old, new)
        filesystem.rm_file(old)


def _digest(data: IO[bytes], tick: Tick, write: Callable[[bytes], object] = len) -> tuple[str, int]:
    import hashlib

    digest, size = hashlib.sha256(), 0
    while chunk := data.read(_CHUNK):
        write(chunk)
        digest.update(chunk)
        size += len(chunk)
        tick(len(chunk))
    return digest.hexdigest(), size


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
    names = {root.rpartition("/")[2] if path == root else path.removeprefix(f"{root}/"): path for path in found}
    files = {name: File(filesystem, path, found[path]["size"] or 0) for name, path in sorted(names.items())}
    return {safe_path(name): file for name, file in files.items() if not is_temporary(name)}


def hash_files(files: Mapping[str, File]) -> dict[str, File]:
    """Read files where they are, and return them with the size and sha256 that they have. Raises `ArtifactError`."""
    total = sum(file.size for file in files.values())
    found = _each(lambda name, tick: _hashed(files[name], tick), list(files), total, "reading")
    return dict(zip(files, found, strict=True))


def check(files: Mapping[str, File]) -> dict[str, str]:
    """Read files where they are; return what is wrong with those that are not as they should be, by name."""

    def one(name: str, tick: Tick) -> str:
        try:
            return "" if _hashed(files[name], tick).sha256 == files[name].sha256 else "is not what was stored"
        except ArtifactNotFound:
            return "is missing"
        except ArtifactError as error:
            return str(error)

    found = _each(one, list(files), sum(file.size for file in files.values()), "checking")
    return {name: wrong for name, wrong in zip(files, found, strict=True) if wrong}


def _hashed(file: File, tick: Tick) -> File:
    with _saying("cannot read", file.path), file.filesystem.open(file.path, "rb") as data:
        digest, size = _digest(data, tick)
    return attrs.evolve(file, sha256=digest, size=size)


def open_file(file: File) -> BinaryIO:
    """Open a file to read its bytes where it is. Raises `ArtifactNotFound` or `ArtifactError`."""
    with _saying("cannot open", file.path):
        return file.filesystem.open(file.path, "rb")  # type: ignore[no-any-return]


def get(files: Mapping[str, File], folder: Path) -> None:
    """Copy files into a folder by their names, and nowhere else; one that is there already is not copied again.

    Raises `DigestMismatch`, `UnsafePath`, `ArtifactNotFound` or `ArtifactError`.
    """
    base = Path(os.path.realpath(folder))
    with _saying("cannot make", str(folder)):
        base.mkdir(parents=True, exist_ok=True)

    def one(name: str, tick: Tick) -> None:
        file, target = files[name], folder / safe_path(name)
        if not Path(os.path.realpath(target.parent)).is_relative_to(base):
            raise UnsafePath(f"{name!r} would lead out of {folder}, by a link in it")
        if file.sha256 and target.is_file() and not target.is_symlink() and hash_file(target) == file.sha256:
            return tick(file.size)
        part = Path(temporary_beside(str(target)))
        try:
            with _saying("cannot get", file.path):
                target.parent.mkdir(parents=True, exist_ok=True)
                file.filesystem.get_file(file.path, str(part), callback=_callback(tick))
                if file.sha256 and hash_file(part) != file.sha256:
                    raise DigestMismatch(f"{file.path} is not what was stored: its sha256 differs")
                os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return None

    _each(one, list(files), sum(file.size for file in files.values()), "getting")


def _each(work: Callable[[_T, Tick], _R], items: Sequence[_T], total: int, label: str) -> list[_R]:
    """Do the work for all items, some of them at once; a failure, or Ctrl-C, stops the others."""
    from concurrent.futures import ThreadPoolExecutor

    stopped = False
    with _progress(total, len(items), label) as advance:

        def tick(count: int) -> None:
            if stopped:
                raise ArtifactError(f"stopped {label}, as another file failed")
            advance(count)

        if len(items) < 2:
            return [work(each, tick) for each in items]
        with ThreadPoolExecutor(min(_THREADS, len(items))) as pool:
            futures = [pool.submit(work, each, tick) for each in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stopped = True
                pool.shutdown(cancel_futures=True)
                raise


@contextmanager
def _progress(total: int, count: int, label: str) -> Iterator[Tick]:
    if (total < _LONG[0] and count < _LONG[1]) or not sys.stderr.isatty():
        yield lambda _: None
        return
    import threading

    import click

    lock = threading.Lock()
    with click.progressbar(length=max(total, 1), label=label, file=sys.stderr) as bar:

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        yield advance


def _callback(tick: Tick) -> Any:
    from fsspec.callbacks import Callback

    told = 0

    def tell(_: int | None, value: int, **__: Any) -> None:
        nonlocal told
        tick(value - told)
        told = value

    return Callback(hooks={"tick": tell})


@contextmanager
def _saying(what: str, path: str) -> Iterator[None]:
    """Turn what a filesystem raises into what mlcore does."""
    try:
        yield
    except MlcoreError:
        raise
    except FileNotFoundError as error:
        raise ArtifactNotFound(f"{what} {path}: {error.filename or path} is not there") from error
    except Exception as error:  # its library may raise anything
        raise ArtifactError(f"{what} {path}: {getattr(error, 'strerror', None) or repr(error)}") from error
