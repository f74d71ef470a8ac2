"""Several processes on one socket: each answers requests, one that dies is replaced, all end together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from mlcore.errors import MlcoreError
from mlcore_server.logs import set_up
from mlcore_server.metrics import FOLDER
from mlcore_server.settings import Settings

__all__ = ["supervise"]

_YOUNG = 5.0  # seconds; who dies younger is replaced only after a pause
_PAUSE = 1.0
_LATE = 10.0  # seconds beyond the drain in which a worker may end by itself
_log = logging.getLogger("mlcore")


def supervise(settings: Settings, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Run `settings.workers` processes until SIGTERM or SIGINT."""
    set_up(settings.log_format, settings.log_level)
    with tempfile.TemporaryDirectory(prefix="mlcore-metrics-") as folder:
        os.environ[FOLDER] = folder  # where each process counts, so that any can tell of all
        _Supervisor(settings, listening).run(ready)


class _Supervisor:
    """Start workers, replace those that die, and end them all."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings, self._listening = settings, listening
        self._context = multiprocessing.get_context("spawn")  # a fork would share the store's connections
        self._alive, self._held = self._context.Pipe(duplex=False)  # closed by the kernel when we end, however we do
        self._workers: dict[Any, float] = {}
        self._told, self._tell = os.pipe()

    def run(self, ready: Callable[[], None]) -> None:
        """Look after the workers until a signal comes."""
        before = {each: signal.signal(each, self._stop) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            for _ in range(self._settings.workers):
                self._start()
            ready()
            while True:
                gone = wait([self._told, *(each.sentinel for each in self._workers)])
                if self._told in gone:
                    return
                self._replace()
        finally:
            self._end()
            for each, handler in before.items():
                signal.signal(each, handler)

    def _stop(self, *_: object) -> None:
        os.write(self._tell, b"x")

    def _start(self) -> None:
        worker = self._context.Process(target=_work, args=(self._settings, self._listening, self._alive))
        worker.start()
        self._workers[worker] = time.monotonic()

    def _replace(self) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        for worker, began in list(self._workers.items()):
            if worker.exitcode is None:
                continue
            del self._workers[worker]
            _log.error("worker %s ended with %s: another one takes its place", worker.pid, worker.exitcode)
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
            if time.monotonic() - began < _YOUNG and wait([self._told], _PAUSE):
                return
            self._start()

    def _end(self) -> None:
        for worker in self._workers:
            worker.terminate()
        deadline = time.monotonic() + self._settings.drain + _LATE
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.exitcode is None:
                worker.kill()
                worker.join()
        for end in (self._alive, self._held):
            end.close()
        os.close(self._told)
        os.close(self._tell)


def _work(settings: Settings, listening: socket.socket, alive: Connection) -> None:
    """Answer requests in this process, and end when the supervisor does."""
    from mlcore_server.app import application
    from mlcore_server.running import serve

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the supervisor says when
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def follow() -> None:
        try:
            alive.recv()
        except (EOFError, OSError):
            shutil.rmtree(os.environ[FOLDER], ignore_errors=True)  # the supervisor cannot do it any more
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(settings.drain + _LATE)
            os._exit(1)  # nobody is left who would kill it

    threading.Thread(target=follow, name="mlcore-follower", daemon=True).start()
    try:
        serve(application(settings), listening)
    except MlcoreError as error:
        _log.error("a worker cannot start: %s", error)
        sys.exit(1)
