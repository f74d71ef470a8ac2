"""States: the fewest events that make an entity what it is, whatever may still arrive, kept as JSON.

What an event says is kept as long as another event could let it matter, and left out when nothing can: `State` knows
only that. What the events mean together is for core's fold to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlcore.store import (
    AttributesRemoved,
    AttributesSet,
    Created,
    Entity,
    Erased,
    Event,
    Fold,
    Order,
    Record,
    Rewind,
    Rewound,
    Unknown,
    Updated,
    from_json,
    to_json,
)  # fmt: skip

__all__ = ["State"]

_Write = tuple[Order, Any]  # what was written by the event of this order
_Name = tuple[str, str]  # family and name


class State:
    """Hold what is needed of the events of one entity; rows are kept elsewhere."""

    def __init__(self, kind: str, id: str, saved: bytes | None = None) -> None:
        self.kind, self.id = kind, id
        self.erased = False
        self._parent: tuple[Order, str] | None = None
        self._first: dict[str, _Write] = {}  # of each field the first value by Created, if nobody updated it
        self._fields: dict[str, _Write] = {}
        self._plain: dict[_Name, _Write] = {}  # a one-tuple of the last value set, () if it was removed
        self._once: defaultdict[_Name, dict[Order, Any]] = defaultdict(dict)
        self._rewinds: set[Rewind] = set()
        for stamp, source, number, index, event in from_json(saved) if saved else ():
            self.add(_event(kind, id, event), (stamp, source, number, index))

    def add(self, event: Event, order: Order) -> None:
        """Take in an event that is no rows."""
        match event:
            case Created():
                self._create(event, order)
            case Updated():
                for name, value in event.fields.items():
                    self._first.pop(name, None)
                    _write(self._fields, name, order, _json(value))
            case AttributesSet():
                for name, value in event.values.items():
                    (self._set_once if event.once else self._set)((event.family, name), order, (_json(value),))
            case AttributesRemoved():
                for name in event.names:
                    self._set((event.family, name), order, ())
            case Rewound():
                self._rewind((order, event.step))
            case Erased():
                self.erased = True

    def _create(self, event: Created, order: Order) -> None:
        if self._parent is None or order < self._parent[0]:
            self._parent = order, event.parent
        for name, value in event.fields.items():
            first = self._first.get(name)
            if name not in self._fields and (first is None or order < first[0]):
                self._first[name] = order, _json(value)

    def _set(self, name: _Name, order: Order, value: tuple[Any, ...]) -> None:
        if _write(self._plain, name, order, value) and name in self._once:
            self._once[name] = {each: value for each, value in self._once[name].items() if each > order}

    def _set_once(self, name: _Name, order: Order, value: tuple[Any, ...]) -> None:
        if name not in self._plain or self._plain[name][0] < order:
            self._once[name][order] = value[0]

    def _rewind(self, rewind: Rewind) -> None:
        if not any(order >= rewind[0] and step <= rewind[1] for order, step in self._rewinds):
            weaker = {each for each in self._rewinds if each[0] <= rewind[0] and each[1] >= rewind[1]}
            self._rewinds = self._rewinds - weaker | {rewind}

    @property
    def rewinds(self) -> Sequence[Rewind]:
        """The rewinds that drop rows which no other one drops."""
        return sorted(self._rewinds)

    def saved(self) -> bytes:
        """Return what makes the same state again."""
        if self.erased:
            return to_json([[0, "", 1, 0, {"Erased": []}]])
        return to_json([[*order, content] for order, content in sorted(self._events().items())])

    def entity(self, first: int, last: int) -> Entity | None:
        """Return the entity as core folds it, first named at one stamp and last at another; None if it was erased."""
        fold = Fold()
        if self.erased:
            return None
        for (stamp, source, number), events in self._records():
            fold.add_record(source, Record(number, stamp, events))
        fold.touch(self.kind, self.id, first)
        fold.touch(self.kind, self.id, last)
        return fold.entity(self.kind, self.id)

    def _events(self) -> dict[Order, dict[str, Any]]:
        """Return by order what is left of each event: its type, and what that has."""
        found: defaultdict[Order, dict[str, Any]] = defaultdict(dict)
        if self._parent is not None:
            found[self._parent[0]]["Created"] = [self._parent[1], {}]
        for name, (order, value) in self._first.items():
            found[order].setdefault("Created", ["", {}])[1][name] = value
        for name, (order, value) in self._fields.items():
            found[order].setdefault("Updated", [{}])[0][name] = value
        for (family, name), (order, value) in self._plain.items():
            if value:
                found[order].setdefault("AttributesSet", [family, {}])[1][name] = value[0]
            else:
                found[order].setdefault("AttributesRemoved", [family, []])[1].append(name)
        for (family, name), values in self._once.items():
            for order, value in values.items():
                found[order].setdefault("AttributesSet", [family, {}, True])[1][name] = value
        for order, step in self._rewinds:
            found[order]["Rewound"] = [step]
        return found

    def _records(self) -> Iterator[tuple[tuple[int, str, int], tuple[Event, ...]]]:
        records: defaultdict[tuple[int, str, int], dict[int, Event]] = defaultdict(dict)
        for (stamp, source, number, index), content in self._events().items():
            records[stamp, source, number][index] = _event(self.kind, self.id, content)
        nothing = Unknown(self.kind, self.id)  # keeps the index of those behind it
        for record, events in records.items():
            yield record, tuple(events.get(index, nothing) for index in range(max(events) + 1))


def _json(value: Any) -> Any:
    """Return a value as JSON gives it back: what comes from a program may be a tuple, or numpy's."""
    return value if type(value) in _SCALARS else from_json(to_json(value))


_SCALARS = {str, int, float, bool}


def _write(kept: dict[Any, _Write], name: Any, order: Order, value: Any) -> bool:
    found = kept.get(name)
    if found is not None and order <= found[0]:
        return False
    kept[name] = order, value
    return True


_TYPES: Mapping[str, type[Event]] = {
    each.__name__: each for each in (AttributesRemoved, AttributesSet, Created, Erased, Rewound, Updated)
}


def _event(kind: str, id: str, content: Mapping[str, Any]) -> Event:
    ((name, given),) = content.items()
    return _TYPES[name](kind, id, *given)
