"""What runs and experiments have in common: a name, tags, a note, and being deleted and restored."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from mlcore import journal, store
from mlcore.errors import InvalidValue, NotInstalled
from mlcore.tracking._backend import Backend
from mlcore.tracking._plain import plain, portions
from mlcore.tracking._views import Listing, Viewed

_T = TypeVar("_T")
_LIVE = store.Compare(store.Term("fields", "deleted"), "is null")
_ALL = store.Or((_LIVE, store.Not(_LIVE)))  # naming the field asks for deleted ones, too


def shown(read: Callable[[store.Entity], _T], doc: str) -> _T:
    """Return a property that shows something of the entity; what it says to be is what `read` returns."""
    return property(lambda thing: read(thing._now()), doc=doc)  # type: ignore[return-value]


def field(name: str, doc: str, default: Any = None) -> Any:
    """Return a property that shows a field of the entity."""
    return shown(lambda it: default if (found := it.fields.get(name)) is None else found, doc)


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
    def _find(cls, backend: Backend, *where: store.Where, deleted: bool, limit: int | None = None) -> Listing[Self]:
        """Return those for which all of `where` holds, newest first, deleted ones only if they are asked for."""
        query = store.Query(store.And((*where, _ALL) if deleted else where), limit=limit)
        return Listing(cls(backend, each.id, each) for each in backend.store().find(cls.kind, query).items)

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
