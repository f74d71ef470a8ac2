"""Models as one file: packed to the same bytes each time, and unpacked whole or not at all.

A pack is a tar archive in the POSIX (pax) format, as it is or in gzip. What is unpacked may come from anybody, so it is
read here, header by header, and not by `tarfile.extractall`: there is nothing in it but files, or it is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import IO, BinaryIO, cast

import attrs

import mlcore
from mlcore.artifacts import files_in, hash_file, safe_path, temporary_beside
from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, InvalidValue, UnsafePath
from mlcore.models import ModelInfo, check_signed, read_model

__all__ = ["pack", "unpack"]

_TIME = 315_532_800  # 1980-01-01: the same in all archives, and what other tools do not find strange
_BYTECODE = "__pycache__"  # of no digest, and run by whoever imports what is beside it
_BLOCK, _CHUNK = 512, 1 << 20
_FILES = 100_000  # members of an archive at most
_HEADER = 1 << 16  # bytes of an extended header at most
_TIMES, _SPARE = 64, 100_000_000  # what a file unpacks to at most: so many times its size, and this
_GZIP = b"\x1f\x8b"
_SUFFIXES = {".tar": False, ".tar.gz": True, ".tgz": True}
_IGNORED = re.compile(r"[amc]time|[ug]id|[ug]name|comment|LIBARCHIVE\..*|SCHILY\.xattr\..*")


def pack(model: ModelInfo | str | os.PathLike[str], target: str | os.PathLike[str]) -> str:
    """Write a model into one file, ``.tar`` or ``.tar.gz``; return the sha256 of the file.

    `model` is what `mlcore.get_model` takes or returns. The bytes are the same whenever and wherever the same model is
    packed; those of a ``.tar.gz`` where zlib is of the same version. A file that is there is replaced.
    Raises `DigestMismatch` if the model is not as it was saved, `InvalidValue` for another suffix, and `ArtifactError`.
    """
    info = model if isinstance(model, ModelInfo) else mlcore.get_model(model)
    path = Path(target).absolute()
    found = [suffix for suffix in _SUFFIXES if path.name.endswith(suffix) and path.name != suffix]
    if not found:
        raise InvalidValue(f"{path.name} names no kind of archive: let it end in {', '.join(_SUFFIXES)}")
    if path.resolve().is_relative_to(info.folder.resolve()):
        raise InvalidValue(f"{path} is in the model itself: choose a place beside {info.folder}")
    info.verify()
    known = {**info.files}
    part = Path(temporary_beside(str(path)))
    try:
        with open(part, "xb") as file, _compressed(file, _SUFFIXES[found[0]]) as out:
            for name, each in files_in(info.folder).items():
                if _BYTECODE not in name.split("/"):
                    _add(out, name, each, known.get(name, ""))
            out.write(bytes(2 * _BLOCK))
        digest = hash_file(part)
        part.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return digest


def _compressed(file: BinaryIO, squeezed: bool) -> AbstractContextManager[IO[bytes]]:
    """Return what to write to; neither the name nor the time of the file stands in it."""
    if not squeezed:
        return nullcontext(file)
    return closing(cast("IO[bytes]", gzip.GzipFile("", "wb", 6, file, mtime=0)))


def _add(out: IO[bytes], name: str, path: Path, digest: str) -> None:
    """Add a file; what changes while it is read is not packed."""
    size, seen, count = path.stat().st_size, hashlib.sha256(), 0
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, _TIME, 0o644
    out.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
    with open(path, "rb", buffering=0) as data:
        while chunk := data.read(_CHUNK):
            out.write(chunk)
            seen.update(chunk)
            count += len(chunk)
    if count != size or seen.hexdigest() != (digest or seen.hexdigest()):
        raise DigestMismatch(f"{path} was changed while it was packed")
    out.write(bytes(-size % _BLOCK))


def unpack(file: str | os.PathLike[str], folder: str | os.PathLike[str], *, limit: int | None = None) -> ModelInfo:
    """Unpack a model into a new or empty folder, which appears whole or not at all; nothing of it is run.

    What leads out of the folder, is no plain file, has the name of another, or no model is refused; so is a model whose
    files are not as it was saved. `limit` is how many bytes it may have, by default 64 times those of the file and
    100 MB. Raises `UnsafePath`, `DigestMismatch`, `NotAModel` or `ArtifactError`.
    """
    source, target = Path(file).absolute(), Path(folder).absolute()
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise ArtifactError(f"{target} is there already: a model is unpacked into a new or an empty folder")
    temporary = None
    try:
        with open(source, "rb") as packed:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(
                tempfile.mkdtemp(prefix=".mlcore-unpack-", dir=target.parent)
            )  # for nobody else to look into
            made = temporary / "model"
            made.mkdir()
            most = os.fstat(packed.fileno()).st_size * _TIMES + _SPARE if limit is None else limit
            _extract(_Reader.of(packed, source, most), made)
        signed = check_signed(made, {})
        read_model(made).verify(signed)
        made.rename(target)
    except FileNotFoundError as error:
        raise ArtifactNotFound(f"cannot unpack {source}: there is no {error.filename}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"cannot unpack {source}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return read_model(target)


@attrs.define
class _Reader:
    """Read exactly so many bytes, and of all no more than `left`."""

    data: IO[bytes]
    path: Path
    left: int

    @classmethod
    def of(cls, file: BinaryIO, path: Path, most: int) -> _Reader:
        squeezed = file.read(2) == _GZIP
        file.seek(0)
        return cls(cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if squeezed else file, path, most)

    def wrong(self, what: str) -> ArtifactError:
        return ArtifactError(f"cannot unpack {self.path}: {what}")

    def want(self, size: int) -> None:
        """Raise if `size` more bytes are too many, before any of them is read."""
        if size > self.left:
            raise self.wrong("it holds more than its limit of bytes; if you trust it, give a higher limit")

    def read(self, size: int) -> bytes:
        self.want(size)
        self.left -= size
        found = self.data.read(size)
        if len(found) != size:
            raise self.wrong("it ends too early")
        return found

    def finish(self) -> None:
        """Read what follows the end, which is nothing but zeros, so that a checksum at its very end is compared."""
        while chunk := self.data.read(_CHUNK):
            self.want(len(chunk))
            self.left -= len(chunk)
            if chunk.strip(b"\0"):
                raise self.wrong("something follows the end of the archive")


def _extract(reader: _Reader, folder: Path) -> None:
    """Write the files of an archive into an empty folder."""
    names = dict[str, str]()
    for name, size in _members(reader):
        if name is None:
            continue
        _check(names, name)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as out:
            left = size
            while left:
                chunk = reader.read(min(left, _CHUNK))
                out.write(chunk)
                left -= len(chunk)
        reader.read(-size % _BLOCK)
    reader.finish()


def _check(names: dict[str, str], name: str) -> None:
    """Note a file and its folders. Raises `UnsafePath` if one would take the place of another, on any system."""
    parts = safe_path(name).split("/")
    if _BYTECODE in parts:
        raise UnsafePath(f"{name!r} is bytecode, which no digest covers and any import would run")
    for path in [*("/".join(parts[:count]) + "/" for count in range(1, len(parts))), name]:
        key = unicodedata.normalize("NFC", path).casefold().rstrip("/")
        if key in names and (path == name or names[key] != path):
            raise UnsafePath(f"{name!r} would take the place of {names[key]!r}")
        names[key] = path


def _members(reader: _Reader) -> Iterator[tuple[str | None, int]]:
    """Yield name and size of each file, whose content is to be read before the next, and None for a folder."""
    extended = dict[str, str]()
    for _ in range(_FILES):
        block = reader.read(_BLOCK)
        if not block.strip(b"\0"):
            if reader.read(_BLOCK).strip(b"\0"):
                raise reader.wrong("something follows the end of the archive")
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise reader.wrong(f"it is no tar archive of files: {error}") from error
        if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME) and not extended:
            extended = _extension(reader, header)
            continue
        name = extended.get("path", header.name).removeprefix("./")
        size = int(extended.get("size", header.size))
        extended = {}
        if header.type == tarfile.DIRTYPE and not size:
            yield None, 0  # its files make it
        elif header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or size < 0:
            raise UnsafePath(f"cannot unpack {reader.path}: {name!r} is no plain file")
        else:
            reader.want(size)
            yield name, size
    raise reader.wrong(f"it has more than {_FILES:,} members")


def _extension(reader: _Reader, header: tarfile.TarInfo) -> dict[str, str]:
    """Return what an extended header says of the member that follows: its name and size, and nothing that matters."""
    if not 0 <= header.size <= _HEADER:
        raise reader.wrong(f"a header of {header.size:,} bytes is none of a file")
    text = reader.read(header.size + -header.size % _BLOCK)[: header.size]
    try:
        if header.type == tarfile.GNUTYPE_LONGNAME:
            return {"path": text.rstrip(b"\0").decode()}
        found = dict(_records(text))
    except ValueError as error:
        raise reader.wrong(f"a header of it cannot be read: {error}") from error
    if strange := [key for key in found if key not in ("path", "size") and not _IGNORED.fullmatch(key)]:
        raise reader.wrong(f"it uses {strange[0]!r}, which no model needs")
    if not found.get("size", "0").isdecimal():
        raise reader.wrong(f"a file has {found['size']!r:.40} bytes")
    return found


def _records(text: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records of a pax header, each ``<length> <key>=<value>`` and a newline."""
    while text:
        digits = text.partition(b" ")[0]
        size = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        key, separator, value = text[len(digits) + 1 : max(size - 1, 0)].partition(b"=")
        if not separator or text[size - 1 : size] != b"\n":
            raise ValueError(f"{text[:40]!r} is no record")
        yield key.decode(), value.decode()
        text = text[size:]
