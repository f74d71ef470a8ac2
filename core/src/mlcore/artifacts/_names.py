"""Names of files that stay within their root, and what the files of a folder are."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlcore.errors import ArtifactError, ArtifactNotFound, InvalidValue, MlcoreError, UnsafePath
from mlcore.journal import check_key

__all__ = ["check_file", "files_in", "hash_file", "hash_folder", "is_temporary", "safe_path", "temporary_beside"]

_TEMPORARY = re.compile(r"(^|/)\.mlcore-[0-9a-f]{16}\.tmp(/|$)")
_UNSAFE = re.compile(r"\\|^[A-Za-z]:|^/|//|/$|[. ](/|$)")


def safe_path(name: str | os.PathLike[str]) -> str:
    """Return a name that stays below any root, on any system: posix, relative, at most 250 characters.

    Raises `UnsafePath` for what is absolute, has a drive letter, a backslash, control characters, or a part that is
    empty, ``.``, ``..`` or ends with a dot or a space.
    """
    try:
        text = check_key(os.fspath(name))
    except (InvalidValue, TypeError) as error:
        raise UnsafePath(f"{name!r:.80} cannot name a file: {error}") from None
    if _UNSAFE.search(text) or is_temporary(text):
        raise UnsafePath(f"{text!r} cannot name a file: give a relative path like 'plots/loss.png', without '..'")
    return text


def temporary_beside(path: str) -> str:
    """Return a new hidden name in the folder of `path`, for what is not whole yet."""
    return f"{path.rpartition('/')[0]}/.mlcore-{os.urandom(8).hex()}.tmp"


def is_temporary(name: str) -> bool:
    """Tell whether a file is one that was being written, or was left half written by a process that died."""
    return _TEMPORARY.search(name) is not None


@contextmanager
def saying(what: str, path: object) -> Iterator[None]:
    """Turn what a filesystem raises, which may be anything, into what mlcore does."""
    try:
        yield
    except MlcoreError:
        raise
    except FileNotFoundError as error:
        raise ArtifactNotFound(f"{what} {path}: there is no file {error.filename or path}") from error
    except Exception as error:
        raise ArtifactError(f"{what} {path}: {getattr(error, 'strerror', None) or repr(error)}") from error


def check_file(path: Path) -> int:
    """Return the size of a regular file. Raises `ArtifactNotFound`, or `UnsafePath` for a device, pipe or folder."""
    with saying("cannot read", path):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePath(f"{path} is no regular file")
    return status.st_size


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a regular file in hexadecimal digits. Raises `ArtifactError`."""
    import hashlib

    check_file(Path(path))
    with saying("cannot read", path), open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by its name; see `files_in`."""
    return {name: hash_file(path) for name, path in files_in(folder).items()}


def files_in(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return every file below a folder by its name: relative, posix, sorted.

    A link to what is inside the folder counts as what it leads to. Raises `UnsafePath` for one that leads out,
    nowhere or in circles, for devices and pipes, and for names that `safe_path` refuses.
    """
    with saying("cannot read folder", folder):
        return dict(sorted(_walk(Path(folder), "", (Path(os.path.realpath(folder)),))))


def _walk(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    for entry in list(os.scandir(folder)):
        name, real = prefix + entry.name, folder / entry.name
        if entry.is_symlink():
            real = Path(os.path.realpath(real))
            if not real.is_relative_to(above[0]) or real in above or not real.exists():
                raise UnsafePath(f"link {folder / entry.name} leads to {real}, which is no file inside {above[0]}")
        if is_temporary(name):
            continue
        if entry.is_dir():
            yield from _walk(real, f"{name}/", (*above, Path(os.path.realpath(real))))
        else:
            check_file(real)
            yield safe_path(name), real
