"""Where things lie in a folder store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
from pathlib import Path

import attrs

from mlcore.errors import AlreadyExists, JournalError, NewerFormat, StoreError, StoreNotFound
from mlcore.journal import SUFFIX, Header, Journal, Packer, Writer, pack_frame, pack_header, read, this_process
from mlcore.journal import WRITER as WRITER_FRAME
from mlcore.store import Batch, Record, to_json

FORMAT = 1
STORE_HOME = ""
_ABOUT = "store.json"


@attrs.frozen
class Folder:
    """Know where things lie in a folder store, and write them."""

    root: Path
    id: str

    @classmethod
    def open(cls, root: Path) -> Folder:
        """Open a store that is there. Raises `StoreNotFound`, `NewerFormat` or `StoreError`."""
        try:
            about = json.loads((root / _ABOUT).read_bytes())
            version, id = about["format"], about["id"]
        except FileNotFoundError:
            raise StoreNotFound(f"there is no store at {root}: log a run there, or make one with `mlcore init`") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{root / _ABOUT} cannot be read: {error}") from error
        if version > FORMAT:
            raise NewerFormat(f"store {root} has format {version}, newer than {FORMAT}: upgrade mlcore to use it")
        return cls(root, id)

    @classmethod
    def create(cls, root: Path) -> tuple[Folder, bool]:
        """Open a store, made if it is not there, and tell whether it was made.

        Raises `StoreError` if `root` holds something else or cannot be written.
        """
        with contextlib.suppress(StoreNotFound):
            return cls.open(root), False
        try:
            root.mkdir(parents=True, exist_ok=True)
            others = {each.name for each in root.iterdir()} - {".gitignore", "runs", "store", "claims", "changes", "lock"}
            if any(not name.startswith(_ABOUT) for name in others):
                raise StoreError(f"{root} is no mlcore store and not empty: choose another folder")
            (root / ".gitignore").write_text("*\n", encoding="utf-8")
            for name in ("runs", "store", "claims", "changes"):
                (root / name).mkdir(exist_ok=True)
            made = _publish(root / _ABOUT, to_json({"format": FORMAT, "id": os.urandom(16).hex()}))
        except OSError as error:
            raise StoreError(f"cannot make a store at {root}: {error.strerror or error}") from error
        return cls.open(root), made

    def run_folder(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.root / "runs" / run_id[-2:] / run_id

    def journals(self, home: str) -> list[Path]:
        """Return the journals of a home; without a run's folder, none."""
        folder = self.run_folder(home) if home else self.root / "store"
        try:
            names = [name for name in os.listdir(folder) if name.endswith(SUFFIX)]
        except FileNotFoundError:
            return []
        return [folder / name for name in sorted(names)]

    def records(self, home: str) -> list[tuple[Journal, Record]]:
        """Return every record of a home, in the order of the fold; what is damaged is left out."""
        found = []
        for path in self.journals(home):
            journal = Journal()
            with contextlib.suppress(JournalError, FileNotFoundError):
                found += [(journal, record) for record in read(path, journal)]
        return sorted(found, key=lambda each: (each[1].stamp, each[0].header.source, each[1].number))  # type: ignore[union-attr]

    def writer(self, home: str) -> Writer:
        """Return the writer of a new journal, not opened yet. Raises `OSError`."""
        folder = self.run_folder(home) if home else self.root / "store"
        folder.mkdir(parents=True, exist_ok=True)
        if home:
            self.note(home)
        return Writer(folder, home)

    def note(self, home: str) -> None:
        """Note that a run's folder changes, so that readers need not look at every run.

        One file a host and month: appends of one host do not mix, on a network file system either.
        """
        host = re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname()) or "host"
        path = self.root / "changes" / f"{time.strftime('%Y%m', time.gmtime())}-{host}"
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(fd, f"{home}\n".encode())
        finally:
            os.close(fd)

    def claim_path(self, claim: str) -> Path:
        """Return where a claim's batch is or would be."""
        name = hashlib.sha256(claim.encode()).hexdigest()[:32]
        return self.root / "claims" / name[:2] / (name + SUFFIX)

    def claim(self, batch: Batch) -> None:
        """Store a batch with its claim, whole or not at all. Raises `AlreadyExists` with who was first."""
        assert batch.claim is not None
        header = Header(batch.source, batch.home)
        packer = Packer(header)
        about = to_json({**this_process(), "claim": batch.claim})
        data = pack_header(header) + pack_frame(header.seed, WRITER_FRAME, 0, 0, 0, about)
        path = self.claim_path(batch.claim)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _publish(path, data + b"".join(map(packer.pack, batch.records))):
            raise AlreadyExists(batch.claim, self.holder(batch.claim) or "somebody else")

    def holder(self, claim: str) -> str | None:
        """Return the source that holds a claim, None if it is free."""
        journal = Journal()
        try:
            for _ in read(self.claim_path(claim), journal):
                break
        except FileNotFoundError:
            return None
        return journal.header.source if journal.header else None


def _publish(path: Path, data: bytes) -> bool:
    """Write a whole file under a name that is not taken; False if it is. A link cannot be half there."""
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
