"""What runs and experiments have in common: a name, tags, a note, and being deleted and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mlcore.errors import InvalidValue, NotInstalled
from mlcore.journal import check_key
from mlcore.store import AttributesRemoved, AttributesSet, Entity, Event, Updated
from mlcore.tracking._backend import Backend
from mlcore.tracking._plain import plain, portions
from mlcore.tracking._views import Viewed


def field(name: str, doc: str, default: Any = None) -> Any:
    """Return a property that shows a field of the entity."""

    def value(thing: Thing) -> Any:
        found = thing._now().fields.get(name)
        return default if found is None else found

    return property(value, doc=doc)


class Thing(Viewed):
    """Show an entity of one `kind`, and write what is changed about it."""

    kind: ClassVar[str]
    name = field("name", "The name; other things may share it.", default="")
    deleted = field("deleted", "Whether this is hidden until it is restored.", default=False)
    note = field("note", "The note, as Markdown.", default="")

    def __init__(self, backend: Backend, id: str, entity: Entity | None = None) -> None:
        self.id = id
        self._backend, self._entity, self._live = backend, entity, False

    def set_tag(self, key: str, value: Any) -> None:
        """Set one tag; the last value counts. Raises `InvalidValue`."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; the last values count. Raises `InvalidValue`."""
        if not isinstance(tags, Mapping):
            raise InvalidValue(f"tags must be a dict of names and values, not {tags!r:.80}")
        values = {check_key(key): plain(key, value) for key, value in tags.items()}
        self._write(*(AttributesSet(self.kind, self.id, "tags", part) for part in portions(values)))

    def remove_tag(self, key: str) -> None:
        """Remove a tag; one that is not there is no error."""
        self._write(AttributesRemoved(self.kind, self.id, "tags", [check_key(key)]))

    def set_note(self, text: str) -> None:
        """Set the note, as Markdown; the last one counts."""
        self._write(Updated(self.kind, self.id, {"note": plain("note", text)}))

    def delete(self) -> None:
        """Hide this, and the runs of an experiment, until it is restored."""
        self._write(Updated(self.kind, self.id, {"deleted": True}))

    def restore(self) -> None:
        """Show again what was deleted."""
        self._write(Updated(self.kind, self.id, {"deleted": False}))

    def __repr__(self) -> str:
        try:
            return super().__repr__()
        except NotInstalled as missing:
            return f"{type(self).__name__} {self.id}, which cannot be read: {missing}"

    def refresh(self) -> None:
        """Read anew when something is asked next: what was read back stays as it was until then."""
        self._entity = None

    @property
    def tags(self) -> dict[str, Any]:
        """The tags."""
        return dict(self._now().attributes.get("tags", {}))

    def _now(self) -> Entity:
        entity = self._entity or self._backend.get(self.kind, self.id) or Entity(self.kind, self.id)
        if not self._live:
            self._entity = entity
        return entity

    def _write(self, *events: Event) -> None:
        if events:
            self._put(events)
            self._entity = None

    def _put(self, events: tuple[Event, ...]) -> None:
        self._backend.edit(events)
