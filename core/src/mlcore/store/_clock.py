"""The hybrid logical clock of this process: stamps never go back, nor stay behind what was read."""

import os
import threading
from time import time_ns

_lock = threading.RLock()  # a signal's handler may come in between
_last = 0


def tick(after: int = 0) -> int:
    """Return a stamp (ns since 1970) above `after` and all that were returned or observed before."""
    global _last
    with _lock:
        _last = max(time_ns(), _last + 1, after + 1)
        return _last


def observe(stamp: int) -> None:
    """Let later stamps be above this one, which was read from somebody else."""
    tick(stamp)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it, and is not here to let go


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
