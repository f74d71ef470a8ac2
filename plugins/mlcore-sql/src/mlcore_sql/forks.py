"""Keep forks and transactions of SQLite apart.

SQLite remembers in the process which locks it holds. A child that is forked in the middle of a transaction inherits
that memory and the locks within the library, and nobody lets go of them there: it would wait for ever. So a fork waits
for the transactions of other threads to end, which takes milliseconds, and keeps new ones waiting.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["apart"]

_PATIENCE = 5.0  # seconds; a thread that forks inside its own transaction must not wait for itself
_changed = threading.Condition(threading.Lock())
_inside: set[object] = set()


@contextmanager
def apart() -> Iterator[None]:
    """Let nobody fork while the block runs."""
    token = object()
    with _changed:
        _inside.add(token)
    try:
        yield
    finally:
        with _changed:
            _inside.discard(token)
            _changed.notify_all()


def _before() -> None:
    _changed.acquire()
    deadline = time.monotonic() + _PATIENCE
    while _inside and _changed.wait(deadline - time.monotonic()):
        pass


def _after_in_child() -> None:
    _inside.clear()
    _changed.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_changed.release, after_in_child=_after_in_child)
