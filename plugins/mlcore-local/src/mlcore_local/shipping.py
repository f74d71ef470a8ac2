"""Bring what a spool holds to its target, journal by journal, and remember beside each how far that came.

The target keeps a record once, whoever sends it and how often. So nothing here needs to be written before something is
sent: what is remembered only spares work.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from mlcore.errors import JournalError, OutOfOrder, Refused, SourceReused, StoreError
from mlcore.journal import Writer
from mlcore.journal.format import SUFFIX
from mlcore.store import Batch, Record, Store, Unknown, decode_event, digest, encode_event, to_json
from mlcore_local.electing import Presence
from mlcore_local.home import alive
from mlcore_local.keeping import File, pending
from mlcore_local.outgoing import Mark, sized
from mlcore_local.reader import Journal
from mlcore_local.spools import LATER, Spool, seconds_of, write_json
from mlcore_local.uploads import FileGoneError, Uploads, names_files

__all__ = ["SetAside", "Shipment", "Shipper", "ended", "writer_of"]

_CHUNK = 256 << 10  # bytes of a journal that are decoded at once
_RECORDS, _BYTES = 5_000, 1 << 20  # of a batch
_SAVE_SECONDS = 10.0
_SIGN_SECONDS = 30.0
_AT_ONCE = 8 << 20  # bytes of files; more of them are uploaded while other records go on
_RESTARTS = 3  # of one journal, as long as the target goes on forgetting it
_BEGINNING = 4_096  # bytes, of which the header and the frame of the writer are less


@attrs.frozen
class SetAside:
    """Tell of a record that the target refused for good, and that stays in the spool."""

    home: str
    source: str
    number: int
    reason: str


class Shipment:
    """Know one journal: how far it was read, how far the target has it, and what was set aside of it."""

    def __init__(self, path: Path, home: str) -> None:
        self.path, self.home, self.source = path, home, path.stem
        self.mark: Mark = (0, "")
        self.journal = Journal()
        self.aside: dict[int, str] = {}
        self.later: dict[int, Record] = {}  # whose files are uploaded while others go on
        self.gone: dict[int, str] = {}  # what was to be sent later, and cannot be
        self.refused = ""  # why nothing more of it can be sent
        self.waiting: list[Record] = []
        self.bytes = 0  # of the journal that those were read from
        self.size = -1  # of the file, when all of it was sent
        self.restarts = 0
        self._base: dict[str, Any] = {}  # what is remembered: how it was when nothing waited
        self._lock = threading.Lock()  # as files may be brought by another thread
        self._saved: Any = None
        self._saved_at = 0.0
        self._load()
        self.settle()

    @property
    def clean(self) -> bool:
        """Whether the target took everything that was sent, and nothing is to be sent later."""
        return not (self.refused or self.later or self.gone or set(self.aside.values()) - {LATER})

    @property
    def note(self) -> Path:
        """Where it is remembered."""
        return self.path.with_suffix(".shipped")

    def _load(self) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found = json.loads(self.note.read_bytes())
            (last, state), refused, size = found["mark"], str(found["refused"]), int(found["size"])
            aside = {int(number): str(reason) for number, reason in found["aside"].items()}
            later = {int(number): _decoded(int(number), *each) for number, each in found["later"].items()}
            journal = Journal.restored(found["journal"]) if last else Journal()
            self.mark, self.refused, self.size = (int(last), str(state)), refused, size
            self.gone = {int(number): str(reason) for number, reason in found["gone"].items()}
            self.aside, self.later, self.journal = aside, later, journal

    def settle(self) -> None:
        """Note where to go on after the end of this process: where nothing waits to be sent."""
        if not self.waiting:
            self._base = {"mark": self.mark, "journal": self.journal.noted(), "size": self.size}

    def save(self, *, now: bool = True) -> None:
        """Write down how far it came, once in a while, or `now`; where that fails, it only costs work later."""
        if not now and time.monotonic() - self._saved_at < _SAVE_SECONDS:
            return
        with self._lock:
            content = {**self._base, "refused": self.refused}
            content |= {"aside": _keyed(self.aside), "gone": _keyed(self.gone)}
            content["later"] = {str(number): _encoded(record) for number, record in list(self.later.items())}
            if content != self._saved:
                with suppress(OSError):
                    write_json(self.note, content)
                self._saved, self._saved_at = content, time.monotonic()

    def restart(self) -> None:
        """Forget what the target was thought to have; what was set aside stays so, as it has something in its place."""
        self.mark, self.journal, self.waiting, self.size = (0, ""), Journal(), [], -1
        self.refused = ""
        self.settle()

    def refuse(self, reason: str) -> None:
        """Send nothing more of it."""
        self.refused, self.waiting = reason, []

    def read(self) -> bool:
        """Read some more records into `waiting`; False if there is nothing new."""
        size = _CHUNK
        with open(self.path, "rb", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            while self.journal.offset < end:
                before, last = self.journal.offset, self.journal.last
                file.seek(before)
                data = file.read(min(size, end - before))
                records = list(self.journal.feed(data, final=before + len(data) >= end))
                self.waiting, self.bytes = list(self._whole(records, last)), len(data)
                if self.waiting or before + len(data) >= end or not data:
                    break
                if self.journal.offset == before:
                    size *= 2
            if not self.waiting:
                self.size = end
        return bool(self.waiting)

    def _whole(self, records: Iterable[Record], last: int) -> Iterable[Record]:
        """Yield records with something in the place of those that are damaged or were set aside."""
        for record in records:
            for number in range(last + 1, record.number):
                self.aside.setdefault(number, "it is damaged in the journal")
                yield self.placeholder(Record(number, record.stamp, ()))
            last = record.number
            yield self.placeholder(record) if record.number in self.aside else record

    def placeholder(self, record: Record) -> Record:
        """Return what goes in the place of a record that was set aside, so that later ones follow on it."""
        about = {"type": "SetAside", "kind": "run", "id": self.home, "reason": self.aside[record.number][:1_000]}
        event = Unknown(kind="run", id=self.home, type="SetAside", raw=to_json(about))
        return Record(record.number, record.stamp, (event,))


def _keyed(reasons: Mapping[int, str]) -> dict[str, str]:
    return {str(number): reason for number, reason in list(reasons.items())}


def _encoded(record: Record) -> list[Any]:
    return [record.stamp, [encode_event(event).decode() for event in record.events]]


def _decoded(number: int, stamp: int, events: list[str]) -> Record:
    return Record(number, stamp, tuple(decode_event(event.encode()) for event in events))


class Shipper:
    """Ship the runs of a spool; what the target or its library raises comes out, and all can be called again.

    `told` is called with what was set aside. With `again`, what was refused as a whole before is tried once more.
    """

    def __init__(
        self,
        spool: Spool,
        opened: Callable[[], Store],
        place: Callable[[str], str],
        told: Callable[[SetAside], None] = lambda _: None,
        *,
        again: bool = False,
    ) -> None:
        self.spool, self.records = spool, 0
        self._opened, self._told, self._again = opened, told, again
        with suppress(OSError, StoreError):
            spool.make()
        self._presence = Presence(spool.root / "uploaders")
        self._kept = Uploads(spool, place)
        self._shipments: dict[str, Shipment] = {}
        self._heard: dict[str, float] = {}  # when the target heard of a run last
        self._complete: dict[str, int] = {}  # the time of the folder of runs that need no look

    def ship(self, home: str) -> bool:
        """Send what is new of a run; tell whether another process sends some of it itself."""
        folder, elsewhere = f"{self.spool.run_folder(home)}", False
        for name, size in _journals(folder):
            path = f"{folder}/{name}"
            shipment = self._shipments.get(path)
            if shipment is None:
                if self._presence.elsewhere(path):
                    elsewhere = True
                    continue
                shipment = self._shipments[path] = Shipment(Path(path), home)
                if shipment.refused and self._again:
                    shipment.restart()
            if shipment.waiting or (shipment.size != size and not shipment.refused):
                self._send_all(shipment)
        return elsewhere

    def _send_all(self, shipment: Shipment) -> None:
        with suppress(FileNotFoundError):  # the run was removed
            while shipment.waiting or shipment.read():
                try:
                    while shipment.waiting:
                        self._send(shipment, _portion(shipment.waiting, weighing=shipment.bytes > _CHUNK))
                except (OutOfOrder, SourceReused) as error:
                    if shipment.mark[0] and shipment.restarts < _RESTARTS:  # the target was put back to an older state
                        shipment.restarts += 1
                        shipment.restart()
                        continue
                    shipment.refuse(str(error))
                    self._told(SetAside(shipment.home, shipment.source, 0, shipment.refused))
                    break
                shipment.settle()
                shipment.save(now=False)
            shipment.settle()

    def _send(self, shipment: Shipment, count: int) -> None:
        """Send the first records that wait. One that is refused for good is set aside, and the others go on."""
        first, uploaded = shipment.waiting[0], list[File]()
        try:
            if names_files(first):
                found = self._upload(shipment, first)
                if found is None:
                    return self._set_aside(shipment, first, LATER)
                uploaded = found
            batch = Batch(shipment.source, shipment.home, tuple(shipment.waiting[:count]), shipment.mark[1])
            self._opened().append(batch)
        except (OutOfOrder, SourceReused):
            raise
        except (Refused, FileGoneError) as error:
            if count > 1:
                self._send(shipment, count // 2)
                return self._send(shipment, count - count // 2)
            if first.number in shipment.aside:
                raise
            return self._set_aside(shipment, first, str(error))
        shipment.mark = batch.last, digest(batch.records, batch.previous)
        del shipment.waiting[:count]
        self.records += count
        self._heard[shipment.home] = time.monotonic()
        if uploaded:
            shipment.settle()
            shipment.save()
            self._kept.forget(uploaded)
        return None

    def _upload(self, shipment: Shipment, record: Record) -> list[File] | None:
        """Upload what a record names, None if that takes long or fails where the target itself can be reached."""
        if self._kept.size(shipment.home, record) > _AT_ONCE:
            return None
        try:
            return self._kept.upload(shipment.home, record)
        except FileGoneError:
            raise
        except Exception:  # noqa: BLE001 - whatever the library of the place raises; it is tried again later
            self._opened().append(Batch(shipment.source, shipment.home))
            return None

    def _set_aside(self, shipment: Shipment, record: Record, reason: str) -> None:
        shipment.aside[record.number] = reason
        if reason == LATER:
            shipment.later[record.number] = record
        shipment.save()  # before something else is in its place, as the digest of what follows depends on it
        shipment.waiting[0] = shipment.placeholder(record)
        if reason != LATER:
            self._told(SetAside(shipment.home, shipment.source, record.number, reason))
        self._send(shipment, 1)

    def later(self, home: str = "") -> list[Shipment]:
        """Return the journals, by default all, with records whose files are still to be uploaded."""
        return [each for each in list(self._shipments.values()) if each.later and home in ("", each.home)]

    def bring(self, home: str = "") -> None:
        """Upload files that take long and send the records that name them, each as a source of its own.

        Source and content are the same however often that is tried, so the target keeps them once. Another thread may
        ship meanwhile.
        """
        for shipment in self.later(home):
            for number, record in list(shipment.later.items()):
                source = hashlib.sha256(f"{shipment.source} {number}".encode()).hexdigest()[:32]
                uploaded = list[File]()
                try:
                    uploaded = self._kept.upload(shipment.home, record)
                    self._opened().append(Batch(source, shipment.home, (Record(1, record.stamp, record.events),)))
                    self.records += 1
                except (Refused, FileGoneError) as error:
                    uploaded, shipment.gone[number] = [], str(error)
                    self._told(SetAside(shipment.home, shipment.source, number, str(error)))
                del shipment.later[number]
                shipment.save()
                self._kept.forget(uploaded)

    def sign(self, writers: Iterable[Writer]) -> None:
        """Send a sign of life of runs that go on and of which the target heard nothing for half a minute."""
        for writer in writers:
            if writer.source and time.monotonic() - self._heard.get(writer.home, 0.0) >= _SIGN_SECONDS:
                self._opened().append(Batch(writer.source, writer.home))
                self._heard[writer.home] = time.monotonic()

    def adopt(self) -> None:
        """Ship what other processes left, if no other one does, and drop what was shipped long ago."""
        if self._presence.elected():
            for home in self.spool.homes():
                if self._complete.get(home) != self._changed(home):
                    self.ship(home)
            self.tidy()

    def tidy(self) -> None:
        """Drop the runs that were shipped long ago, as the setting ``spool_keep`` says."""
        keep = seconds_of("spool_keep")
        for home in self.spool.homes():
            changed, folder = self._changed(home), self.spool.run_folder(home)
            if self._complete.get(home) != changed and self._whole(home) and ended(folder):
                self.save(home)
                changed = self._complete[home] = self._changed(home)
            if self._complete.get(home) == changed and time.time() - changed / 1e9 > keep and not pending(folder):
                self._drop(home, folder)
        self._presence.tidy()

    def _changed(self, home: str) -> int:
        with suppress(FileNotFoundError):
            return self.spool.run_folder(home).stat().st_mtime_ns
        return 0

    def _whole(self, home: str) -> bool:
        """Tell whether the target has all of a run, and refused nothing of it."""
        folder = self.spool.run_folder(home)
        found = [(self._shipments.get(f"{folder}/{name}"), size) for name, size in _journals(str(folder))]
        return all(each and each.size == size and each.clean for each, size in found)

    def _drop(self, home: str, folder: Path) -> None:
        for path in [path for path in self._shipments if path.startswith(f"{folder}/")]:
            del self._shipments[path]
        self._complete.pop(home, None)
        shutil.rmtree(folder, ignore_errors=True)

    def save(self, home: str = "") -> None:
        """Write down how far a run came, by default how far all did."""
        for shipment in list(self._shipments.values()):
            if home in ("", shipment.home):
                shipment.save()

    def close(self) -> None:
        """Write down how far all came, and let others adopt what is left."""
        self.save()
        self._presence.close()

    def forked(self) -> None:
        """Give back, in the child of a fork, what the parent holds."""
        self._presence.close()


def _portion(records: list[Record], *, weighing: bool) -> int:
    """Return how many of the records go in one batch: what has files begins another, and long ones are weighed."""
    size = 0
    for count, record in enumerate(records):
        size += sized((record,)) if weighing else 0
        if count and (size > _BYTES or count >= _RECORDS or names_files(record)):
            return count
    return len(records)


def _journals(folder: str) -> list[tuple[str, int]]:
    """Return name and size of each journal in a folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sorted((entry.name, entry.stat().st_size) for entry in entries if entry.name.endswith(SUFFIX))
    return []


def writer_of(path: str) -> dict[str, Any]:
    """Return what the writer of a journal said about itself."""
    journal = Journal()
    with suppress(OSError, JournalError), open(path, "rb", buffering=0) as file:
        next(iter(journal.feed(file.read(_BEGINNING), final=False)), None)
    return journal.writer


def ended(folder: Path) -> bool:
    """Tell whether nobody writes to a run any more, as far as that can be known from here."""
    return not any(alive(writer_of(f"{folder}/{name}")) for name, _ in _journals(str(folder)))
