"""A store in a database answers what the one in memory does, whatever was appended, in whatever order."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from memory_store import MemoryStore, Shelf
from mlcore.errors import Refused
from mlcore.store import (
    And,
    AttributesRemoved,
    AttributesSet,
    Batch,
    Compare,
    Created,
    Erased,
    Event,
    Not,
    Query,
    Rewound,
    RowsLogged,
    Sort,
    Store,
    Term,
    Updated,
    Where,
)
from mlcore.testing import Writer
from mlcore.testing._checking import exact_columns, exact_entity, stored_records
from mlcore_sql import compaction, rows
from mlcore_sql.dialects import runner
from mlcore_sql.schema import projected
from mlcore_sql.store import SqlStore, open_store
from mlcore_sql.tables import batches, chunks, claims, cuts, owners, series, signs, sources

RUNS = ["a" * 32, "b" * 32, "c"]
HOMES = ["a" * 32, "b" * 32, ""]
NUMBERS = [0.5, 1.0, -1.0, 0.0, float("nan"), float("inf"), 1e308, 3]
VALUES = [*NUMBERS, 2**53 + 1, 10**30, True, "a", "b\x00", "ä", [1], {"name": "a"}, None]

runs, values = st.sampled_from(RUNS), st.sampled_from(VALUES)
some = st.dictionaries(st.sampled_from(["x", "y", "status"]), values, min_size=1, max_size=2)
steps = st.lists(st.integers(-1, 5) | st.sampled_from([2**62, -(2**63)]), min_size=1, max_size=4)
keys, contexts = st.sampled_from(["loss", "acc"]), st.sampled_from(["", "", "eval"])


@st.composite
def metric(draw: st.DrawFn) -> dict[str, Any]:
    """Draw rows of a metric, as nearly all rows are."""
    each = draw(steps)
    times = draw(st.sampled_from([each, [7] * len(each), each[::-1]]))
    wanted = draw(st.lists(st.sampled_from(NUMBERS[:-1]), min_size=len(each), max_size=len(each)))
    return {"step": array("q", each), "time": array("q", times), "value": array("d", wanted)}


odd = st.sampled_from(
    [
        {"step": [1, 2], "time": [1, 1], "value": [1, 2.0]}, {"step": [3], "time": [3], "value": [7]},
        {"time": [1], "text": ["späßchen\n"]}, {"value": [1.0]}, {"step": [], "time": [], "value": []}, {},
        {"step": [1], "time": [1], "value": [None]}, {"step": [2], "time": [1], "value": [1.0], "by": [{"$a": 1}]},
    ]
)  # fmt: skip
logged = st.builds(RowsLogged, st.just("run"), runs, keys, st.one_of(metric(), metric(), metric(), odd), contexts)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    logged, logged, logged, logged,
    st.builds(Created, st.just("run"), runs, st.just(""), some), st.builds(Updated, st.just("run"), runs, some),
    st.builds(AttributesSet, st.just("run"), runs, st.just("params"), some, st.booleans()),
    st.builds(AttributesRemoved, st.just("run"), runs, st.just("params"), st.just(["x"])),
    st.builds(Rewound, st.just("run"), runs, st.integers(-1, 5)),
    st.builds(Created, st.just("model"), runs), st.builds(Erased, st.just("run"), st.just("c")),
)  # fmt: skip


@st.composite
def appended(draw: st.DrawFn) -> list[Batch]:
    """Draw what several writers append: in any order of stamps, some of it twice, some that must be refused."""
    found: list[list[Batch]] = []
    for _ in range(draw(st.integers(1, 3))):
        writer, stamp = Writer(draw(st.sampled_from(HOMES)), source=draw(st.uuids()).hex), draw(st.integers(1, 9))
        for events in draw(st.lists(st.lists(EVENTS, min_size=1, max_size=3), min_size=1, max_size=9)):
            stamp += draw(st.integers(0, 3))
            writer.batch(*events, stamp=stamp)
        cuts = sorted(draw(st.sets(st.integers(1, len(writer.records)), max_size=8)) | {len(writer.records)})
        sent = [writer.cut(first + 1, last) for first, last in zip([0, *cuts], cuts, strict=False)]
        again = draw(st.integers(0, len(sent) - 1))
        sent.insert(draw(st.integers(again, len(sent))), sent[again])
        found.append([*sent, writer.life_sign()])
    order = draw(st.permutations([which for which, each in enumerate(found) for _ in each]))
    return [found[which].pop(0) for which in order]


terms = st.one_of(
    st.builds(Term, st.sampled_from(["params", "fields"]), st.sampled_from(["x", "y", "status"])),
    st.builds(Term, st.just("metrics"), keys, st.sampled_from(["last", "min", "max", "count", "step"]), contexts),
    st.just(Term("", "created")), st.just(Term("", "id")),
)  # fmt: skip
plain = st.builds(Compare, terms, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.sampled_from(VALUES[:-3]))
wheres: st.SearchStrategy[Where | None] = st.one_of(
    st.none(), plain, st.builds(Not, plain), st.builds(And, st.tuples(plain, plain))
)
sorts = st.lists(st.builds(Sort, terms, st.booleans()), max_size=2).map(tuple)
queries = st.builds(Query, wheres, st.none(), sorts, st.sampled_from([None, 1]), st.none(), st.booleans())


def answers(store: Store, asked: list[Query]) -> list[Any]:
    """Return all that a store answers."""
    found: list[Any] = [exact_entity(each) for each in store.get("run", [*RUNS, "nobody"])]
    for query in asked:
        page = store.find("run", query)
        found.append(([exact_entity(each) for each in page.items], page.count, page.token is None))
    found.append([exact_entity(each) for each in store.find("model", Query()).items])
    for more in ({}, {"keys": ["loss"]}, {"context": "eval"}, {"max_points": 3}, {"columns": ["step", "value"]}):
        drawn = store.series("run", RUNS, **more)
        found.append({name: exact_columns(columns) for name, columns in drawn.items()})
    return found


def history(store: Store) -> list[Any]:
    """Return all that a store keeps, as it may be asked for."""
    whole = [store.events(), *(store.events(of=home) for home in HOMES), store.events(kinds=["model"])]
    return [stored_records(each) for each in (*whole, store.events(rows=False))]


def empty(store: SqlStore) -> None:
    """Take everything out of a store but its tables and its count."""
    mine = (batches, chunks, claims, cuts, owners, series, signs, sources)
    with store._database.writing() as connection:
        for table in (*mine, *projected.sorted_tables):
            connection.execute(table.delete())
    store._begin()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, SqlStore]]:
    """Yield a store on each engine, with chunks so small that they are joined, and split, all the time."""
    patch = pytest.MonkeyPatch()
    patch.setattr(compaction, "_FAN", 2)
    for module in (rows, compaction):
        patch.setattr(module, "CHUNK_ROWS", 8)
    path: Path = tmp_path_factory.mktemp("answers") / "store.db"
    servers = [request.getfixturevalue(f"{name}_server") for name in ("postgresql", "mariadb")]
    with servers[0].database() as postgresql, servers[1].database() as mariadb:
        opened = {uri.partition(":")[0]: open_store(uri) for uri in (f"sqlite:///{path}", postgresql, mariadb)}
        for store in opened.values():
            store._prepare()
        yield opened
        for store in opened.values():
            store.close()
    patch.undo()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(appended(), st.lists(queries, max_size=3), st.randoms())
def test_every_database_answers_as_memory_does(
    stores: dict[str, SqlStore], sent: list[Batch], asked: list[Query], chance: random.Random
) -> None:
    """Guards that no engine, chunk, summary or page has an opinion of its own."""
    memory = MemoryStore(Shelf())
    for store in stores.values():
        empty(store)
    several: dict[str, Store] = {"memory": memory, **stores}
    for batch in sent:
        outcome = set()
        for store in several.values():
            try:
                store.append(batch)
                outcome.add("")
            except Refused as error:
                outcome.add(repr(error))
        assert len(outcome) == 1, outcome
        if chance.random() < 0.2:
            wanted = answers(memory, asked[:1])
            for name, store in stores.items():
                assert answers(store, asked[:1]) == wanted, name
    wanted, kept = answers(memory, asked), history(memory)
    for name, store in stores.items():
        assert answers(store, asked) == wanted, name
        assert history(store) == kept, name
        compacted(store)
        assert answers(store, asked) == wanted, f"{name}, compacted"
        assert history(store) == kept, f"{name}, compacted"


def compacted(store: SqlStore) -> None:
    """Join all chunks that can be joined."""
    with store._database.writing() as connection:
        found = list(runner(connection).rows("SELECT DISTINCT series, source FROM chunks"))
        for id, source in found:
            compaction.compact(connection, bytes(id), source.hex(), 1 << 62, 1 << 62)
