"""Queries over entities as data, and the evaluator that says what every store must answer."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from functools import cmp_to_key, lru_cache, partial
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import attrs

from mlcore.errors import Malformed
from mlcore.store._events import from_json, to_json
from mlcore.store._fold import Entity

__all__ = ["And", "Compare", "Not", "Or", "Page", "Query", "Sort", "Term", "Where", "find"]

FUNCTIONS = {"last": "value", "min": "min", "max": "max", "count": "count", "step": "step", "time": "time"}
_OPERATORS = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


@attrs.frozen
class Term:
    """Name a value of an entity.

    `family` is ``""`` for the entity's own ``id``, ``parent``, ``created`` and ``changed``; ``"fields"``,
    ``"metrics"``, or a family of attributes. For metrics `function` is one of `FUNCTIONS` and `context` may be given.
    """

    family: str
    name: str
    function: str = "last"
    context: str = ""


@attrs.frozen
class Compare:
    """Hold where `term` compares to `value`; what is missing holds only for ``is null``.

    `op` is ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``like``, ``ilike``, ``in`` or ``is null``. Strings compare
    by code point, ``like`` is case-sensitive and ``ilike`` is not, ``in`` takes a tuple; values of different types
    are unequal and in no order.
    """

    term: Term
    op: str
    value: Any = None


@attrs.frozen
class And:
    """Hold where all parts hold."""

    parts: tuple[Where, ...]


@attrs.frozen
class Or:
    """Hold where any part holds."""

    parts: tuple[Where, ...]


@attrs.frozen
class Not:
    """Hold where the part does not, missing values included."""

    part: Where


Where = Compare | And | Or | Not


@attrs.frozen
class Sort:
    """Order by a term; what is missing comes last in either direction, NaN just before it."""

    term: Term
    descending: bool = False


@attrs.frozen
class Query:
    """Ask for entities: which (`where`), in what order, how many from where on, and what of each.

    Ties are ordered by start time, newest first, then by id. Deleted entities (field ``deleted``) are left
    out unless `where` names that field. `select` names what to bring back, a term with an empty name the whole
    family, None everything. `token` is the page's before; `count` asks for the number of all that fit.
    """

    where: Where | None = None
    select: tuple[Term, ...] | None = None
    order: tuple[Sort, ...] = ()
    limit: int | None = None
    token: str | None = None
    count: bool = False


@attrs.frozen
class Page:
    """Hold one page of entities, the token of the next (None at the end), and the count if asked for."""

    items: tuple[Entity, ...]
    token: str | None = None
    count: int | None = None


def value_of(entity: Entity, term: Term) -> Any:
    """Return what `term` names, None where it is missing."""
    if term.family == "":
        return getattr(entity, term.name, None)
    if term.family == "metrics":
        summary = entity.metrics.get((term.name, term.context))
        return None if summary is None else getattr(summary, FUNCTIONS[term.function])
    values = entity.fields if term.family == "fields" else entity.attributes.get(term.family, {})
    return values.get(term.name)


def holds(where: Where | None, entity: Entity) -> bool:
    """Tell whether an entity fits."""
    if isinstance(where, And | Or):
        each = (holds(part, entity) for part in where.parts)
        return all(each) if isinstance(where, And) else any(each)
    if isinstance(where, Not):
        return not holds(where.part, entity)
    return where is None or _compare(value_of(entity, where.term), where.op, where.value)


def _compare(value: Any, op: str, other: Any) -> bool:
    if op == "is null" or value is None:
        return op == "is null" and value is None
    if op == "in":
        return any(_compare(value, "=", each) for each in other)
    if op in ("like", "ilike"):
        return isinstance(value, str) and _pattern(other, op == "ilike").fullmatch(value) is not None
    alike = isinstance(value, str) == isinstance(other, str)
    if op not in ("=", "!="):  # these are of everything, order is of text and numbers
        alike = alike and isinstance(value, str | int | float) and isinstance(other, str | int | float)
    return bool(_OPERATORS[op](value, other)) if alike else op == "!="


@lru_cache(maxsize=256)
def _pattern(like: str, ignore_case: bool) -> re.Pattern[str]:
    text = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in like)
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def find(entities: Iterable[Entity], query: Query) -> Page:
    """Answer a query from all entities of its kind: the meaning that every store's `find` must have."""
    deleted = _names_deleted(query.where)
    fit = [e for e in entities if (deleted or not e.fields.get("deleted")) and holds(query.where, e)]
    signs = [-1 if sort.descending else 1 for sort in query.order] + [1, 1]  # of the ties
    ranked = [([_rank(value_of(each, sort.term)) for sort in query.order] + _ties(each), each) for each in fit]
    in_order = cmp_to_key(partial(_order, signs=signs))
    ranked.sort(key=lambda item: in_order(item[0]))
    count = len(ranked) if query.count else None
    if query.token is not None:
        after = _read_token(query.token, len(signs))
        ranked = [item for item in ranked if _order(item[0], after, signs) > 0]
    stop = len(ranked) if query.limit is None else query.limit
    token = base64.urlsafe_b64encode(to_json(ranked[stop - 1][0])).decode() if 0 < stop < len(ranked) else None
    return Page(tuple(_selected(entity, query.select) for _, entity in ranked[:stop]), token, count)


def _names_deleted(where: Where | None) -> bool:
    if where is None or isinstance(where, Compare):
        return where is not None and where.term == Term("fields", "deleted")
    return any(map(_names_deleted, (where.part,) if isinstance(where, Not) else where.parts))


def _ties(entity: Entity) -> list[list[Any]]:
    start = entity.fields.get("start_time", entity.created // 1_000_000)
    return [[0, -start if isinstance(start, int) else 0], [1, entity.id]]


def _rank(value: Any) -> list[Any]:
    if value is None:
        return [3, 0]
    if isinstance(value, int | float):
        return [0, value] if value == value else [2, 0]  # noqa: PLR0124 - isnan fails on huge integers
    return [1, value if isinstance(value, str) else to_json(value).decode()]


def _order(one: list[Any], other: list[Any], signs: list[int]) -> int:
    for a, b, sign in zip(one, other, signs, strict=True):
        if a != b:
            after = 1 if a > b else -1
            return after * sign if max(a[0], b[0]) < 2 else after
    return 0


def _read_token(token: str, size: int) -> list[Any]:
    try:
        ranks = from_json(base64.urlsafe_b64decode(token))
        if len(ranks) != size or any(isinstance(value, str) != (rank == 1) for rank, value in ranks):
            raise ValueError("it was changed, or belongs to another order")
        return [[int(rank), value] for rank, value in ranks]
    except (ValueError, TypeError) as error:
        raise Malformed(f"not a page token: {token[:40]!r}: {error}") from error


def _selected(entity: Entity, select: tuple[Term, ...] | None) -> Entity:
    if select is None:
        return entity

    def chosen(family: str, values: Mapping[Any, Any]) -> dict[Any, Any]:
        names = {term.name for term in select if term.family == family}
        return {key: each for key, each in values.items() if {"", key[0] if family == "metrics" else key} & names}

    fields, metrics = chosen("fields", entity.fields), chosen("metrics", entity.metrics)
    attributes = {name: some for name, each in entity.attributes.items() if (some := chosen(name, each))}
    return attrs.evolve(entity, fields=fields, attributes=attributes, metrics=metrics)
