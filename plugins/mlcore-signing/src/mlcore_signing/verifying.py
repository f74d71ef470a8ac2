"""Compare what is in a folder with what was signed, before anything of it is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlcore.artifacts import is_temporary
from mlcore.errors import BadSignature
from mlcore.models import SIGNATURE
from mlcore_signing.bundles import LARGEST, Signed, open_bundle
from mlcore_signing.keys import public_key

__all__ = ["check_files", "hash_model", "verify_folder"]

_THREADS = min(8, os.cpu_count() or 1)


def check_files(folder: Path, keys: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    """Return the sha256 of every file of a model, by name; see `mlcore.hookspecs.mlcore_verifiers`."""
    return verify_folder(folder, keys).files


def verify_folder(folder: Path, keys: Mapping[str, Sequence[str]]) -> Signed:
    """Return what was signed, after all files of a model were found to be that, and no others to be there.

    `keys` are public ones, as PEM or paths, by who requires one of them. Every file counts, hidden ones too, whatever
    the signature says is to be ignored. Raises `BadSignature`, or `ConfigError` for what is no key.
    """
    try:
        wanted = {who: [public_key(each, who) for each in some] for who, some in keys.items()}
        content = _signature(folder)
        found = [open_bundle(content, some, who) for who, some in wanted.items()]
        if not found:
            raise BadSignature("no key was given to check it with")
        _compare(folder, found[0].files)
    except BadSignature as error:
        raise BadSignature(f"model {folder} is refused: {error}") from error
    return found[0]


def hash_model(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder but its signature, by name. Raises `BadSignature` for links."""
    return _hashed(folder, sorted(_names(folder)))


def _signature(folder: Path) -> bytes:
    try:
        with os.fdopen(_opened(folder / SIGNATURE), "rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise BadSignature(
            f"it is not signed: there is no {SIGNATURE} in it; who made it signs it with `mlcore models sign`"
        ) from None
    except OSError as error:
        raise BadSignature(f"its {SIGNATURE} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise BadSignature(f"its {SIGNATURE} has more than {LARGEST:,} bytes")
    return content


def _compare(folder: Path, signed: Mapping[str, str]) -> None:
    there = _names(folder)
    told = {f"{name!r} is missing" for name in signed.keys() - there}
    told |= {f"{name!r} was added" for name in there - signed.keys()}
    if not told:  # which is known without reading a byte
        now = _hashed(folder, sorted(signed))
        told = {f"{name!r} was changed" for name, digest in now.items() if signed[name] != digest}
    if told:
        more = f", and {len(told) - 10} more" if len(told) > 10 else ""
        remedy = "get it anew, or let who signed it look at it and sign again"
        raise BadSignature(f"it is not what was signed: {', '.join(sorted(told)[:10])}{more}; {remedy}")


def _names(folder: Path) -> set[str]:
    try:
        return set(_walk(folder))
    except OSError as error:
        raise BadSignature(f"{error.filename or folder} cannot be read: {error.strerror}") from error


def _walk(folder: Path) -> Iterator[str]:
    """Yield the names of all files, but those that mlcore is writing and never reads. Raises `BadSignature`."""
    waiting = [""]  # and no recursion: a folder may be deeper than Python's stack
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                if is_temporary(name) or name == SIGNATURE:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield name
                else:
                    raise BadSignature(f"{name!r} is a link or a device, and only files can be signed")


def _hashed(folder: Path, names: Sequence[str]) -> dict[str, str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: _hash(folder, name), names), strict=True))


def _hash(folder: Path, name: str) -> str:
    try:
        with os.fdopen(_opened(folder / name), "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadSignature(f"{name!r} cannot be read: {error.strerror}") from error


def _opened(path: Path) -> int:
    """Open a file that is one itself: a link that took its place since is not followed, of a pipe nothing is read."""
    number = os.open(
        path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise BadSignature(f"{path.name!r} is no regular file")
    return number
