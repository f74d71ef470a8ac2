"""Answer one query: choose how the tables are gone through, and look at what the database could not tell alone.

Three ways lead to a page. Those that one part of the filter fits are sorted, if they are few. Else the index of the
first sort is walked, what is there, then NaN, then what is missing, until the page is full; or, where it has none, the
index of the starts; on the way each entity is looked up, or found among those that a part fits, if these are not many.
What no key can tell, as it was cut or is no column, is ordered by `mlcore.store.find` itself.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import attrs

from mlcore.errors import Malformed
from mlcore.store import Compare, Entity, Not, Or, Page, Query, Term, find, holds, narrowed
from mlcore_sql import keys
from mlcore_sql.comparing import UNSURE, Part
from mlcore_sql.decoded import Decoded, Families, Names
from mlcore_sql.dialects import REMEMBER, Binds, Runner, alone, among_all, parts
from mlcore_sql.filters import ENTITY, Filter, terms_of
from mlcore_sql.orders import Position, Sorted, after, order_by, position_of, sorts
from mlcore_sql.terms import Name

__all__ = ["Answer"]

_DELETED = Term("fields", "deleted")
_ALL = Or((Compare(_DELETED, "is null"), Not(Compare(_DELETED, "is null"))))  # deleted ones, too
_SAMPLED = 200  # entities
_LOOK, _SORT, _REMEMBER = 7.5, 17, 2.2  # measured in steps of an index, of which SQLite does 5 a us
_REMEMBERED = 3  # as many in the order of their numbers cost what it is to look up one
_BINDS = 30_000  # of 32,766 that SQLite takes
_Row = Sequence[Any]  # number, revision, a value for each sort, start and id


class Answer:
    """Find the page of one query of entities of a kind; `numbers` has the numbers of that and of its terms."""

    def __init__(
        self, runner: Runner, decoded: Decoded, kind: str, query: Query, numbers: Mapping[Name, tuple[int, bool]]
    ) -> None:
        self._runner, self._decoded, self._kind, self._query = runner, decoded, kind, query
        number, is_cut = numbers[kind, "", "", ""]
        self._binds = Binds()
        self._condition = Filter(runner, kind, number, numbers, self._binds).compile(query.where)
        if len(self._binds) > _BINDS:
            self._binds, self._condition = Binds(), UNSURE
        self._sorts = None if is_cut else sorts(kind, query.order, numbers, runner.dialect)
        hidden = "e.hidden < 2" if _DELETED in terms_of(query.where) else "e.hidden = 0"
        self._where = [f"e.kind = {self._binds.add(number)}", hidden]
        self._families = self._whole_families()
        self._parts = self._condition.parts or (Part(self._condition.upper),)
        self._way: Part | None = None  # which fits few, that are sorted
        self._set: Part | None = None  # which fits not many, that are remembered
        self._share = 1.0  # of the entities that may fit, at most, as far as is known

    def page(self) -> Page:
        """Return the page."""
        query, by = self._query, self._sorts
        if by is None or (query.limit is not None and query.limit < 0):
            return find(self._entities(self._rows([], None, None), None, None), query)
        position = None if query.token is None else _read(query.token, by)
        self._choose(query.limit)
        need = None if query.limit is None else query.limit + 1
        found = list(islice(self._fitting(by, position, need), need)) if query.limit != 0 else []
        token = None
        if query.limit and len(found) > query.limit:
            token = find(found[-2:], Query(_ALL, order=query.order, limit=1)).token
        items = found if query.limit is None else found[: query.limit]
        done = query.select is None or self._families is not None
        shown = items if done else [narrowed(entity, query.select) for entity in items]
        return Page(tuple(shown), token, self._count() if query.count else None)

    def _count(self) -> int:
        self._choose(None)
        if not self._condition.exact:
            return sum(1 for _ in self._fitting([], None, None))
        binds = Binds(self._binds)
        tables, where = self._begin()
        ((count,),) = self._runner.rows(f"SELECT count(*) FROM {tables} WHERE {' AND '.join(where)}", binds)
        return int(count)

    def _fitting(self, by: Sequence[Sorted], position: Position | None, need: int | None) -> Iterator[Entity]:
        """Yield the entities that fit, in order, from a position on; about as many as are needed are read at once."""
        exact, names = self._condition.exact, self._names()
        size = need if exact or need is None else 4 * need + 100
        while True:
            rows = self._rows(by, position, size)
            for part in parts(rows, 1_000):
                for entity in self._entities(part, names, self._families):
                    if exact or holds(self._query.where, entity):
                        yield entity
            if size is None or len(rows) < size:
                return
            position = tuple(bytes(each) if isinstance(each, memoryview) else each for each in rows[-1][2:])

    def _entities(self, rows: Sequence[_Row], names: Names, families: Families) -> list[Entity]:
        found = self._decoded.get(self._runner, self._kind, [(row[0], row[1]) for row in rows], names, families)
        return [found[row[0]] for row in rows if row[0] in found]

    def _whole_families(self) -> Families:
        """Return the families that are selected, if they are whole, and nothing else is looked at."""
        select, order = self._query.select, [sort.term.family for sort in self._query.order]
        if select is None or not self._condition.exact or any(term.name for term in select):
            return None
        families = frozenset(term.family for term in select)
        return families if families.issuperset({"fields", "metrics", *order} - {""}) else None

    def _names(self) -> Names:
        """Return the names of the metrics that are asked for, or looked at."""
        if self._query.select is None:
            return None
        terms = [*self._query.select, *(sort.term for sort in self._query.order)]
        terms += [] if self._condition.exact else terms_of(self._query.where)
        names = frozenset(term.name for term in terms if term.family == "metrics")
        return None if "" in names else names

    def _choose(self, limit: int | None) -> None:
        """Choose how to go through the entities by what it costs, in steps of an index: see `_Costs`."""
        self._way = self._set = None
        if not any(part.selects for part in self._parts):
            return
        most, by = self._most(), self._sorts or ()
        costs = _Costs(most, 1.0, limit, ordered=not by or by[0].driving, others=len(self._parts) - 1)
        counted = {part: self._counted(part, costs) for part in self._parts if part.selects and not part.scans}
        known = [count for count in counted.values() if count < costs.too_many()]
        self._share = (min(known, default=most) + 1) / (most + 1)
        if most > _SAMPLED * 10 and (len(self._parts) > 1 or not known):
            self._share = min(self._share, self._sample(most))
        costs = attrs.evolve(costs, share=self._share)
        best = costs.to_look_up()
        for part in [part for part in self._parts if part.selects]:
            count, scan = counted.get(part, int(self._share * most)), most * part.scans
            if scan + costs.to_sort(count) < best:
                best, self._way, self._set = scan + costs.to_sort(count), part, None
            if self._runner.dialect in REMEMBER and scan + costs.to_remember(count) < best:
                best, self._way, self._set = scan + costs.to_remember(count), None, part

    def _counted(self, part: Part, costs: _Costs) -> int:
        """Return how many a part fits, or as many as are too many to gain by it: to skip them is half of counting."""
        many = costs.too_many()
        more = f"EXISTS (SELECT 1 FROM ({part.all} LIMIT 1 OFFSET {many - 1:d}) q)"
        sql = f"SELECT CASE WHEN {more} THEN {many:d} ELSE (SELECT count(*) FROM ({part.all}) q) END"
        ((count,),) = self._runner.rows(sql, self._binds)
        return int(count)

    def _sample(self, most: int) -> float:
        """Return the share of entities that may fit, of some that are as far apart as can be."""
        numbers = ", ".join(str(most * place // _SAMPLED) for place in range(1, _SAMPLED + 1))
        # by number, whatever the database knows of kinds
        there, fits = " AND ".join(self._where), self._condition.upper
        sums = f"sum(CASE WHEN {there} THEN 1 ELSE 0 END), sum(CASE WHEN {there} AND {fits} THEN 1 ELSE 0 END)"
        sql = f"SELECT {sums} FROM entities e WHERE e.entity IN ({numbers})"
        ((all_of_them, fit),) = self._runner.rows(sql, self._binds)
        return (int(fit or 0) + 0.5) / (int(all_of_them or 0) + 0.5)

    def _most(self) -> int:
        ((most,),) = self._runner.rows("SELECT max(entity) FROM entities")
        return int(most or 0)

    def _rows(
        self, by: Sequence[Sorted], position: Position | None, size: int | None, within: Sequence[str] = ()
    ) -> list[_Row]:
        """Return at most `size` rows in order that may fit."""
        if size is None or self._way is not None or not (by and by[0].driving):
            return self._select(by, position, size, within)
        column, value = by[0].column, b"" if position is None else position[0]
        ends = [f"{column} = {self._binds.add(keys.NAN)}"] * by[0].descending + [f"{column} IS NULL"]
        rows: list[_Row] = []
        if value is not None and not (by[0].descending and value == keys.NAN):
            rows, position = self._walk(by, position, size, within), None
        for end in ends[value is None and by[0].descending :]:
            if len(rows) < size:
                driven = end != ends[-1]
                rows += self._select(by, position, size - len(rows), [*within, end], driven)
                position = None
        return rows

    def _walk(self, by: Sequence[Sorted], position: Position | None, size: int, within: Sequence[str]) -> list[_Row]:
        """Return rows by what is there of the first sort; what very many have is gone through by the next sort."""
        first, rows, group = by[0], list[_Row](), b""
        bound = f"{first.column} < {self._binds.add(keys.NAN)}" if first.descending else f"{first.column} IS NOT NULL"
        start = None if position is None else position[0]
        while len(rows) < size:
            here = bound if start is None else f"{first.column} {first.onward}= {self._binds.add(start)}"
            group = self._group(first, here, size - len(rows))
            if not group:
                return rows + self._select(by, position, size - len(rows), [*within, bound], driven=True)
            inner = position[1:] if position is not None and group == start else None
            has = self._has(first, group, size - len(rows), once=not (by[1:] and by[1].driving))
            found = self._rows(by[1:], inner, size - len(rows), [*within, has])
            rows += [(*row[:2], group, *row[2:]) for row in found]
            bound, start, position = f"{first.column} {first.onward} {self._binds.add(group)}", None, None
        return rows

    def _group(self, first: Sorted, where: str, size: int) -> bytes:
        """Return the value that comes next, if so many have it that sorting them is more than to look for `size`."""
        binds = Binds(self._binds)
        there = f"FROM {first.table} WHERE {first.alias}.term = {binds.add(first.number)} AND"
        order = f"ORDER BY {first.column} {first.direction} LIMIT 1"
        (value,) = next(iter(self._runner.rows(f"SELECT {first.column} {there} {where} {order}", binds)), (None,))
        if value is None or not self._have(first, bytes(value), _crowd(size, self._most(), self._share)):
            return b""
        return bytes(value)

    def _has(self, first: Sorted, group: bytes, size: int, once: bool) -> str:
        """Return the condition of having a value; where it is asked `once`, those that do may be worth remembering."""
        same = f"{first.column} = {self._binds.add(group)} AND {first.alias}.term = {self._binds.add(first.number)}"
        few = math.isqrt(int(size * self._most() * _REMEMBERED / self._share)) + 1
        if once and self._runner.dialect in REMEMBER and not self._have(first, group, few):
            return among_all(
                self._runner.dialect, ENTITY, f"SELECT {first.alias}.entity FROM {first.table} WHERE {same}"
            )
        return f"EXISTS (SELECT 1 FROM {first.table} WHERE {first.alias}.entity = {ENTITY} AND {same})"

    def _have(self, first: Sorted, group: bytes, many: int) -> bool:
        """Tell whether at least so many have a value."""
        binds = Binds(self._binds)
        same = f"{first.column} = {binds.add(group)} AND {first.alias}.term = {binds.add(first.number)}"
        sql = f"SELECT 1 FROM {first.table} WHERE {same} LIMIT 1 OFFSET {many - 1:d}"
        return bool(list(self._runner.rows(sql, binds)))

    def _select(
        self,
        by: Sequence[Sorted],
        position: Position | None,
        size: int | None,
        within: Sequence[str] = (),
        driven: bool = False,
    ) -> list[_Row]:
        """Return rows in order by one statement; `driven` by the index of the first sort."""
        tables, where = self._begin(by, within, driven)
        binds = Binds(self._binds)
        if driven:
            where.append(f"{by[0].alias}.term = {binds.add(by[0].number)}")
        for each in by[driven:]:
            if each.table and each.column:
                same = f"{each.alias}.entity = {ENTITY} AND {each.alias}.term = {binds.add(each.number)}"
                tables += f" LEFT JOIN {each.table} ON {same}"
        if position is not None:
            where.append(after(by, position, binds))
            if driven and position[0] is not None:  # for the index: the condition above is no range
                where.append(f"{by[0].column} {by[0].onward}= {binds.add(position[0])}")
        columns = ", ".join(["e.entity", "e.revision", *(each.column or "NULL" for each in by), "e.start", "e.id"])
        sql = f"SELECT {columns} FROM {tables} WHERE {' AND '.join(where)} ORDER BY {order_by(by, binds, driven)}"
        return list(self._runner.rows(sql if size is None else f"{sql} LIMIT {binds.add(size)}", binds))

    def _begin(
        self, by: Sequence[Sorted] = (), within: Sequence[str] = (), driven: bool = False
    ) -> tuple[str, list[str]]:
        """Return the tables to go through, first the one that leads, and what they must fulfil."""
        leader, entity = "", ENTITY  # SQLite takes the tables of a CROSS JOIN in this order
        if driven:
            leader, entity = f"{by[0].table} CROSS JOIN ", f"{by[0].alias}.entity"
        elif self._way is not None:
            leader, entity = f"({self._way.once}) w CROSS JOIN ", "w.entity"
        where = [] if entity == ENTITY else [f"{ENTITY} = {entity}"]
        if self._set is not None:
            where.append(among_all(self._runner.dialect, entity, self._set.all))
        parts = [part.sql for part in self._parts if part not in (self._way, self._set)]
        return f"{leader}entities e", [
            *self._where,
            *where,
            *(alone(self._runner.dialect, part.replace(ENTITY, entity)) for part in (*within, *parts)),
        ]


@attrs.frozen(eq=False, repr=False)
class _Costs:
    """Say what ways to a page cost, the step from one entry of an index to the next being 1.

    There are `most` entities, of which a `share` fits, in the order of an index or not, and so many `others` parts of
    the filter. To look up a value of an entity is to find it anywhere in a table.
    """

    most: int
    share: float
    limit: int | None
    ordered: bool
    others: int

    @property
    def steps(self) -> float:
        """How many entities are passed until the page is full."""
        return self.most if self.limit is None or not self.ordered else min(self.limit / self.share, self.most)

    def too_many(self) -> int:
        """Return how many are too many to remember them: then it costs less to look up."""
        if self.limit is None or not self.ordered:
            return self.most // 2 + 1
        return min(math.isqrt(int(self.limit * self.most * _LOOK / _REMEMBER)), self.most // 2) + 1

    def to_look_up(self) -> float:
        """Return what it costs to go through all in order, and to look up what each has."""
        return self.steps * _LOOK + self._ordering(self.steps)

    def to_sort(self, count: int) -> float:
        """Return what it costs to take those that one part fits, and to sort them."""
        return count * (_SORT + _LOOK * bool(self.others))

    def to_remember(self, count: int) -> float:
        """Return what it costs to remember which ones a part fits, and to go through all in order."""
        passed = self.steps * min(1.0, count / (self.most + 1))
        return count * _REMEMBER + self.steps + passed * _LOOK * bool(self.others) + self._ordering(self.steps)

    def _ordering(self, steps: float) -> float:
        return 0 if self.ordered and self.limit is not None else steps * self.share * _SORT


def _crowd(size: int, most: int, share: float) -> int:
    """Return how many of all must have one value to be worth a way of their own, where a share of them fits."""
    return max(1_000, int(math.sqrt(size * most / (share * (1 + share)))))


def _read(token: str, by: Sequence[Sorted]) -> Position:
    try:
        return position_of(base64.urlsafe_b64decode(token), by)
    except (ValueError, TypeError) as error:
        raise Malformed(f"not a page token: {token[:40]!r}: {error}") from error
