"""Orders as SQL: by what to sort, and what comes after a position in that order.

What is missing comes last in either direction, NaN just before it. The key of NaN is above all others, so only a
descending order has to be told. Ties are ordered by start, the newest first, then by id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from mlcore.store import Sort, from_json
from mlcore_sql import keys
from mlcore_sql.dialects import Binds
from mlcore_sql.filters import COLUMNS, METRICS, ms, name_of
from mlcore_sql.terms import Name

__all__ = ["Position", "Sorted", "after", "order_by", "position_of", "sorts"]

Position = tuple[Any, ...]  # a value for each sort, None if missing; then the start and the id
_WHOLE = ("count", "step", "time", "created", "changed", "created_ms", "changed_ms")
_TIES = ("e.start", "e.id")


@attrs.frozen(eq=False, repr=False)
class Sorted:
    """Say how to sort by one term: an expression, none where the term is nowhere, and the table it is in."""

    column: str
    table: str
    number: int
    whole: bool
    descending: bool
    driving: bool  # there is an index of it

    @property
    def alias(self) -> str:
        """What the table is called."""
        return self.table.rpartition(" ")[2]

    @property
    def direction(self) -> str:
        """How the database is to go through what is there."""
        return "DESC" if self.descending else "ASC"

    @property
    def onward(self) -> str:
        """The operator of what comes later."""
        return "<" if self.descending else ">"


def sorts(
    kind: str, order: Sequence[Sort], numbers: Mapping[Name, tuple[int, bool]], dialect: str
) -> list[Sorted] | None:
    """Return how to sort, None if the database cannot: there is no such column, or keys were cut."""
    found = []
    for place, sort in enumerate(order):
        term, alias = sort.term, f"s{place}"
        number, cut = numbers.get(name_of(kind, term), (0, False))
        if cut:
            return None
        if term.family == "":
            if term.name not in COLUMNS:
                return None
            column, table = COLUMNS[term.name], ""
            column = ms(dialect, column) if term.name.endswith("_ms") else column
            whole = term.name in _WHOLE
        elif term.family == "metrics":
            if term.function not in METRICS:
                return None
            column, table, whole = (
                f"{alias}.{METRICS[term.function]}",
                f"metrics {alias}",
                METRICS[term.function] in _WHOLE,
            )
        else:
            column = f"COALESCE({alias}.text, {alias}.value)" if term.function == "text" else f"{alias}.value"
            table, whole = f"attributes {alias}", False
        known = bool(number) or not table
        driving = known and column.endswith((".value", ".last", ".low", ".high"))
        found.append(Sorted(column if known else "", table, number, whole, sort.descending, driving))
    return found


def order_by(by: Sequence[Sorted], binds: Binds, driven: bool = False) -> str:
    """Return the terms of ``ORDER BY``; where the first drives, nothing of it is missing or NaN out of its place."""
    found = []
    for place, each in enumerate(by):
        if each.column:
            if place or not driven:
                nan = "" if each.whole or not each.descending else f" WHEN {each.column} = {binds.add(keys.NAN)} THEN 1"
                found.append(f"CASE WHEN {each.column} IS NULL THEN 2{nan} ELSE 0 END")
            found.append(f"{each.column} {each.direction}")
    return ", ".join([*found, "e.start DESC", "e.id"])


def after(by: Sequence[Sorted], position: Position, binds: Binds) -> str:
    """Return the condition of coming after a position."""
    start, id = map(binds.add, position[-2:])
    found = f"(e.start < {start} OR (e.start = {start} AND e.id > {id}))"
    for each, value in zip(reversed(by), reversed(position[:-2]), strict=True):
        later, same = _side(each, value, binds)
        found = f"({later} OR ({same} AND {found}))"
    return found


def _side(each: Sorted, value: Any, binds: Binds) -> tuple[str, str]:
    """Return the conditions of coming after a value, and of being it."""
    if not each.column:
        return ("1 = 0", "1 = 1") if value is None else ("1 = 1", "1 = 0")
    missing = f"{each.column} IS NULL"
    if value is None:
        return "1 = 0", missing
    bound = binds.add(value)
    same = f"{each.column} = {bound}"
    if value == keys.NAN:
        return missing, same
    if not each.descending:
        return f"({missing} OR {each.column} > {bound})", same
    nan = "" if each.whole else f" OR {each.column} = {binds.add(keys.NAN)}"
    return f"({missing}{nan} OR {each.column} < {bound})", same


def position_of(token: bytes, by: Sequence[Sorted]) -> Position:
    """Return the position that core's token, out of its wrapping, tells. Raises `ValueError` or `TypeError`."""
    ranks = from_json(token)
    found: list[Any] = []
    for each, (rank, value) in zip(by, ranks, strict=False):
        if rank not in (0, 1, 2, 3) or (rank == 0 and not isinstance(value, int | float)):
            raise ValueError(f"rank {rank} of {value!r:.40}")
        if rank == 3:
            found.append(None)
        elif each.whole:
            found.append(min(max(int(value), -(1 << 63)), (1 << 63) - 1))
        else:
            found.append(keys.NAN if rank == 2 else keys.full(value)[: keys.LIMIT])
    (_, start), (_, id) = ranks[-2:]
    return (*found, keys.number(-start), keys.id_key(id))
