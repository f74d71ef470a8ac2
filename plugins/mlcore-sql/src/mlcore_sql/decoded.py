"""Decoded entities, kept for the next question: those that did not change need not be read again."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence

import attrs

from mlcore.store import Entity, Summary, from_json
from mlcore_sql import summaries
from mlcore_sql.dialects import Binds, Runner, among, parts, without
from mlcore_sql.shown import entity_of

__all__ = ["Decoded"]

_MOST = 500_000  # values that are kept: about 100 MB
_LARGE = ("artifacts", "context", "datasets", "models")  # families that often are most of a run
Names = frozenset[str] | None  # of metrics, None for all
Families = frozenset[str] | None  # of what is shown, None for all


def _only(entity: Entity, families: Families) -> Entity:
    if families is None or families.issuperset(entity.attributes):
        return entity
    kept = {name: each for name, each in entity.attributes.items() if name in families}
    return attrs.evolve(entity, attributes=kept)


@attrs.define(eq=False, repr=False)
class _Kept:
    revision: int
    names: Names
    families: Families
    entity: Entity
    cost: int

    def serves(self, revision: int, names: Names, families: Families) -> bool:
        whole = self.families is None or self.families == families
        named = self.names is None or (names is not None and names <= self.names)
        return self.revision == revision and whole and named


class Decoded:
    """Read entities by number, and keep them by revision. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._cost = 0
        self._terms: dict[int, tuple[str, str]] = {}  # key and context of metrics, by number

    def get(
        self, runner: Runner, kind: str, revisions: Iterable[tuple[int, int]], names: Names, families: Families = None
    ) -> dict[int, Entity]:
        """Return entities by number, with at least the metrics of these names; those that are gone are left out.

        Of `families` there are no others, and what is large of the others is not decoded.
        """
        found: dict[int, Entity] = {}
        missing = []
        with self._lock:
            for entity, revision in revisions:
                kept = self._kept.get(entity)
                if kept is not None and kept.serves(revision, names, families):
                    self._kept.move_to_end(entity)
                    found[entity] = kept.entity if kept.families == families else _only(kept.entity, families)
                else:
                    missing.append(entity)
        for part in parts(missing):
            read = self._read(runner, kind, part, names, families)
            found |= {entity: kept.entity for entity, kept in read.items()}
            with self._lock:
                for entity, kept in read.items():
                    self._keep(entity, kept)
        return found

    def _keep(self, entity: int, kept: _Kept) -> None:
        old = self._kept.pop(entity, None)
        self._kept[entity] = kept
        self._cost += kept.cost - (old.cost if old else 0)
        while self._cost > _MOST and len(self._kept) > 1:
            self._cost -= self._kept.popitem(last=False)[1].cost

    def _read(
        self, runner: Runner, kind: str, entities: Sequence[int], names: Names, families: Families
    ) -> dict[int, _Kept]:
        metrics, binds = self._metrics(runner, entities, names), Binds()
        gone = [] if families is None else [f"$[3].{name}" for name in _LARGE if name not in families]
        shown = without(runner.dialect, "d.shown", gone)
        sql = (
            f"SELECT e.entity, e.revision, e.created, e.changed, {shown} FROM entities e"
            f" JOIN documents d ON d.entity = e.entity WHERE {among(runner.dialect, 'e.entity', entities, binds)}"
        )
        found, rows = {}, [row for row in runner.rows(sql, binds) if row[4]]
        contents = from_json(b"[%b]" % b",".join([bytes(row[4]) for row in rows]))  # at once, which takes less time
        for (entity, revision, created, changed, shown), content in zip(rows, contents, strict=True):
            own = metrics[entity]
            made = _only(entity_of(kind, content, created, changed, own), families)
            found[entity] = _Kept(revision, names, families, made, 8 + len(own) + len(shown) // 20)
        return found

    def _metrics(
        self, runner: Runner, entities: Sequence[int], names: Names
    ) -> defaultdict[int, dict[tuple[str, str], Summary]]:
        found: defaultdict[int, dict[tuple[str, str], Summary]] = defaultdict(dict)
        binds, shown = Binds(), ", ".join(summaries.SHOWN)
        sql = f"SELECT entity, term, {shown} FROM metrics WHERE {among(runner.dialect, 'entity', entities, binds)}"
        if names is not None:
            wanted = self._numbers(runner, names)
            if not wanted:
                return found
            sql += f" AND {among(runner.dialect, 'term', wanted, binds)}"
        rows = list(runner.rows(sql, binds))
        if not rows:
            return found
        numbers, terms, *columns = zip(*rows, strict=True)
        self._learn(runner, set(terms) - self._terms.keys())
        known = self._terms
        for number, term, summary in zip(numbers, terms, summaries.summaries_of(columns), strict=True):
            found[number][known[term]] = summary
        in_order = dict[tuple[tuple[str, str], ...], bool]()
        for number, own in found.items():  # most have the same names
            each = tuple(own)
            if each not in in_order:
                in_order[each] = list(each) == sorted(each)
            if not in_order[each]:
                found[number] = dict(sorted(own.items()))
        return found

    def _numbers(self, runner: Runner, names: Iterable[str]) -> list[int]:
        binds, encoded = Binds(), [name.encode(errors="surrogatepass") for name in names]
        if not encoded:
            return []
        where = f"family = {binds.add(b'metrics')} AND {among(runner.dialect, 'name', encoded, binds)}"
        return sorted(number for (number,) in runner.rows(f"SELECT id FROM terms WHERE {where}", binds))

    def _learn(self, runner: Runner, numbers: Iterable[int]) -> None:
        for part in parts(sorted(numbers)):
            binds = Binds()
            sql = f"SELECT id, name, context FROM terms WHERE {among(runner.dialect, 'id', part, binds)}"
            self._terms |= {
                number: (bytes(name).decode(), bytes(context).decode())
                for number, name, context in runner.rows(sql, binds)
            }
