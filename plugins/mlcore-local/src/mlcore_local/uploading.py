"""Ship what this process logs to a store that is no folder, in a thread, while training goes on.

A run is written into a spool by the ordinary writer of journals, so that no call waits for the network. The thread
reads what is new there, appends it to the store, and tries again later when the store does not answer. What is not
shipped when the process ends stays in the spool: the next process that logs there ships it, or `mlcore sync`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlcore import journal
from mlcore.errors import MlcoreError, StoreError
from mlcore_local.pausing import pause
from mlcore_local.spools import Spool, bytes_of, seconds_of, spool_of

if TYPE_CHECKING:
    from mlcore.store import Entity, Store
    from mlcore_local.shipping import SetAside, Shipper

__all__ = ["SpoolWriter", "Uploader", "open_uploader"]

POLL_SECONDS = 1.0
SCAN_SECONDS = 60.0  # between looks at what other processes left
IDLE_SECONDS = 30.0  # after which the thread ends
LONGEST_SECONDS = 30.0  # between two attempts
NAMES_SECONDS = 0.03  # that a start waits to hear whether experiments were renamed
ASK_SECONDS = 2.0
AWAY_SECONDS = 2.0  # that is waited for a store that did not answer before
_log = logging.getLogger("mlcore")
_T = TypeVar("_T")
_uploaders: dict[Path, Uploader] = {}


def open_uploader(uri: str, opened: Callable[[], Store], place: Callable[[str], str]) -> Uploader:
    """Return what spools runs for the store at `uri`: one for all who log there in this process.

    `opened` opens the store, `place` tells where the files of a run go; both may wait for the network. Raises
    `ConfigError` for a setting that says nothing.
    """
    spool = spool_of(uri)
    _ = seconds_of("spool_wait"), seconds_of("spool_keep"), bytes_of("spool_limit")  # what is wrong is told of now
    uploader = _uploaders.setdefault(spool.root, Uploader(spool))
    uploader.opened, uploader.place = opened, place
    return uploader


class SpoolWriter(journal.Writer):
    """Write into the spool, and tell the uploader when the run is over."""

    def __init__(self, folder: Path, home: str, ended: Callable[[SpoolWriter], None]) -> None:
        super().__init__(folder, home)
        self._ended = ended

    def close(self) -> None:
        """See `mlcore.journal.Writer.close`."""
        super().close()
        self._ended(self)


class Uploader:
    """Ship what is in one spool to one store.

    The thread runs while there is something to ship or a run is open. All that is asked of it by other threads returns
    soon, whatever the network does.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.opened: Callable[[], Store]
        self.place: Callable[[str], str]
        self._places: dict[str, Callable[[str], str]] = {}  # of the runs of this process, as their client has it
        self._begin()

    def _begin(self) -> None:
        """Begin without a thread, as in the child of a fork."""
        self._turn = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._files: threading.Thread | None = None
        self._file_failures = 0
        self._shipper: Shipper | None = None
        self._writers: set[SpoolWriter] = set()
        self._homes: dict[str, None] = {}  # with something of this process that was not seen shipped
        self._asked, self._done, self._failures = 0, 0, 0  # rounds
        self._names_asked = True
        self._names_done, self._ready = threading.Event(), threading.Event()
        self._lost: list[str] = []  # files that were not kept, and why
        self.trouble: BaseException | None = None

    # What the training thread calls

    def sink(self, home: str, place: Callable[[str], str]) -> journal.Writer:
        """Open a journal in the spool; what the disk refuses is told of once, and counted."""
        writer = SpoolWriter(self.spool.run_folder(home), home, self._closed)
        try:
            folder = self.spool.make()
            writer.open()
            folder.note(home)
        except (OSError, StoreError) as error:
            _log.debug("cannot open a journal in %s: %s", self.spool.root, error)  # the first record tells
        with self._turn:
            self._writers.add(writer)
            self._homes[home], self._places[home] = None, place
            self._wake()
        return writer

    def wait(self) -> None:
        """Wait until the store has what this process wrote, but not long, and not if it cannot be reached."""
        if threading.current_thread() not in (self._thread, self._files):  # which would wait for themselves
            self._settle(seconds_of("spool_wait"))

    def ready(self) -> None:
        """Wait until the store was opened, or could not be, but not long."""
        with self._turn:
            self._wake()
        self._ready.wait(ASK_SECONDS)

    def get(self, kind: str, id: str) -> Entity | None:
        """Return what the spool knows of a run or an experiment."""
        from mlcore_local.store import FolderStore

        with suppress(MlcoreError, OSError):  # anew, as a handle may not see at once what others write
            return FolderStore(self.spool.root).get(kind, [id])[0]
        return None

    def experiments(self) -> Store:
        """Return what is known of experiments as a store, and wait a moment for news of them."""
        from mlcore_local.names import Names

        with self._turn:
            self._names_asked, self._names_done = True, threading.Event()
            self._wake()
        fresh = self._ready.is_set() and self._names_done.wait(NAMES_SECONDS)  # else its library is imported first
        return Names(self.spool, fresh=fresh)

    def ask(self, online: Callable[[Callable[[], bool]], _T], offline: Callable[[], _T]) -> _T:
        """Return what `online` does, or `offline` if the store does not answer within two seconds.

        `online` is told by a call whether it is still waited for.
        """
        answer: list[_T] = []
        error: list[BaseException] = []
        over = threading.Event()
        late = threading.Event()

        def work() -> None:
            try:
                answer.append(online(lambda: not late.is_set()))
            except BaseException as raised:  # noqa: BLE001 - whoever asked decides
                error.append(raised)
            over.set()

        threading.Thread(target=work, name="mlcore-asking", daemon=True).start()
        if not over.wait(ASK_SECONDS):
            late.set()
        if not late.is_set() and answer:
            return answer[0]
        if not late.is_set() and isinstance(error[0], MlcoreError) and not isinstance(error[0], StoreError):
            raise error[0]
        why = "it did not answer in time" if late.is_set() else str(error[0])
        _log.warning("%s could not be asked, the run goes on from what is known here: %s", self.spool.target, why)
        return offline()

    def keep(self, run_id: str, sources: Mapping[str, Any], passing: bool) -> dict[str, Any]:
        """Keep files in the spool until they are uploaded; return the records of those that are kept."""
        import concurrent.futures.thread  # noqa: F401 - places need it, and nobody can import it as the interpreter ends

        from mlcore_local.keeping import keep

        records, refused = keep(self.spool, run_id, sources, passing=passing)
        if refused and not self._lost:
            _log.warning("a file is not kept: %s; training goes on, what is not kept is counted", refused[0])
        self._lost += refused
        return records

    def finish(self) -> None:
        """Wait for what is under way as the process ends, and tell what stays in the spool, and how it is sent."""
        shipped = False
        with suppress(KeyboardInterrupt):  # whoever waits no longer loses nothing
            shipped = self._settle(seconds_of("spool_wait"))
        if self._lost:
            _log.warning("%d files were not kept, the first as %s", len(self._lost), self._lost[0])
        if not shipped:
            _log.warning("%s", self._told())
        if self._shipper is not None:
            self._shipper.close()

    # What makes the thread work

    def _closed(self, writer: SpoolWriter) -> None:
        with self._turn:
            self._writers.discard(writer)
            self._homes[writer.home] = None
            self._wake()

    def _wake(self) -> None:
        """Let the thread look now, and start it if there is none."""
        self._asked += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlcore-uploader", daemon=True)
            with suppress(RuntimeError):  # no more threads: at exit, or at the limit of a container
                self._thread.start()
        self._turn.notify_all()

    def _settle(self, seconds: float) -> bool:
        """Wait until a round that begins now has shipped all, but not long if one fails; tell whether it has."""
        began = time.monotonic()
        with self._turn:
            if not self._homes:
                return True
            self._wake()
            round_, failures, stuck = self._asked, self._failures, bool(self._file_failures)
            while (self._done < round_ or self._bringing()) and self._failures <= failures:
                failures = self._failures  # fewer of them: it answers again
                longest = min(seconds, AWAY_SECONDS) if failures or stuck else seconds
                left = began + longest - time.monotonic()
                if left <= 0 or self._thread is None or not self._thread.is_alive():
                    return False
                self._turn.wait(left)
            return self._done >= round_ and not self._bringing()

    def _bringing(self) -> bool:
        return self._shipper is not None and bool(self._shipper.later())

    def _told(self) -> str:
        with self._turn:
            homes = list(self._homes)
        what = f"run {homes[0]} is" if len(homes) == 1 else f"{len(homes)} runs are"
        why = "it does not answer in time" if self.trouble is None else str(self.trouble)
        where = f"what is missing is kept in {self.spool.root}"
        return f"{what} not wholly in {self.spool.target} yet ({why}): {where}; send it with `mlcore sync`"

    # The thread

    def _work(self) -> None:
        scanned, idle = 0.0, time.monotonic()
        while True:
            with self._turn:
                round_ = self._asked
            clean = self._round(round_, scan=time.monotonic() - scanned > SCAN_SECONDS)
            if clean:
                scanned = time.monotonic() if time.monotonic() - scanned > SCAN_SECONDS else scanned
            with self._turn:
                busy = bool(self._writers or self._homes)
                idle = time.monotonic() if busy or self._asked > round_ else idle
                if time.monotonic() - idle > IDLE_SECONDS:
                    self._leave()
                    return
                if self._asked == round_ or self._failures:
                    self._turn.wait(self._pause(self._failures))

    def _pause(self, failures: int) -> float:
        return pause(failures, POLL_SECONDS, LONGEST_SECONDS) if failures else POLL_SECONDS

    def _round(self, round_: int, *, scan: bool) -> bool:
        """Ship what is new; what the store or its library raises is for the next time."""
        try:
            shipper = self._shipper = self._shipper or self._new_shipper()
            if self._names_asked:
                self._names_asked = False
                from mlcore_local.names import refresh

                refresh(self.spool, self.opened())
                self._names_done.set()
            with self._turn:
                homes, writers = list(self._homes), set(self._writers)
            for home in homes:
                shipper.ship(home)
            shipper.sign(writers)
            if scan:
                shipper.adopt()
        except Exception as error:  # noqa: BLE001 - a store's library may raise anything
            with self._turn:
                self._failures, self.trouble = self._failures + 1, error
                self._turn.notify_all()
            _log.debug("%s: %s", self.spool.target, error)
            return False
        with self._turn:
            still = {each.home for each in writers | self._writers} | {each.home for each in shipper.later()}
            over = [home for home in homes if home not in still and self._homes.pop(home, True) is None]
            for home in over:
                self._places.pop(home, None)
            self._done, self._failures = round_, 0
            self.trouble = self.trouble if self._file_failures else None
            self._turn.notify_all()
        for home in over:
            shipper.save(home)
        if shipper.later():
            self._bring(shipper)
        return True

    def _bring(self, shipper: Shipper) -> None:
        """Upload large files in a thread of its own, so that metrics go on."""
        if self._files is None or not self._files.is_alive():
            self._files = threading.Thread(target=self._bring_all, args=(shipper,), name="mlcore-files", daemon=True)
            try:
                self._files.start()
            except RuntimeError:  # no more threads
                self._bring_all(shipper)

    def _bring_all(self, shipper: Shipper) -> None:
        try:
            shipper.bring()
        except Exception as error:  # noqa: BLE001 - as in a round; the next one tries again
            with self._turn:
                self._file_failures, self.trouble = self._file_failures + 1, error
            time.sleep(self._pause(self._file_failures))
        else:
            self._file_failures = 0
        with self._turn:
            self._asked += 1  # a round, to see that nothing is left
            self._turn.notify_all()

    def _new_shipper(self) -> Shipper:
        from mlcore_local.shipping import Shipper

        try:
            self.opened()
        finally:
            self._ready.set()
        return Shipper(self.spool, self._store, self._place_of, self._set_aside)

    def _store(self) -> Store:
        return self.opened()  # of whoever opened it last

    def _place_of(self, run_id: str) -> str:
        return self._places.get(run_id, self.place)(run_id)

    def _set_aside(self, aside: SetAside) -> None:
        what = f"record {aside.number}" if aside.number else "all that follows"
        told = "%s refuses %s of run %s, which stays in %s: %s"
        _log.warning(told, self.spool.target, what, aside.home, self.spool.root, aside.reason)

    def _leave(self) -> None:
        self._thread = None
        if self._shipper is not None:
            self._shipper.close()
            self._shipper = None

    def forked(self) -> None:
        """Go on without the thread of the parent, which ships what this process adds to the runs that it inherits."""
        shipper = self._shipper
        self._begin()
        if shipper is not None:
            shipper.forked()


def _after_fork() -> None:
    for uploader in _uploaders.values():
        uploader.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
