"""Append batches that others wrote, or that belong to no run, to a folder store."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mlcore.errors import AlreadyExists, JournalError, StoreError
from mlcore.folder import Folder, publish
from mlcore.journal import format as f, this_process, user
from mlcore.store import Batch, Marks, check, digest, to_json
from mlcore_local.packer import Packer
from mlcore_local.reader import Journal, read

__all__ = ["Appender", "claim_path"]


class Appender:
    """Write batches under the store's lock, so that several processes may append the same."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._marks = Marks()
        self._journals: dict[Path, Journal] = {}

    def append(self, batch: Batch, claims_of: Callable[[str, str], list[Path]]) -> None:
        """Store a batch; see `mlcore.store.Store.append`. `claims_of` tells the claims' files of home and source."""
        check(batch)
        home = self._folder.run_folder(batch.home) if batch.home else self._folder.root / "store"
        path = home / (batch.source + f.SUFFIX)
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(self._folder.root / "lock"):
                journal = self._read(path, batch, claims_of(batch.home, batch.source))
                new = self._marks.new(batch)
                if new is None:
                    return
                self._folder.note(batch.home)
                if new.claim is not None:
                    self._claim(new)
                else:
                    self._write(path, new, journal)
                self._marks.advance(new)
        except OSError as error:
            raise StoreError(f"cannot write to store {self._folder.root}: {error.strerror or error}") from error

    def _read(self, path: Path, batch: Batch, claims: list[Path]) -> Journal:
        """Bring the source's mark up to date, and return what its journal defines."""
        if claims:
            self._journals.pop(path, None)
            self._marks.set(batch.source, 0, "")
        journal = self._journals.setdefault(path, Journal())
        found = {}
        if path.exists():
            found = {record.number: record for record in read(path, journal)}
            if journal.tail is not None:
                os.truncate(path, journal.tail.offset)  # its writer died while it wrote
        for claim in claims:
            found |= {record.number: record for record in read(claim)}
        last, known = self._marks.get(batch.source)
        new = [found[number] for number in sorted(found) if number > last]
        if new:
            self._marks.set(batch.source, new[-1].number, digest(new, known))
        return journal

    def _claim(self, batch: Batch) -> None:
        assert batch.claim is not None
        path = claim_path(self._folder, batch.claim)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = f.Header(batch.source, batch.home)
        data = _beginning(header, {**this_process(), "claim": batch.claim}) + _records(header, Journal(), batch)
        if path.exists() or not publish(path, data):  # a look first, as to publish costs a sync
            holder = Journal()
            for _ in read(path, holder):
                pass
            raise AlreadyExists(batch.claim, holder.source)

    def _write(self, path: Path, batch: Batch, journal: Journal) -> None:
        header = journal.header or f.Header(batch.source, batch.home)
        if header.home != batch.home:
            raise JournalError(f"source {batch.source} belongs to {header.home or 'the store'}, not to {batch.home}")
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size, data = os.fstat(fd).st_size, b""
            if journal.header is None:
                about = {"host": platform.node(), "user": user(), "inode": os.fstat(fd).st_ino}
                data = _beginning(header, about)
            data += _records(header, journal, batch)
            try:
                if os.write(fd, data) != len(data):
                    raise OSError(28, "No space left on device")
            except OSError:
                os.ftruncate(fd, size)
                raise
            os.utime(fd)
        finally:
            os.close(fd)


def claim_path(folder: Folder, claim: str) -> Path:
    """Return where a claim's batch is or would be."""
    kind = re.sub(r"[^a-z_-]", "_", claim.partition("/")[0][:40])
    name = hashlib.sha256(claim.encode()).hexdigest()[:32]
    return folder.root / "claims" / f"{kind}-{name[:2]}" / (name + f.SUFFIX)


def _beginning(header: f.Header, about: dict[str, object]) -> bytes:
    return f.pack_header(header) + f.pack_frame(header.seed, f.WRITER, 0, 0, 0, to_json(about))


def _records(header: f.Header, journal: Journal, batch: Batch) -> bytes:
    return b"".join(map(Packer(header, journal.keys).pack, batch.records))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: links still arbitrate claims
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
