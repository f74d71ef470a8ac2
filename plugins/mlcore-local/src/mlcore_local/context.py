"""What every run records about itself: the machine, the Python, the command, seeds and the scheduler's ids."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlcore import journal

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["host"]


def host(_: Run) -> dict[str, Any]:
    """Tell of the machine and the user; memory in bytes, cores as far as this process may use them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "name": platform.node(),
        "user": journal.user(),
        "system": sys.platform,
        "cores": cores,
        "memory": _memory(),
    }


def _memory() -> int | None:
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
