"""The query language: text such as ``metrics.loss < 0.1 and params.model = 'cnn'`` becomes a tree of `mlcore.store`.

Its grammar is in docs/reference/query.md. Names are those of `RUN` or `EXPERIMENT`; whoever asks replaces those that
depend on the clock or on other entities by a `Named` with a rule.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar

import attrs

from mlcore.errors import InvalidQuery
from mlcore.store import And, Compare, Not, Or, Sort, Term, Where

__all__ = ["EXPERIMENT", "RUN", "Named", "order", "terms", "where"]

_T = TypeVar("_T")
_DEPTH = 50  # of parentheses and "not"
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}  # in ms
_FUNCTIONS, _OPERATORS = ("last", "min", "max", "count"), ("=", "!=", "<", "<=", ">", ">=")
_QUOTED, _STRING = r"`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"", r"'(?:[^']|'')*'"
_PART = re.compile(rf"{_QUOTED}|{_STRING}|[^.]+")
_TOKEN = re.compile(
    rf"""\s*(?:(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:T[0-9:.]+(?:Z|[+-][0-9:]+)?)?(?!\w))
    |(?P<span>[+-]?\s*[0-9]+(?:\.[0-9]+)?[smhdw]\b)
    |(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<string>{_STRING})
    |(?P<name>(?:[^\W\d]\w*|{_QUOTED})(?:\.(?:[\w/:-]+|{_QUOTED}|{_STRING}))*)
    |(?P<sign>[<>!]=|[][=<>(),?])|(?P<end>\Z)|(?P<wrong>.))""",
    re.VERBOSE | re.DOTALL,
)
_ALIASES = {"": "attribute attributes attr run", "metrics": "metric", "params": "param parameter parameters"}
_ALIASES |= {"tags": "tag", "artifacts": "artifact", "datasets": "dataset", "models": "model"}
_FAMILIES = {alias: family for family, names in _ALIASES.items() for alias in filter(None, [family, *names.split()])}
_TYPES: dict[str, tuple[Any, str]] = {
    "number": (int | float, "a number"),
    "time": (int | float, "a time: '2026-01-31', now - 2h, -7d or ms since 1970"),
    "span": (int | float, "a duration: 90s, 5m, 2h or ms"),
    "text": (str, "text in quotes"),
    "any": (str | int | float, "text in quotes, a number, true or false"),
}


@attrs.frozen
class Named:
    """Say what a name stands for: the first of `terms` that is there, with values of a `kind`.

    With a `rule`, that makes the tree of an operator and a value. A name that ends in a dot is a whole family.
    """

    terms: tuple[Term, ...] = ()
    kind: str = "any"
    rule: Callable[..., Where] | None = None

    def compare(self, op: str, value: Any = None) -> Where:
        """Return the tree that holds where this compares to `value`."""
        if self.rule is not None:
            return self.rule(op, value)
        terms = self.terms
        if self.kind == "any" and op not in _OPERATORS[2:] and any(isinstance(each, str) for each in _listed(value)):
            terms = tuple(attrs.evolve(term, function="text") for term in terms)  # MLflow's params and tags are text
            value = tuple(map(str, value)) if isinstance(value, tuple) else value
        found: Where = Compare(terms[-1], op, value)
        for term in terms[-2::-1]:
            missing = Compare(term, "is null")
            found = Or((And((Not(missing), Compare(term, op, value))), And((missing, found))))
        return found


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _table(*rows: tuple[str, str, str, str]) -> dict[str, Named]:
    return {name: Named((Term(family, key),), kind) for family, key, kind, names in rows for name in names.split(",")}


RUN: Mapping[str, Named] = {
    **_table(
        ("", "id", "text", "id,run_id"),
        ("", "parent", "text", "experiment_id"),
        ("", "duration", "span", "duration"),
        ("fields", "name", "text", "name,run_name,run name,Run name,Run Name"),
        ("fields", "start_time", "time", "start_time,created,Created"),
        ("fields", "parent_run", "text", "parent_run_id"),
        ("fields", "user", "text", "user,user_id"),
        ("fields", "artifacts", "text", "artifact_uri"),
        ("fields", "end_time", "time", "end_time"),
        *(("fields", name, "text", name) for name in ("status", "note", "key")),
    ),
    **{  # what MLflow keeps in tags
        f"tags.mlflow.{tag}": Named((Term("tags", f"mlflow.{tag}"), Term("fields", field)))
        for tag, field in {
            "runName": "name",
            "user": "user",
            "note.content": "note",
            "parentRunId": "parent_run",
        }.items()
    },
    **{  # of a family with several: any of them
        f"{family}.{name}": Named((Term(family, name, "any"),), "number" if name == "size" else "text")
        for family, names in {"artifacts": "name size sha256 uri", "datasets": "name digest context"}.items()
        for name in names.split()
    },
    **{f"models.{name}": Named((Term("models", name, "any"),), "text") for name in ("name", "flavor", "digest", "id")},
    "metrics.": Named(kind="number"),
    "params.": Named(),
    "tags.": Named(),
}
EXPERIMENT: Mapping[str, Named] = {
    **_table(
        ("", "id", "text", "id,experiment_id"), ("fields", "name", "text", "name"), ("fields", "note", "text", "note"),
        ("", "created_ms", "time", "created,creation_time"), ("", "changed_ms", "time", "changed,last_update_time"),
    ),
    "tags.": Named(),
}  # fmt: skip


def where(text: str, names: Mapping[str, Named], values: Sequence[Any] = ()) -> Where | None:
    """Return the tree of a filter, None of an empty one; each ``?`` is one of `values`. Raises `InvalidQuery`."""
    parser = _Parser(text, names, values)
    found = None if parser.peek[0] == "end" else parser.either()
    parser.end("'and', 'or' or the end")
    return found


def order(by: str | Iterable[str], names: Mapping[str, Named]) -> tuple[Sort, ...]:
    """Return what to order by: names, each with an optional ``asc`` or ``desc``. Raises `InvalidQuery`."""
    parser = _Parser(by if isinstance(by, str) else ", ".join(by), names)
    return tuple(each for sorts in parser.listed(parser.sorts) for each in sorts)


def terms(select: str | Iterable[str], names: Mapping[str, Named]) -> dict[str, tuple[Term, ...]]:
    """Return the terms that names stand for; ``metrics`` alone is all of them. Raises `InvalidQuery`."""
    parser = _Parser(select if isinstance(select, str) else ", ".join(select), names)
    return dict(parser.listed(parser.selected))


class _Parser:
    def __init__(self, text: str, names: Mapping[str, Named], values: Sequence[Any] = ()) -> None:
        if not isinstance(text, str):
            raise InvalidQuery("", 0, f"a query is text, not {text!r:.80}")
        found = [(str(each.lastgroup), each[each.lastgroup or 0], each) for each in _TOKEN.finditer(text)]
        self.tokens = [(kind, token, each.start(kind)) for kind, token, each in found]
        self.text, self.names, self.values, self.used, self.at, self.depth = text, names, values, 0, 0, 0
        self.now = time.time_ns() // 1_000_000

    @property
    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.at]

    def fail(self, problem: str, position: int | None = None) -> NoReturn:
        raise InvalidQuery(self.text, self.peek[2] if position is None else position, problem)

    def wanted(self, what: str) -> NoReturn:
        kind, token, _ = self.peek
        found = {"end": "nothing more", "wrong": f"{token!r}" + " that is not closed" * (token in {"'", '"', "`"})}
        self.fail(f"expected {what}, found {found.get(kind, token)}")

    def take(self, *words: str) -> str:
        """Return the next token if it is one of these words or signs, in small letters, else nothing."""
        kind, token, _ = self.peek
        found = token.lower() if kind in ("name", "sign") and token.lower() in words else ""
        self.at += bool(found)
        return found

    def need(self, *words: str) -> str:
        return self.take(*words) or self.wanted(" or ".join(map(repr, words)))

    def end(self, what: str) -> None:
        if self.peek[0] != "end":
            self.wanted(what)
        if self.used < len(self.values):
            self.fail(f"{len(self.values)} values were given for {self.used} '?'")

    def listed(self, item: Callable[[], _T]) -> Iterator[_T]:
        while self.peek[0] != "end":
            yield item()
            if not self.take(","):
                self.end("',' or the end")

    def sorts(self) -> list[Sort]:
        _, found = self.single_valued("there is no order by this")
        down = self.take("asc", "desc") == "desc"
        return [Sort(term, down) for term in found]

    def selected(self) -> tuple[str, tuple[Term, ...]]:
        token = self.peek[1]
        if f"{token}." in self.names:
            self.at += 1
            return token, (Term(token, ""),)
        return self.single_valued("this cannot be selected")

    def single_valued(self, otherwise: str) -> tuple[str, tuple[Term, ...]]:
        position, (name, named) = self.peek[2], self.name()
        if not named.terms or named.terms[0].function == "any":
            self.fail(otherwise, position)
        return name, named.terms

    def either(self) -> Where:
        parts = [self.both()]
        while self.take("or"):
            parts.append(self.both())
        return Or(tuple(parts)) if parts[1:] else parts[0]

    def both(self) -> Where:
        parts = [self.single()]
        while self.take("and"):
            parts.append(self.single())
        return And(tuple(parts)) if parts[1:] else parts[0]

    def single(self) -> Where:
        self.depth += 1
        if self.depth > _DEPTH:
            self.fail(f"this is more than {_DEPTH} deep")
        found: Where
        if self.take("not"):
            found = Not(self.single())
        elif self.take("("):
            found = self.either()
            self.need(")")
        else:
            found = self.comparison()
        self.depth -= 1
        return found

    def comparison(self) -> Where:
        _, named = self.name()
        if self.take("is"):
            without = self.take("not")
            self.need("null")
            return Not(named.compare("is null")) if without else named.compare("is null")
        negated = "not " * bool(self.take("not"))
        op = self.take("like", "ilike", "in", "between", *(() if negated else _OPERATORS))
        if not op:
            self.wanted("one of =, !=, <, <=, >, >=, like, ilike, in, between, is null")
        if op == "between":
            low, _, high = self.value(named), self.need("and"), self.value(named)
            if negated:
                return Or((named.compare("<", low), named.compare(">", high)))
            return And((named.compare(">=", low), named.compare("<=", high)))
        if op == "in":
            return named.compare(negated + op, self.several(named))
        if "like" in op and named.kind not in ("any", "text"):
            self.fail(f"{op} is for text, and this is {_TYPES[named.kind][1]}")
        return named.compare(negated + op, self.value(Named(kind="text") if "like" in op else named))

    def several(self, named: Named) -> tuple[Any, ...]:
        if self.peek[1] == "?":
            position, given = self.peek[2], self.given()
            if isinstance(given, str) or not isinstance(given, Iterable):
                self.fail(f"'in ?' takes a list, not {given!r:.80}", position)
            return tuple(self.fitting(named.kind, each, position) for each in given)
        self.need("(")
        values = [self.value(named)]
        while self.need(",", ")") == ",":
            values.append(self.value(named))
        return tuple(values)

    def name(self) -> tuple[str, Named]:
        kind, token, position = self.peek
        if kind != "name":
            self.wanted("a name, such as metrics.loss or status")
        self.at += 1
        raw = _PART.findall(token)
        family, *key = [_plain(part) for part in raw]
        family, name = (_FAMILIES.get(family, "?"), ".".join(key)) if key else ("", family)
        full = f"{family}.{name}" if family else name
        if full in self.names:
            return full, self.names[full]
        whole = self.names.get(f"{family}.")
        if whole is None:
            self.unknown(token, position)
        found: tuple[Term, ...] = (Term(family, name),)
        if family == "metrics" and raw[-1] in _FUNCTIONS and raw[2:]:  # a key may end so: in quotes it does not
            of = Term(family, ".".join(key[:-1]), raw[-1])
            found = (of,) if set("`'\"") & set(token) else (*found, of)
        if family == "metrics" and whole.rule is not None and self.take("["):
            self.need("step")
            self.need("=")
            step = self.value(whole)
            self.need("]")
            return full, Named((), whole.kind, partial(whole.rule, name, step))
        return full, Named(found, whole.kind)

    def unknown(self, token: str, position: int) -> NoReturn:
        from difflib import get_close_matches

        head, dot, key = token.partition(".")
        known = [name.removesuffix(".") + dot + key if name.endswith(".") else name for name in self.names]
        near = get_close_matches(token, known, 1) or get_close_matches(head, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        self.fail(f"unknown name {token}: {hint}", position)

    def given(self) -> Any:
        self.at, self.used = self.at + 1, self.used + 1
        if self.used > len(self.values):
            self.fail(f"no value was given for this '?': there are {len(self.values)}", self.tokens[self.at - 1][2])
        return self.values[self.used - 1]

    def value(self, named: Named) -> Any:
        position = self.peek[2]
        if self.peek[1] == "?":
            return self.fitting(named.kind, self.given(), position)
        try:
            value = _fit(named.kind, self.literal(named.kind), self.now)
        except (ValueError, OverflowError):
            value = None
        if value is None:
            self.wanted(_TYPES[named.kind][1])
        self.at += 1
        return value

    def fitting(self, kind: str, given: Any, position: int) -> Any:
        try:
            value = _fit(kind, given, self.now)
        except (ValueError, OverflowError):
            value = None
        return self.fail(f"expected {_TYPES[kind][1]}, was given {given!r:.80}", position) if value is None else value

    def literal(self, wanted: str) -> Any:
        kind, token, _ = self.peek
        if kind == "number":
            return float(token) if set(".eE") & set(token) else int(token)
        if kind == "string" or (token[:1] == '"' and len(_PART.findall(token)) == 1):
            return _plain(token)
        if kind == "date" and wanted == "time":
            return datetime.fromisoformat(token)
        if kind == "span" and (wanted == "span" or token[0] in "+-"):
            return _span(token)
        if wanted == "time" and self.take("now"):
            kind, token, _ = self.peek
            if kind == "span" and token[0] in "+-":
                return _span(token)
            self.at -= 1
            return timedelta()
        return {"true": True, "false": False}.get(token.lower())


def _plain(part: str) -> str:
    quote = part[0]
    return part[1:-1].replace(quote * 2, quote) if quote in "`'\"" else part


def _span(token: str) -> timedelta:
    return timedelta(milliseconds=float("".join(token[:-1].split())) * _UNITS[token[-1]])


def _fit(kind: str, value: Any, now: int) -> Any:
    """Return a value as its kind has it, times and durations in ms; None if it does not fit."""
    if kind == "time" and isinstance(value, str):
        value = datetime.fromisoformat(value)
    if kind == "time" and isinstance(value, datetime):
        value = round(value.timestamp() * 1000)
    if kind in ("time", "span") and isinstance(value, timedelta):
        value = round(value.total_seconds() * 1000) + (now if kind == "time" else 0)
    value = value.item() if hasattr(value, "item") else value  # numpy's
    fits = isinstance(value, _TYPES[kind][0]) and (kind == "any" or not isinstance(value, bool))
    return value if fits else None
