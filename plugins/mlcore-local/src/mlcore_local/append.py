"""Append batches that others wrote, or that belong to no run, to a folder store: many at once under one lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from mlcore.errors import AlreadyExists, InvalidValue, Malformed, MlcoreError, OutOfOrder, SourceReused, StoreError
from mlcore.folder import Folder, publish
from mlcore.journal import format as f, this_process, user
from mlcore.store import Batch, Marks, Record, check, digest, to_json
from mlcore_local.checkpoints import checkpoint, resumed
from mlcore_local.packer import Packer
from mlcore_local.reader import Journal, read

if TYPE_CHECKING:
    from mlcore_local.commit_log import CommitLog

__all__ = ["Appender", "claim_path", "copy_claim"]

ClaimsOf = Callable[[str, str], list[Path]]
_SOURCES = 4_096  # whose journals' ends are remembered
_FILES = 128  # that are kept open: a process may have 1,024, and some are left to others
_CHECKPOINT = 64 << 10  # bytes after which a journal gets a checkpoint, of which it is a small part
_NOTED_SECONDS = 30  # a reader looks at a home for longer than that after it was noted


@attrs.define(eq=False)
class _Target:
    """Remember one source's journal: how far it was read or written, and what it defines."""

    home: str
    path: Path
    journal: Journal = attrs.field(factory=Journal)
    marks: Marks = attrs.field(factory=Marks)
    packer: Packer | None = None
    size: int = 0
    kept: int = 0  # the size at the last checkpoint
    fd: int = -1
    noted: float = float("-inf")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Appender:
    """Write batches under the store's lock, so that several processes may append the same. Not thread-safe.

    With `power` what was appended survives the loss of power, else the end of the process.
    """

    def __init__(self, folder: Folder, *, power: bool = False) -> None:
        self._folder, self._power = folder, power
        self._targets: OrderedDict[str, _Target] = OrderedDict()
        self._open: OrderedDict[str, _Target] = OrderedDict()
        self._log: CommitLog | None = None
        self._recovered = False
        self._pid = os.getpid()

    def append_all(
        self, batches: Sequence[Batch], actors: Sequence[str], claims_of: ClaimsOf
    ) -> list[MlcoreError | None]:
        """Store batches; see `mlcore.store.Store.append_all`. `claims_of` tells a source's claims' files."""
        if self._pid != os.getpid():  # in the child of a fork, whose files are its parent's as well
            self._log = None
            self.close()
            self._pid = os.getpid()
        answers: list[MlcoreError | None] = [None] * len(batches)
        try:
            self._open_log()
            with _locked(self._folder.root / "lock"):
                for at, batch in enumerate(batches):
                    answers[at] = self._answer(batch, actors[at] if actors else "", claims_of)
            if self._log is not None:
                self._log.commit()
        except OSError as error:  # of the lock, or a disk that does not keep what was written: nothing is promised
            failed = self._told(error)
            self.close()
            return [failed if answer is None else answer for answer in answers]
        while len(self._open) > _FILES:
            self._open.popitem(last=False)[1].close()
        while len(self._targets) > _SOURCES:
            self._forget(next(iter(self._targets)))
        return answers

    def close(self) -> None:
        """Close all files, and forget what they hold."""
        for source in list(self._targets):
            self._forget(source)
        if self._log is not None:
            self._log.close()
            self._log = None

    def _open_log(self) -> None:
        """Have a commit log if one is wanted, and bring back what others hold whose writers died."""
        if self._log is None and (self._power or not self._recovered):
            if self._power:
                from mlcore_local.commit_log import CommitLog

                self._log = CommitLog(self._folder)
            elif (self._folder.root / "commits").exists():
                from mlcore_local.commit_log import recover

                recover(self._folder.root)
            self._recovered = True

    def _answer(self, batch: Batch, actor: str, claims_of: ClaimsOf) -> MlcoreError | None:
        try:
            self._append(batch, actor, claims_of)
        except OSError as error:
            self._forget(batch.source)
            return self._told(error)
        except InvalidValue as error:
            return Malformed(str(error))
        except MlcoreError as error:
            return error
        return None

    def _told(self, error: OSError) -> StoreError:
        told = StoreError(f"cannot write to store {self._folder.root}: {error.strerror or error}")
        told.__cause__ = error
        return told

    def _append(self, batch: Batch, actor: str, claims_of: ClaimsOf) -> None:
        target = self._known(batch) if batch.claim is None else None
        fresh = target is None
        if target is None:
            target = self._read(batch, claims_of)
        try:
            new = target.marks.new(batch)
        except (OutOfOrder, SourceReused):
            if fresh:
                raise
            target = self._read(batch, claims_of)  # another process may have taken a claim, which no journal tells
            new = target.marks.new(batch)
        if new is None:
            return
        if time.monotonic() - target.noted > _NOTED_SECONDS:
            self._folder.note(batch.home)
            target.noted = time.monotonic()
        if new.claim is not None:
            self._claim(new, actor)
            target.marks.advance(new)
            if not new.home and new.first == 1:
                self._copy(target, new, actor)
        else:
            target.marks.advance(new)  # before, as a checkpoint tells it; if it fails all is read again
            self._write(target, new, actor)

    # What is known of a source

    def _known(self, batch: Batch) -> _Target | None:
        """Return what is remembered of a source, up to date; None if it must be looked for."""
        target = self._targets.get(batch.source)
        if target is None:
            return None
        if target.home != batch.home:
            raise _elsewhere(batch, target.home)
        self._targets.move_to_end(batch.source)
        try:
            if target.fd < 0:
                target.fd = os.open(target.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
                self._open[batch.source] = target
            status = os.fstat(target.fd)
        except FileNotFoundError:
            return target if target.size == 0 else None
        if status.st_nlink == 0 or status.st_size < target.size:
            return None  # somebody removed it, or repaired it
        if status.st_size != target.size:
            _advance(target, batch.source, _read_on(target))
        self._open.move_to_end(batch.source)
        return target

    def _read(self, batch: Batch, claims_of: ClaimsOf) -> _Target:
        """Read all that there is of a source."""
        check(batch)
        self._forget(batch.source)
        home = self._folder.run_folder(batch.home) if batch.home else self._folder.root / "store"
        target = _Target(batch.home, home / (batch.source + f.SUFFIX))
        found = {}
        if target.path.exists():
            if (known := resumed(target.path)) is not None:
                target.journal, last, known_digest = known
                target.marks.set(batch.source, last, known_digest)
                target.kept = target.journal.offset
            found = {record.number: record for record in _read_on(target)}
            header = target.journal.header
            if header is not None and header.home != batch.home:
                raise _elsewhere(batch, header.home)
        for claim in claims_of(batch.home, batch.source):
            found |= {record.number: record for record in read(claim)}
        _advance(target, batch.source, [found[number] for number in sorted(found)])
        self._targets[batch.source] = target
        return target

    def _forget(self, source: str) -> None:
        self._open.pop(source, None)
        target = self._targets.pop(source, None)
        if target is not None:
            target.close()

    # What is written

    def _claim(self, batch: Batch, actor: str) -> None:
        assert batch.claim is not None
        path = claim_path(self._folder, batch.claim)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = f.Header(batch.source, batch.home)
        about = {**this_process(), **({"user": actor} if actor else {}), "claim": batch.claim}
        packer = Packer(header)
        data = _beginning(header, about) + b"".join(map(packer.pack, batch.records))
        if path.exists() or not publish(path, data):  # a look first, as to publish costs a sync
            holder = Journal()
            for _ in read(path, holder):
                pass
            raise AlreadyExists(batch.claim, holder.source)

    def _copy(self, target: _Target, batch: Batch, actor: str) -> None:
        """Write what was claimed into a journal, too: who copies one store over another overwrites claims."""
        try:
            self._write(target, batch, actor)
        except OSError:  # it is claimed all the same, and `mlcore fsck --repair` writes the journal
            self._forget(batch.source)

    def _write(self, target: _Target, batch: Batch, actor: str) -> None:
        if target.fd < 0:
            self._create(target, batch.source)
        header, data = target.journal.header, b""
        if header is None:
            header = f.Header(batch.source, batch.home)
            target.journal.writer = {"host": platform.node(), "user": actor or user()}
            target.journal.writer["inode"] = os.fstat(target.fd).st_ino
            target.journal.writer |= {"claim": batch.claim} if batch.claim else {}
            data = _beginning(header, target.journal.writer)
        if target.packer is None:
            target.packer = Packer(header, target.journal.keys)
        data += b"".join(map(target.packer.pack, batch.records))
        if target.size + len(data) - target.kept > _CHECKPOINT:
            about = {name: value for name, value in target.journal.writer.items() if name != "mark"}
            made = checkpoint(header, about, target.journal.keys, *target.marks.get(batch.source))
            if len(made) < _CHECKPOINT // 4:
                data += made
            target.kept = target.size + len(data)
        if not data:
            os.utime(target.fd)  # a sign of life
            return
        try:
            if os.write(target.fd, data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(target.fd, target.size)
            raise
        if self._log is not None:
            self._log.add(target.path, target.size, data)
        target.size += len(data)
        target.journal.header, target.journal.offset = header, target.size
        target.journal.last = batch.last or target.journal.last

    def _create(self, target: _Target, source: str) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            target.fd = os.open(target.path, flags, 0o666)
        except FileNotFoundError:
            target.path.parent.mkdir(parents=True, exist_ok=True)
            target.fd = os.open(target.path, flags, 0o666)
        self._open[source] = target


def claim_path(folder: Folder, claim: str) -> Path:
    """Return where a claim's batch is or would be."""
    kind = re.sub(r"[^a-z_-]", "_", claim.partition("/")[0][:40])
    name = hashlib.sha256(claim.encode()).hexdigest()[:32]
    return folder.root / "claims" / f"{kind}-{name[:2]}" / (name + f.SUFFIX)


def copy_claim(folder: Folder, path: Path) -> bool:
    """Write the first record of a source, which a claim's file has, to a journal; False if one has begun there."""
    journal = Journal()
    records = list(read(path, journal))
    assert journal.header is not None
    target = folder.root / "store" / (journal.source + f.SUFFIX)
    about: dict[str, object] = {
        name: journal.writer[name] for name in ("host", "user", "claim") if name in journal.writer
    }
    packer = Packer(journal.header)
    data = _beginning(journal.header, about) + b"".join(map(packer.pack, records))
    with _locked(folder.root / "lock"):
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            begun = Journal()
            for _ in read(target, begun):
                pass
            if begun.header is None:  # who made the file was killed before anything was in it
                target.unlink()
        return publish(target, data)


def _elsewhere(batch: Batch, home: str) -> SourceReused:
    return SourceReused(f"source {batch.source} writes to {home or 'the store'}, not to {batch.home or 'the store'}")


def _read_on(target: _Target) -> Iterable[Record]:
    """Return the records that were written to a journal since it was read; what its writer left torn is cut off."""
    records = list(read(target.path, target.journal))
    if target.journal.tail is not None:
        os.truncate(target.path, target.journal.tail.offset)
    target.size, target.packer = target.journal.offset, None
    return records


def _advance(target: _Target, source: str, records: Iterable[Record]) -> None:
    """Bring the mark of a source up to date."""
    last, known = target.marks.get(source)
    new = [record for record in records if record.number > last]
    if new:
        target.marks.set(source, new[-1].number, digest(new, known))


def _beginning(header: f.Header, about: dict[str, object]) -> bytes:
    return f.pack_header(header) + f.pack_frame(header.seed, f.WRITER, 0, 0, 0, to_json(about))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: links still arbitrate claims
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
