"""Keep open journals synced and alive from one background thread a process, off the training thread."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlcore.journal._writer import Writer

SYNC_SECONDS = 1.0
SIGN_SECONDS = 30.0


_kept: weakref.WeakSet[Writer] = weakref.WeakSet()
_thread: threading.Thread | None = None
_lock = threading.RLock()  # a signal's handler may come in between


def keep(journal: Writer) -> None:
    """Look after a journal, as long as it is used, and after what becomes of it in the child of a fork."""
    global _thread
    with _lock:
        _kept.add(journal)
        if _thread is None:
            _thread = threading.Thread(target=_work, name="mlcore-keeper", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: at exit, or at the limit of a container
                _thread.start()


def _work() -> None:
    signed = time.monotonic()
    while True:
        time.sleep(SYNC_SECONDS)
        due = time.monotonic() - signed >= SIGN_SECONDS
        signed = time.monotonic() if due else signed
        with _lock:
            journals = list(_kept)
        for journal in journals:
            try:
                journal.sync()
                if due:
                    journal.sign()
            except OSError as error:  # the disk's trouble must not end the thread
                logging.getLogger("mlcore").debug("cannot sync a journal: %s", error)


def _after_fork() -> None:
    global _thread, _lock
    _thread, _lock = None, threading.RLock()
    for journal in list(_kept):
        journal.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
