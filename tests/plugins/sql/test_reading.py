"""Check that tables answer what core's fold and `find` answer, on every database there is."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import create_engine

from mlcore.errors import Malformed
from mlcore.store import (
    And,
    AttributesRemoved,
    AttributesSet,
    Batch,
    Compare,
    Created,
    Entity,
    Erased,
    Event,
    Not,
    Or,
    Page,
    Query,
    Record,
    Rewound,
    RowsLogged,
    Sort,
    Term,
    Updated,
    Where,
    find,
    to_json,
)  # fmt: skip
from mlcore.testing import Writer
from mlcore.testing._checking import exact_entity
from mlcore.testing._finding import SEARCHED, TERMS, population, queries
from mlcore_sql import answering
from mlcore_sql.projection import Projection
from servers import driver
from tables import Tables, folded

INF, NAN = float("inf"), float("nan")
SCALARS: list[Any] = [
    0, 1, -1, 2, 0.5, 1.0, -0.0, True, False, INF, -INF, NAN, 2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63,
    10**400, -(10**400), 1e308, 5e-324, "", "a", "A", "b", "ab", "a_b", "a%b", "aXb", "a\x00", "a\nb", "1", "1.0",
    "True", "None", "nan", "[1]", "é", "É", "\uffff", "\U0001d4b5", "\u017f",
    "x" * 600, "x" * 600 + "y", "x" * 479, "x" * 480,
]  # fmt: skip
OBJECTS: list[Any] = [None, [1], [1, 2.0], {"a": 1}, {"name": "ab", "size": 2}, {"size": NAN}, {"size": None}, {}]
NAMES = ["x", "y", "\U0001d4b5 '\"\\%:b0"]
FAMILIES = ["params", "tags", "models"]

values = st.sampled_from(SCALARS + OBJECTS)
names, families, ids = st.sampled_from(NAMES), st.sampled_from(FAMILIES), st.sampled_from(["0", "1", "2", "x" * 600])
some = st.dictionaries(names, values, min_size=1)
own = st.sampled_from(["start_time", "end_time", "deleted", "x"])
fields = st.dictionaries(own, st.one_of(values, st.sampled_from([1, 2, 3])), min_size=1)
steps = st.lists(st.integers(0, 3), min_size=1, max_size=3)
ROWS = st.tuples(steps, st.sampled_from([0.5, -0.0, 0.0, NAN, INF, 1, 2**70, "odd"])).map(
    lambda it: {"step": it[0], "time": it[0], "value": [it[1]] * len(it[0])}
)


def event(make: Any, *parts: Any, **named: Any) -> st.SearchStrategy[Event]:
    """Return events of a type."""
    return st.builds(make, st.just("run"), ids, *parts, **named)


EVENTS = st.one_of(
    event(Created, st.sampled_from(["", "1", "2"]), fields), event(Updated, fields),
    event(AttributesSet, families, some, st.booleans()), event(AttributesSet, families, some, st.booleans()),
    event(RowsLogged, names, ROWS, st.sampled_from(["", "c"])), event(RowsLogged, names, ROWS),
    event(AttributesRemoved, families, st.lists(names)), event(Rewound, st.integers(0, 3)),
    st.builds(Created, st.just("experiment"), ids),
)  # fmt: skip
SOURCES = st.sampled_from(["0" * 32, "1" * 32])
HISTORIES = st.lists(st.tuples(st.integers(1, 5), SOURCES, st.lists(EVENTS, min_size=1, max_size=4)), max_size=14)
OPS = ["=", "!=", "<", "<=", ">", ">=", "like", "ilike", "in", "is null", "not like", "not ilike", "not in"]
OPS += ["not is null", "not ="]
PATTERNS = ["", "%", "a%", "%b", "%a%", "a_b", "A%", "_", "%_%", "x%", "%y", "x" * 600, "x" * 600 + "%", "\uffff%", "s"]
PATTERNS += ["%\n%", "% %"]
FUNCTIONS = ["last", "min", "max", "count", "step", "time"]
terms = st.one_of(
    st.builds(Term, families, names, st.sampled_from(["last", "text"])),
    st.builds(Term, st.just("fields"), st.just("x")),
    st.builds(Term, st.just("metrics"), names, st.sampled_from(FUNCTIONS), st.sampled_from(["", "c"])),
    st.builds(Term, st.just("fields"), st.sampled_from(["start_time", "deleted", "end_time"])),
    st.builds(Term, st.just(""), st.sampled_from(
        ["id", "parent", "created", "changed", "created_ms", "duration", "kind", "fields"]
    )),
)  # fmt: skip
searched = st.one_of(terms, st.builds(Term, families, st.sampled_from(["name", "size", "a"]), st.just("any")))


@st.composite
def compares(draw: Any) -> Where:
    """Draw a comparison."""
    op = draw(st.sampled_from(OPS))
    value = draw(st.sampled_from([*SCALARS, [1], None]))
    if op.endswith("like"):
        value = draw(st.sampled_from(PATTERNS))
    elif op.endswith("in"):
        value = tuple(draw(st.lists(st.sampled_from(SCALARS), max_size=4)))
    return Compare(draw(searched), op, None if "null" in op else value)


WHOLE = [tuple(Term(each, "") for each in ("fields", "metrics", *some)) for some in ((), ("params",), FAMILIES)]
wheres = st.one_of(st.none(), compares(), st.recursive(
    compares(), lambda inner: st.one_of(st.builds(Not, inner), *(
        st.builds(make, st.lists(inner, max_size=3).map(tuple)) for make in (And, Or)
    )), max_leaves=5,
))  # fmt: skip
asked = st.builds(
    Query, wheres, st.one_of(st.none(), st.lists(terms, max_size=2).map(tuple), st.sampled_from(WHOLE)),
    st.lists(st.builds(Sort, terms, st.booleans()), max_size=3).map(tuple), st.sampled_from([None, 0, 1, 2, 100]),
    st.none(), st.booleans(),
)  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    """Give tables in a database, on each engine in turn."""
    with ExitStack() as stack:
        uri = f"sqlite:///{tmp_path_factory.mktemp('tables') / 'tables.db'}"
        if request.param != "sqlite":
            uri = stack.enter_context(request.getfixturevalue(f"{request.param}_server").database())
        engine = create_engine(driver(uri))
        yield Tables(engine)
        engine.dispose()


@pytest.fixture
def emptied(tables: Tables) -> Tables:
    """Give tables in which nothing is."""
    tables.empty()
    return tables


WAYS = {"cheapest": {}, "look up": {"_LOOK": 1e-9}, "sort": {"_SORT": 1e-9}, "remember": {"_REMEMBER": 1e-9}}


@contextmanager
def way(name: str) -> Iterator[None]:
    """Let one way to a page cost nothing, and a few entities count as many; or leave all as it is."""
    with pytest.MonkeyPatch.context() as patch:
        for cost, value in WAYS[name].items():
            patch.setattr(answering, cost, value)
            patch.setattr(answering, "_SAMPLED", 1)
            patch.setattr(answering, "_crowd", lambda *_: 2)
        yield


def agree(tables: Tables, entities: list[Entity], query: Query) -> Page:
    """Assert that the tables answer a query as core's `find` does, page for page, and return the first page."""
    wanted, answer = find(entities, query), tables.reading.find("run", query)
    assert list(map(exact_entity, answer.items)) == list(map(exact_entity, wanted.items)), query
    assert (answer.token, answer.count) == (wanted.token, wanted.count), query
    if answer.token is not None:
        agree(tables, entities, attrs.evolve(query, token=answer.token))
    return answer


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(data=st.data(), history=HISTORIES, erased=st.sampled_from([None, None, None, "1"]))
def test_any_history_in_any_order_answers_any_query_as_core_does(
    tables: Tables, data: st.DataObject, history: list[tuple[int, str, list[Event]]], erased: str | None
) -> None:
    """Guards all of it at once: projection, keys, filters, orders, pages and counts."""
    tables.empty()
    if erased is not None:
        history.append((3, "1" * 32, [Erased("run", erased)]))
    batches, numbers = [], {"0" * 32: 0, "1" * 32: 0}
    for stamp, source, events in history:
        numbers[source] += 1
        batches.append(Batch(source, "", (Record(numbers[source], stamp * 10**6, tuple(events)),)))
    batches = data.draw(st.permutations(batches))
    cut = data.draw(st.integers(0, len(batches)))
    for part in (batches[:cut], batches[cut:]):
        tables.take(*part)
        tables.reading.find("run", Query())  # what is kept now must not be answered later
    fold = folded(batches)
    entities = list(fold.entities("run"))
    wanted = [fold.entity("run", id) for id in ("0", "1", "2", "x" * 600, "no")]
    found = tables.reading.get("run", ["0", "1", "2", "x" * 600, "no"])
    assert [each and exact_entity(each) for each in found] == [each and exact_entity(each) for each in wanted]
    for query in data.draw(st.lists(asked, min_size=1, max_size=6)):
        with way(data.draw(st.sampled_from(list(WAYS)))):
            agree(tables, entities, query)


@pytest.fixture(scope="module")
def populated(tables: Tables) -> tuple[Tables, list[Entity]]:
    """Give tables of 80 runs with everything that makes order and comparison hard."""
    batches = population(1)
    tables.empty()
    tables.take(*batches)
    return tables, list(folded(batches).entities("run"))


@pytest.mark.parametrize("op", OPS)
def test_every_comparison_of_every_term_finds_what_core_finds(populated: tuple[Tables, list[Entity]], op: str) -> None:
    """Guards each pair of operator and column on a larger population than a random history has."""
    chance = random.Random(op)
    for where in queries(chance, op):
        order = tuple(Sort(term, chance.random() < 0.5) for term in chance.sample(TERMS, chance.randrange(3)))
        with way(chance.choice(list(WAYS))):
            agree(
                *populated, Query(chance.choice((where, Not(where))), order=order, limit=chance.choice((None, 7, 30)))
            )


def test_many_values_and_many_parts_fit_into_a_statement(populated: tuple[Tables, list[Entity]]) -> None:
    """Guards the limits of databases: on variables, and on how deep a condition is."""
    tables, entities = populated
    many = tuple(each.id for each in entities[:40]) + tuple(map(str, range(40_000)))
    assert agree(tables, entities, Query(Compare(Term("", "id"), "in", many))).items
    assert agree(tables, entities, Query(Compare(Term("params", "lr"), "in", tuple(range(40_000))))).items
    deep: Where = Compare(Term("", "id"), "=", entities[0].id)
    for _ in range(40):
        deep = Not(deep)
    wide = Or((deep, *(Compare(Term("params", "lr"), "<", -number) for number in range(2_000))))
    assert agree(tables, entities, Query(wide)).items
    huge = Or(tuple(Compare(Term("params", "lr"), "=", number) for number in range(12_000)))
    assert agree(tables, entities, Query(huge)).items


def test_a_token_stays_right_while_entities_are_added(emptied: Tables) -> None:
    """Guards pages: what was there is shown once, and what came before the place is not shown again."""

    def run(id: int, score: float) -> Batch:
        return Writer(f"{id:032x}").batch(
            Created("run", f"{id:032x}"), AttributesSet("run", f"{id:032x}", "tags", {"s": score})
        )

    emptied.take(*(run(number, number) for number in range(10)))
    query = Query(order=(Sort(Term("tags", "s"), descending=True),), limit=4)
    first = emptied.reading.find("run", query)
    emptied.take(run(100, 99.0), run(101, 4.5), run(102, 5.5))
    second = emptied.reading.find("run", attrs.evolve(query, token=first.token))
    assert [each.attributes["tags"]["s"] for each in (*first.items, *second.items)] == [9, 8, 7, 6, 5.5, 5, 4.5, 4]


RANKS = [[], [1], [[0, 1]], [[0, "x"], [0, 1], [1, "a"]], [[7, 1], [0, 1], [1, "a"]], [[0, [1]], [0, 1], [1, "a"]]]


@pytest.mark.parametrize("token", ["", "x", *(base64.urlsafe_b64encode(to_json(ranks)).decode() for ranks in RANKS)])
def test_a_wrong_token_is_refused(emptied: Tables, token: str) -> None:
    """Guards against a page that begins anywhere."""
    emptied.take(Writer("1").batch(Created("run", "1")))
    with pytest.raises(Malformed):
        emptied.reading.find("run", Query(order=(Sort(Term("tags", "s")),), token=token))


def test_names_are_told_once_in_order_and_only_where_something_has_them(emptied: Tables) -> None:
    """Guards what a search box suggests."""
    one, two = Writer("1"), Writer("2")
    emptied.take(
        one.batch(AttributesSet("run", "1", "params", {"b": 1, "a": 2, "\U0001d4b5": 3, "\uffff": 4, "gone": 5})),
        two.batch(AttributesSet("run", "2", "params", {"b": 1, "ab": 2})),
        two.batch(AttributesSet("model", "2", "params", {"other": 1})),
        two.batch(RowsLogged("run", "2", "loss", {"step": [1], "time": [1], "value": [1.0]})),
        two.batch(RowsLogged("run", "2", "loss", {"step": [1], "time": [1], "value": [1.0]}, "eval")),
        one.batch(AttributesRemoved("run", "1", "params", ["gone"])),
    )
    keys = emptied.reading.keys
    assert keys("run", "params") == ["a", "ab", "b", "\uffff", "\U0001d4b5"]
    assert keys("run", "params", "a") == ["a", "ab"]
    assert keys("run", "params", "", 2) == ["a", "ab"]
    assert keys("run", "metrics") == ["loss"]
    assert keys("model", "params", "o") == ["other"]
    assert keys("run", "no such") == keys("trace", "params") == []


def test_what_a_transaction_rolled_back_is_not_answered(emptied: Tables) -> None:
    """Guards entities kept for the next question."""
    emptied.take(Writer("1").batch(Updated("run", "1", {"name": "a"})))
    assert emptied.reading.find("run", Query()).items[0].fields == {"name": "a"}
    with emptied.engine.connect() as connection:
        projection = Projection(connection)
        projection.take("2" * 32, [Record(1, 2 * 10**18, (Updated("run", "1", {"name": "b"}),))])
        projection.flush()
        connection.rollback()
    assert emptied.reading.find("run", Query()).items[0].fields == {"name": "a"}
    emptied.take(Writer("1").batch(Updated("run", "1", {"name": "c"}), stamp=3 * 10**18))
    assert emptied.reading.find("run", Query()).items[0].fields == {"name": "c"}


def test_terms_of_the_contract_are_all_asked() -> None:
    """Guards that the population's terms, searched ones too, are what the comparisons above go through."""
    assert {term.function for term in SEARCHED} == {"text", "any"}
