"""Comparisons as SQL: what `mlcore.store.holds` says of one value, said of a column.

A `Condition` has two sides, since a key may be cut and a pattern may be more than a database knows: `upper` misses
nothing that holds, `lower` takes nothing that does not. Where they are the same, the database's word is the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import attrs

from mlcore.store import Compare, Entity, Term, holds
from mlcore_sql import keys
from mlcore_sql.dialects import Binds, Runner, among, contains, ends, is_like, matches, plain

__all__ = ["FALSE", "TRUE", "UNSURE", "Condition", "Integers", "Keys", "Part", "Texts", "every", "inverted", "some"]


class Part(NamedTuple):
    """A condition, and selects that together have all entities that it holds for, where an index has them.

    `scans` is what it costs to find them, an entry of an index that must be gone through as a whole.
    """

    sql: str
    selects: tuple[str, ...] = ()
    scans: float = 0

    @property
    def once(self) -> str:
        """The select of all of them, each once."""
        return " UNION ".join(self.selects)

    @property
    def all(self) -> str:
        """The select of all of them, some perhaps twice."""
        return " UNION ALL ".join(self.selects)


@attrs.frozen(eq=False, repr=False)  # nobody compares or shows one, and what a class can costs a start
class Condition:
    """Hold a condition in SQL from above and from below.

    `parts` are conditions that together are the upper one. `hint` says what else is so wherever the condition holds,
    for the index; `scans` what it costs where an index must be gone through as a whole. `depth` and `nesting` are those
    of the expression: a database takes a deep one for an attack.
    """

    upper: str
    lower: str
    parts: tuple[Part, ...] = ()
    hint: str = ""
    scans: float = 0
    leaves: int = 1
    depth: int = 10
    nesting: int = 0

    @property
    def exact(self) -> bool:
        """Whether the database alone can tell."""
        return self.upper == self.lower


TRUE, FALSE = Condition("1 = 1", "1 = 1"), Condition("1 = 0", "1 = 0")
UNSURE = Condition(TRUE.upper, FALSE.lower)
_PIECES = 3  # of a pattern that are looked for before
_PATTERN = 100  # characters: SQLite goes back at each % as often as it takes
_BYTES, _MATCHED, _ASKED = 0.5, 2.2, 3.5  # what it costs to look at bytes, to match, to ask core: steps of an index
_LEAVES = 300  # more take PostgreSQL minutes to plan
_DEPTH, _NESTING = 800, 12  # of 1,000 that SQLite takes, and a hundred words that it keeps in mind


def _sure(sql: str) -> Condition:
    return Condition(sql, sql)


def _fitting(op: str, pattern: str) -> Callable[[bytes | None], bool]:
    """Return what asks core whether the text of a key is like a pattern; not thread-safe."""
    fields: dict[str, str] = {}
    where, entity = Compare(Term("fields", "it"), op, pattern), Entity("", "", fields=fields)

    def fits(key: bytes | None) -> bool:
        if key is None or not keys.is_text(key):
            return False
        # what was cut may end amid a character, or in a digest
        fields["it"] = key[1:].decode(errors="surrogatepass" if len(key) < keys.LIMIT else "replace")
        return holds(where, entity)

    return fits


def _pieces(op: str, pattern: str) -> list[bytes]:
    """Return what is in each text that is like a pattern: all between its signs, but for letters that have a case."""
    fixed = (
        "%" if char == "_" or (op == "ilike" and not (char.isascii() and char.lower() == char.upper())) else char
        for char in pattern
    )
    found = {piece.encode(errors="surrogatepass") for piece in "".join(fixed).split("%") if piece}
    return sorted(found, key=lambda piece: (-len(piece), piece))  # the rarest first, most likely


def every(parts: Sequence[Condition]) -> Condition:
    """Hold where all parts do."""
    parts = [part for part in parts if part.lower != TRUE.lower]
    both = _joined(" AND ", parts) if parts else TRUE
    flat = tuple(each for part in parts for each in part.parts or (Part(part.upper),))
    return both if both is UNSURE else attrs.evolve(both, parts=flat)


def some(parts: Sequence[Condition]) -> Condition:
    """Hold where any part does."""
    either = _joined(" OR ", parts) if parts else FALSE
    if either is UNSURE or not all(len(part.parts) == 1 and part.parts[0].selects for part in parts):
        return either
    selects = tuple(select for part in parts for select in part.parts[0].selects)
    return attrs.evolve(either, parts=(Part(either.upper, selects, either.scans),))


def inverted(part: Condition) -> Condition:
    """Hold where the part does not."""
    if part.upper == FALSE.upper:
        return TRUE
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
    scans = max(part.scans for part in parts)
    return Condition(upper, lower, scans=scans, leaves=leaves, depth=depth, nesting=nesting)


@attrs.frozen(eq=False, repr=False)
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


@attrs.frozen(eq=False, repr=False)
class Keys:
    """A column of keys; `type` is the column of their types, or `only` the type that all have.

    `distinct` returns the different keys of texts in it that have some bytes, but for those of a condition; `cut` says
    that there are some that were cut.
    """

    column: str
    runner: Runner
    distinct: Callable[[Sequence[bytes], str], Iterable[bytes]]
    type: str = ""
    only: int = keys.TEXT
    cut: bool = True

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
        found = [_sure(among(self.runner.dialect, self.column, short, binds))] if short else []
        return some(
            found + ([Condition(among(self.runner.dialect, self.column, cut, binds), FALSE.lower)] if cut else [])
        )

    def _among(self, wanted: Sequence[bytes], binds: Binds) -> str:
        return among(self.runner.dialect, self.column, wanted, binds)

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
        key, tail = keys.full(head), (rest or [""])[-1].encode(errors="surrogatepass")
        if op == "like" and "_" not in pattern and len(key) < keys.LIMIT:
            begins = f"{self.column} >= {binds.add(key)} AND {self.column} < {binds.add(keys.after(key))}"
            if not rest:
                return self._equal([key], binds)
            if rest == [""]:
                return _sure(begins)
            if len(rest) == 1:
                ending = ends(self.runner.dialect, self.column, len(tail), binds.add(tail))
                whole = f" AND {begins} AND length({self.column}) >= {len(key) + len(tail):d}" if head else ""
                return self._unless_cut(ending + whole, binds)  # no tail begins as a key does
            if len(rest) == 2 and not head and not tail:
                middle = binds.add(rest[0].encode(errors="surrogatepass"))
                return self._unless_cut(contains(self.runner.dialect, self.column, middle), binds)
        return self._looked_at(op, pattern, binds)

    def _unless_cut(self, sql: str, binds: Binds, scans: float = _BYTES) -> Condition:
        """Return a condition on the whole of a text, of which a key that was cut has only the beginning."""
        if not self.cut:
            return Condition(sql, sql, scans=scans)
        cut = f"length({self.column}) >= {binds.add(keys.LIMIT)}"
        return Condition(f"(({sql}) OR {cut})", f"({sql}) AND NOT {cut}", scans=scans)

    def _looked_at(self, op: str, pattern: str, binds: Binds) -> Condition:
        """Let the database tell of plain texts, and ask core about others, from there or one of each different."""
        dialect, pieces = self.runner.dialect, _pieces(op, pattern)
        fits, name = _fitting(op, pattern), f"fits_{len(binds)}"
        known = self.runner.knows(name, fits)
        if op == "like" and "_" not in pattern and not known:
            return self._unless_cut(is_like(self.column, keys.full(pattern), binds), binds)
        text = plain(dialect, self.column) if pattern.isascii() and "\0" not in pattern else ""
        text = text if len(pattern) <= _PATTERN else ""
        is_plain = f"length({text}) = length({self.column}) - 1" if text else "1 = 0"
        if known:
            asked = f"{name}({self.column})"
        else:
            found = [key for key in self.distinct(pieces, is_plain) if len(key) < keys.LIMIT and fits(key)]
            asked = self._among(found, binds) if found else "1 = 0"
        if text:
            asked = f"CASE WHEN {is_plain} THEN {matches(dialect, op, text, pattern, binds)} ELSE {asked} END"
        there = [contains(dialect, self.column, binds.add(piece)) for piece in pieces[:_PIECES]]
        scans = _BYTES if there else _MATCHED if text else _ASKED
        return self._unless_cut(" AND ".join([*there, asked]), binds, scans)


@attrs.frozen(eq=False, repr=False)
class Texts:
    """Values as `str` writes them: text has its key, all else the key of its text, in columns of their own."""

    own: Keys
    written: Keys  # of each, of a text its own

    def compare(self, op: str, value: Any, binds: Binds) -> Condition:
        """Say that the text of a value that is there compares so."""
        values = [each for each in (value if op == "in" else [value]) if isinstance(each, str)]
        if not values:
            return FALSE
        value = values if op == "in" else values[0]
        known = self._values(values) if op in ("=", "in") else None
        if known is not None and all(map(keys.is_text, known)):
            return attrs.evolve(self.own.compare(op, value, binds), hint="1 = 1")
        hint = "" if known is None else among(self.own.runner.dialect, self.own.column, known, binds)
        return attrs.evolve(self.written.compare(op, value, binds), hint=hint)

    def _values(self, texts: Sequence[str]) -> list[bytes] | None:
        """Return the keys that values with such texts must have, None if that cannot be told."""
        if any(text[:1] in ("[", "{") or text == "None" for text in texts):
            return None
        found = {keys.text(text) for text in texts}
        for text in texts:
            numbers: list[float] = [value for value in (True, False) if str(value) == text]
            for kind in (int, float):
                with suppress(ValueError):
                    numbers.append(kind(text))
            found |= {keys.number(value) for value in numbers}
        return sorted(found)
