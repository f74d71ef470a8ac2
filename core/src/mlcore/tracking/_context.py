"""What a run records about itself: a thread asks the providers of `mlcore_context`, so that training does not wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mlcore import _log, config, plugins
from mlcore.store import AttributesRemoved, AttributesSet, Event
from mlcore.tracking._plain import plain, portions

if TYPE_CHECKING:
    from mlcore.tracking._run import Run

FAMILY, CAPTURED = "context", "captured"
WAIT_SECONDS, FORK_SECONDS = 10.0, 0.5


class Capture(threading.Thread):
    """Ask providers by name what a run records, and write it down as each of them answers."""

    def __init__(self, run: Run, chosen: str | Iterable[str] | None, joins: bool) -> None:
        """Choose the providers: all that settings allow, of a process that joins only those nobody has taken on."""
        super().__init__(name="mlcore-capture", daemon=True)
        self._run, self._began, self._later = run, time.monotonic(), dict[str, Iterator[Any]]()
        self._before = run._entity.attributes.get(FAMILY, {}) if run._entity else {}
        self._taken = self._before.get(CAPTURED, ()) if joins else ()
        said = chosen if chosen is None or isinstance(chosen, str) else ",".join(chosen) or config.OFF
        names = {name.strip() for name in next(config.settings("capture", said)).value.split(",")}
        there = {} if run._backend.uri == config.OFF else plugins.provided(FAMILY)
        for name in names - {*there, "all", config.OFF, ""} if there else ():
            _log.warning("nothing installed captures %r: there is %s", name, ", ".join(there))
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
        """Ask all providers."""
        for name in self._names:
            self._ask(name)

    def _ask(self, name: str) -> None:
        """Write what one of them answers; whatever it raises, training goes on."""
        try:
            found = self._later.pop(name, None) or plugins.load(FAMILY, name)(self._run)
            if isinstance(found, Iterator):  # it is asked once more at the end
                self._later[name], found = found, next(found)
            values = {key: plain(key, each) for key, each in ((f"{name}.{key}", found[key]) for key in found)}
            gone = [key for key in self._before if key.startswith(f"{name}.") and key not in values]
            events: list[Event] = [AttributesRemoved("run", self._run.id, FAMILY, gone)] if gone else []
            events += [AttributesSet("run", self._run.id, FAMILY, part) for part in portions(values)]
            if self._run._live:
                self._run._write(*events)
        except Exception as error:  # noqa: BLE001 - see above
            _log.warning("run %s does not record its %s: %r", self._run.id, name, error)

    def wait(self) -> None:
        """Wait until all is written, and ask those who have more to tell at the end."""
        if self.ident is not None:
            self.join(WAIT_SECONDS)
        if self.is_alive():
            _log.warning("run %s ends before all that it records about itself was found", self._run.id)
        for name in list(self._later):
            self._ask(name)


def _before_fork() -> None:
    """Wait a moment: a module that a thread imports while its process forks can never be imported in the child."""
    for each in threading.enumerate():
        if isinstance(each, Capture) and each is not threading.current_thread():
            each.join(max(0.0, each._began + FORK_SECONDS - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
