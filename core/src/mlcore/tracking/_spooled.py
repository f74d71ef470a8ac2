"""Write by way of a spool: runs are kept on this machine and shipped, so that training never waits for the network."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from mlcore import config, journal, plugins
from mlcore.errors import StoreError
from mlcore.store import Entity, clock
from mlcore.tracking import _active
from mlcore.tracking._backend import Backend, Question, held

if TYPE_CHECKING:
    from mlcore.store import Store

_T = TypeVar("_T")


class Spooled(Backend):
    """Open what a plugin of the hook `mlcore_uploaders` keeps and ships, and the store that it is shipped to."""

    def _check(self) -> None:
        self.root = None  # of a folder, too
        if self._scheme not in plugins.provided("stores"):
            self.opened()

    @cached_property
    def spool(self) -> Any:
        """What keeps runs on this machine and ships them."""
        spool = plugins.load("uploaders", "journals")(self._opens, self.opened, self._place_of)
        _active.finishing[spool.finish] = None
        return spool

    def _place_of(self, run_id: str) -> str:
        from mlcore.tracking._run import Run

        return Run(self, run_id)._told_place()

    def spools_files(self) -> bool:
        """Tell whether files are spooled: the store has a place for them, or its place is told once it is reached."""
        if self.artifacts is not None:
            return True
        self.spool.ready()
        return self._store is None or hasattr(self._store, "place")

    def sink(self, home: str) -> journal.Writer:
        """See `Backend.sink`."""
        writer: journal.Writer = self.spool.sink(home, self._place_of)
        return writer

    def look(self, kind: str, id: str) -> Entity | None:
        """Return one entity, from the spool if that alone has it or the store cannot be reached; see `Backend.look`."""
        found: Entity | None = None
        away: StoreError | None = None
        try:
            found = self.store().get(kind, [id])[0]
        except StoreError as error:
            away = error
        found = found or self.spool.get(kind, id)
        if found is not None:
            clock.observe(found.changed)
        elif away is not None:
            raise away
        return found

    def asked(self, id: str, question: Question[_T]) -> _T:
        """See `Backend.asked`. Who joins a process of this machine asks nobody else; others wait for two seconds."""
        here: Entity | None = self.spool.get("run", id)
        if here is not None and held(here, False):
            return question(here, lambda: False)
        answer: _T = self.spool.ask(
            lambda waiting: question(self.get("run", id), waiting), lambda: question(here, lambda: False)
        )
        return answer

    def offline(self) -> Backend:
        """See `Backend.offline`."""
        known = Backend(config.OFF)
        known._store = self.spool.experiments()
        return known

    def store(self) -> Store:
        """Return the store, after a wait for what is being shipped to it: what was written is read."""
        if _active.finishing:
            self.spool.wait()
        return self.opened()

    def close(self) -> None:
        """Close the store, after a wait for what is being shipped to it."""
        if "spool" in self.__dict__:
            self.spool.wait()
        super().close()
        self._store = None  # it is opened again for what could not be shipped yet


def open_backend(uri: str, artifacts: str | os.PathLike[str] | None = None) -> Backend:
    """Open a store, by way of a spool if there is one: for a folder only if that is asked for."""
    chosen, folder = next(config.settings("spool"), None), uri.partition("://")[0] in ("file", uri)
    wanted = not folder if chosen is None else chosen.value != config.OFF
    spooled = wanted and uri != config.OFF and "journals" in plugins.provided("uploaders")
    return (Spooled if spooled else Backend)(uri, artifacts)
