"""Tell who writes a journal, and keep open ones synced and alive from one background thread, off the training's own."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
            with suppress(RuntimeError):  # no more threads: at exit, or at the limit of a container
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


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read()
    return ""


def started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks, so that a reused process id is not taken for it."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def this_process() -> dict[str, Any]:
    """Return what a journal records about its writer; `boot` and `pidns` tell what process ids count in, on Linux."""
    pid, boot = os.getpid(), _read("/proc/sys/kernel/random/boot_id").strip()
    about = {"host": platform.node(), "boot": boot, "pidns": 0, "pid": pid, "started": started(pid), "user": user()}
    with suppress(OSError):
        about["pidns"] = os.stat("/proc/self/ns/pid").st_ino
    return about


def user() -> str:
    """Return the name of the user, or the number where there is no name."""
    name = os.environ.get("USER") or os.environ.get("LOGNAME") or os.environ.get("USERNAME")
    return name or str(os.getuid() if hasattr(os, "getuid") else "")
