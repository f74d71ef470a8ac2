"""Compare the grammar in docs/reference/query.md with the parser: what the one makes the other takes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from house.pages import blocks
from house.tree import ROOT
from mlcore import query
from mlcore.errors import InvalidQuery

PAGE = (ROOT / "docs" / "reference" / "query.md").read_text()
LOOSE, TIGHT = (
    dict(re.findall(r"^(\w+) = (.+) ;$", text, re.MULTILINE)) for _, text in blocks(PAGE, "ebnf")
)  # spaces, and none
NAMES = {**query.RUN, "aliases.": query.Named()}  # of runs, and the family that models alone have
ATTRIBUTES = [name for name in query.RUN if "." not in name and " " not in name]
GIVEN = {
    "attribute": ATTRIBUTES,
    "character": ["a", "Z", "_", "é"],
    "symbol": ["a", " ", ".", "%", "\n", "?", "ü", "-"],
    "digit": list("0123456789"),
}


class Sentences:
    """Make sentences of the grammar by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.depth = 0

    def of(self, rule: str) -> str:
        """Return a sentence of a rule; of values only those that parameters take."""
        if rule in GIVEN:
            return self.chance.choice(GIVEN[rule])
        self.depth += 1
        source = LOOSE.get(rule) or TIGHT[rule]
        if rule == "single" and self.depth > 12:
            source = "comparison"
        tokens = re.findall(r'"[^"]*"|\'[^\']*\'|\w+|[,|()\[\]{}]', source)
        made = (" " if rule in LOOSE else "").join(filter(None, self.choice(iter(tokens))))
        self.depth -= 1
        return made

    def choice(self, tokens: Iterator[str]) -> list[str]:
        """Return one of the alternatives up to the closing bracket, or the end."""
        alternatives: list[list[Any]] = [[]]
        for token in tokens:
            if token in ")]}":
                break
            if token == "|":
                alternatives.append([])
            elif token in "([{":
                alternatives[-1].append((token, list(self._group(tokens))))
            elif token != ",":
                alternatives[-1].append(token)
        made: list[str] = []
        for part in self.chance.choice(alternatives):
            if isinstance(part, tuple):
                bracket, inner = part
                times = {"(": 1, "[": self.chance.randint(0, 1), "{": self.chance.choice([0, 0, 1, 2])}[bracket]
                for _ in range(times):
                    made += self.choice(iter(inner))
            else:
                made.append(part[1:-1] if part[0] in "\"'" else self.of(part))
        return made

    def _group(self, tokens: Iterator[str]) -> Iterator[str]:
        depth = 1
        for token in tokens:
            depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
            if not depth:
                return
            yield token


@pytest.fixture(autouse=True)
def _of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let values be those that parameters take, as what a value may be depends on the name before it."""
    monkeypatch.setitem(LOOSE, "value", 'text | number | "true" | "false" | "?"')
    monkeypatch.setitem(LOOSE, "comparison", LOOSE["comparison"].replace("name ,", "parameter ,"))
    monkeypatch.setitem(TIGHT, "parameter", '"params." , key')


def accepted(text: str) -> bool:
    """Tell that the parser takes a filter; what it says otherwise is shown."""
    names = {**NAMES, "experiment": query.Named(), "metrics.": query.Named(kind="number", rule=lambda *_: None)}
    try:
        query.where(text, names, [[1] if listed else 1 for listed in lists(text)])
    except InvalidQuery as error:
        raise AssertionError(f"{text!r}: {error}") from error
    return True


def tokens(text: str) -> list[tuple[str, str]]:
    """Return the kind and the text of each token."""
    return [(str(each.lastgroup), each[each.lastgroup or 0]) for each in query._TOKEN.finditer(text)]


def lists(text: str) -> list[bool]:
    """Tell of each question mark whether it stands for a list."""
    found = tokens(text)
    return [before[1] == "in" for before, each in pairwise(found) if each == ("sign", "?")]


@pytest.mark.parametrize("seed", range(20))
def test_the_parser_takes_what_the_grammar_makes(seed: int) -> None:
    """Guards the page against rules that the parser does not have."""
    sentences = Sentences(seed)
    for _ in range(25):
        assert accepted(sentences.of("filter"))
        assert accepted(f"params.x {sentences.of('sign')} {sentences.of('value').replace('?', '1')}")
        assert accepted(f"start_time > {sentences.of('time')}")
        assert accepted(f"duration between {sentences.of('span')} and {sentences.of('span')}")
        assert accepted(f"{sentences.of('name')} is not null")
        query.order(re.sub(r"\[step=\d+\]", "", sentences.of("order")), NAMES)


def test_the_grammar_has_every_word_of_the_parser() -> None:
    """Guards the page against words that the parser knows and the grammar does not."""
    source = (ROOT / "core" / "src" / "mlcore" / "query.py").read_text()
    words = set(
        re.findall(r'"(and|or|not|like|ilike|in|between|is|null|asc|desc|now|true|false|[<>!]?=|[<>()?,])"', source)
    )
    grammar = {match[1:-1] for text in (*LOOSE.values(), *TIGHT.values()) for match in re.findall(r'"[^"]+"', text)}
    assert {word for word in words if word not in grammar} == set()
    assert {f".{name}" for name in query._FUNCTIONS} == set(re.findall(r'"(\.\w+)"', TIGHT["function"]))
    assert set(query._UNITS) == set(re.findall(r'"(\w)"', TIGHT["unit"]))


def test_the_tables_have_every_name() -> None:
    """Guards the page against names that came or went, but for MLflow's spellings of one."""
    tables = PAGE.split("## Names", 1)[1].split("## Values", 1)[0]
    known = {
        name.rpartition(".")[2] or name.rstrip(".")
        for names in (query.RUN, query.EXPERIMENT, query.MODEL, query.VERSION)
        for name in names
        if "mlflow" not in name
    }
    known |= {"experiment", *query._FAMILIES}
    spelt = {"run name", "Run name", "Run Name", "Created"}
    assert {name for name in known - spelt if not re.search(rf"`[^`]*\b{name}\b[^`]*`", tables)} == set()
