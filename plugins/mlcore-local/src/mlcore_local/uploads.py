"""Upload the files that records name, before the records are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from mlcore import artifacts
from mlcore.errors import ArtifactError
from mlcore.store import AttributesSet, Record
from mlcore_local import keeping
from mlcore_local.spools import Spool

__all__ = ["FileGoneError", "Uploads", "names_files"]


class FileGoneError(ArtifactError):
    """Say that a file is not what was logged any more, so that it cannot be uploaded."""


def names_files(record: Record) -> bool:
    """Tell whether a record names files that were kept."""
    return next(_files(record), None) is not None


def _files(record: Record) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for event in record.events:
        if isinstance(event, AttributesSet) and (event.kind, event.family) == ("run", "artifacts"):
            for name, about in event.values.items():
                if isinstance(about, Mapping) and not about.get("uri"):
                    yield name, about


class Uploads:
    """Bring files from a spool to where `place` says that those of a run go."""

    def __init__(self, spool: Spool, place: Callable[[str], str]) -> None:
        self._spool, self._place = spool, place
        self._places: dict[str, tuple[Any, str]] = {}
        self._there: set[tuple[str, str, str]] = set()

    def upload(self, home: str, record: Record) -> list[keeping.File]:
        """Upload what a record names, but for what was replaced since; return the files that are there now.

        Raises `FileGoneError`, and what the place raises when it cannot be reached.
        """
        folder, done = self._spool.run_folder(home), list[keeping.File]()
        for name, about in _files(record):
            file = keeping.find(folder, name)
            if file is None:
                self._look(home, name, about)
            elif file.sha256 == about.get("sha256"):
                if (home, name, file.sha256) not in self._there:
                    self._put(home, file)
                done.append(file)
        return done

    def size(self, home: str, record: Record) -> int:
        """Return how many bytes are to be uploaded before a record is sent."""
        folder = self._spool.run_folder(home)
        found = (keeping.find(folder, name) for name, _ in _files(record))
        return sum(file.size for file in found if file is not None)

    def forget(self, files: list[keeping.File]) -> None:
        """Remove from the spool what is at its place, and recorded."""
        for file in files:
            with keeping.lock:
                if keeping.find(file.note.parent.parent, file.name) == file:
                    file.remove()

    def _put(self, home: str, file: keeping.File) -> None:
        changed = f"{file.path}, logged as {file.name!r}, changed before it was uploaded"
        with suppress(FileNotFoundError):  # which `put` tells
            status = file.path.stat()
            if not file.copied and (status.st_size, status.st_mtime_ns) != (file.size, file.changed):
                raise FileGoneError(changed)
        filesystem, root = self._opened(home)
        if not file.path.exists():
            if self._replaced(file):
                return
            raise FileGoneError(f"{file.path}, logged as {file.name!r}, was removed before it was uploaded")
        stored = artifacts.put(filesystem, root, {file.name: file.path})[file.name]
        if stored.sha256 != file.sha256 and not self._replaced(file):
            raise FileGoneError(changed)
        self._there.add((home, file.name, file.sha256))

    def _replaced(self, file: keeping.File) -> bool:
        return keeping.find(file.note.parent.parent, file.name) != file

    def _look(self, home: str, name: str, about: Mapping[str, Any]) -> None:
        """Accept what is at its place already, as whoever logged it brought it there."""
        filesystem, root = self._opened(home)
        found = artifacts.list_files(filesystem, artifacts.path_in(filesystem, root, name))
        if [file.size for file in found.values()] != [about.get("size")]:
            raise FileGoneError(f"file {name!r} is neither in the spool nor at its place any more")

    def _opened(self, home: str) -> tuple[Any, str]:
        if home not in self._places:
            self._places[home] = artifacts.open_backend(self._place(home))
        return self._places[home]
