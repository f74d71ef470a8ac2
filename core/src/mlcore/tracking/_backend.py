"""Where a client writes and reads: a folder store through journals, any other through its two methods."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlcore import _log, config, journal, plugins
from mlcore.errors import StoreError, StoreNotFound
from mlcore.folder import STORE_HOME, Folder
from mlcore.store import Batch, Entity, Event, Record, RowsLogged, clock, digest

if TYPE_CHECKING:
    from mlcore.store import Store

GRACE_SECONDS = 300
SIGNS_SECONDS = 75  # two signs of life may be missed before another process takes a run over
_ROWS = 2_048  # of one event, to keep it under its limit
_T = TypeVar("_T")
Question = Callable[[Entity | None, Callable[[], bool]], _T]


def status_of(entity: Entity) -> str:
    """Return a run's status: LOST is a RUNNING run whose process is gone, or silent for over five minutes."""
    status = str(entity.fields.get("status", "RUNNING"))
    lost = entity.alive is False or (entity.alive is None and _silent(entity, GRACE_SECONDS))
    return "LOST" if lost and status == "RUNNING" else status


def held(entity: Entity, taking_over: bool) -> bool:
    """Tell whether another process has a run open, so that one that arrives joins it; one that takes over asks less."""
    doubtful = entity.alive is None and (taking_over or _silent(entity, SIGNS_SECONDS))
    return status_of(entity) == "RUNNING" and not doubtful


def _silent(entity: Entity, seconds: float) -> bool:
    return entity.seen is not None and time.time() - entity.seen / 1000 > seconds


class StoreSink(journal.Sink):
    """Append every call to a store as a batch; what the store does not take is dropped and counted."""

    told = "the store does not take what is logged: %s; training goes on"

    def __init__(self, store: Callable[[], Store], home: str) -> None:
        super().__init__()
        self._store, self._home, self._pid, self._lock = store, home, os.getpid(), threading.RLock()
        self._last: tuple[str, int, str] | None = None  # source, number and digest of the last record

    def append(self, events: Sequence[Event], claim: str | None = None) -> None:
        """Append one record. Raises what the store raises; what comes then is of a new source, as it may be stored."""
        with self._turn():
            (source, number, previous), self._last = self._last or (os.urandom(16).hex(), 0, ""), None
            record = Record(number + 1, clock.tick(), tuple(events))
            self._store().append(Batch(source, self._home, (record,), previous, claim))
            self._last = source, record.number, digest((record,), previous)

    def _turn(self) -> threading.RLock:
        if self._pid != os.getpid():  # the child of a fork: another thread may have held the lock
            self._pid, self._last, self._lock = os.getpid(), None, threading.RLock()
        return self._lock

    def events(self, events: Sequence[Event]) -> None:
        """See `mlcore.journal.Writer.events`."""
        try:
            if events:
                self.append(events)
        except Exception as error:  # noqa: BLE001 - a store may raise whatever its library raises
            self._drop(str(error))

    def point(self, key: str, value: Any, step: Any = None, time: Any = None) -> None:
        """See `mlcore.journal.Writer.point`."""
        self.points({journal.check_key(key): value}, step, time)

    def points(self, values: Mapping[str, Any], step: Any = None, time: Any = None) -> None:
        """See `mlcore.journal.Writer.points`."""
        with self._turn():
            steps = {key: self._steps.get(key, -1) + 1 if step is None else step for key in values}
            times = None if time is None else [time]
            rows = {key: journal.metric_columns(key, [steps[key]], [value], times) for key, value in values.items()}
            self.events([self._rows(key, columns) for key, columns in rows.items()])

    def block(self, key: str, steps: Any, values: Any, times: Any = None) -> None:
        """See `mlcore.journal.Writer.block`."""
        columns = journal.metric_columns(key, steps, values, times)
        with self._turn():
            for part in (slice(start, start + _ROWS) for start in range(0, len(columns["step"]), _ROWS)):
                self.events([self._rows(key, {name: column[part] for name, column in columns.items()})])

    def _rows(self, key: str, columns: dict[str, array[Any]]) -> RowsLogged:
        self._steps[key] = columns["step"][-1]
        now = array("q", [time.time_ns() // 1_000_000]) * len(columns["step"])
        return RowsLogged("run", self._home, key, {"time": now, **columns})

    def close(self) -> None:
        """See `mlcore.journal.Writer.close`."""


class Backend:
    """Open sinks to write to and the store to read from, both as late as possible."""

    def __init__(self, uri: str, artifacts: str | os.PathLike[str] | None = None) -> None:
        self.artifacts = config.artifacts_setting(artifacts)
        scheme, separator, path = uri.partition("://")
        self.uri, self.name, self._scheme = uri, config.shown(uri), scheme if separator else "file"
        folder = self._scheme == "file" and uri != config.OFF
        self.root = Path(path if separator else uri).expanduser().absolute() if folder else None
        self._opens = str(self.root or uri)
        self._store: Store | None = _off() if uri == config.OFF else None
        self._inherited: Store | None = None
        self._lock, self._pid = threading.RLock(), os.getpid()
        self._edits = StoreSink(self.opened, STORE_HOME)
        self._check()

    def _check(self) -> None:
        """Tell of an unknown scheme now."""
        if self.root is None:
            self.opened()

    @property
    def spool(self) -> Any:
        """What keeps runs on this machine and ships them, None where they are written directly."""
        return None

    def spools_files(self) -> bool:
        """Tell whether files are spooled as well."""
        return False

    def sink(self, home: str) -> journal.Writer | StoreSink:
        """Open what takes in the records of a run. Raises `StoreError` if there is no writing there at all."""
        if self.root is None:
            return StoreSink(self.opened, home)
        folder = self._made(self.root)
        writer = journal.Writer(folder.run_folder(home), home)
        try:
            try:
                writer.open()
            finally:  # not before: who reads the note looks for the journal
                folder.note(home)
        except OSError as error:
            if error.errno not in (28, 122):  # a full disk or quota must not keep a training from starting
                raise StoreError(f"cannot write to store {self.root}: {error.strerror or error}") from error
        return writer

    def _made(self, root: Path) -> Folder:
        folder, made = Folder.create(root)
        if made:
            _log.warning("made a store at %s", root)
        return folder

    def edit(self, events: Sequence[Event], claim: str | None = None, home: str = STORE_HOME) -> None:
        """Write events online, with a claim if one is given. Raises `AlreadyExists` or another `StoreError`."""
        if self.root is not None:
            self._made(self.root)
        (self._edits if claim is None else StoreSink(self.opened, home)).append(events, claim)

    def get(self, kind: str, id: str) -> Entity | None:
        """Return one entity, None if it is not there or there is no store yet."""
        with suppress(StoreNotFound):
            return self.look(kind, id)
        return None

    def look(self, kind: str, id: str) -> Entity | None:
        """Return one entity. Raises what the store does, such as `StoreNotFound`."""
        if found := self.store().get(kind, [id])[0]:
            clock.observe(found.changed)
        return found

    def asked(self, id: str, question: Question[_T]) -> _T:
        """Answer a question about a run, for which its start waits: it is given what is known, and if to go online."""
        return question(self.get("run", id), lambda: True)

    def offline(self) -> Backend:
        """Return a backend that is asked about experiments, without waiting for the network where runs are spooled."""
        return self

    def edited(self) -> bool:
        """Tell whether experiments were ever edited, so that names may stand for others than they did."""
        patterns = ("store/*", "claims/experiment-name-*")
        return self.root is None or any(any(self.root.glob(pattern)) for pattern in patterns)

    def store(self) -> Store:
        """Return the store to read from. Raises `NotInstalled`; reading raises `StoreNotFound`."""
        return self.opened()

    def opened(self) -> Store:
        """Return the store as it is. Raises `NotInstalled`."""
        forked = self._pid != os.getpid() and self.uri != config.OFF
        if forked:
            self._lock = threading.RLock()
        with self._lock:
            if self._store is None or forked:
                self._inherited, self._pid = self._store, os.getpid()  # by a fork: neither used nor closed in the child
                self._store = plugins.load("stores", self._scheme)(self._opens)
            return self._store

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()


def _off() -> Store:
    from mlcore.tracking._off import OffStore

    return OffStore()
