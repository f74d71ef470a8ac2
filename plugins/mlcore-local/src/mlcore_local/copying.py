"""Bring to one place the files that another has: those that it lacks, and those that are others there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol

import attrs

from mlcore import Client, Run, artifacts
from mlcore.errors import ArtifactError, ArtifactNotFound, DigestMismatch, InvalidValue
from mlcore_local import columns

__all__ = ["Entry", "Place", "Plan", "copy", "find_place", "plan"]

_FILES, _BYTES, _CHUNK = 100, 64 << 20, 1 << 20  # of a portion: what is open, or copied by the way, at once
_SCHEMES = ("runs:/", "models:/")


@attrs.frozen
class Entry:
    """Say what one file of a place is: its size, its sha256 or nothing where that is not recorded, and how it is read.

    `path` is where it lies on this machine, if it does.
    """

    size: int
    sha256: str
    open: Callable[[], IO[bytes]]
    path: Path | None = None


class Place(Protocol):
    """Hold files under names."""

    uri: str

    def entries(self) -> dict[str, Entry]:
        """Return the files that there are, by name."""

    def store(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        """Store files, each whole or not at all; return the sha256 of what was stored."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""


class _Uri:
    """Hold the files of a path, or of a URI that an artifact backend knows."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.filesystem, self.root = artifacts.open_backend(uri)

    def entries(self) -> dict[str, Entry]:
        try:
            found = artifacts.list_files(self.filesystem, self.root)
        except ArtifactNotFound:
            return {}
        return {name: self._entry(file) for name, file in found.items()}

    def _entry(self, file: artifacts.File) -> Entry:
        here = Path(file.path) if getattr(file.filesystem, "local_file", False) else None
        return Entry(file.size, file.sha256, lambda: artifacts.open_file(file), here)

    def store(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        with ExitStack() as opened:
            sources = {
                name: each.path if each.path is not None else opened.enter_context(each.open())
                for name, each in entries.items()
            }
            stored = artifacts.put(self.filesystem, self.root, sources)
        wrong = {name for name, file in stored.items() if entries[name].sha256 not in ("", file.sha256)}
        self.remove(wrong)
        return {name: file.sha256 for name, file in stored.items()}

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            path = artifacts.path_in(self.filesystem, self.root, name)
            try:
                self.filesystem.rm_file(path)
            except Exception as error:  # whatever its library raises
                raise ArtifactError(f"cannot remove {self.uri.rstrip('/')}/{name}: {error}") from error


class _RunFiles:
    """Hold the files of a run, or those of a folder of it."""

    def __init__(self, uri: str, run: Run, prefix: str) -> None:
        self.uri, self._run, self._prefix = uri, run, prefix

    def entries(self) -> dict[str, Entry]:
        found = self._run.artifacts.list(self._prefix)
        if [each.path for each in found] == [self._prefix]:  # a file
            start = self._prefix.rfind("/") + 1
        else:
            start = len(self._prefix) + bool(self._prefix)
        kept = self._run.artifacts
        return {
            each.path[start:]: Entry(each.size, each.sha256, lambda path=each.path: kept.open(path))  # type: ignore[misc]
            for each in found
        }

    def store(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        """See `Place.store`; copied by the way, as nothing is recorded before it is known to be whole."""
        with tempfile.TemporaryDirectory(prefix="mlcore-") as folder:
            digests = {name: _fetch(each, Path(folder, name)) for name, each in entries.items()}
            _check(entries, digests, self.uri)
            self._run.log_artifacts(folder, self._prefix)
        return digests

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            raise ArtifactError(f"{self.uri}/{name}: what a run kept stays with it; --delete is for other places")


def find_place(client: Client, text: str) -> Place:
    """Return the place that is meant: ``runs:/RUN/folder``, ``models:/NAME/3``, a path, or the URI of a backend."""
    source = text
    if text.startswith("models:/"):
        source = client.registry.version(text).source
    if not source.startswith("runs:/"):
        return _Uri(source)
    id, _, prefix = source.removeprefix("runs:/").strip("/").partition("/")
    if not id:
        raise InvalidValue(f"{text!r} names no run: give runs:/RUN, or runs:/RUN/FOLDER")
    run = columns.find_run(client, id)
    return _RunFiles(f"runs:/{run.id}/{prefix}".rstrip("/"), run, artifacts.safe_path(prefix) if prefix else "")


@attrs.frozen
class Plan:
    """Say what is to be done: files that are copied, those that are the same in both, and those that are removed."""

    copied: Mapping[str, Entry]
    same: int
    removed: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many bytes are copied."""
        return sum(each.size for each in self.copied.values())


def plan(source: Place, target: Place, *, delete: bool = False, size_only: bool = False) -> Plan:
    """Compare two places. Raises `ArtifactNotFound` if `source` has no file, so that nothing is emptied by mistake."""
    if delete and _within(source, target):
        raise InvalidValue(f"{source.uri} and {target.uri} lie in one another: nothing is deleted there")
    theirs = source.entries()
    if not theirs:
        raise ArtifactNotFound(f"there are no files at {source.uri}")
    ours = target.entries()
    alike = [name for name, each in theirs.items() if name in ours and ours[name].size == each.size]
    same = {name for name in alike if size_only or _digest(theirs[name]) == _digest(ours[name])}
    extra = tuple(sorted(ours.keys() - theirs.keys())) if delete else ()
    return Plan({name: each for name, each in theirs.items() if name not in same}, len(same), extra)


def copy(planned: Plan, target: Place) -> Iterator[int]:
    """Do what was planned; yield how many bytes each portion had. What was stored before it stops is not sent again."""
    for portion in _portions(planned.copied):
        _check(portion, target.store(portion), target.uri)
        yield sum(each.size for each in portion.values())
    target.remove(planned.removed)


def _within(one: Place, other: Place) -> bool:
    if not isinstance(one, _Uri) or not isinstance(other, _Uri) or type(one.filesystem) is not type(other.filesystem):
        return False
    left, right = (f"{each.root.rstrip('/')}/" for each in (one, other))
    return left.startswith(right) or right.startswith(left)


def _portions(entries: Mapping[str, Entry]) -> Iterator[dict[str, Entry]]:
    portion, size = dict[str, Entry](), 0
    for name, each in entries.items():
        if portion and (len(portion) >= _FILES or size + each.size > _BYTES):
            yield portion
            portion, size = {}, 0
        portion[name] = each
        size += each.size
    if portion:
        yield portion


def _digest(entry: Entry) -> str:
    return entry.sha256 or _read(entry, len)


def _read(entry: Entry, write: Callable[[bytes], Any]) -> str:
    digest = hashlib.sha256()
    with entry.open() as data:
        while chunk := data.read(_CHUNK):
            digest.update(chunk)
            write(chunk)
    return digest.hexdigest()


def _fetch(entry: Entry, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        return _read(entry, file.write)


def _check(entries: Mapping[str, Entry], digests: Mapping[str, str], uri: str) -> None:
    """Raise `DigestMismatch` if what was read is not what is recorded of a file."""
    for name, each in entries.items():
        if each.sha256 not in ("", digests[name]):
            raise DigestMismatch(f"{name}: what was read is not what was stored, its sha256 differs; not in {uri}")
