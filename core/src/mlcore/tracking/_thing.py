"""What runs, experiments and files have in common: how they show themselves, are named, tagged, noted and deleted."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain
from math import inf
from time import localtime, strftime
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, overload

import attrs

from mlcore import journal, store
from mlcore.errors import InvalidValue, NotInstalled
from mlcore.tracking._backend import Backend
from mlcore.tracking._plain import plain, portions

if TYPE_CHECKING:
    import pandas

_V = TypeVar("_V", bound="Viewed")
_T = TypeVar("_T")
Seen = Callable[[Any], dict[str, Any]] | None
More = Callable[[], tuple[list[Any], Any]] | None  # reads a page, and returns it with what reads the next
Chosen = Mapping[str, tuple["store.Term", ...]] | None  # terms by the names that they were selected by
_FIRST, _GROWTH = 2_000, 10  # pages grow, as a store that folds reads all of itself for each


def shown(read: Callable[[store.Entity], _T], doc: str) -> _T:
    """Return a property that shows something of the entity; what it says to be is what `read` returns."""
    return property(lambda thing: read(thing._now()), doc=doc)  # type: ignore[return-value]


def field(name: str, doc: str, default: Any = None) -> Any:
    """Return a property that shows a field of the entity."""

    def read(thing: Thing) -> Any:
        found = thing._now().fields.get(name)
        return default if found is None else found

    return property(read, doc=doc)


def checked(limit: int | None) -> int | None:
    """Return how many things are asked for, None for all. Raises `InvalidValue`."""
    if limit is not None and journal.as_int("limit", limit) < 0:
        raise InvalidValue(f"limit is a number of things to return, or None for all, not {limit}")
    return limit


def everything() -> store.Where:
    """Return what holds for all, and, as it names the field, asks for deleted ones, too."""
    live = store.Compare(store.Term("fields", "deleted"), "is null")
    return store.Or((live, store.Not(live)))


def frame(columns: Mapping[str, Sequence[Any]]) -> pandas.DataFrame:
    """Return columns as a DataFrame. Raises `NotInstalled`."""
    try:
        import pandas
    except ImportError:
        raise NotInstalled("data frames need pandas: pip install pandas") from None
    return pandas.DataFrame(columns)


class Viewed:
    """Show what `_view` returns, a name and a value each."""

    def _view(self) -> dict[str, Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        view = {_text(name): _cell(name, value, whole=True) for name, value in self._view().items()}
        width = max(map(len, view))
        return "\n".join([type(self).__name__, *(f"  {name:<{width}}  {text}" for name, text in view.items())])

    def _repr_html_(self) -> str:
        return _table([[name, _cell(name, value, whole=True)] for name, value in self._view().items()])


class Listing(Sequence[_V]):  # noqa: PLW1641 - like a list it has no hash
    """A sequence that shows itself as a table, as wide as the terminal: what has no room is named below it.

    That of a search without a limit is read page by page, as far as it is looked at.
    """

    def __init__(self, items: Iterable[_V] = (), more: More = None, view: Seen = None) -> None:
        self._items, self._more, self._view = list(items), more, view  # view: of a search, what was selected

    def _until(self, end: float) -> list[_V]:
        while self._more and len(self._items) < end:
            items, self._more = self._more()
            self._items += items
        return self._items

    def __len__(self) -> int:
        return len(self._until(inf))

    @overload
    def __getitem__(self, at: int) -> _V: ...
    @overload
    def __getitem__(self, at: slice) -> list[_V]: ...
    def __getitem__(self, at: int | slice) -> _V | list[_V]:
        return self._until(at + 1 if isinstance(at, int) and at >= 0 else inf)[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Listing | list) and [*self] == [*other]

    def _columns(self) -> dict[str, list[Any]]:
        views = [(self._view or type(each)._view)(each) for each in self]
        names = dict.fromkeys(chain.from_iterable(views))  # of all of them, in the order of families
        ordered = sorted(names, key=lambda name: name.partition(".")[0] if "." in name and not self._view else "")
        return {name: [view.get(name) for view in views] for name in ordered}

    def _rows(self) -> list[tuple[str, ...]]:
        cells = ([_cell(name, value) for value in values] for name, values in self._columns().items())
        return list(zip(*cells, strict=True))

    def __repr__(self) -> str:
        from shutil import get_terminal_size

        names = [*map(_text, self._columns())]
        rows = [tuple(name.removeprefix("metrics.") for name in names), *self._rows()]
        widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
        room = get_terminal_size((100, 24)).columns
        fit = max(1, sum(end <= room + 2 for end in accumulate(width + 2 for width in widths)))
        lines = ["  ".join(map(_padded, row[:fit], widths)).rstrip() for row in rows]
        more = f"and {len(names) - fit} more columns, in to_pandas(): {', '.join(names[fit:])}"[:room]
        return "\n".join([*lines, more] if names[fit:] else lines) or "nothing"

    def _repr_html_(self) -> str:
        return _table(self._rows(), tuple(self._columns()))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with a row each, and columns named as in queries. Raises `NotInstalled`."""
        return frame(self._columns())

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a dict each, all with the same keys, named as in queries; what is missing is None."""
        columns = self._columns()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@attrs.frozen(eq=False, repr=False)
class Series(Viewed):
    """Hold the history of one metric as columns of one length: `steps`, `times` (ms since 1970) and `values`.

    They are numpy arrays where numpy is importable, else `array.array`, in order of step.
    """

    key: str
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]

    def __len__(self) -> int:
        return len(self.values)

    def _view(self) -> dict[str, Any]:
        last = {"last step": self.steps[-1], "last value": self.values[-1]} if len(self) else {}
        return {"key": self.key, "points": len(self), **last}

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with the columns step, time and value."""
        return frame({"step": self.steps, "time": self.times, "value": self.values})


class Thing(Viewed):
    """Show an entity of one `kind`, and write what is changed about it."""

    kind: ClassVar[str]
    name = field("name", "The name; other things may share it.", default="")
    deleted = field("deleted", "Whether this is hidden until it is restored.", default=False)
    note = field("note", "The note, as Markdown.", default="")
    tags = shown(lambda it: dict(it.attributes.get("tags", {})), "The tags.")

    def __init__(self, backend: Backend, id: str, entity: store.Entity | None = None) -> None:
        self.id = id
        self._backend, self._entity, self._live = backend, entity, False

    @classmethod
    def _find(
        cls, backend: Backend, *where: store.Where, deleted: bool, chosen: Chosen = None, **asked: Any
    ) -> Listing[Self]:
        """Return those for which all of `where` holds, newest first, deleted ones only if they are asked for."""
        limit = checked(asked.get("limit"))
        select = None if chosen is None else (store.Term("fields", ""), *chain.from_iterable(chosen.values()))
        query = store.Query(store.And((*where, everything()) if deleted else where), select, **asked)

        def read(most: int, token: str | None) -> tuple[list[Self], More]:
            """Return a page, and what reads the next one."""
            collecting = gc.isenabled()
            gc.disable()  # a page stays: to look for garbage amid it may take thrice as long as to read it
            try:
                page = backend.store().find(cls.kind, attrs.evolve(query, limit=most, token=token))
                more = partial(read, most * _GROWTH, page.token) if limit is None and page.token else None
                return cls._of(backend, page.items), more
            finally:
                if collecting:
                    gc.enable()

        view = None if chosen is None else lambda each: each._chosen(chosen)
        return Listing(*read(_FIRST if limit is None else limit, None), view)

    @classmethod
    def _of(cls, backend: Backend, found: Iterable[store.Entity]) -> list[Self]:
        return [cls(backend, each.id, each) for each in found]

    def _chosen(self, columns: Mapping[str, tuple[store.Term, ...]]) -> dict[str, Any]:
        """Return what was selected: of whole families all there is, else the first of its terms that is there."""
        view, found = self._view(), dict[str, Any]()
        for name, terms in columns.items():
            if not terms[0].name:
                kept = {f"{name}.{key}": value for key, value in self._now().attributes.get(name, {}).items()}
                found |= {key: value for key, value in view.items() if key.startswith(f"{name}.")} or kept
            else:
                values = (store.value_of(self._now(), term) for term in terms)
                found[name] = view.get(name, next((value for value in values if value is not None), None))
        return found

    def set_tag(self, key: str, value: Any) -> None:
        """Set one tag; the last value counts. Raises `InvalidValue`."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; the last values count. Raises `InvalidValue`."""
        if not isinstance(tags, Mapping):
            raise InvalidValue(f"tags must be a dict of names and values, not {tags!r:.80}")
        values = {journal.check_key(key): plain(key, value) for key, value in tags.items()}
        self._write(*(store.AttributesSet(self.kind, self.id, "tags", part) for part in portions(values)))

    def remove_tag(self, key: str) -> None:
        """Remove a tag; one that is not there is no error."""
        self._write(store.AttributesRemoved(self.kind, self.id, "tags", [journal.check_key(key)]))

    def set_note(self, text: str) -> None:
        """Set the note, as Markdown; the last one counts."""
        self._write(store.Updated(self.kind, self.id, {"note": plain("note", text)}))

    def delete(self) -> None:
        """Hide this, and the runs of an experiment, until it is restored."""
        self._write(store.Updated(self.kind, self.id, {"deleted": True}))

    def restore(self) -> None:
        """Show again what was deleted."""
        self._write(store.Updated(self.kind, self.id, {"deleted": False}))

    def __repr__(self) -> str:
        try:
            return super().__repr__()
        except NotInstalled as missing:
            return f"{type(self).__name__} {self.id}, which cannot be read: {missing}"

    def refresh(self) -> None:
        """Read anew when something is asked next: what was read back stays as it was until then."""
        self._entity = None

    def _now(self) -> store.Entity:
        if self._entity is None or self._live:
            self._entity = self._backend.get(self.kind, self.id) or store.Entity(self.kind, self.id)
        return self._entity

    def _write(self, *events: store.Event) -> None:
        if events:
            self._put(events)
            self._entity = None

    def _put(self, events: tuple[store.Event, ...]) -> None:
        self._backend.edit(events)


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text takes: wide characters take two, combining ones none."""
    from unicodedata import combining, east_asian_width

    return sum((1 + (east_asian_width(char) in "WF")) * (not combining(char)) for char in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))


def _cell(name: str, value: Any, whole: bool = False) -> str:
    """Return a value as it stands in a table: a run's id by its last 8 digits, which `get_run` takes, too."""
    text = "" if value is None else _text(value)
    if name == "start_time" and value is not None:
        return strftime("%Y-%m-%d %H:%M", localtime(value / 1000))
    if whole or len(text) <= 40:
        return text[-8:] if name == "id" and len(text) == 32 and not whole else text
    return f"{text[:39]}…"


def _table(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> str:
    from html import escape

    lines = [("th", names), *(("td", row) for row in rows)]
    cells = ("".join(f"<{tag}>{escape(_text(cell))}</{tag}>" for cell in row) for tag, row in lines if row)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"
