"""Write changes of entities: what the tables hold of them is read, brought up to date, and put back, many at once."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import attrs

from mlcore.store import Entity, Event, Order, from_json
from mlcore_sql import keys, summaries
from mlcore_sql.dialects import Binds, Runner, among, insert_missing, parts, upsert
from mlcore_sql.shown import Row, entity_of, member_rows, rows_of, show, start_of
from mlcore_sql.states import State
from mlcore_sql.summaries import Summed, joined
from mlcore_sql.terms import Name, make, mark_cut

__all__ = ["Change", "write"]

_COLUMNS = ("kind", "id", "parent", "created", "changed", "start", "duration", "hidden", "rewound", "revision")
_READ = "entity, parent, created, changed, start, duration, hidden, rewound"
_ERASED = 2  # in the column `hidden`; 1 is deleted
_NEVER = 1 << 63
_Metric = tuple[str, str]  # key and context
_Entity = tuple[str, str]  # kind and id


@attrs.define
class Change:
    """What is to be written of one entity."""

    first: int = _NEVER
    last: int = 0
    events: list[tuple[Order, Event]] = attrs.field(factory=list)
    added: dict[_Metric, Summed] = attrs.field(factory=dict)
    replaced: dict[_Metric, Summed | None] = attrs.field(factory=dict)

    def touch(self, first: int, last: int) -> None:
        """Widen the stamps."""
        self.first, self.last = min(self.first, first), max(self.last, last)


@attrs.define
class _Known:
    """What the tables have of one entity; `changed` is 0 if nothing but its number."""

    entity: int
    parent: bytes
    created: int
    changed: int
    start: bytes
    duration: bytes | None
    hidden: int
    rewound: int

    def is_deep(self, change: Change) -> bool:
        """Tell whether the change says more than that there was one: an earlier one may be the start."""
        return self.hidden < _ERASED and bool(change.events or not self.changed or change.first < self.created)


@attrs.define
class _Rows:
    """What is to be written, table by table; None where a row is to go."""

    entities: list[tuple[Any, ...]] = attrs.field(factory=list)
    documents: list[tuple[int, bytes, bytes]] = attrs.field(factory=list)
    attributes: dict[tuple[int, Name], Row | None] = attrs.field(factory=dict)
    members: dict[tuple[int, Name, int, bytes], bool] = attrs.field(factory=dict)
    metrics: dict[tuple[int, Name], Summed | None] = attrs.field(factory=dict)
    emptied: list[tuple[int]] = attrs.field(factory=list)


def write(runner: Runner, changes: Mapping[_Entity, Change]) -> None:
    """Write changes; entities are locked in one order, so that two writers wait for each other, never both."""
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for kind, id in sorted(changes):
        ids[kind].append(id)
    numbers = {name[0]: number for name, (number, _) in make(runner, [(kind, "", "", "") for kind in ids]).items()}
    known = {kind: _known(runner, numbers[kind], sorted(map(keys.id_key, names))) for kind, names in ids.items()}
    if runner.dialect != "sqlite":
        _lock(runner, [entity for some in known.values() for entity in some.values()])
    for kind, names in ids.items():
        for part in parts(names):
            some = [(id, changes[kind, id], known[kind][keys.id_key(id)]) for id in part]
            _Writer(runner, kind, numbers[kind]).write(some)


def _known(runner: Runner, kind: int, ids: Sequence[bytes]) -> dict[bytes, _Known]:
    """Return what is known by id, and give those a number that have none.

    This is before any is locked: who waits here for another writer holds only what nobody else can wait for but here.
    """
    found = _read(runner, kind, ids)
    missing = [id for id in ids if id not in found]
    if missing:
        sql = insert_missing(runner.dialect, "entities", _COLUMNS, ["kind", "id"])
        runner.many(sql, [(kind, id, b"", 0, 0, b"", None, 0, 0, 0) for id in missing])
        found |= _read(runner, kind, missing)
    return found


def _read(runner: Runner, kind: int, ids: Sequence[bytes]) -> dict[bytes, _Known]:
    found: dict[bytes, _Known] = {}
    for part in parts(ids):
        binds = Binds()
        where = f"kind = {binds.add(kind)} AND {among(runner.dialect, 'id', part, binds)}"
        rows = runner.rows(f"SELECT id, {_READ} FROM entities WHERE {where}", binds)
        found |= {bytes(id): _Known(*rest) for id, *rest in rows}
    return found


def _lock(runner: Runner, known: Sequence[_Known]) -> None:
    """Lock entities by number, which is how a database goes through them in any case, and read them once more."""
    by_number = {each.entity: each for each in known}
    for part in parts(sorted(by_number)):
        binds = Binds()
        where = among(runner.dialect, "entity", part, binds)
        for row in runner.rows(f"SELECT {_READ} FROM entities WHERE {where} ORDER BY entity FOR UPDATE", binds):
            each = by_number[row[0]]
            (each.parent, each.created, each.changed, each.start, each.duration, each.hidden, each.rewound) = row[1:]


class _Writer:
    """Write changes of entities of one kind."""

    def __init__(self, runner: Runner, kind: str, number: int) -> None:
        self.runner, self.kind, self.number = runner, kind, number
        self.rows = _Rows()
        self.terms: Mapping[Name, tuple[int, bool]] = {}
        self.revision = int.from_bytes(os.urandom(6), "big") << 15  # no other writer, nor index, has the same

    def write(self, changes: Sequence[tuple[str, Change, _Known]]) -> None:
        """Write changes of at most 500 entities."""
        documents = self._documents([known.entity for _, change, known in changes if known.is_deep(change)])
        for id, change, known in changes:
            if known.hidden >= _ERASED or not (change.last or known.changed):
                continue
            first, last = min(change.first, known.created or _NEVER), max(change.last, known.changed)
            if known.is_deep(change):
                self._deep(id, change, known, documents.get(known.entity), (first, last))
            else:
                self._entity(id, known, (first, last))
        shown = [(change, known) for _, change, known in changes if known.hidden < _ERASED]
        names = {name for _, name in self.rows.attributes} | {name for _, name, *_ in self.rows.members}
        names |= {(self.kind, "metrics", *name) for change, _ in shown for name in (*change.added, *change.replaced)}
        self.terms = make(self.runner, names)  # once, in one order: others may be making the same
        self._metrics(shown)
        self._put()

    def _documents(self, entities: Sequence[int]) -> dict[int, tuple[bytes, bytes]]:
        if not entities:
            return {}
        binds = Binds()
        where = among(self.runner.dialect, "entity", sorted(entities), binds)
        sql = f"SELECT entity, state, shown FROM documents WHERE {where}"
        return {entity: (bytes(state), bytes(shown)) for entity, state, shown in self.runner.rows(sql, binds)}

    def _entity(self, id: str, known: _Known, stamps: tuple[int, int]) -> None:
        self.revision += 1
        rest = (known.start, known.duration, known.hidden, known.rewound, self.revision)
        self.rows.entities.append((known.entity, self.number, keys.id_key(id), known.parent, *stamps, *rest))

    def _deep(
        self, id: str, change: Change, known: _Known, document: tuple[bytes, bytes] | None, stamps: tuple[int, int]
    ) -> None:
        saved, shown = document or (None, b"")
        before = entity_of(self.kind, from_json(shown), 0, 0, {}) if shown else None
        state = State(self.kind, id, saved)
        for order, event in change.events:
            state.add(event, order)
        entity = state.entity(*stamps)
        if entity is None:
            known.hidden, known.start, known.duration, known.parent = _ERASED, b"", None, b""
            self.rows.emptied.append((known.entity,))
        else:
            known.parent, known.start, known.hidden = keys.id_key(entity.parent), start_of(entity), 0
            known.duration = None if entity.duration is None else keys.number(entity.duration)
            known.hidden, known.rewound = int(bool(entity.fields.get("deleted"))), int(bool(state.rewinds))
            self._attributes(known.entity, before, entity)
        self.rows.documents.append((known.entity, state.saved(), b"" if entity is None else show(entity)))
        self._entity(id, known, stamps)

    def _attributes(self, number: int, before: Entity | None, entity: Entity) -> None:
        old, new = rows_of(before) if before else {}, rows_of(entity)
        for (family, name), row in new.items():
            if old.get((family, name)) != row:
                self.rows.attributes[number, (self.kind, family, name, "")] = row
        for family, name in old.keys() - new.keys():
            self.rows.attributes[number, (self.kind, family, name, "")] = None
        had, has = member_rows(before) if before else set(), member_rows(entity)
        for family, name, kind, key in had ^ has:
            self.rows.members[number, (self.kind, family, name, ""), kind, key] = (family, name, kind, key) in has

    def _metrics(self, changes: Iterable[tuple[Change, _Known]]) -> None:
        into = self.rows.metrics
        added: dict[tuple[int, Name], Summed] = {}
        looked_up: set[int] = set()
        for change, known in changes:
            if known.hidden < _ERASED and (change.last or known.changed):
                for metric, summed in change.replaced.items():
                    into[known.entity, (self.kind, "metrics", *metric)] = summed
                for metric, more in change.added.items():
                    (added if known.changed else into)[known.entity, (self.kind, "metrics", *metric)] = more
                    looked_up |= {known.entity} if known.changed else set()
        if added:
            names = {self.terms[name][0]: name for _, name in added}
            there = self._summaries(looked_up, names)
            into |= {where: joined(there.get(where), summed) for where, summed in added.items()}

    def _summaries(self, entities: Iterable[int], terms: Mapping[int, Name]) -> dict[tuple[int, Name], Summed]:
        found, columns = {}, ", ".join(summaries.COLUMNS)
        for some in parts(sorted(entities)):
            for part in parts(sorted(terms)):
                binds = Binds()
                where = [among(self.runner.dialect, *each, binds) for each in (("entity", some), ("term", part))]
                sql = f"SELECT entity, term, {columns} FROM metrics WHERE {' AND '.join(where)}"
                for entity, term, *row in self.runner.rows(sql, binds):
                    found[entity, terms[term]] = summaries.summary_of(row[:-1]), summaries.origin_of(row)
        return found

    def _put(self) -> None:
        rows, terms = self.rows, self.terms
        for table in ("attributes", "members", "metrics"):
            self._many(f"DELETE FROM {table} WHERE entity = ?", rows.emptied)
        self._upsert("entities", ("entity", *_COLUMNS), ["entity"], rows.entities)
        self._upsert("documents", ("entity", "state", "shown"), ["entity"], rows.documents)
        put = [(entity, terms[name][0], *row) for (entity, name), row in rows.attributes.items() if row is not None]
        gone = [(entity, terms[name][0]) for (entity, name), row in rows.attributes.items() if row is None]
        self._many("DELETE FROM attributes WHERE entity = ? AND term = ?", gone)
        self._upsert("attributes", ("entity", "term", "type", "value", "text"), ["entity", "term"], put)
        members = [((entity, terms[name][0], *rest), there) for (entity, name, *rest), there in rows.members.items()]
        columns = ("entity", "term", "type", "value")
        self._many(
            f"DELETE FROM members WHERE {' AND '.join(f'{each} = ?' for each in columns)}",
            [row for row, there in members if not there],
        )
        sql = insert_missing(self.runner.dialect, "members", columns, columns)
        self._many(sql, [row for row, there in members if there])
        sums = [(entity, terms[name][0], *packed) for (entity, name), packed in _packed(rows.metrics)]
        gone = [(entity, terms[name][0]) for (entity, name), summed in rows.metrics.items() if summed is None]
        self._many("DELETE FROM metrics WHERE entity = ? AND term = ?", gone)
        self._upsert("metrics", ("entity", "term", *summaries.COLUMNS), ["entity", "term"], sums)
        self._mark_cut(sums)

    def _mark_cut(self, sums: Iterable[Sequence[Any]]) -> None:
        """Tell of the terms whose keys do not say the whole order."""
        marked = {number for number, cut in self.terms.values() if cut}
        rows = self.rows.attributes.items()
        found = {self.terms[name][0] for (_, name), row in rows if row and any(map(_is_cut, row[1:]))}
        found |= {term for _, term, *row in sums if any(map(_is_cut, row[1:4]))}
        if any(_is_cut(each) for row in self.rows.entities for each in (row[2], row[3], row[6], row[7])):
            found.add(self.number)
        if found - marked:
            mark_cut(self.runner, found - marked)

    def _upsert(self, table: str, columns: Sequence[str], unique: Sequence[str], rows: Sequence[Row | Any]) -> None:
        self._many(upsert(self.runner.dialect, table, columns, unique), rows)

    def _many(self, sql: str, rows: Sequence[Any]) -> None:
        if rows:
            self.runner.many(sql, sorted(rows, key=itemgetter(0)))


def _packed(metrics: Mapping[tuple[int, Name], Summed | None]) -> Iterable[tuple[tuple[int, Name], tuple[Any, ...]]]:
    return ((where, summaries.packed(summed)) for where, summed in metrics.items() if summed is not None)


def _is_cut(key: bytes | None) -> bool:
    return key is not None and len(key) >= keys.LIMIT
