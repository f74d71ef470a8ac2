"""The active run: which one is meant when nobody says, and how open ones end with the process."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from mlcore import _log
from mlcore.errors import RunStateError

if TYPE_CHECKING:
    from mlcore.tracking._run import Run

current: ContextVar[Run | None] = ContextVar("mlcore_run", default=None)
starting = threading.RLock()
finishing: dict[Callable[[], None], None] = {}  # what is called when all runs have ended with the process
_open: list[Run] = []  # and those that ended since the last one was started


def push(run: Run) -> None:
    """Make a run the active one, until it ends."""
    run._previous = current.get()
    current.set(run)
    _open[:] = [each for each in _open if each._live] + [run]
    processes, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if processes and util and processes.parent_process() is not None:
        util.Finalize(None, _end_all, exitpriority=0)  # a worker process ends without atexit


def active_run() -> Run | None:
    """Return the active run: this context's, or for a thread that has none the only open one of the process.

    Raises `RunStateError` where a thread leaves several to choose from.
    """
    run = current.get()
    while run is not None and not run._live:
        run = run._previous
    if run is None and current.get() is None:
        others = [each for each in _open if each._live]
        if len(others) > 1:
            raise RunStateError("several runs are open and none of them in this thread: call the run's own methods")
        return others[0] if others else None
    return run


def last_run() -> Run | None:
    """Return the run that this process started last, ended or not."""
    return _open[-1] if _open else None


def make_way(inside: bool) -> Run | None:
    """Return the active run for a new one to start in, or end it if a notebook starts another.

    Raises `RunStateError` if a run is active and the new one is to be on its own.
    """
    run = active_run() if inside else current.get() and active_run()
    if run is None or inside:
        return run
    if run._inherited:  # whoever forked this process goes on with it
        return None
    if not _in_notebook():
        raise RunStateError(f"run {run.id} is active: end it, or start this one inside it: nested=True or parent=run")
    _log.warning("ending run %s, as another one starts", run.id)
    run.end()
    return None


def _in_notebook() -> bool:
    return hasattr(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)(), "kernel")


@atexit.register
def _end_all() -> None:
    """End what is open as the process ended: an uncaught error is where the interpreter leaves it."""
    from mlcore.tracking._run import status_after

    # in a session an error is not the end; a worker process ends while its error is being raised
    session = _in_notebook() or hasattr(sys, "ps1")
    error = sys.exc_info()[1] or (None if session else getattr(sys, "last_value", None))
    for run in reversed(_open):
        if run._live:
            run.end(status_after(error))
    for finish in finishing:
        finish()


def _forget_opener() -> None:
    global starting
    starting = threading.RLock()
    for run in _open:
        run._opener, run._inherited, run._capture = False, True, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_opener)
