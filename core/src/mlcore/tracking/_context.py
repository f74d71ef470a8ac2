"""What a run records about itself: a thread asks the providers of `mlcore_context`, so that training does not wait."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlcore import config, plugins
from mlcore.store import AttributesRemoved, AttributesSet, Event
from mlcore.tracking._plain import plain, portions

if TYPE_CHECKING:
    from mlcore.tracking._run import Run

FAMILY, CAPTURED = "context", "captured"
WAIT_SECONDS, FORK_SECONDS = 10.0, 0.5
_log = logging.getLogger("mlcore")


class Capture(threading.Thread):
    """Ask providers by name what a run records, and write it down as each of them answers."""

    def __init__(self, run: Run, chosen: str | Iterable[str] | None, joins: bool) -> None:
        """Choose the providers: all that settings allow, of a process that joins only those nobody has taken on."""
        super().__init__(name="mlcore-capture", daemon=True)
        self._run, self._joins, self._began = run, joins, time.monotonic()
        self._before = run._entity.attributes.get(FAMILY, {}) if run._entity else {}
        self._taken = self._before.get(CAPTURED, ()) if joins else ()
        said = chosen if chosen is None or isinstance(chosen, str) else ",".join(chosen) or config.OFF
        names = {name.strip() for name in next(config.settings("capture", said)).value.split(",")}
        there = {} if run._backend.uri == config.OFF else plugins.provided(FAMILY)
        self._names = [name for name in there if ("all" in names or name in names) and name not in self._taken]

    def claim(self) -> list[Event]:
        """Return what tells other processes, in the run's first record, what this one takes on."""
        told = {CAPTURED: [*self._taken, *self._names]}
        return [AttributesSet("run", self._run.id, FAMILY, told)] if self._names or CAPTURED in self._before else []

    def begin(self) -> None:
        """Start the thread, or capture at once where there can be no more threads: at exit, or in a full container."""
        try:
            self.start()
        except RuntimeError:
            self.run()

    def run(self) -> None:
        """Ask and write; whatever a plugin raises, training goes on."""
        for name in self._names:
            try:
                found = plugins.load(FAMILY, name)(self._run)
                self._write(name, {f"{name}.{key}": plain(key, value) for key, value in found.items()})
            except Exception as error:  # noqa: BLE001 - see above
                _log.warning("run %s does not record its %s: %r", self._run.id, name, error)

    def _write(self, name: str, values: dict[str, object]) -> None:
        gone = [key for key in self._before if key.startswith(f"{name}.") and key not in values]
        events: list[Event] = [AttributesRemoved("run", self._run.id, FAMILY, gone)] if gone else []
        events += [AttributesSet("run", self._run.id, FAMILY, part) for part in portions(values)]
        if self._run._live:  # what ended meanwhile was told that this took too long
            self._run._write(*events)

    def wait(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait until all is written."""
        if self.ident is not None and self is not threading.current_thread():
            self.join(seconds)
            if self.is_alive():
                _log.warning("run %s ends before all that it records about itself was found", self._run.id)


def _before_fork() -> None:
    """Wait a moment: a module that a thread imports while its process forks can never be imported in the child."""
    for each in threading.enumerate():
        if isinstance(each, Capture) and each is not threading.current_thread():
            each.join(max(0.0, each._began + FORK_SECONDS - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
