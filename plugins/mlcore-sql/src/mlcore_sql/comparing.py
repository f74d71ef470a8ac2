"""Comparisons as SQL: what `mlcore.store.holds` says of one value, said of a column.

A `Condition` has two sides, since a key may be cut and a pattern may be more than a database knows: `upper` misses
nothing that holds, `lower` takes nothing that does not. Where they are the same, the database's word is the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import attrs

from mlcore.store import Compare, Entity, Term, holds
from mlcore_sql import keys
from mlcore_sql.dialects import Binds, among, contains

__all__ = ["FALSE", "TRUE", "UNSURE", "Condition", "Integers", "Keys", "Texts", "every", "inverted", "some"]


@attrs.frozen
class Condition:
    """Hold a condition in SQL from above and from below.

    `parts` are conditions that together are the upper one, each with a select of all entities that it holds for where
    an index has them. `hint` says what else is so wherever the condition holds, for the index. `depth` and `nesting`
    are those of the expression: a database takes a deep one for an attack.
    """

    upper: str
    lower: str
    parts: tuple[tuple[str, str], ...] = ()
    hint: str = ""
    leaves: int = 1
    depth: int = 10
    nesting: int = 0

    @property
    def exact(self) -> bool:
        """Whether the database alone can tell."""
        return self.upper == self.lower


TRUE, FALSE = Condition("1 = 1", "1 = 1"), Condition("1 = 0", "1 = 0")
UNSURE = Condition(TRUE.upper, FALSE.lower)
_LEAVES = 300  # more take PostgreSQL minutes to plan
_DEPTH, _NESTING = 800, 12  # of 1,000 that SQLite takes, and a hundred words that it keeps in mind


def _sure(sql: str) -> Condition:
    return Condition(sql, sql)


def every(parts: Sequence[Condition]) -> Condition:
    """Hold where all parts do."""
    both = _joined(" AND ", parts) if parts else TRUE
    flat = tuple(each for part in parts for each in part.parts or ((part.upper, ""),))
    return both if both is UNSURE else attrs.evolve(both, parts=flat)


def some(parts: Sequence[Condition]) -> Condition:
    """Hold where any part does."""
    return _joined(" OR ", parts) if parts else FALSE


def inverted(part: Condition) -> Condition:
    """Hold where the part does not."""
    return Condition(
        f"NOT ({part.lower})", f"NOT ({part.upper})", leaves=part.leaves, depth=part.depth, nesting=part.nesting
    )


def _joined(word: str, parts: Sequence[Condition]) -> Condition:
    if len(parts) == 1:
        return attrs.evolve(parts[0], parts=(), hint="")
    leaves, depth = sum(part.leaves for part in parts), max(part.depth for part in parts) + len(parts)
    nesting = max(part.nesting for part in parts) + 1
    if leaves > _LEAVES or depth > _DEPTH or nesting > _NESTING:
        return UNSURE
    upper, lower = (f"({word.join(sides)})" for sides in zip(*((p.upper, p.lower) for p in parts), strict=True))
    return Condition(upper, lower, leaves=leaves, depth=depth, nesting=nesting)


@attrs.frozen
class Integers:
    """A column of 64-bit integers."""

    column: str

    def compare(self, op: str, value: Any, binds: Binds) -> Condition:
        """Say that an integer compares so."""
        if op == "in":
            return some([self.compare("=", each, binds) for each in value])
        if keys.kind_of(value) != keys.NUMBER:
            return UNSURE if op == "=" and keys.kind_of(value) == keys.OTHER else FALSE
        if op.endswith("like") or value != value:  # noqa: PLR0124 - isnan fails on huge integers
            return FALSE
        if abs(value) >= 1 << 63:
            return TRUE if (op[0] == "<" and value > 0) or (op[0] == ">" and value < 0) else FALSE
        whole = math.ceil(value) if op in ("<", ">=") else math.floor(value)
        return _sure(f"{self.column} {op} {binds.add(whole)}") if op != "=" or whole == value else FALSE


@attrs.frozen
class Keys:
    """A column of keys; `type` is the column of their types, or `only` the type that all have.

    `distinct` returns the different keys of texts in it.
    """

    column: str
    dialect: str
    distinct: Callable[[], Iterable[bytes]]
    type: str = ""
    only: int = keys.TEXT

    def compare(self, op: str, value: Any, binds: Binds) -> Condition:
        """Say that a key that is there compares so."""
        if op == "in":
            return self._in(tuple(value), binds)
        if op.endswith("like"):
            is_text = self.type or self.only == keys.TEXT
            return self._typed(keys.TEXT, self._like(op, value, binds), binds) if is_text else FALSE
        kind = keys.kind_of(value)
        if kind in (keys.MISSING, keys.OTHER):
            return UNSURE if op == "=" and kind == keys.OTHER else FALSE
        if value != value:  # noqa: PLR0124 - isnan fails on huge integers
            return FALSE
        key = keys.full(value)
        return self._typed(kind, self._equal([key], binds) if op == "=" else self._ordered(op, key, binds), binds)

    def _typed(self, kind: int, condition: Condition, binds: Binds) -> Condition:
        if not self.type:
            return condition if kind == self.only else FALSE
        return every([_sure(f"{self.type} = {binds.add(kind)}"), condition])

    def _in(self, values: Sequence[Any], binds: Binds) -> Condition:
        kinds: dict[int, list[bytes]] = {}
        for value in values:
            if value is not None and value == value:  # noqa: PLR0124 - as above
                kinds.setdefault(keys.kind_of(value), []).append(keys.full(value))
        unsure = [UNSURE] if kinds.pop(keys.OTHER, None) else []
        return some([self._typed(kind, self._equal(each, binds), binds) for kind, each in kinds.items()] + unsure)

    def _equal(self, wanted: Sequence[bytes], binds: Binds) -> Condition:
        short = [key for key in wanted if len(key) < keys.LIMIT]
        cut = [key[: keys.LIMIT] for key in wanted if len(key) >= keys.LIMIT]
        found = [_sure(among(self.dialect, self.column, short, binds))] if short else []
        return some(found + ([Condition(among(self.dialect, self.column, cut, binds), FALSE.lower)] if cut else []))

    def _ordered(self, op: str, key: bytes, binds: Binds) -> Condition:
        low, high = key[:1], bytes([key[0] + 1])  # among its own rank
        side = f"{self.column} {'>=' if op[0] == '<' else '<'} {binds.add(low if op[0] == '<' else high)} AND "
        cut = key[: keys.LIMIT]
        if len(key) < keys.LIMIT:
            return _sure(f"{side}{self.column} {op} {binds.add(cut)}")
        return Condition(
            f"{side}{self.column} {op[0]}= {binds.add(cut)}", f"{side}{self.column} {op[0]} {binds.add(cut)}"
        )

    def _like(self, op: str, pattern: str, binds: Binds) -> Condition:
        head, *rest = pattern.split("%")
        key = keys.full(head)
        if op == "like" and "_" not in pattern and len(key) < keys.LIMIT:
            if not rest:
                return self._equal([key], binds)
            if rest == [""]:
                return _sure(f"{self.column} >= {binds.add(key)} AND {self.column} < {binds.add(keys.after(key))}")
            if len(rest) == 2 and not head and not rest[1]:
                found = contains(self.dialect, self.column, binds.add(rest[0].encode(errors="surrogatepass")))
                return Condition(f"({found} OR {self._cut(binds)})", found)
        return self._looked_up(op, pattern, binds)

    def _looked_up(self, op: str, pattern: str, binds: Binds) -> Condition:
        """Ask core about each different text: it is the same for thousands of entities."""
        where, found, cut = Compare(Term("fields", "it"), op, pattern), [], False
        fields: dict[str, str] = {}
        entity = Entity("", "", fields=fields)
        for key in self.distinct():
            if len(key) >= keys.LIMIT:  # which may end amid a character, or in a digest
                cut = True
                continue
            fields["it"] = key[1:].decode(errors="surrogatepass")
            if holds(where, entity):
                found.append(key)
        sure = among(self.dialect, self.column, found, binds) if found else FALSE.lower
        return Condition(f"({sure} OR {self._cut(binds)})", sure) if cut else _sure(sure)

    def _cut(self, binds: Binds) -> str:
        return f"length({self.column}) >= {binds.add(keys.LIMIT)}"


@attrs.frozen
class Texts:
    """Values as `str` writes them: text has its key, all else the key of its text, in columns of their own."""

    own: Keys
    written: Keys

    def compare(self, op: str, value: Any, binds: Binds) -> Condition:
        """Say that the text of a value that is there compares so."""
        values = [each for each in (value if op == "in" else [value]) if isinstance(each, str)]
        if not values:
            return FALSE
        value = values if op == "in" else values[0]
        written = every([_sure(f"{self.written.column} IS NOT NULL"), self.written.compare(op, value, binds)])
        found = some([self.own.compare(op, value, binds), written])
        return attrs.evolve(found, hint=self._hint(values, binds)) if op in ("=", "in") else found

    def _hint(self, texts: Sequence[str], binds: Binds) -> str:
        """Return what the keys of values with such texts must be, nothing if that cannot be told."""
        if any(text[:1] in ("[", "{") or text == "None" for text in texts):
            return ""
        found = {keys.text(text) for text in texts}
        for text in texts:
            numbers: list[float] = [value for value in (True, False) if str(value) == text]
            for kind in (int, float):
                with suppress(ValueError):
                    numbers.append(kind(text))
            found |= {keys.number(value) for value in numbers}
        return among(self.own.dialect, self.own.column, sorted(found), binds)
