"""Filters as SQL: the tree of a query, over the tables of one kind of entity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import attrs

from mlcore.store import And, Compare, Not, Term, Where
from mlcore_sql import keys
from mlcore_sql.comparing import FALSE, TRUE, UNSURE, Condition, Integers, Keys, Part, Texts, every, inverted, some
from mlcore_sql.dialects import Binds, Runner, contains
from mlcore_sql.terms import Name

__all__ = ["COLUMNS", "ENTITY", "METRICS", "Filter", "ms", "name_of", "terms_of"]

# of an entity itself
COLUMNS = {
    **{name: f"e.{name}" for name in ("id", "parent", "duration", "created", "changed")},
    **{f"{name}_ms": f"e.{name}" for name in ("created", "changed")},
}
ENTITY = "e.entity"  # of the entity that a condition is about
WRITTEN = "COALESCE(v.text, v.value)"
METRICS = {"last": "last", "min": "low", "max": "high", "count": "count", "step": "step", "time": "time"}
_WHOLE = ("count", "step", "time", "created", "changed", "created_ms", "changed_ms")


def terms_of(where: Where | None) -> Iterator[Term]:
    """Yield the terms that a tree compares."""
    if isinstance(where, Compare):
        yield where.term
    elif isinstance(where, Not):
        yield from terms_of(where.part)
    elif where is not None:
        for part in where.parts:
            yield from terms_of(part)


def name_of(kind: str, term: Term) -> Name:
    """Return what a term is called in the tables."""
    context = term.context if term.family == "metrics" and term.function != "any" else ""
    return kind, term.family, term.name, context


@attrs.frozen(eq=False, repr=False)
class Filter:
    """Compile a tree for entities of one kind, whose number is `number`; `numbers` has those of its terms."""

    runner: Runner
    kind: str
    number: int
    numbers: Mapping[Name, tuple[int, bool]]
    binds: Binds

    def compile(self, where: Where | None, negated: bool = False) -> Condition:
        """Return the condition on an entity ``e``: that it fits, or that it does not."""
        if where is None:
            return TRUE
        if isinstance(where, Compare):
            return inverted(self._compare(where)) if negated else self._compare(where)
        if isinstance(where, Not):
            return self.compile(where.part, not negated)
        parts = [self.compile(part, negated) for part in where.parts]
        return every(parts) if isinstance(where, And) != negated else some(parts)

    def _compare(self, where: Compare) -> Condition:
        op, negated = where.op, 0
        while op.startswith("not "):
            op, negated = op[4:], negated + 1
        if op == "!=":
            op, negated = "=", negated + 1
        if op == "is null":
            if where.term.function == "any":
                return UNSURE
            there = self._there(where.term, TRUE)
            return inverted(there) if not negated else there if negated == 1 else FALSE
        value = self._value(where.term)
        if value is None:
            return UNSURE
        found = value.compare(op, where.value, self.binds)
        return self._there(where.term, inverted(found) if negated % 2 else found, negated == 0)

    def _value(self, term: Term) -> Integers | Keys | Texts | None:
        """Return the column of a term, None where there is none."""
        dialect = self.runner.dialect
        if term.family == "" and term.function != "any":
            column = COLUMNS.get(term.name, "")
            if term.name in _WHOLE:
                return Integers(ms(dialect, column) if term.name.endswith("_ms") else column)
            only = keys.NUMBER if term.name == "duration" else keys.TEXT
            distinct = partial(self._distinct, column, "entities e WHERE e.kind = :n", self.number)
            cut = self.numbers[self.kind, "", "", ""][1]
            return Keys(column, self.runner, distinct, only=only, cut=cut) if column else None
        if term.family == "metrics" and term.function != "any":
            column = METRICS.get(term.function, "")
            if column in _WHOLE:
                return Integers(f"v.{column}")
            return Keys(f"v.{column}", self.runner, lambda *_: (), only=keys.NUMBER) if column else None
        number, cut = self.numbers.get(name_of(self.kind, term), (0, False))
        table = f"{'members' if term.function == 'any' else 'attributes'} v WHERE v.term = :n AND v"
        distinct = partial(self._distinct, "v.value", f"{table}.value IS NOT NULL", number)
        own = Keys("v.value", self.runner, distinct, "v.type", cut=cut or term.function == "any")
        if term.function != "text":
            return own
        distinct = partial(self._distinct, WRITTEN, "attributes v WHERE v.term = :n", number)
        return Texts(own, Keys(WRITTEN, self.runner, distinct, cut=cut))

    def _distinct(self, column: str, table: str, number: int, pieces: Sequence[bytes], but: str) -> Iterable[bytes]:
        binds = Binds(n=number)
        where = "".join(f" AND {contains(self.runner.dialect, column, binds.add(piece))}" for piece in pieces)
        where += f" AND NOT ({but})"
        found = self.runner.rows(f"SELECT DISTINCT {column} FROM {table}{where}", binds)
        return [key for key in map(bytes, chain.from_iterable(found)) if keys.is_text(key)]

    def _there(self, term: Term, condition: Condition, indexed: bool = False) -> Condition:
        """Say that there is a value, for which the condition holds; `indexed` if an index may have those."""
        if term.family == "" and term.function != "any":
            if term.name not in COLUMNS:
                return UNSURE
            there = condition
            if term.name == "duration":
                there = every([Condition("e.duration IS NOT NULL", "e.duration IS NOT NULL"), condition])
            select = f"SELECT e.entity FROM entities e WHERE e.kind = {self.binds.add(self.number)} AND {there.upper}"
            return _part(there, select if indexed and term.name in ("id", "parent") else "")
        number = self.numbers.get(name_of(self.kind, term))
        if number is None:
            return FALSE
        table, is_there = "attributes", "" if term.function == "text" else " AND v.value IS NOT NULL"
        if term.function == "any":
            table, is_there = "members", ""
        elif term.family == "metrics":
            table, is_there = "metrics", ""
        where = f"v.term = {self.binds.add(number[0])}{is_there}"
        upper, lower = (
            f"EXISTS (SELECT 1 FROM {table} v WHERE v.entity = {ENTITY} AND {where} AND {side})"
            for side in (condition.upper, condition.lower)
        )
        scans = condition.scans or 0.5 * (term.function == "text" and not condition.hint)
        found = attrs.evolve(condition, upper=upper, lower=lower, scans=scans)
        indexed = indexed and (table != "metrics" or METRICS[term.function] not in _WHOLE)
        if not indexed:
            return _part(found)
        distinct, hint = "DISTINCT " * (table == "members"), f" AND {condition.hint}" if condition.hint else ""
        return _part(found, f"SELECT {distinct}v.entity FROM {table} v WHERE {where}{hint} AND {condition.upper}")


def _part(condition: Condition, select: str = "") -> Condition:
    return attrs.evolve(condition, parts=(Part(condition.upper, (select,) * bool(select), condition.scans),), hint="")


def ms(dialect: str, column: str) -> str:
    """Return a column of ns in ms."""
    return f"({column} {'DIV' if dialect == 'mysql' else '/'} 1000000)"
