"""The folder store: batches as journals, answered from an index where there is one, else from memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlcore.errors import MlcoreError
from mlcore.folder import Folder
from mlcore.store import (
    START,
    Batch,
    Capabilities,
    Columns,
    Entity,
    Page,
    Query,
    SeriesKey,
    SimpleStore,
    Stored,
    selected,
    shaped,
)
from mlcore_local.indexed import Indexed

if TYPE_CHECKING:  # imported when it is needed: most questions are answered by the index alone
    from mlcore_local.append import Appender
    from mlcore_local.folded import Folded
    from mlcore_local.history import History

__all__ = ["FolderStore", "open_store"]

_T = TypeVar("_T")
_RETRY_SECONDS = 60


class FolderStore(SimpleStore):
    """Read and append to a store in a folder; a handle keeps what it read, and looks only at what changed.

    With `indexed` it answers from an index, if one is installed and can be used: the same, and faster. Positions are
    good in the handle that gave them. With `newest` set it looks, without an index, only at so many runs, the newest by
    id.
    """

    def __init__(self, root: Path, *, indexed: bool = False, power: bool = False) -> None:
        super().__init__()
        self.capabilities = Capabilities(durability="power" if power else "process", receipts=False)
        self._appending = threading.Lock()  # not the one of questions, which may take long
        self.root = root
        self.newest: int | None = None
        self._folder: Folder | None = None
        self._memory: Folded | None = None
        self._history: History | None = None
        self._wanted = indexed
        self._indexed: Indexed | None = None
        self._failed = 0.0  # when the index could not be used, of the monotonic clock
        self._appender: Appender | None = None
        self._claims: Folded | None = None

    def append(self, batch: Batch) -> None:
        """See `mlcore.store.Store.append`; the first one makes the store."""
        with self._lock:  # the folder without an index is asked for claims, and is not thread-safe
            (error,) = self._append_all([batch], (), self._claims_of)
        if error is not None:
            raise error

    def append_all(self, batches: Sequence[Batch], actors: Sequence[str] = ()) -> list[MlcoreError | None]:
        """See `mlcore.store.Store.append_all`; all are written under one lock, and synced together."""
        return self._append_all(batches, actors, self._claims_read)

    def _append_all(
        self, batches: Sequence[Batch], actors: Sequence[str], claims_of: Callable[[str, str], list[Path]]
    ) -> list[MlcoreError | None]:
        with self._appending:
            if self._appender is None:
                from mlcore_local.append import Appender

                folder, _ = Folder.create(self.root)
                self._appender = Appender(folder, power=self.capabilities.durability == "power")
            return self._appender.append_all(batches, actors, claims_of)

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        """See `mlcore.store.Store.events`."""
        found = self._listed().events(after, of)
        wanted = None if kinds is None else set(kinds)
        for stored in found:
            chosen = selected(stored, of, wanted, rows)
            if chosen is not None:
                yield chosen

    def latest(self) -> str:
        """Return the position after all that is stored now, to be told what comes from here on."""
        return self._listed().latest()

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""
        # a run by its id is soon read: nobody waits for an index because of that
        return self._answer(lambda it: it.get(kind, ids), lambda it: it.get(kind, ids), filling=kind != "run")

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        return self._answer(
            lambda it: it.find(kind, query), lambda it: it.find(kind, query), filling=self.newest is None
        )

    def series(
        self,
        kind: str,
        ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        context: str | None = None,
        columns: Sequence[str] | None = None,
        max_points: int | None = None,
    ) -> dict[SeriesKey, Columns]:
        """See `mlcore.store.Store.series`."""
        found = self._answer(
            lambda it: it.series(kind, ids, keys, context),
            lambda it: it.series(kind, ids, keys, context),
            filling=kind != "run",
        )
        return shaped(found, None, None, columns, max_points)

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Answer what is asked meanwhile of one look at the folder: for commands, which ask several things in a row.

        Each look is at all runs that ended just now, and what is read of it may be older than what was written since.
        """
        with self._lock:
            indexed = self._index()
            with nullcontext() if indexed is None else indexed.one_look():
                yield

    def place(self, run_id: str) -> str:
        """Return where the files of a run are, for whoever spooled it: in its folder."""
        return str(self._open().run_folder(run_id) / "artifacts")

    def reindex(self) -> None:
        """Drop the index; the next question makes it anew."""
        with self._lock:
            if indexed := self._index():
                indexed.drop()

    def index_path(self) -> Path | None:
        """Return where the index is, None if there is none to be used. Raises `StoreNotFound`."""
        with self._lock:
            indexed = self._index()
            return None if indexed is None else indexed.path

    def close(self) -> None:
        """See `mlcore.store.Store.close`."""
        with self._lock:
            if self._indexed is not None:
                self._indexed.close()
        with self._appending:
            if self._appender is not None:
                self._appender.close()

    def _open(self) -> Folder:
        if self._folder is None:
            self._folder = Folder.open(self.root)
        return self._folder

    def _listed(self) -> History:
        with self._lock:
            self._open()
            if self._history is None:
                from mlcore_local.history import History

                self._history = History(str(self.root))
            return self._history

    @property
    def _folded(self) -> Folded:
        if self._memory is None:
            from mlcore_local.folded import Folded

            self._memory = Folded(self.root)
        self._memory.newest = self.newest
        return self._memory

    def _index(self, *, making: bool = True) -> Indexed | None:
        folder = self._open()
        if self._wanted and self._indexed is None:
            from mlcore_local.index import open_index, there

            if not making and not there(folder):
                return None
            index = open_index(folder)
            self._indexed, self._wanted = None if index is None else Indexed(folder, index), index is not None
        return self._indexed

    def _answer(
        self, ask_index: Callable[[Indexed], _T], ask_folder: Callable[[Folded], _T], *, filling: bool = True
    ) -> _T:
        """Answer from the index, or from the folder where there is none, or, but for `filling`, an empty one."""
        with self._lock:
            indexed = self._index(making=filling)
            failed = self._failed and time.monotonic() - self._failed < _RETRY_SECONDS
            if indexed is not None and not failed and (filling or indexed.made()):
                try:
                    return ask_index(indexed)
                except OSError as error:
                    if not isinstance(error, BlockingIOError):  # somebody fills it, and will be done
                        self._failed = time.monotonic()
                    import logging

                    log = logging.getLogger("mlcore")
                    log.warning("the index %s cannot be used, reading goes on without: %s", indexed.path, error)
            return ask_folder(self._folded)

    def _claims_read(self, _: str, source: str) -> list[Path]:
        """Return the claims of a source without the lock that a long question may hold."""
        if self._claims is None:
            from mlcore_local.folded import Folded

            self._claims = Folded(self.root)
        return self._claims.claims_of(source)

    def _claims_of(self, home: str, source: str) -> list[Path]:
        return self._answer(lambda it: it.claims_of(home, source), lambda it: it.claims_of(source), filling=False)


def open_store(uri: str) -> FolderStore:
    """Open the folder store at a path or ``file://`` URI; it need not be there before something is appended."""
    return FolderStore(Path(uri.removeprefix("file://")).expanduser().absolute(), indexed=True)
