"""The store contract: queries, what a store answers to them, and what the simplest one has to write itself."""

import base64
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cmp_to_key, lru_cache, partial
from operator import eq, ge, gt, itemgetter, le, lt, ne
from typing import Any

import attrs

from mlcore._value import Value
from mlcore.errors import Malformed, MlcoreError, PositionLost
from mlcore.store._events import Batch, Event, RowsLogged, from_json, to_json
from mlcore.store._fold import Columns, Entity, Fold

__all__ = ["START", "And", "Capabilities", "Compare", "Not", "Or", "Page", "Query", "SeriesKey", "SimpleStore", "Sort"]
__all__ += ["Store", "Stored", "Term", "Where", "find", "holds", "narrowed", "selected", "shaped", "value_of"]

START = ""
FUNCTIONS = {"last": "value", "min": "min", "max": "max", "count": "count", "step": "step", "time": "time"}
_OPERATORS = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


@attrs.frozen(eq=False, repr=False)
class Term(Value):
    """Name a value of an entity.

    `family` is ``""`` for the entity's own ``id``, ``parent``, ``created`` and ``changed``; ``"fields"``,
    ``"metrics"``, or a family of attributes. For metrics `function` is one of `FUNCTIONS` and `context` may be given.
    Elsewhere ``"text"`` is the value as Python's `str` writes it, and ``"any"`` asks all of a family, whose values are
    objects, for what they have under `name`, which by default is their own: one that compares is enough.
    """

    family: str
    name: str
    function: str = "last"
    context: str = ""


@attrs.frozen(eq=False, repr=False)
class Compare(Value):
    """Hold where `term` compares to `value`; what is missing holds only for ``is null``.

    `op` is ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``like``, ``ilike``, ``in`` or ``is null``, or one of the words
    after ``not``. Strings compare by code point, ``like`` is case-sensitive and ``ilike`` is not, ``in`` takes a
    tuple; values of different types are unequal and in no order.
    """

    term: Term
    op: str
    value: Any = None


@attrs.frozen(eq=False, repr=False)
class And(Value):
    """Hold where all parts hold."""

    parts: tuple["Where", ...]


@attrs.frozen(eq=False, repr=False)
class Or(Value):
    """Hold where any part holds."""

    parts: tuple["Where", ...]


@attrs.frozen(eq=False, repr=False)
class Not(Value):
    """Hold where the part does not, missing values included."""

    part: "Where"


Where = Compare | And | Or | Not


@attrs.frozen(eq=False, repr=False)
class Sort(Value):
    """Order by a term; what is missing comes last in either direction, NaN just before it."""

    term: Term
    descending: bool = False


@attrs.frozen(eq=False, repr=False)
class Query(Value):
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


@attrs.frozen(eq=False, repr=False)
class Page(Value):
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
    if term.function == "text" and term.name in values:
        return str(values[term.name])
    return values.get(term.name)


def holds(where: Where | None, entity: Entity) -> bool:
    """Tell whether an entity fits."""
    if isinstance(where, And | Or):
        each = (holds(part, entity) for part in where.parts)
        return all(each) if isinstance(where, And) else any(each)
    if isinstance(where, Not):
        return not holds(where.part, entity)
    if where is not None and where.term.function == "any":
        kept, name = entity.attributes.get(where.term.family, {}), where.term.name
        values = [{"name": key, **each}.get(name) for key, each in kept.items() if isinstance(each, Mapping)]
        return any(_compare(value, where.op, where.value) for value in values or [None])
    return where is None or _compare(value_of(entity, where.term), where.op, where.value)


def _compare(value: Any, op: str, other: Any) -> bool:
    if op == "is null" or value is None:
        return op == "is null" and value is None
    if op.startswith("not "):
        return not _compare(value, op[4:], other)
    if op == "in":
        return any(_compare(value, "=", each) for each in other)
    if op in ("like", "ilike"):
        return isinstance(value, str) and _pattern(other, op == "ilike").fullmatch(value) is not None
    alike = isinstance(value, str) == isinstance(other, str) and isinstance(value, bool) == isinstance(other, bool)
    if op not in ("=", "!="):  # these are of everything, order is of text and numbers
        alike = alike and isinstance(value, str | int | float) and isinstance(other, str | int | float)
    return bool(_OPERATORS[op](value, other)) if alike else op == "!="


@lru_cache(maxsize=256)
def _pattern(like: str, ignore_case: bool) -> re.Pattern[str]:
    head, *parts = ("".join("." if char == "_" else re.escape(char) for char in part) for part in like.split("%"))
    text = head + "".join(f"(?>.*?{part})" for part in parts[:-1]) + "".join(f".*{part}" for part in parts[-1:])
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def find(entities: Iterable[Entity], query: Query) -> Page:
    """Answer a query from all entities of its kind: the meaning that every store's `find` must have."""
    deleted = _names_deleted(query.where)
    fit = [e for e in entities if (deleted or not e.fields.get("deleted")) and holds(query.where, e)]
    signs = [-1 if sort.descending else 1 for sort in query.order] + [1, 1]  # of the ties
    ranked = [([_rank(value_of(each, sort.term)) for sort in query.order] + _ties(each), each) for each in fit]
    in_order = cmp_to_key(partial(_order, signs=signs))
    ranked.sort(key=itemgetter(0) if min(signs) > 0 else lambda item: in_order(item[0]))
    count = len(ranked) if query.count else None
    if query.token is not None:
        after = _read_token(query.token, len(signs))
        ranked = [item for item in ranked if _order(item[0], after, signs) > 0]
    stop = len(ranked) if query.limit is None else query.limit
    token = base64.urlsafe_b64encode(to_json(ranked[stop - 1][0])).decode() if 0 < stop < len(ranked) else None
    return Page(tuple(narrowed(entity, query.select) for _, entity in ranked[:stop]), token, count)


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


def narrowed(entity: Entity, select: tuple[Term, ...] | None) -> Entity:
    """Return of an entity what `Query.select` names."""
    if select is None:
        return entity

    def chosen(family: str, values: Mapping[Any, Any]) -> dict[Any, Any]:
        names = {term.name for term in select if term.family == family}
        return {key: each for key, each in values.items() if {"", key[0] if family == "metrics" else key} & names}

    fields, metrics = chosen("fields", entity.fields), chosen("metrics", entity.metrics)
    attributes = {name: some for name, each in entity.attributes.items() if (some := chosen(name, each))}
    return attrs.evolve(entity, fields=fields, attributes=attributes, metrics=metrics)


@attrs.frozen(eq=False, repr=False)
class Capabilities(Value):
    """Declare what a store can do; what it cannot, core replaces or refuses by name.

    `history`: `events` yields every batch, not only what is current. `claims`: batches with a claim are taken
    atomically. `erase`: what was erased is physically gone. `client_ids`: ids made by clients are kept.
    `durability`: what was appended survives the end of the ``"process"`` or the loss of ``"power"``.
    `shared_positions`: a position is good in every handle, not only in the one that gave it.
    `receipts`: `received_at` is when each batch came, by a clock of the store's; else it is the time of a whole file.
    """

    history: bool = True
    claims: bool = True
    erase: bool = False
    client_ids: bool = True
    durability: str = "process"
    shared_positions: bool = False
    receipts: bool = True


@attrs.frozen(eq=False, repr=False)
class Stored(Value):
    """Hold a batch as a store has it. `received_at` (ms since 1970) and `actor` are the store's word."""

    position: str
    received_at: int
    actor: str
    batch: Batch


Names = Sequence[str] | None
Kinds = Iterable[str] | None
SeriesKey = tuple[str, str, str]
Found = dict[SeriesKey, Columns]


def selected(stored: Stored, of: str | None = None, kinds: Kinds = None, rows: bool = True) -> Stored | None:
    """Return what `events` asks for of a stored batch, None if that is nothing."""
    if of is not None and stored.batch.home != of:
        return None
    if kinds is None and rows:
        return stored
    wanted = None if kinds is None else set(kinds)

    def asked(event: Event) -> bool:
        return (wanted is None or event.kind in wanted) and (rows or not isinstance(event, RowsLogged))

    left = ((record, tuple(filter(asked, record.events))) for record in stored.batch.records)
    records = tuple(attrs.evolve(record, events=events) for record, events in left if events)
    return attrs.evolve(stored, batch=attrs.evolve(stored.batch, records=records)) if records else None


class SimpleStore:
    """Answer `get`, `find` and `series` by folding what `events` yields: subclass, write two methods.

    ::

        class MyStore(SimpleStore):
            def append(self, batch): ...
            def events(self, after=START, *, of=None, kinds=None, rows=True): ...

    The state is kept in memory and brought up to date at every question; a store that can answer faster overrides
    the question. Handles are thread-safe, read their own writes, and see those of others within a second.
    """

    capabilities = Capabilities()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._fold = Fold()
        self._position = START
        self._signs: dict[str, int] = {}

    def append(self, batch: Batch) -> None:
        """Store a batch, durably as declared when this returns.

        What is known already is trimmed. A batch with a claim is taken with it, or refused. Raises
        `Malformed`, `OutOfOrder`, `SourceReused` or `AlreadyExists`.
        """
        raise NotImplementedError

    def append_all(self, batches: Sequence[Batch], actors: Sequence[str] = ()) -> list[MlcoreError | None]:  # noqa: ARG002
        """Store batches that others sent, durably when this returns: return for each None, or why it is not stored.

        `actors` names the sender of each, where a store keeps a word of its own about that.
        """
        answers: list[MlcoreError | None] = [None] * len(batches)
        for at, batch in enumerate(batches):
            try:
                self.append(batch)
            except MlcoreError as error:
                answers[at] = error
        return answers

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        """Yield what is stored after a position, and end. Order holds within a source only.

        Nothing that was durable before a position was given out is ever skipped after it. `of` asks for one
        home, `kinds` for events of these kinds of entity, ``rows=False`` for no `RowsLogged`; what was not
        asked for is left out of its records, and a batch with nothing left may be left out.
        Raises `PositionLost` if `after` is unknown here.
        """
        raise NotImplementedError

    def _current(self) -> Fold:
        try:
            self._catch_up()
        except PositionLost:
            self._fold, self._position = Fold(), START
            self._catch_up()
        return self._fold

    def _catch_up(self) -> None:
        for stored in self.events(self._position):
            self._fold.add(stored.batch)
            self._signs[stored.batch.home] = max(stored.received_at, self._signs.get(stored.batch.home, 0))
            self._position = stored.position

    def _alive(self, entity: Entity) -> Entity:
        return attrs.evolve(entity, seen=self._signs.get(entity.id) if entity.kind == "run" else None)

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """Return the entities of these ids, deleted ones included, None where there is none."""
        with self._lock:
            fold = self._current()
            return [found and self._alive(found) for found in (fold.entity(kind, id) for id in ids)]

    def find(self, kind: str, query: Query) -> Page:
        """Return the entities that fit a query, as `mlcore.store.find` would."""
        with self._lock:
            page = find(self._current().entities(kind), query)
            return attrs.evolve(page, items=tuple(map(self._alive, page.items)))

    def series(
        self,
        kind: str,
        ids: Sequence[str],
        keys: Names = None,
        *,
        context: str | None = None,
        columns: Names = None,
        max_points: int | None = None,
    ) -> dict[SeriesKey, Columns]:
        """Return rows by (id, key, context), in order of step, time and log order.

        `keys` and `context` are all if None. More than `max_points` rows are thinned so that the least and
        the greatest value of every bucket stay.
        """
        with self._lock:
            fold = self._current()
            found = {(id, *key): value for id in ids for key, value in fold.series(kind, id).items()}
        return shaped(found, keys, context, columns, max_points)

    def close(self) -> None:
        """Give back what the handle holds; closing twice is fine."""


Store = SimpleStore  # the type of every store: what it does not override is folded


def shaped(found: Found, keys: Names, context: str | None, columns: Names, max_points: int | None) -> Found:
    """Return of whole series what `Store.series` was asked for."""
    answer = {}
    for name, series in found.items():
        if (keys is None or name[1] in keys) and (context is None or name[2] == context):
            thin = series.sampled(max_points).columns.items()
            answer[name] = Columns({k: values for k, values in thin if columns is None or k in columns}).as_numpy()
    return answer
