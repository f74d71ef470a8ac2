"""Keep open journals synced and alive from one background thread a process, off the training thread."""

from __future__ import annotations

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
_lock = threading.Lock()


def keep(journal: Writer) -> None:
    """Look after a journal until it is let go."""
    global _thread
    with _lock:
        _kept.add(journal)
        if _thread is None:
            _thread = threading.Thread(target=_work, name="mlcore-keeper", daemon=True)
            _thread.start()


def let_go(journal: Writer) -> None:
    """Stop looking after a journal."""
    _kept.discard(journal)


def _work() -> None:
    signed = time.monotonic()
    while True:
        time.sleep(SYNC_SECONDS)
        due = time.monotonic() - signed >= SIGN_SECONDS
        signed = time.monotonic() if due else signed
        for journal in list(_kept):
            try:
                journal.sync()
                if due:
                    journal.sign()
            except OSError as error:  # the disk's trouble must not end the thread
                logging.getLogger("mlcore").debug("cannot sync a journal: %s", error)


def _after_fork() -> None:
    global _thread, _lock
    _thread, _lock = None, threading.Lock()
    for journal in list(_kept):
        journal.forked()
    _kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
