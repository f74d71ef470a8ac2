"""Answer one query: choose how the tables are gone through, and look at what the database could not tell alone.

Three ways lead to a page. What few entities fit are by. Else the index of the first sort is walked, what is there,
then NaN, then what is missing, until the page is full; or, where it has none, the index of the starts. What no key can
tell, as it was cut or is no column, is ordered by `mlcore.store.find` itself.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from mlcore.errors import Malformed
from mlcore.store import Compare, Entity, Not, Or, Page, Query, Term, find, holds, narrowed
from mlcore_sql import keys
from mlcore_sql.comparing import UNSURE
from mlcore_sql.decoded import Decoded, Names
from mlcore_sql.dialects import Binds, Runner, among, parts
from mlcore_sql.filters import Filter, terms_of
from mlcore_sql.orders import Position, Sorted, after, order_by, position_of, sorts
from mlcore_sql.terms import Name

__all__ = ["Answer"]

_DELETED = Term("fields", "deleted")
_ALL = Or((Compare(_DELETED, "is null"), Not(Compare(_DELETED, "is null"))))  # deleted ones, too
_RARE = 1_000  # entities at most that are by rather than looked for in order
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
        self._where = [f"e.kind = {self._binds.add(number)}", hidden, self._condition.upper]
        self._few: list[int] | None = None  # the only entities that can fit, if they are few

    def page(self) -> Page:
        """Return the page."""
        query, by = self._query, self._sorts
        if by is None or (query.limit is not None and query.limit < 0):
            return find(self._entities(self._rows([], None, None), None), query)
        position = None if query.token is None else _read(query.token, by)
        self._few = self._rare()
        need = None if query.limit is None else query.limit + 1
        found = list(islice(self._fitting(by, position, need), need)) if query.limit != 0 else []
        token = None
        if query.limit and len(found) > query.limit:
            token = find(found[-2:], Query(_ALL, order=query.order, limit=1)).token
        items = found if query.limit is None else found[: query.limit]
        shown = items if query.select is None else [narrowed(entity, query.select) for entity in items]
        return Page(tuple(shown), token, self._count() if query.count else None)

    def _count(self) -> int:
        if not self._condition.exact:
            return sum(1 for _ in self._fitting([], None, None))
        binds = Binds(self._binds)
        where = [*self._where, *self._only(binds)]
        ((count,),) = self._runner.rows(f"SELECT count(*) FROM entities e WHERE {' AND '.join(where)}", binds)
        return int(count)

    def _fitting(self, by: Sequence[Sorted], position: Position | None, need: int | None) -> Iterator[Entity]:
        """Yield the entities that fit, in order, from a position on; about as many as are needed are read at once."""
        exact, names = self._condition.exact, self._names()
        size = need if exact or need is None else 4 * need + 100
        while True:
            rows = self._rows(by, position, size)
            for part in parts(rows, 1_000):
                for entity in self._entities(part, names):
                    if exact or holds(self._query.where, entity):
                        yield entity
            if size is None or len(rows) < size:
                return
            position = tuple(bytes(each) if isinstance(each, memoryview) else each for each in rows[-1][2:])

    def _entities(self, rows: Sequence[_Row], names: Names) -> list[Entity]:
        found = self._decoded.get(self._runner, self._kind, [(row[0], row[1]) for row in rows], names)
        return [found[row[0]] for row in rows if row[0] in found]

    def _names(self) -> Names:
        """Return the names of the metrics that are asked for, or looked at."""
        if self._query.select is None:
            return None
        terms = [*self._query.select, *(sort.term for sort in self._query.order)]
        terms += [] if self._condition.exact else terms_of(self._query.where)
        names = frozenset(term.name for term in terms if term.family == "metrics")
        return None if "" in names else names

    def _rare(self) -> list[int] | None:
        """Return the entities of a part of the filter that fits few, None if no part does."""
        found: list[int] | None = None
        for select in self._condition.driving[:4]:
            rows = self._runner.rows(f"{select} LIMIT {_RARE + 1:d}", self._binds)
            entities = [row[0] for row in rows]
            if len(entities) < (_RARE + 1 if found is None else len(found)):
                found = entities
        return found

    def _only(self, binds: Binds) -> list[str]:
        return [] if self._few is None else [among(self._runner.dialect, "e.entity", self._few, binds)]

    def _rows(self, by: Sequence[Sorted], position: Position | None, size: int | None) -> list[_Row]:
        """Return at most `size` rows in order that may fit."""
        if self._few == []:
            return []
        if size is None or self._few is not None or not (by and by[0].driving):
            return self._select(by, position, size)
        first, value = by[0], None if position is None else position[0]
        segments = [f"{first.column} IS NOT NULL", f"{first.column} IS NULL"]
        if first.descending:
            segments[:1] = [f"{first.column} < :nan", f"{first.column} = :nan"]
        start = int(first.descending and value == keys.NAN)
        if position is not None and value is None:
            start = len(segments) - 1
        rows: list[_Row] = []
        for place in range(start, len(segments)):
            if len(rows) < size:
                here = position if place == start else None
                driven = place < len(segments) - 1
                rows += self._select(by, here, size - len(rows), segments[place], driven)
        return rows

    def _select(
        self, by: Sequence[Sorted], position: Position | None, size: int | None, where: str = "", driven: bool = False
    ) -> list[_Row]:
        binds = Binds(self._binds)
        wheres = [*self._where, *self._only(binds), *filter(None, [where])]
        if ":nan" in where:
            binds["nan"] = keys.NAN
        tables = "entities e"
        if driven:
            tables = f"{by[0].table} CROSS JOIN entities e"  # SQLite goes through the first one first
            wheres += ["e.entity = s0.entity", f"s0.term = {binds.add(by[0].number)}"]
        for place, each in enumerate(by):
            if each.table and each.column and (place or not driven):
                same = f"s{place}.entity = e.entity AND s{place}.term = {binds.add(each.number)}"
                tables += f" LEFT JOIN {each.table} ON {same}"
        if position is not None:
            wheres.append(after(by, position, binds))
            if driven and position[0] is not None:  # for the index: the condition above is no range
                wheres.append(f"{by[0].column} {'<=' if by[0].descending else '>='} {binds.add(position[0])}")
        columns = ", ".join(["e.entity", "e.revision", *(each.column or "NULL" for each in by), "e.start", "e.id"])
        sql = f"SELECT {columns} FROM {tables} WHERE {' AND '.join(wheres)} ORDER BY {order_by(by, binds, driven)}"
        return list(self._runner.rows(sql if size is None else f"{sql} LIMIT {binds.add(size)}", binds))


def _read(token: str, by: Sequence[Sorted]) -> Position:
    try:
        return position_of(base64.urlsafe_b64decode(token), by)
    except (ValueError, TypeError) as error:
        raise Malformed(f"not a page token: {token[:40]!r}: {error}") from error
