"""An index in memory, folded as the folder is: it shows what is the folder store's part, and what mlcore-sql's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from mlcore import Provider
from mlcore.store import Entity, Fold, Order, Page, Query, Record, Rewind, Summary, find, from_json, to_json

Metrics = dict[tuple[str, str], dict[tuple[str, str], tuple[Summary, Order]]]


@attrs.define
class Content:
    """What is kept."""

    fold: Fold = attrs.field(factory=Fold)
    metrics: Metrics = attrs.field(factory=dict)
    notes: dict[str, bytes] = attrs.field(factory=dict)
    pending: list[tuple[str, Record]] = attrs.field(factory=list)
    revision: int = 0


class State:
    """One state of it."""

    def __init__(self, content: Content) -> None:
        self.content, self.revision = content, content.revision

    def notes(self, prefix: str) -> dict[str, Any]:
        return {name: from_json(text) for name, text in self.content.notes.items() if name.startswith(prefix)}

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        return [found and self._whole(found) for found in (self.content.fold.entity(kind, id) for id in ids)]

    def find(self, kind: str, query: Query) -> Page:
        return find(map(self._whole, self.content.fold.entities(kind)), query)

    def rewinds(self, kind: str, id: str) -> Sequence[Rewind]:
        return sorted(set(self.content.fold.rewinds(kind, id)))

    def _whole(self, entity: Entity) -> Entity:
        metrics = self.content.metrics.get((entity.kind, entity.id), {})
        return attrs.evolve(entity, metrics={name: metrics[name][0] for name in sorted(metrics)})


class Filling(State):
    """One state of it that becomes another."""

    def note(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if value is None:
                self.content.notes.pop(name, None)
            else:
                self.content.notes[name] = to_json(value)

    def take(self, source: str, records: Sequence[Record]) -> None:
        for record in records:
            self.content.fold.add_record(source, record)

    def touch(self, kind: str, id: str, first: int, last: int) -> None:
        for stamp in (first, last):
            self.content.fold.touch(kind, id, stamp)

    def merge(self, kind: str, id: str, metrics: Mapping[tuple[str, str], tuple[Summary, Order]]) -> None:
        known = self.content.metrics.setdefault((kind, id), {})
        for name, new in metrics.items():
            known[name] = _joined(known[name], new) if name in known else new

    def replace(self, kind: str, id: str, metrics: Mapping[tuple[str, str], tuple[Summary, Order] | None]) -> None:
        known = self.content.metrics.setdefault((kind, id), {})
        for name, new in metrics.items():
            known.pop(name, None)
            if new is not None:
                known[name] = new

    def flush(self) -> None:
        pass

    def clear(self) -> None:
        self.content.fold, self.content.metrics, self.content.notes = Fold(), {}, {}


class MemoryIndex:
    """Keep what a folder store holds as long as the process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = Content()

    @contextmanager
    def reading(self) -> Iterator[State]:
        yield State(self._content)

    @contextmanager
    def writing(self) -> Iterator[Filling]:
        yield Filling(self._content)
        self._content.revision += 1

    def drop(self) -> None:
        self._content = Content(revision=self._content.revision + 1)

    def close(self) -> None:
        pass


def _joined(one: tuple[Summary, Order], other: tuple[Summary, Order]) -> tuple[Summary, Order]:
    last, order = max(one, other, key=lambda each: (each[0].step, each[0].time, each[1]))
    low = [each for each in (one[0].min, other[0].min) if each == each] or [one[0].min]  # noqa: PLR0124 - not NaN
    high = [each for each in (one[0].max, other[0].max) if each == each] or [one[0].max]  # noqa: PLR0124
    count = one[0].count + other[0].count
    return Summary(count, min(low), max(high), last.step, last.time, last.value), order


_indexes: dict[tuple[str, str], MemoryIndex] = {}


def open_index(path: Path, identity: str) -> MemoryIndex:
    """Open the index of a store, the same for every handle."""
    return _indexes.setdefault((str(path), identity), MemoryIndex(path))


class Indexes:
    """The plugin."""

    @staticmethod
    def mlcore_indexes() -> list[Provider]:
        return [Provider("memory", open_index, "forgotten with the process")]
