"""Answer `get` and `find` from the tables, as `mlcore.store` would from the entities themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from mlcore.store import Entity, Page, Query, find
from mlcore_sql import keys
from mlcore_sql.answering import Answer
from mlcore_sql.decoded import Decoded
from mlcore_sql.dialects import Binds, Runner, among, parts
from mlcore_sql.filters import name_of, terms_of
from mlcore_sql.terms import found as numbers_of

__all__ = ["Reading"]


class Reading:
    """Answer questions by SQL, and keep decoded entities for the next question. Thread-safe.

    `connect` gives for the time of one answer what runs statements, best all on one snapshot.
    """

    def __init__(self, connect: Callable[[], AbstractContextManager[Runner]]) -> None:
        self._connect = connect
        self._decoded = Decoded()

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """Return the entities of these ids, deleted ones included, None where there is none."""
        wanted = {keys.id_key(id): id for id in ids}
        found: dict[str, Entity] = {}
        with self._connect() as runner:
            number, _ = numbers_of(runner, [(kind, "", "", "")]).get((kind, "", "", ""), (None, False))
            for part in parts(sorted(wanted) if number is not None else []):
                binds = Binds()
                where = f"kind = {binds.add(number)} AND hidden < 2 AND {among(runner.dialect, 'id', part, binds)}"
                rows = list(runner.rows(f"SELECT entity, revision, id FROM entities WHERE {where}", binds))
                read = self._decoded.get(runner, kind, [(row[0], row[1]) for row in rows], None)
                found |= {wanted[bytes(row[2])]: read[row[0]] for row in rows if row[0] in read}
        return [found.get(id) for id in ids]

    def find(self, kind: str, query: Query) -> Page:
        """Return the entities that fit a query, as `mlcore.store.find` would; the token stays right under additions."""
        if query.token is not None:
            find((), query)  # raises Malformed
        terms = (*terms_of(query.where), *(sort.term for sort in query.order))
        with self._connect() as runner:
            numbers = numbers_of(runner, {(kind, "", "", ""), *(name_of(kind, term) for term in terms)})
            if (kind, "", "", "") not in numbers:
                return find((), query)
            return Answer(runner, self._decoded, kind, query, numbers).page()

    def keys(self, kind: str, family: str, prefix: str = "", limit: int | None = None) -> list[str]:
        """Return the distinct names in a family of all entities of a kind that begin so, by code point."""
        binds, table = Binds(), "metrics" if family == "metrics" else "attributes"
        begin = prefix.encode(errors="surrogatepass")
        where = [f"t.{column} = {binds.add(value.encode())}" for column, value in (("kind", kind), ("family", family))]
        where += [f"t.name >= {binds.add(begin)}"]
        where += [f"t.name < {binds.add(keys.after(begin))}"] if begin else []
        where += [f"EXISTS (SELECT 1 FROM {table} v WHERE v.term = t.id)"]
        sql = f"SELECT DISTINCT t.name FROM terms t WHERE {' AND '.join(where)} ORDER BY t.name"
        sql += "" if limit is None else f" LIMIT {binds.add(limit)}"
        with self._connect() as runner:
            return [bytes(name).decode() for (name,) in runner.rows(sql, binds)]
