"""Files of runs in any filesystem of fsspec: a bucket, a share, another server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from mlcore.artifacts import is_temporary, safe_path, temporary_beside
from mlcore.errors import UnsafePath
from mlcore.store import from_json, to_json
from mlcore_server.kept import (
    ID,
    Found,
    Gone,
    Incomplete,
    Interval,
    Link,
    Linked,
    Part,
    Place,
    Replaced,
    Staged,
    Staging,
    gaps,
    merged,
    sha256_of,
)
from mlcore_server.signing import Signer

__all__ = ["FarPart", "FarPlace", "FarReader", "FarStaging", "FarWriting", "look", "move"]

_DIRECT = re.compile(r"([0-9]{1,19})-([0-9]{1,19})-([0-9a-f]{32})")
_MD5 = re.compile(r"[0-9a-f]{32}")
_BLOCK = 8 << 20  # a request to a bucket, of which the answer takes about as long for one byte


class FarPlace(Place):
    """Hold the files of a run in a folder of an fsspec filesystem, which several threads may use at once."""

    def __init__(self, filesystem: Any, root: str, uploads: str, signer: Signer | None = None) -> None:
        self._filesystem, self._root, self._uploads = filesystem, root.rstrip("/"), uploads.rstrip("/")
        self._signer = signer

    def open(self, name: str) -> FarReader:
        """See `Place.open`."""
        return FarReader(self._filesystem, f"{self._root}/{name}", self._about(name)[1])

    def _about(self, name: str) -> tuple[dict[str, Any], Found]:
        look(self._filesystem, f"{self._root}/{name}")
        about = self._filesystem.info(f"{self._root}/{name}")
        if about["type"] != "file":
            raise FileNotFoundError(2, "no file", name)
        size = int(about["size"] or 0)
        return about, Found(size, _version(about), direct=self._signer is not None and self._signer.part(size) > 0)

    def link(self, name: str) -> Linked | None:
        """See `Place.link`."""
        about, found = self._about(name)
        if self._signer is None or not found.direct:
            return None
        return Linked(self._signer.link(f"{self._root}/{name}", "GET"), found, _tag(about))

    def join(self, paths: Sequence[str], staged: Staged) -> bool:
        """Let the filesystem make the file of objects that it has, in this order; False if it cannot."""
        target = self._free(staged.path)
        if len(paths) == 1:
            self._filesystem.cp_file(paths[0], target)
        else:
            try:
                self._filesystem.join(list(paths), target)
            except (AttributeError, NotImplementedError):
                return False
        return True

    def files(self, prefix: str) -> dict[str, int]:
        """See `Place.files`."""
        self._filesystem.invalidate_cache()
        path = f"{self._root}/{prefix}".rstrip("/")
        try:
            found = self._filesystem.find(path, detail=True)
        except FileNotFoundError:
            return {}
        sizes = dict[str, int]()
        for each, about in found.items():
            with contextlib.suppress(UnsafePath):
                name = each.removeprefix(f"{self._root}/")
                if each != self._root and not is_temporary(name):
                    sizes[safe_path(name)] = about["size"] or 0
        return sizes

    def write(self, name: str) -> FarWriting:
        """See `Place.write`."""
        return FarWriting(self._filesystem, self._free(name))

    def _free(self, name: str) -> str:
        """Return the path of a file that may be written: no folder is there, and no file where its folder has to be."""
        path = f"{self._root}/{name}"
        if self._filesystem.isdir(path):
            raise IsADirectoryError(21, "Is a directory", path)
        if getattr(self._filesystem, "files_beside_folders", False):  # others look themselves
            above = name.split("/")[:-1]
            for count in range(1, len(above) + 1):
                if self._filesystem.isfile("/".join([self._root, *above[:count]])):
                    raise NotADirectoryError(20, "Not a directory", path)
        return path

    def remove(self, name: str) -> None:
        """See `Place.remove`."""
        self.open(name).close()  # what is no file is not removed
        self._filesystem.rm_file(f"{self._root}/{name}")

    def free(self) -> int | None:
        """See `Place.free`."""
        return None

    def staging(self) -> FarStaging:
        """See `Place.staging`."""
        return FarStaging(self._filesystem, self._uploads, self._signer)


class FarReader:
    """Read a file in blocks, each by a question of its own: handles of some filesystems share their position."""

    def __init__(self, filesystem: Any, path: str, found: Found) -> None:
        self._filesystem, self._path = filesystem, path
        self._start, self._block = 0, b""
        self.found = found

    def read(self, offset: int, count: int) -> bytes:
        """See `Reader.read`."""
        inner = offset - self._start
        if not 0 <= inner < len(self._block):
            end = min(offset + max(count, _BLOCK), self.found.size)
            self._block = bytes(self._filesystem.cat_file(self._path, start=offset, end=end)) if end > offset else b""
            self._start, inner = offset, 0
            look(self._filesystem, self._path)
            if _version(self._filesystem.info(self._path)) != self.found.etag:
                raise Replaced(f"{self._path} was replaced while it was read")
        return self._block[inner : inner + count]

    def close(self) -> None:
        """See `Reader.close`."""
        self._block = b""


def look(filesystem: Any, path: str) -> None:
    """Let the filesystem forget what it knew of a file, which others may have changed."""
    filesystem.invalidate_cache(path.rpartition("/")[0])


def _tag(about: dict[str, Any]) -> str:
    """Return the ETag that a bucket has for an object, empty if it tells none."""
    return str(next((about[name] for name in ("ETag", "etag", "e_tag") if about.get(name)), "")).strip('"')


def _version(about: dict[str, Any]) -> str:
    """Return what is another one for another file: what tells versions apart has many names, and any will do."""
    told = sorted((key, str(value)) for key, value in about.items() if key != "name")
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


class FarWriting:
    """Write a file, under a hidden name beside its own if the filesystem shows what is not whole."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem, self._target = filesystem, path
        whole = getattr(filesystem, "atomic_put", False)
        self._path = path if whole else temporary_beside(path)
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._file = filesystem.open(self._path, "wb")

    def write(self, data: bytes) -> None:
        """See `Writing.write`."""
        self._file.write(data)

    def commit(self, sha256: str) -> None:
        """See `Writing.commit`."""
        file, self._file = self._file, None
        file.close()
        if self._path != self._target:
            move(self._filesystem, self._path, self._target)
        self._path = ""

    def discard(self) -> None:
        """See `Writing.discard`."""
        with contextlib.suppress(Exception):  # whatever its library raises when a file is broken off
            if self._file is not None:
                error, self._file = ConnectionAbortedError("the sender went away"), self._file
                self._file.__exit__(type(error), error, None)
        self._file = None
        if self._path not in ("", self._target):
            with contextlib.suppress(Exception):
                self._filesystem.rm_file(self._path)
            self._path = ""


def move(filesystem: Any, old: str, new: str) -> None:
    """Move a file to another name, over what has it."""
    from fsspec import AbstractFileSystem

    if type(filesystem).mv is not AbstractFileSystem.mv:
        filesystem.mv(old, new)
    else:
        filesystem.cp_file(old, new)  # fsspec's own would take brackets and stars in a name for a pattern
        filesystem.rm_file(old)


class FarStaging(Staging):
    """Keep each upload in a folder: `state.json`, and a file for each part, whose name says where it begins.

    The name of a part that went past the server says also what it has to be, as ``OFFSET-SIZE-MD5``: it counts if it
    is that.
    """

    def __init__(self, filesystem: Any, uploads: str, signer: Signer | None = None) -> None:
        self._filesystem, self._uploads, self._signer = filesystem, uploads.rstrip("/"), signer

    def direct_part(self, size: int) -> int:
        """See `Staging.direct_part`."""
        return 0 if self._signer is None else self._signer.part(size)

    def direct(self, id: str) -> list[Part]:
        """See `Staging.direct`."""
        return [part for _, _, path in self._parts(id) if (part := _named(path)) is not None]

    def link(self, id: str, part: Part) -> Link:
        """See `Staging.link`."""
        if self._signer is None:
            return super().link(id, part)
        return self._signer.link(f"{self._uploads}/{id}/{part.offset}-{part.size}-{part.md5}", "PUT")

    def create(self, staged: Staged) -> None:
        """See `Staging.create`."""
        folder = f"{self._uploads}/{staged.id}"
        self._filesystem.makedirs(folder, exist_ok=True)
        self._filesystem.pipe_file(f"{folder}/state.json", to_json({**attrs.asdict(staged), "time": time.time()}))

    def find(self, id: str) -> Staged:
        """See `Staging.find`."""
        return Staged(**{name: value for name, value in self._state(id).items() if name != "time"})

    def _state(self, id: str) -> dict[str, Any]:
        try:
            return dict(from_json(self._filesystem.cat_file(f"{self._uploads}/{id}/state.json")))
        except (FileNotFoundError, ValueError) as error:
            raise Gone(id) from error

    def received(self, id: str) -> list[Interval]:
        """See `Staging.received`."""
        return merged([(start, end) for start, end, _ in self._parts(id)])

    def _parts(self, id: str) -> list[tuple[int, int, str]]:
        self._filesystem.invalidate_cache()
        found = []
        with contextlib.suppress(FileNotFoundError):
            for about in self._filesystem.ls(f"{self._uploads}/{id}", detail=True):
                start, dash, _ = about["name"].rpartition("/")[2].partition("-")
                part, size = _named(about["name"]), int(about["size"] or 0)
                if dash and (part is None or (part.size == size and _is(about, part))):
                    found.append((int(start), int(start) + size, about["name"]))
        return sorted(found)

    def part(self, id: str, offset: int, *, checked: bool) -> FarPart:
        """See `Staging.part`."""
        self._state(id)
        return FarPart(self._filesystem, f"{self._uploads}/{id}/{offset}-{os.urandom(8).hex()}", checked)

    def complete(self, staged: Staged, place: Place) -> None:
        """See `Staging.complete`; the parts are read, and written as one file."""
        parts = self._parts(staged.id)
        if missing := gaps([(start, end) for start, end, _ in parts], staged.size):
            raise Incomplete(f"bytes are missing of {staged.path}: {missing[:10]}")
        try:
            if self._joined(staged, parts, place):
                return self.remove(staged.id)
        except FileNotFoundError as error:
            raise Gone(staged.id) from error  # another server was faster
        writing = place.write(staged.path)
        try:
            writing.commit(sha256_of(self._chunks(parts, staged.size), staged, writing.write))
        except FileNotFoundError as error:
            raise Gone(staged.id) from error  # another server was faster
        finally:
            writing.discard()
        return self.remove(staged.id)

    def _joined(self, staged: Staged, parts: list[tuple[int, int, str]], place: Place) -> bool:
        """Let the bucket make the file, if all of it went past this server and so was checked by its sender."""
        assert isinstance(place, FarPlace)
        ends = [0, *(end for _, end, _ in parts)]
        fits = ends[-1] == staged.size and all(start == end for (start, _, _), end in zip(parts, ends, strict=False))
        if not fits or not parts or any(_named(path) is None for _, _, path in parts):
            return False
        return place.join([path for _, _, path in parts], staged)

    def _chunks(self, parts: list[tuple[int, int, str]], size: int) -> Iterator[bytes]:
        offset = 0
        for start, end, path in parts:
            while offset < min(end, size):
                stop = min(offset + _BLOCK, end, size)
                yield self._filesystem.cat_file(path, start=offset - start, end=stop - start)
                offset = stop

    def remove(self, id: str) -> None:
        """See `Staging.remove`."""
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm(f"{self._uploads}/{id}", recursive=True)

    def clean(self, before: float) -> int:
        """See `Staging.clean`; of what was begun before, as not every filesystem tells when a file was written.

        What nobody announced goes at once: a link was used once more after its file was made.
        """
        count = 0
        self._filesystem.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            for path in self._filesystem.ls(self._uploads, detail=False):
                id = path.rstrip("/").rpartition("/")[2]
                if ID.fullmatch(id) and self._begun(id) < before:
                    self.remove(id)
                    count += 1
        return count

    def _begun(self, id: str) -> float:
        try:
            return float(self._state(id)["time"])
        except Gone:
            return 0.0


def _named(path: str) -> Part | None:
    """Return what the name of a part says that it is, None if it came through a server."""
    fit = _DIRECT.fullmatch(path.rpartition("/")[2])
    return None if fit is None else Part(int(fit[1]), int(fit[2]), fit[3])


def _is(about: dict[str, Any], part: Part) -> bool:
    """Tell whether an object is the part that its name says, by its ETag if that is an MD5."""
    tag = _tag(about)
    return tag == part.md5 or not _MD5.fullmatch(tag)


class FarPart:
    """Write a part as a file of its own; what was written before its sender went away is its beginning."""

    def __init__(self, filesystem: Any, path: str, checked: bool) -> None:
        self._filesystem, self._path, self._checked = filesystem, path, checked
        self._file = filesystem.open(path, "wb")

    def write(self, data: bytes) -> None:
        """See `Writing.write`."""
        self._file.write(data)

    def commit(self, sha256: str) -> None:
        """Let the part count."""
        self._checked = False
        self._file.close()

    def discard(self) -> None:
        """Let what there is of it count, if that may be."""
        self._file.close()
        if self._checked:
            self._filesystem.rm_file(self._path)
