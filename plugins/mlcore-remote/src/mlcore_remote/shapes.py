"""What travels as JSON: batches, questions and their answers, in plain dicts and lists.

`mlcore.store.to_json` writes them, as NaN, the infinities and keys that begin with ``$`` need it, and `document` reads
them. What is read may come from anybody: whatever is wrong with it is `Malformed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from mlcore.errors import InvalidValue, Malformed, MlcoreError
from mlcore.store import (
    And,
    Batch,
    Capabilities,
    Columns,
    Compare,
    Conflict,
    Entity,
    Event,
    Not,
    Or,
    Page,
    Query,
    Record,
    RowsLogged,
    SeriesKey,
    Sort,
    Stored,
    Summary,
    Term,
    Where,
    column,
    decode_event,
    encode_event,
    from_json,
    to_json,
)
from mlcore_remote.faults import error_entry
from mlcore_remote.framing import MESSAGE_EVENTS

__all__ = ["MAX_IDS", "QUERY_CLAUSES", "QUERY_DEPTH", "about_from_json", "about_to_json", "batches_from_json"]
__all__ += ["batches_to_json", "entities_from_json", "entities_to_json", "entity_from_json", "entity_to_json"]
__all__ += ["find_from_json", "get_from_json", "keys_asked", "keys_from_json", "page_from_json", "page_to_json"]
__all__ += ["query_from_json", "query_to_json", "series_asked", "series_from_json", "series_to_json"]
__all__ += ["stored_from_json", "stored_lines", "stored_to_json"]

QUERY_DEPTH = 120  # the language's own limit, 50, makes up to two levels of each
QUERY_CLAUSES = 1_000
MAX_IDS = 100_000

_WRONG = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
_OWN = {"id", "parent", "kind", "created", "changed", "created_ms", "changed_ms", "duration", "seen", "alive"}
_FUNCTIONS = {"last", "min", "max", "count", "step", "time"}
_ORDERS = {"<", "<=", ">", ">="}
_OPERATORS = _ORDERS | {"=", "!=", "like", "ilike", "in", "is null"}
_OPERATORS |= {f"not {op}" for op in ("like", "ilike", "in", "is null")}


def _want(value: Any, *types: type) -> Any:
    """Return a value that is of one of these types exactly: True is no int."""
    if type(value) not in types:
        raise ValueError(f"{value!r:.80} is no {' or '.join(each.__name__ for each in types)}")
    return value


def _texts(value: Any, limit: int = MAX_IDS) -> list[str]:
    if len(_want(value, list)) > limit:
        raise ValueError(f"{len(value):,} names at once; at most {limit:,}")
    return [_want(each, str) for each in value]


# Batches


def batches_to_json(batches: Iterable[Batch]) -> dict[str, Any]:
    """Return batches as an object that `to_json` writes."""
    return {"batches": [_batch_to_json(batch) for batch in batches]}


def batches_from_json(value: Any) -> list[Batch]:
    """Return the batches of such an object, not yet looked at by `mlcore.store.check`. Raises `Malformed`."""
    try:
        found = [_batch_from_json(each) for each in _want(value["batches"], list)]
    except (*_WRONG, InvalidValue) as error:
        raise Malformed(f"batches cannot be read: {type(error).__name__}: {error}") from error
    if sum(max(1, sum(len(record.events) for record in batch.records)) for batch in found) > MESSAGE_EVENTS:
        raise Malformed(f"a message holds more than {MESSAGE_EVENTS:,} events and batches: send it in parts")
    return found


def _batch_to_json(batch: Batch) -> dict[str, Any]:
    records = [
        {"number": each.number, "stamp": each.stamp, "events": [_event_to_json(event) for event in each.events]}
        for each in batch.records
    ]
    return {
        "source": batch.source, "home": batch.home, "previous": batch.previous, "claim": batch.claim,
        "records": records,
    }  # fmt: skip


def _batch_from_json(value: Any) -> Batch:
    claim = _want(value.get("claim"), str, type(None))
    records = tuple(
        Record(
            _want(each["number"], int),
            _want(each["stamp"], int),
            tuple(_event_from_json(event) for event in _want(each["events"], list)),
        )
        for each in _want(value.get("records", []), list)
    )
    return Batch(
        _want(value["source"], str), _want(value["home"], str), records, _want(value.get("previous", ""), str), claim
    )


def _event_to_json(event: Event) -> Any:
    """Return an event as an object, or as the text of its line where writing the object again would change a byte."""
    line = encode_event(event)
    content = from_json(line)
    return content if to_json(content) == line else line.decode()


def _event_from_json(value: Any) -> Event:
    line = value.encode() if isinstance(value, str) else to_json(_want(value, dict))
    event = decode_event(line)
    if isinstance(event, RowsLogged):  # with a line, a store must keep the line
        plain = attrs.evolve(event, raw=None)
        return plain if encode_event(plain) == line else event
    return event


def stored_to_json(stored: Stored) -> dict[str, Any]:
    """Return a batch with the store's word on it."""
    about = {"position": stored.position, "received_at": stored.received_at, "actor": stored.actor}
    return about | {"batch": _batch_to_json(stored.batch)}


def stored_from_json(value: Any) -> Stored:
    """Return what `stored_to_json` was given. Raises `Malformed`."""
    try:
        received_at = _want(value["received_at"], int)
        return Stored(
            _want(value["position"], str), received_at, _want(value["actor"], str), _batch_from_json(value["batch"])
        )
    except (*_WRONG, InvalidValue) as error:
        raise Malformed(f"what is stored cannot be read: {type(error).__name__}: {error}") from error


def stored_lines(stored: Iterable[Stored]) -> Iterator[bytes]:
    """Yield what is stored as lines of JSON; the last is ``{"end": true}``, or the error that came instead."""
    try:
        for each in stored:
            yield to_json(stored_to_json(each)) + b"\n"
    except MlcoreError as error:
        yield to_json({"error": error_entry(error)}) + b"\n"
    else:
        yield b'{"end":true}\n'


# Questions


def query_to_json(query: Query) -> dict[str, Any]:
    """Return a query; what has its default is left out."""
    found: dict[str, Any] = {"where": query.where and _where_to_json(query.where), "limit": query.limit}
    found |= {"token": query.token, "count": query.count or None}
    found["select"] = None if query.select is None else [_term_to_json(term) for term in query.select]
    found["order"] = [{"term": _term_to_json(sort.term), "descending": sort.descending} for sort in query.order] or None
    return {name: value for name, value in found.items() if value is not None}


def _where_to_json(where: Where) -> dict[str, Any]:
    if isinstance(where, Compare):
        value = list(where.value) if isinstance(where.value, tuple) else where.value
        return {"term": _term_to_json(where.term), "op": where.op, "value": value}
    if isinstance(where, Not):
        return {"not": _where_to_json(where.part)}
    return {type(where).__name__.lower(): [_where_to_json(part) for part in where.parts]}


def _term_to_json(term: Term) -> dict[str, str]:
    given = {"family": term.family, "name": term.name}
    given |= {} if term.function == "last" else {"function": term.function}
    return given | ({"context": term.context} if term.context else {})


def query_from_json(value: Any) -> Query:
    """Return the query of an object, its names and operators looked at. Raises `Malformed`."""
    try:
        _want(value, dict)
        if unknown := value.keys() - {"where", "select", "order", "limit", "token", "count"}:
            raise ValueError(f"a query has no {', '.join(sorted(unknown))}")
        where, select, limit = value.get("where"), value.get("select"), _want(value.get("limit"), int, type(None))
        if limit is not None and not 0 <= limit < 1 << 31:
            raise ValueError("a limit is not negative, and below 2^31")
        order = [
            Sort(_term_from_json(each["term"]), _want(each.get("descending", False), bool))
            for each in _some(value.get("order", []))
        ]
        return Query(
            None if where is None else _where_from_json(where, QUERY_DEPTH, iter(range(QUERY_CLAUSES))),
            None if select is None else tuple(_term_from_json(each) for each in _some(select)),
            tuple(order),
            limit,
            _want(value.get("token"), str, type(None)),
            _want(value.get("count", False), bool),
        )
    except _WRONG as error:
        raise Malformed(f"not a query: {error}") from error


def _some(value: Any) -> list[Any]:
    if len(_want(value, list)) > QUERY_CLAUSES:
        raise ValueError(f"more than {QUERY_CLAUSES:,} terms")
    return list(value)


def _where_from_json(value: Any, depth: int, left: Iterator[int]) -> Where:
    if depth == 0 or next(left, None) is None:
        raise ValueError(f"more than {QUERY_DEPTH} levels deep, or of more than {QUERY_CLAUSES:,} clauses")
    if "term" in _want(value, dict):
        return _compare_from_json(value)
    ((word, parts),) = value.items()
    if word == "not":
        return Not(_where_from_json(parts, depth - 1, left))
    found = tuple(_where_from_json(part, depth - 1, left) for part in _want(parts, list))
    made: dict[str, type[And | Or]] = {"and": And, "or": Or}
    return made[word](found)


def _compare_from_json(value: Mapping[str, Any]) -> Compare:
    term, op, other = _term_from_json(value["term"]), value["op"], value.get("value")
    if op not in _OPERATORS:
        raise ValueError(f"no operator {op!r:.40}")
    if op.endswith("like"):
        _want(other, str)
    elif op in ("in", "not in"):
        other = tuple(_some(other))
    elif op in _ORDERS:
        _want(other, str, int, float, bool)
    return Compare(term, op, other)


def _term_from_json(value: Any) -> Term:
    names = (value["family"], value["name"], value.get("function", "last"), value.get("context", ""))
    family, name, function, context = (_want(each, str) for each in names)
    if family == "" and name not in _OWN:
        raise ValueError(f"an entity has no {name!r:.80}")
    if function not in (_FUNCTIONS if family == "metrics" else {"last", "text", "any"}):
        raise ValueError(f"{family!r:.40} has no {function!r:.40}")
    return Term(family, name, function, context)


def get_from_json(value: Any) -> tuple[str, list[str]]:
    """Return the kind and the ids that ``{kind, ids}`` asks for. Raises `Malformed`."""
    try:
        return _want(value["kind"], str), _texts(value["ids"])
    except _WRONG as error:
        raise Malformed(f"not a question for entities: {error}") from error


def find_from_json(value: Any) -> tuple[str, Query]:
    """Return the kind and the query of ``{kind, query}``. Raises `Malformed`."""
    try:
        kind, query = _want(value["kind"], str), value.get("query", {})
    except _WRONG as error:
        raise Malformed(f"not a question for a page: {error}") from error
    return kind, query_from_json(query)


def series_asked(value: Any) -> dict[str, Any]:
    """Return the arguments of `Store.series` in ``{kind, ids, keys, context, columns, max_points}``."""
    try:
        asked: dict[str, Any] = {"kind": _want(value["kind"], str), "ids": _texts(value["ids"])}
        asked |= {name: each if (each := value.get(name)) is None else _texts(each) for name in ("keys", "columns")}
        asked |= {"context": _want(value.get("context"), str, type(None))}
        asked |= {"max_points": _want(value.get("max_points"), int, type(None))}
        if asked["max_points"] is not None and not 1 <= asked["max_points"] < 1 << 31:
            raise ValueError("max_points is at least 1, and below 2^31")
        return asked
    except _WRONG as error:
        raise Malformed(f"not a question for series: {error}") from error


def keys_asked(value: Any) -> tuple[str, str, str, int | None]:
    """Return kind, family, prefix and limit in ``{kind, family, prefix, limit}``. Raises `Malformed`."""
    try:
        limit = _want(value.get("limit"), int, type(None))
        if limit is not None and not 0 <= limit < 1 << 31:
            raise ValueError("a limit is not negative, and below 2^31")
        return _want(value["kind"], str), _want(value["family"], str), _want(value.get("prefix", ""), str), limit
    except _WRONG as error:
        raise Malformed(f"not a question for names: {error}") from error


def keys_from_json(value: Any) -> list[str]:
    """Return the names in ``{keys}``. Raises `Malformed`."""
    try:
        return [_want(each, str) for each in _want(value["keys"], list)]
    except _WRONG as error:
        raise Malformed(f"not names: {error}") from error


# Answers


def entity_to_json(entity: Entity) -> dict[str, Any]:
    """Return an entity with everything; metrics by key and context as count, min, max, step, time and value."""
    metrics: dict[str, dict[str, list[Any]]] = {}
    for (key, context), it in entity.metrics.items():
        metrics.setdefault(key, {})[context] = [it.count, it.min, it.max, it.step, it.time, it.value]
    conflicts = [
        {"family": it.family, "name": it.name, "value": it.value, "source": it.source} for it in entity.conflicts
    ]
    return {
        "kind": entity.kind, "id": entity.id, "parent": entity.parent, "fields": dict(entity.fields),
        "attributes": {family: dict(values) for family, values in entity.attributes.items()}, "metrics": metrics,
        "conflicts": conflicts, "created": entity.created, "changed": entity.changed, "seen": entity.seen,
        "alive": entity.alive,
    }  # fmt: skip


def entity_from_json(value: Any) -> Entity:
    """Return the entity of such an object. Raises `Malformed`."""
    try:
        metrics = {
            (key, context): Summary(*_summary(numbers))
            for key, contexts in _want(value["metrics"], dict).items()
            for context, numbers in _want(contexts, dict).items()
        }
        conflicts = tuple(
            Conflict(_want(it["family"], str), _want(it["name"], str), it["value"], _want(it["source"], str))
            for it in value["conflicts"]
        )
        attributes = {family: _want(values, dict) for family, values in _want(value["attributes"], dict).items()}
        kind, id, parent = (_want(value[name], str) for name in ("kind", "id", "parent"))
        created, changed = (_want(value[name], int) for name in ("created", "changed"))
        return Entity(
            kind, id, parent, _want(value["fields"], dict), attributes, metrics, conflicts, created, changed,
            _want(value.get("seen"), int, type(None)), _want(value.get("alive"), bool, type(None)),
        )  # fmt: skip
    except _WRONG as error:
        raise Malformed(f"not an entity: {type(error).__name__}: {error}") from error


def _summary(numbers: Any) -> list[Any]:
    if len(_want(numbers, list)) != 6:
        raise ValueError("a metric is summed up by six numbers")
    return [_want(each, int, float) for each in numbers]


def entities_to_json(found: Iterable[Entity | None]) -> dict[str, Any]:
    """Return what `Store.get` found."""
    return {"entities": [each and entity_to_json(each) for each in found]}


def entities_from_json(value: Any, count: int) -> list[Entity | None]:
    """Return what `Store.get` found of `count` ids. Raises `Malformed`."""
    found = value.get("entities") if isinstance(value, dict) else None
    if not isinstance(found, list) or len(found) != count:
        raise Malformed(f"not the answer for {count} entities: {value!r:.200}")
    return [None if each is None else entity_from_json(each) for each in found]


def page_to_json(page: Page) -> dict[str, Any]:
    """Return a page of entities."""
    return {"items": [entity_to_json(each) for each in page.items], "token": page.token, "count": page.count}


def page_from_json(value: Any) -> Page:
    """Return the page of such an object. Raises `Malformed`."""
    try:
        items = tuple(entity_from_json(each) for each in _want(value["items"], list))
        return Page(items, _want(value["token"], str, type(None)), _want(value["count"], int, type(None)))
    except _WRONG as error:
        raise Malformed(f"not a page: {type(error).__name__}: {error}") from error


def series_to_json(found: Mapping[SeriesKey, Columns]) -> dict[str, Any]:
    """Return series as a list of ids, keys, contexts and columns."""
    return {
        "series": [
            {"id": id, "key": key, "context": context, "columns": {k: _list(v) for k, v in series.columns.items()}}
            for (id, key, context), series in found.items()
        ]
    }


def _list(values: Any) -> list[Any]:
    return list(values.tolist() if hasattr(values, "tolist") else values)


def series_from_json(value: Any) -> dict[SeriesKey, Columns]:
    """Return the series of such an object. Raises `Malformed`."""
    try:
        return {
            (_want(each["id"], str), _want(each["key"], str), _want(each["context"], str)): Columns(
                {name: column(_want(values, list)) for name, values in _want(each["columns"], dict).items()}
            ).as_numpy()
            for each in value["series"]
        }
    except _WRONG as error:
        raise Malformed(f"not series: {type(error).__name__}: {error}") from error


def about_to_json(version: str, capabilities: Capabilities, **more: Any) -> dict[str, Any]:
    """Return what ``/version`` answers: which mlcore this is, its protocol, and what its store can do."""
    return {"mlcore": version, "api": 1, "capabilities": attrs.asdict(capabilities), **more}


def about_from_json(value: Any) -> tuple[str, tuple[int, int], Capabilities]:
    """Return the version, the protocols from the oldest to the newest, and the capabilities that ``/version`` answers.

    A server that speaks one protocol only has no ``oldest_api``. Raises `Malformed` if it is no server of mlcore.
    """
    try:
        newest = _want(value["api"], int)
        oldest = _want(value.get("oldest_api", newest), int)
        known = attrs.fields_dict(Capabilities)
        given = {name: each for name, each in value["capabilities"].items() if name in known}
        given = {name: _want(each, type(known[name].default)) for name, each in given.items()}
        return _want(value["mlcore"], str)[:40], (oldest, newest), Capabilities(**given)
    except _WRONG as error:
        raise Malformed(f"it does not say which mlcore it is: {type(error).__name__}: {error}") from error
