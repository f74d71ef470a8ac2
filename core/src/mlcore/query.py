"""The query language: text such as ``metrics.loss < 0.1 and params.model = 'cnn'`` becomes a tree of `mlcore.store`.

Its grammar is in docs/reference/query.md. Names are those of `RUN` or `EXPERIMENT`; whoever asks replaces those that
depend on the clock or on other entities by a `Named` with a rule.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn

import attrs

from mlcore.errors import InvalidQuery
from mlcore.store import And, Compare, Entity, Not, Or, Sort, Term, Where, holds

__all__ = ["EXPERIMENT", "MODEL", "RUN", "VERSION", "Named", "order", "terms", "where"]

_DEPTH = 50  # of parentheses and "not"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FUNCTIONS, _ORDERS, _SIGNS = ("last", "min", "max", "count"), ("<", "<=", ">", ">="), ("=", "!=", "<", "<=", ">", ">=")
_QUOTED, _STRING = r"`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"", r"'(?:[^']|'')*'"
_PART = re.compile(rf"{_QUOTED}|{_STRING}|[^.]+")
_TOKEN = re.compile(
    rf"""\s*(?:(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:T[0-9:.]+(?:Z|[+-][0-9:]+)?)?(?!\w))
    |(?P<span>[+-]?\s*[0-9]{{1,6}}(?:\.[0-9]{{1,6}})?[smhdw]\b)
    |(?P<number>[+-]?(?:[0-9]{{1,400}}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<string>{_STRING})|(?P<name>(?:[^\W\d]\w*|{_QUOTED})(?:\.(?:[\w/:-]+|{_QUOTED}|{_STRING}))*)
    |(?P<sign>[<>!]=|[][=<>(),?])|(?P<end>\Z)|(?P<wrong>.))""",
    re.VERBOSE | re.DOTALL,
)
_ALIASES = {"": "attribute attributes attr run", "metrics": "metric", "params": "param parameter parameters"}
_ALIASES |= {"tags": "tag", "context": "", "artifacts": "artifact", "datasets": "dataset", "models": "model"}
_ALIASES |= {"aliases": "alias"}
_FAMILIES = {alias: family for family, names in _ALIASES.items() for alias in filter(None, [family, *names.split()])}
_EXPECTED = {"number": "a number", "text": "text in quotes", "any": "text in quotes, a number, true or false"}
_EXPECTED |= {"time": "a time: '2026-01-31', now - 2h, -7d or ms since 1970", "span": "a duration: 90s, 5m, 2h or ms"}
_EXPECTED |= {"flag": "true or false"}


@attrs.frozen
class Named:
    """Say what a name stands for: the first of `terms` that is there, with values of a `kind`.

    With a `rule`, that makes the tree of an operator and a value. What is `joined` from other entities puts another
    tree for that of its terms. A name that ends in a dot is a whole family.
    """

    terms: tuple[Term, ...] = ()
    kind: str = "any"
    rule: Callable[..., Where] | None = None
    joined: Callable[[tuple[Term, ...], Where], Where] | None = None

    def compare(self, op: str, value: Any = None) -> Where:
        """Return the tree that holds where this compares to `value`."""
        if self.rule is not None:
            return self.rule(op, value)
        terms, listed = self.terms, value if isinstance(value, tuple) else (value,)
        if self.kind == "any" and op not in _ORDERS and any(isinstance(each, str) for each in listed):
            terms = tuple(attrs.evolve(term, function="text") for term in terms)  # MLflow's params and tags are text
            value = tuple(map(str, value)) if isinstance(value, tuple) else value
        found: Where = Compare(terms[-1], op, value)
        for term in terms[-2::-1]:
            missing = Compare(term, "is null")
            found = Or((And((Not(missing), Compare(term, op, value))), And((missing, found))))
        return self.joined(terms, found) if self.joined else found


def _table(rows: Mapping[str, tuple[str, ...]]) -> dict[str, Named]:
    """Read rows of names with a kind, a family, a key and maybe a function."""
    return {name: Named((Term(*term),), kind) for names, (kind, *term) in rows.items() for name in names.split(",")}


_TAGS = {"runName": "name", "user": "user", "note.content": "note", "parentRunId": "parent_run"}  # fields, for MLflow
_ANY = {"artifacts": "name sha256 uri", "datasets": "name digest context", "models": "name flavor digest id"}
_FIELDS = {"name": "name,run_name,run name,Run name,Run Name", "user": "user,user_id", "parent_run": "parent_run_id"}
_FIELDS |= {"artifacts": "artifact_uri", "status": "status", "note": "note", "key": "key"}


def _unless(name: str, kind: str, default: Any) -> Named:
    """Take what has no such field as the default: never deleted, never moved to a stage."""
    term = Term("fields", name)

    def compare(op: str, value: Any = None) -> Where:
        asked, missing = Compare(term, op, value), Compare(term, "is null")
        there = And((Not(missing), asked))
        return Or((there, missing)) if holds(asked, Entity("", "", fields={name: default})) else there

    return Named((term,), kind, compare)


_DELETED = _unless("deleted", "flag", False)
RUN: Mapping[str, Named] = _table({
    "id,run_id": ("text", "", "id"), "experiment_id": ("text", "", "parent"), "duration": ("span", "", "duration"),
    "start_time,created,Created": ("time", "fields", "start_time"), "end_time": ("time", "fields", "end_time"),
    **{names: ("text", "fields", key) for key, names in _FIELDS.items()},
    **{f"{of}.{key}": ("text", of, key, "any") for of, keys in _ANY.items() for key in keys.split()},
    "artifacts.size": ("number", "artifacts", "size", "any"),
}) | {
    **{f"tags.mlflow.{tag}": Named((Term("tags", f"mlflow.{tag}"), Term("fields", key))) for tag, key in _TAGS.items()},
    "metrics.": Named(kind="number"), "params.": Named(), "tags.": Named(), "context.": Named(), "deleted": _DELETED,
}  # fmt: skip
_OWN: dict[str, Named] = {"tags.": Named(), "deleted": _DELETED} | _table({
    "id": ("text", "", "id"), **{name: ("text", "fields", name) for name in ("name", "description", "user")},
    "created,creation_timestamp,creation_time": ("time", "", "created_ms"),
    "changed,timestamp,last_updated_timestamp,last_update_time": ("time", "", "changed_ms"),
})  # fmt: skip
MODEL: Mapping[str, Named] = {**_OWN, "aliases.": Named()} | _table({
    "latest,latest_version": ("number", "latest", "number"),
})  # fmt: skip
VERSION: Mapping[str, Named] = _OWN | {
    "status": _unless("status", "text", "READY"), "stage": _unless("stage", "text", "None"),
    "metrics.": Named(kind="number"), "params.": Named(),
} | _table({
    "name": ("text", "model", "name"), "alias": ("text", "alias", "name", "any"), "latest": ("flag", "latest", "is"),
    "number,version,version_number": ("number", "fields", "number"), "source,source_path": ("text", "fields", "source"),
    **{name: ("text", "fields", name) for name in ("run_id", "model_id", "digest", "flavor", "parent_version")},
})  # fmt: skip
EXPERIMENT: Mapping[str, Named] = {"tags.": Named(), "deleted": _DELETED} | _table({
    "id,experiment_id": ("text", "", "id"), "name": ("text", "fields", "name"), "note": ("text", "fields", "note"),
    "created,creation_time": ("time", "", "created_ms"), "changed,last_update_time": ("time", "", "changed_ms"),
})  # fmt: skip


def where(text: str, names: Mapping[str, Named], values: Sequence[Any] = ()) -> Where | None:
    """Return the tree of a filter, None of an empty one; each ``?`` is one of `values`. Raises `InvalidQuery`."""
    if not isinstance(text, str):
        raise InvalidQuery("", 0, f"a filter is text, not {text!r:.80}")
    parser = _Parser(text, names, values)
    found = None if parser.peek[0] == "end" else parser.either()
    return found if parser.peek[0] == "end" else parser.wanted("'and', 'or' or the end")


def order(by: str | Iterable[str], names: Mapping[str, Named]) -> tuple[Sort, ...]:
    """Return what to order by: names, each with an optional ``asc`` or ``desc``. Raises `InvalidQuery`."""
    return tuple(Sort(term, down) for _, terms, down in _Parser(by, names).several("asc", "desc") for term in terms)


def terms(select: str | Iterable[str], names: Mapping[str, Named]) -> dict[str, tuple[Term, ...]]:
    """Return the terms that names stand for; ``metrics`` alone is all of them. Raises `InvalidQuery`."""
    return {name: terms for name, terms, _ in _Parser(select, names).several()}


class _Parser:
    """Read a query by recursive descent: a method each for the rules of the grammar."""

    def __init__(self, text: str | Iterable[str], names: Mapping[str, Named], values: Sequence[Any] = ()) -> None:
        self.text = text if isinstance(text, str) else ", ".join(text)
        found = ((str(each.lastgroup), each) for each in _TOKEN.finditer(self.text))
        self.tokens = [(kind, each[kind], each.start(kind)) for kind, each in found]
        self.names, self.values, self.at, self.now = names, iter(values), 0, time.time_ns() // 1_000_000
        marks = sum(each[:2] == ("sign", "?") for each in self.tokens)
        if marks != len(values):
            self.fail(f"there are {marks} '?', and {len(values)} values were given", len(self.text))

    @property
    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.at]

    def fail(self, problem: str, position: int | None = None) -> NoReturn:
        raise InvalidQuery(self.text, self.peek[2] if position is None else position, problem)

    def wanted(self, what: str, found: str = "") -> NoReturn:
        kind, token, _ = self.peek
        open_quote = f"{token} that is not closed" if token in ("'", '"', "`") else token
        self.fail(f"expected {what}, found {found or ('nothing more' if kind == 'end' else open_quote)}")

    def take(self, *words: str) -> str:
        """Return the next token if it is one of these words or signs, in small letters, else nothing."""
        kind, token, _ = self.peek
        found = token.lower() if kind in ("name", "sign") and token.lower() in words else ""
        self.at += bool(found)
        return found

    def need(self, *words: str) -> str:
        return self.take(*words) or self.wanted(" or ".join(map(repr, words)))

    def several(self, *directions: str) -> Iterator[tuple[str, tuple[Term, ...], bool]]:
        while self.peek[0] != "end":
            _, token, position = self.peek
            whole = not directions and f"{token}." in self.names
            self.at += whole
            name, named = (token, Named((Term(token, ""),))) if whole else self.name()
            if not named.terms or named.terms[0].function == "any":
                self.fail(f"{name} has no single value", position)
            yield name, named.terms, self.take(*directions) == "desc"
            if not self.take(",") and self.peek[0] != "end":
                self.wanted("',' or the end")

    def either(self, depth: int = 0) -> Where:
        return self.joined("or", Or, partial(self.joined, "and", And, partial(self.single, depth)))

    def joined(self, word: str, kind: type[And | Or], part: Callable[[], Where]) -> Where:
        parts = [part()]
        while self.take(word):
            parts.append(part())
        return kind(tuple(parts)) if parts[1:] else parts[0]

    def single(self, depth: int) -> Where:
        if depth > _DEPTH:
            self.fail(f"this is more than {_DEPTH} deep")
        if self.take("not"):
            return Not(self.single(depth + 1))
        if not self.take("("):
            return self.comparison(self.name()[1])
        found = self.either(depth + 1)
        self.need(")")
        return found

    def comparison(self, named: Named) -> Where:
        if self.take("is"):
            there = self.take("not")
            self.need("null")
            return Not(named.compare("is null")) if there else named.compare("is null")
        negated = "not " * bool(self.take("not"))
        op = self.take("like", "ilike", "in", "between", *(() if negated else _SIGNS))
        if not op:
            self.wanted(f"{'' if negated else '=, !=, <, <=, >, >=, is null, '}like, ilike, in or between")
        if op == "between":
            low, _, high = self.value(named.kind), self.need("and"), self.value(named.kind)
            parts = named.compare("<" if negated else ">=", low), named.compare(">" if negated else "<=", high)
            return Or(parts) if negated else And(parts)
        if op == "in":
            return named.compare(f"{negated}in", self.list(named.kind))
        if "like" in op and named.kind not in ("any", "text"):
            self.fail(f"{op} is for text, and this is {_EXPECTED[named.kind]}")
        return named.compare(negated + op, self.value("text" if "like" in op else named.kind))

    def list(self, kind: str) -> tuple[Any, ...]:
        if self.peek[1] == "?":
            listed = isinstance(given := next(self.values), list | tuple | set | frozenset)
            found = tuple(_fit(kind, each, self.now) for each in given) if listed else (None,)
            self.at += 1
            return found if None not in found else self.wanted(f"a list, each {_EXPECTED[kind]}", f"{given!r:.80}")
        self.need("(")
        values = [self.value(kind)]
        while self.need(",", ")") == ",":
            values.append(self.value(kind))
        return tuple(values)

    def value(self, kind: str) -> Any:
        start, given = self.at, next(self.values) if self.peek[1] == "?" else self.literal(kind)
        value = _fit(kind, given, self.now)
        if value is None:
            self.at = start
            self.wanted(_EXPECTED[kind], f"{given!r:.80}" if self.peek[1] == "?" else "")
        self.at += 1
        return value

    def literal(self, wanted: str) -> Any:
        """Return the value of the token that comes, without going on; of ``now - 2h`` of the second."""
        kind, token, _ = self.peek
        if kind == "name" and token.lower() == "now" and wanted == "time":
            kind, token, _ = self.tokens[self.at + 1]
            if kind != "span" or token[0] not in "+-":
                return timedelta()
            self.at += 1
        if kind == "span" and (wanted == "span" or token[0] in "+-"):
            return timedelta(**{_UNITS[token[-1]]: float("".join(token[:-1].split()))})
        if kind == "number":
            return float(token) if set(".eE") & set(token) else int(token)
        if kind == "string" or (token[:1] == '"' and len(_PART.findall(token)) == 1):
            return _plain(token)
        return token if kind == "date" and wanted == "time" else {"true": True, "false": False}.get(token.lower())

    def name(self) -> tuple[str, Named]:
        """Return the name that comes, without its quotes and by its family's own name, and what it stands for."""
        kind, token, _ = self.peek
        if kind != "name":
            self.wanted("a name, such as metrics.loss or status")
        raw = _PART.findall(token)
        family, *key = [_plain(part) for part in raw]
        family, name = (_FAMILIES.get(family, "?"), ".".join(key)) if key else ("", family)
        full = f"{family}.{name}" if family else name
        whole = self.names.get(full) or self.names.get(f"{family}.") or self.unknown(token)
        self.at += 1
        if full in self.names:
            return full, whole
        if family == "metrics" and whole.rule is not None and self.take("["):
            step = self.need("step"), self.need("="), self.value("number"), self.need("]")
            return full, Named((), whole.kind, partial(whole.rule, name, step[2]))
        found: tuple[Term, ...] = (Term(family, name),)
        if family == "metrics" and raw[-1] in _FUNCTIONS and raw[2:]:  # a key may end so: in quotes it does not
            of = Term(family, ".".join(key[:-1]), raw[-1])
            found = (of,) if set("`'\"") & set(token) else (*found, of)
        return full, attrs.evolve(whole, terms=found, rule=None)

    def unknown(self, token: str) -> NoReturn:
        from difflib import get_close_matches

        head, _, key = token.partition(".")
        known = [name + (key or "KEY") if name.endswith(".") else name for name in self.names]
        near = get_close_matches(token, known, 1) or get_close_matches(f"{head}.", self.names, 1)
        self.fail(f"unknown name {token}: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"))


def _plain(part: str) -> str:
    return part[1:-1].replace(part[0] * 2, part[0]) if part[0] in "`'\"" else part


def _fit(kind: str, value: Any, now: int) -> Any:
    """Return a value as its kind has it, times and durations in ms; None if it does not fit."""
    try:
        if kind == "time" and isinstance(value, str):
            value = datetime.fromisoformat(value)
        if kind == "time" and isinstance(value, datetime):
            value = round(value.timestamp() * 1000)
        if kind in ("time", "span") and isinstance(value, timedelta):
            value = round(value.total_seconds() * 1000) + (now if kind == "time" else 0)
        value = value.item() if hasattr(value, "item") else value  # numpy's
    except (ValueError, OverflowError):
        return None
    types = {"text": str, "any": str | int | float, "flag": bool}.get(kind, int | float)
    return value if isinstance(value, types) and (kind in ("any", "flag") or not isinstance(value, bool)) else None
