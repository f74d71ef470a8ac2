"""Answer from an index, brought up to date before each answer by reading only what is new in the folder."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from mlcore.errors import PositionLost
from mlcore.folder import Folder
from mlcore.store import And, Columns, Compare, Entity, Not, Or, Page, Query, SeriesKey, Term
from mlcore_local.index import Index, Reading
from mlcore_local.marks import BEGUN, WHOLE, Marks, claim_paths, folder_of, holders
from mlcore_local.notes import Notes
from mlcore_local.watch import QUICK, Watch

if TYPE_CHECKING:  # what reads journals is imported when one is read: most questions are answered without
    from mlcore_local.held import Held
    from mlcore_local.home import Home
    from mlcore_local.sealed_fold import SealedFold

__all__ = ["Indexed"]

_T = TypeVar("_T")
_Found = TypeVar("_Found", bound=Entity | None)
_LIVE = Compare(Term("fields", "deleted"), "is null")
_ALL = Or((_LIVE, Not(_LIVE)))  # whoever names the field gets deleted ones, too
_ATTEMPTS = 3
_PATIENCE_SECONDS = 3
_HOMES = 64  # whose rows are kept for the next question


class Indexed:
    """Ask an index, and the folder for what no index has: the points of series, and who is alive. Not thread-safe."""

    def __init__(self, folder: Folder, index: Index) -> None:
        self._folder, self._root, self._index = folder, str(folder.root), index
        self._known: tuple[object, Notes] = (None, Notes())
        self._homes: OrderedDict[str, tuple[set[str], Home, SealedFold]] = OrderedDict()
        self._once = self._looked = False  # whether one look is enough, and was taken

    @property
    def path(self) -> Path:
        """Where the index is."""
        return self._index.path

    def made(self) -> bool:
        """Tell whether the index has ever been filled."""
        with self._index.reading() as reading:
            return bool(self._notes(reading).get(QUICK, WHOLE))

    def drop(self) -> None:
        """Remove the index; the next question makes it anew."""
        self._index.drop()

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Answer what is asked meanwhile as the folder was at the first question."""
        before, self._once = (self._once, self._looked), True
        try:
            yield
        finally:
            self._once, self._looked = before

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""

        def found(reading: Reading, notes: Notes) -> list[Entity | None]:
            return self._signed(kind, reading.get(kind, ids), notes)

        return self._ask(found)

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""

        def found(reading: Reading, notes: Notes) -> Page:
            page = reading.find(kind, query)
            return attrs.evolve(page, items=tuple(self._signed(kind, page.items, notes)))

        return self._ask(found)

    def series(
        self, kind: str, ids: Sequence[str], keys: Sequence[str] | None, context: str | None
    ) -> dict[SeriesKey, Columns]:
        """Return whole series; see `mlcore.store.Store.series`."""

        def found(reading: Reading, notes: Notes) -> dict[SeriesKey, Columns]:
            # nothing of them is asked for: a run has many metrics, of which one may be wanted
            asked = And((Compare(Term("", "id"), "in", tuple(ids)), _ALL))
            there = {each.id for each in reading.find(kind, Query(asked, select=())).items}
            held = [self._held(kind, each, reading, notes) for each in ids if each in there]
            return {name: columns for each in held for name, columns in each.series(keys, context)}

        return self._ask(found)

    def claims_of(self, home: str, source: str) -> list[Path]:
        """Return the files of the claims that a source has."""

        def found(_: Reading, notes: Notes) -> list[Path]:
            return [*map(Path, claim_paths(self._root, notes, home, source))]

        return self._ask(found)

    def _ask(self, question: Callable[[Reading, Notes], _T]) -> _T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._asked(question)
            except PositionLost as error:
                if attempt == _ATTEMPTS:
                    raise OSError(f"it is lost again and again: {error}") from error
        raise AssertionError("the last attempt returns or raises")

    def _asked(self, question: Callable[[Reading, Notes], _T]) -> _T:
        filled = False
        while True:
            with self._index.reading() as reading:
                notes = self._notes(reading)
                # a run that logs all the time has something new again: what was read since the question is enough
                if notes.get(QUICK, WHOLE) and (filled or self._looked or self._quiet(notes)):
                    self._looked = self._once
                    return question(reading, notes)
            self._fill()
            filled = True

    def _fill(self) -> None:
        import logging

        from mlcore_local.filling import fill

        told, began, log = False, time.monotonic(), logging.getLogger("mlcore")
        while not fill(self._root, self._index):
            if not told and time.monotonic() - began > _PATIENCE_SECONDS:
                log.warning("%s has many new runs: reading them takes a while, once", self._root)
                told = True

    def _quiet(self, notes: Notes) -> bool:
        return Watch(self._root, notes).quiet() and Marks(self._root, notes).quiet()

    def _notes(self, reading: Reading) -> Notes:
        if self._known[0] != reading.revision:
            self._known = reading.revision, Notes()
        self._known[1].ask = reading.notes
        return self._known[1]

    def _signed(self, kind: str, found: Sequence[_Found], notes: Notes) -> list[_Found | Entity]:
        """Return runs with their signs of life: of those that are not over somebody looks at the folder."""
        going = Marks(self._root, notes).going() if kind == "run" else ()
        return [self._looked_at(each, notes) if each is not None and each.id in going else each for each in found]

    def _looked_at(self, entity: Entity, notes: Notes) -> Entity:
        from mlcore_local.home import Home

        home = Home(entity.id, folder_of(self._root, entity.id))
        writers = [writer for _, writer in notes.under(f"claim/{entity.id}").values()]
        home.restore(notes.under(f"file/{entity.id}"), writers)
        home.look()
        return home.signed(entity)

    def _held(self, kind: str, id: str, reading: Reading, notes: Notes) -> Held:
        from mlcore_local.held import Held
        from mlcore_local.sealed_fold import SealedFold

        homes = [self._home(home, notes) for home in holders(notes, kind, id)]
        fold = self._homes[id][2] if id in self._homes else SealedFold()
        return Held(kind, id, [home for home in homes if home.names(kind, id)], reading, fold)

    def _home(self, id: str, notes: Notes) -> Home:
        """Return a home as far as it is written; what was read of it for the last questions is kept."""
        from mlcore_local.filling import whole_home
        from mlcore_local.sealed_fold import SealedFold

        begun = {str(notes.get(QUICK, BEGUN)), *notes.under(f"claim/{id}")}
        known = self._homes.pop(id, None)
        if known is not None and known[0] == begun:
            known[1].read(known[2])
        else:
            fold = SealedFold()
            known = begun, whole_home(self._root, id, notes, fold), fold
        self._homes[id] = known
        if len(self._homes) > _HOMES:
            self._homes.popitem(last=False)
        return known[1]
