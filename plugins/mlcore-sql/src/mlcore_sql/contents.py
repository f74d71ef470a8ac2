"""Read what is projected as it means, without the numbers by which tables refer to each other, and compare it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from mlcore_sql import summaries
from mlcore_sql.dialects import Binds, Runner, among

__all__ = ["Projected", "differing", "projected_entities"]

_PAGE = 500
_ENTITY = ("parent", "created", "changed", "start", "duration", "hidden", "rewound")
_HIDDEN, _ERASED = 5, 2
_ROWS = {"attributes": ("type", "value", "text"), "members": ("type", "value"), "metrics": summaries.COLUMNS}


@attrs.frozen
class Projected:
    """Hold all that the tables have of an entity; `id` is its key there."""

    kind: bytes
    id: bytes
    columns: tuple[Any, ...]
    documents: tuple[Any, ...]
    attributes: tuple[Any, ...]
    members: tuple[Any, ...]
    metrics: tuple[Any, ...]

    def parts_unlike(self, other: Projected) -> list[str]:
        """Return the names of the tables in which two of one entity are not the same."""
        names = [each.name for each in attrs.fields(Projected)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def projected_entities(runner: Runner) -> Iterator[Projected]:
    """Yield all entities in order of kind and id, as read in one transaction."""
    kinds = {bytes(kind): id for id, kind in runner.rows("SELECT id, kind FROM terms WHERE length(family) = 0")}
    for kind, number in sorted(kinds.items()):
        yield from _of_kind(runner, kind, number)


def _of_kind(runner: Runner, kind: bytes, number: int) -> Iterator[Projected]:
    after = b""
    while True:
        selected = ", ".join(f"e.{name}" for name in _ENTITY)
        sql = (
            f"SELECT e.entity, e.id, {selected}, d.state, d.shown FROM entities e LEFT JOIN documents d "
            "ON d.entity = e.entity WHERE e.kind = :kind AND e.id > :after AND e.changed > 0 "
            f"ORDER BY e.id LIMIT {_PAGE}"
        )
        page = [tuple(map(_plain, row)) for row in runner.rows(sql, {"kind": number, "after": after})]
        if not page:
            return
        rows = {table: _rows(runner, table, [row[0] for row in page]) for table in _ROWS}
        for entity, id, *rest in page:
            columns, documents = rest[: len(_ENTITY)], rest[len(_ENTITY) :]
            if columns[_HIDDEN] == _ERASED:
                columns[1:3] = ()  # its stamps tell when it was erased first, which nobody asks
            of_tables = (tuple(sorted(rows[table][entity], key=repr)) for table in _ROWS)
            yield Projected(kind, id, tuple(columns), tuple(documents), *of_tables)
        after = page[-1][1]


def _rows(runner: Runner, table: str, entities: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
    binds = Binds()
    columns = ", ".join(f"r.{name}" for name in _ROWS[table])
    sql = (
        f"SELECT r.entity, t.family, t.name, t.context, {columns} FROM {table} r JOIN terms t ON t.id = r.term "
        f"WHERE {among(runner.dialect, 'r.entity', entities, binds)}"
    )
    found: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for entity, *row in runner.rows(sql, binds):
        found[entity].append(tuple(map(_plain, row)))
    return found


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def differing(one: Iterator[Projected], other: Iterator[Projected]) -> Iterator[tuple[Projected, list[str]]]:
    """Yield entities that are not the same in both, and where they differ: nowhere named if one has not got it."""
    a, b = next(one, None), next(other, None)
    while a is not None or b is not None:
        if a is not None and b is not None and (a.kind, a.id) == (b.kind, b.id):
            if unlike := a.parts_unlike(b):
                yield a, unlike
            a, b = next(one, None), next(other, None)
        elif b is None or (a is not None and (a.kind, a.id) < (b.kind, b.id)):
            assert a is not None
            yield a, []
            a = next(one, None)
        else:
            yield b, []
            b = next(other, None)
