"""Where a client writes: straight into a folder store, or through the two methods of any other store."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from mlcore import plugins
from mlcore.errors import AlreadyExists, JournalError, MlcoreError, StoreError, StoreNotFound
from mlcore.folder import STORE_HOME, Folder
from mlcore.journal import Journal, Nowhere, Sink, Writer, alive, read
from mlcore.store import Batch, Entity, Event, Fold, Query, Record, RowsLogged, SimpleStore, Store, clock, digest

_log = logging.getLogger("mlcore")
GRACE_SECONDS = 300


class Backend(Protocol):
    """Write for a client, and read the little that writing needs to know."""

    uri: str

    def sink(self, home: str) -> Sink:
        """Open what takes in the records of a run, or of the store (`STORE_HOME`)."""

    def edit(self, events: Sequence[Event], claim: str | None = None) -> None:
        """Write events that belong to no run, with a claim if one is given. Raises `AlreadyExists`."""

    def run(self, run_id: str) -> Entity | None:
        """Return what is known of one run."""

    def claimed(self, claim: str) -> bool | None:
        """Tell of a claim: None if it is free, True if its holder may be about to use it, else False."""

    def experiments(self) -> list[Entity]:
        """Return the experiments that somebody edited by name; those that only runs made may be missing."""

    def store(self) -> Store:
        """Return the store to read from. Raises `StoreNotFound` or `NotInstalled`."""

    def close(self) -> None:
        """Close what is open."""


def status_of(entity: Entity, now: float | None = None) -> str:
    """Return a run's status: LOST is a RUNNING run whose process is gone, or silent for over five minutes."""
    status = str(entity.fields.get("status", "RUNNING"))
    if status != "RUNNING" or entity.alive:
        return status
    silent = entity.seen is not None and (now or time.time()) - entity.seen / 1000 > GRACE_SECONDS
    return "LOST" if silent or entity.alive is False else status


class FolderBackend:
    """Write journals into a folder store, which the first write makes."""

    def __init__(self, root: Path) -> None:
        self.uri = str(root)
        self._root = root
        self._folder: Folder | None = None
        self._writer: Writer | None = None
        self._store: Store | None = None

    def _made(self) -> Folder:
        if self._folder is None:
            self._folder, made = Folder.create(self._root)
            if made:
                _log.warning("made a store at %s", self._root)
        return self._folder

    def sink(self, home: str) -> Sink:
        folder = self._made()
        try:
            writer = folder.writer(home)
            writer.open()
        except OSError as error:
            if error.errno not in (28, 122):  # a full disk or quota must not keep a training from starting
                raise StoreError(f"cannot write to store {self.uri}: {error.strerror or error}") from error
            writer = Writer(folder.run_folder(home) if home else self._root / "store", home)
        return writer

    def edit(self, events: Sequence[Event], claim: str | None = None) -> None:
        if claim is not None:
            record = Record(1, clock.tick(), tuple(events))
            return self._made().claim(Batch(os.urandom(16).hex(), STORE_HOME, (record,), claim=claim))
        if self._writer is None:
            self._writer = self._made().writer(STORE_HOME)
        self._writer.events(events)
        if self._writer.dropped:
            raise StoreError(f"cannot write to store: {self._writer.reason}")
        return None

    def run(self, run_id: str) -> Entity | None:
        try:
            folder = Folder.open(self._root)
        except StoreNotFound:
            return None
        fold, writers = Fold(), {}
        for journal, record in folder.records(run_id):
            assert journal.header is not None
            writers[journal.header.source] = journal.writer
            fold.add(Batch(journal.header.source, run_id, (record,)))
        clock.observe(fold.stamp)
        entity = fold.entity("run", run_id)
        if entity is None:
            return None
        seen = max((path.stat().st_mtime for path in folder.journals(run_id)), default=0)
        return attrs.evolve(entity, seen=int(seen * 1000), alive=any_alive(writers.values()))

    def claimed(self, claim: str) -> bool | None:
        path, journal = self._made().claim_path(claim), Journal()
        try:
            for _ in read(path, journal):
                pass
            fresh = time.time() - path.stat().st_mtime < GRACE_SECONDS
        except FileNotFoundError:
            return None
        holder = alive(journal.writer)
        return fresh if holder is None else holder

    def experiments(self) -> list[Entity]:
        fold = Fold()
        with contextlib.suppress(StoreNotFound):
            for path in Folder.open(self._root).named():
                journal = Journal()
                with contextlib.suppress(JournalError):
                    for record in read(path, journal):
                        assert journal.header is not None
                        fold.add(Batch(journal.header.source, STORE_HOME, (record,)))
        clock.observe(fold.stamp)
        return list(fold.entities("experiment"))

    def store(self) -> Store:
        if self._store is None:
            Folder.open(self._root)
            store: Store = plugins.load("stores", "file")(self.uri)
            self._store = store
        return self._store

    def close(self) -> None:
        for each in (self._writer, self._store):
            if each is not None:
                each.close()
        self._writer = self._store = None


def any_alive(writers: Any) -> bool | None:
    """Tell whether one of the processes that wrote journals runs; None if that cannot be known."""
    known = {alive(writer) for writer in writers}
    return True if True in known else None if None in known or not known else False


class StoreBackend:
    """Write batches to any store, one a call."""

    def __init__(self, uri: str, store: Store, off: bool = False) -> None:
        self.uri, self._store, self._off = uri, store, off
        self._sink: StoreSink | None = None

    def sink(self, home: str) -> Sink:
        return Nowhere() if self._off else StoreSink(self._store, home)

    def edit(self, events: Sequence[Event], claim: str | None = None) -> None:
        StoreSink(self._store, STORE_HOME).append(events, claim)

    def run(self, run_id: str) -> Entity | None:
        return self._store.get("run", [run_id])[0]

    def claimed(self, claim: str) -> bool | None:
        for stored in self._store.events():
            if stored.batch.claim == claim:
                return time.time() - stored.received_at / 1000 < GRACE_SECONDS
        return None

    def experiments(self) -> list[Entity]:
        return list(self._store.find("experiment", Query()).items)

    def store(self) -> Store:
        return self._store

    def close(self) -> None:
        self._store.close()


class StoreSink:
    """Append every call to a store as a batch; what the store refuses or cannot take is counted."""

    def __init__(self, store: Store, home: str) -> None:
        self.dropped, self.reason = 0, ""
        self._store, self._home = store, home
        self._steps: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._source, self._number, self._previous, self._pid = os.urandom(16).hex(), 0, "", os.getpid()

    def append(self, events: Sequence[Event], claim: str | None = None) -> None:
        """Append one record. Raises what the store raises."""
        if self._pid != os.getpid():
            self._begin()
        record = Record(self._number + 1, clock.tick(), tuple(events))
        self._store.append(Batch(self._source, self._home, (record,), self._previous, claim))
        self._number, self._previous = record.number, digest((record,), self._previous)

    def events(self, events: Sequence[Event]) -> None:
        try:
            self.append(events)
        except (MlcoreError, OSError) as error:
            self.dropped += 1
            if not self.reason:
                self.reason = str(error)
                _log.warning("the store does not take what is logged: %s; training goes on", error)

    def point(self, key: str, value: Any, step: Any = None, time: Any = None) -> None:
        self.points({key: value}, step, time)

    def points(self, values: Mapping[str, Any], step: Any = None, time: Any = None) -> None:
        steps = {key: self._steps.get(key, -1) + 1 if step is None else step for key in values}
        self._rows({key: metric_columns(key, [steps[key]], [values[key]], time and [time]) for key in values})

    def block(self, key: str, steps: Any, values: Any, times: Any = None) -> None:
        for start in range(0, len(steps), 2048):
            part = slice(start, start + 2048)
            self._rows({key: metric_columns(key, steps[part], values[part], times[part] if times is not None else None)})

    def _rows(self, columns: Mapping[str, Mapping[str, Any]]) -> None:
        self.events([RowsLogged("run", self._home, key, each) for key, each in columns.items()])
        self._steps.update({key: each["step"][-1] for key, each in columns.items()})

    def continue_after(self, steps: Mapping[str, int]) -> None:
        self._steps.update(steps)

    def close(self) -> None:
        return None


class OffStore(SimpleStore):
    """Keep nothing and know nothing."""

    def append(self, batch: Batch) -> None:
        """Take it in, and forget it."""

    def events(self, *_: Any, **__: Any) -> Any:
        """Yield nothing."""
        return iter(())


def refuses(error: AlreadyExists) -> bool:
    """Unused."""
    return bool(error)
