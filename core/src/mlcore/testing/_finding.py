"""Checks of `find`, against `mlcore.store.find` over the same entities."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest

from mlcore.errors import Malformed
from mlcore.store import (
    And,
    AttributesSet,
    Batch,
    Compare,
    Entity,
    Event,
    Not,
    Or,
    Page,
    Query,
    Sort,
    Store,
    Term,
    Updated,
    Where,
    find,
)  # fmt: skip
from mlcore.testing._builders import Writer, new_id, points, run_batch, run_events
from mlcore.testing._checking import Stores, exact_entity, filled, folded

NAN, INF = float("nan"), float("inf")
NAMES = (
    "a", "A", "b", "Z", "é", "z", "ab", "a_b", "a%b", "a.b", "aXb", "a\nb", "", "\uff5a", "\U0001d4b5", "10", "9",
    "ÀB", "àb",
)  # fmt: skip
NUMBERS = (0, 1, 2, -1, 0.5, 1.0, -0.0, 1e-300, 1e300, INF, -INF, NAN)
START_TIMES = (1_000, 2_000, 3_000)
NAME, LOSS, LR = Term("fields", "name"), Term("metrics", "loss"), Term("params", "lr")
TERMS = (
    NAME, Term("fields", "start_time"), LR, Term("params", "mixed"), Term("tags", "note"), Term("", "id"),
    Term("", "parent"), LOSS, *(Term("metrics", "loss", each) for each in ("min", "max", "count", "step", "time")),
    Term("metrics", "loss", context="eval"), Term("metrics", "no such"), Term("no such", "x"), Term("", "duration"),
    Term("", "created_ms"), Term("", "changed_ms"),
)  # fmt: skip
SEARCHED = (  # and not ordered by
    Term("params", "mixed", "text"), Term("params", "lr", "text"), Term("tags", "note", "text"),
    Term("models", "name", "any"), Term("models", "size", "any"), Term("no such", "x", "any"),
)  # fmt: skip


def population(seed: int, size: int = 80) -> list[Batch]:
    """Return runs with everything that makes order and comparison hard, the same for the same seed."""
    chance, later = random.Random(seed), random.Random(-seed)  # noqa: S311 - no secrets

    def some(name: str, *values: Any, share: float = 0.8) -> dict[str, Any]:
        return {name: chance.choice(values)} if chance.random() < share else {}

    batches = []
    for _ in range(size):
        writer = Writer(f"{chance.getrandbits(128):032x}", source=f"{chance.getrandbits(128):032x}")
        fields = some("name", *NAMES) | some("start_time", *START_TIMES) | some("deleted", True, False, share=0.2)
        params = some("lr", *NUMBERS) | some("mixed", *NUMBERS[:8], *NAMES, True, False)
        parent = chance.choice(("", "1", "2"))
        made = run_events(writer.home, parent=parent, fields=fields, params=params, tags=some("note", *NAMES))
        values = [float(chance.choice(NUMBERS)) for _ in range(chance.randrange(4))]
        rows: list[Event] = [points(writer.home, "loss", values)] if values else []
        if chance.random() < 0.5:
            rows.append(points(writer.home, "loss", [chance.random()], context="eval"))
        if later.random() < 0.5:
            rows.append(Updated("run", writer.home, {"end_time": later.choice(START_TIMES)}))
            models = {later.choice(NAMES[:6]): later.choice(({}, {"size": later.choice(NUMBERS)}, 1)) for _ in range(3)}
            rows.append(AttributesSet("run", writer.home, "models", models))
        batches.append(writer.batch(*made, *rows, stamp=chance.randrange(1, 5) * 1_000_000))
    return batches


def queries(chance: random.Random, op: str) -> list[Where]:
    """Return comparisons with `op` of every term to values that occur."""
    likes = ("a%", "%b", "A_B", "a_b", "%", "_", "", "a.b", "%\n%", "é", "À%", "[a]%", "a\\%b")
    found: list[Where] = []
    for term in (*TERMS, *SEARCHED):
        for _ in range(4):
            value: Any = chance.choice((*NAMES, *NUMBERS, *START_TIMES, "1"))
            if op.endswith("like"):
                value = chance.choice(likes)
            elif op.endswith("in"):
                value = tuple(chance.sample((*NAMES, *NUMBERS), 5))
            found.append(Compare(term, op, None if op == "is null" else value))
    return found


class Population:
    """A store that holds a population, and what it is to answer."""

    def __init__(self, stores: Stores, *batches: Batch) -> None:
        self.store = filled(stores, *batches)
        self.entities = list(folded(batches).entities("run"))

    def agrees(self, query: Query) -> Page:
        """Assert that the store answers a query as core's `find` does, and return the answer."""
        wanted, answer = find(self.entities, query), self.store.find("run", query)
        assert [each.id for each in answer.items] == [each.id for each in wanted.items], query
        assert list(map(exact_entity, answer.items)) == list(map(exact_entity, wanted.items)), query
        assert (answer.token is None, answer.count) == (wanted.token is None, wanted.count), query
        return answer


def named(stores: Stores, *names: Any) -> Population:
    """Return a population of runs that differ in a tag only, the first one started last."""
    runs = [run_events(f"{n:032x}", fields={"start_time": 100 - n}, tags={"x": name}) for n, name in enumerate(names)]
    return Population(stores, *(Writer(events[0].id).batch(*events, stamp=1) for events in runs))


def tags(page: Page) -> list[Any]:
    """Return the tag by which the runs of `named` differ."""
    return [each.attributes["tags"]["x"] for each in page.items]


def pages(store: Store, query: Query, limit: int) -> list[Entity]:
    """Return what all pages together bring."""
    found: list[Entity] = []
    page = store.find("run", attrs.evolve(query, limit=limit))
    found += page.items
    while page.token is not None:
        assert len(found) < 10_000, "the pages have no end"
        page = store.find("run", attrs.evolve(query, limit=limit, token=page.token))
        assert 0 < len(page.items) <= limit
        found += page.items
    return found


class Finding:
    """Check `find`."""

    def test_every_operator_means_what_core_says(self, stores: Stores) -> None:
        """Each operator picks the same runs as core, whatever types and missing values it meets."""
        runs = Population(stores, *population(1))
        chance = random.Random(2)  # noqa: S311
        for op in (
            "=",
            "!=",
            "<",
            "<=",
            ">",
            ">=",
            "like",
            "ilike",
            "in",
            "not like",
            "not ilike",
            "not in",
            "is null",
        ):
            for where in queries(chance, op):
                runs.agrees(Query(where))

    def test_and_or_not_nest(self, stores: Stores) -> None:
        """Not is two-valued: what is missing does not compare, so its negation holds."""
        runs = Population(stores, *population(3))
        chance = random.Random(4)  # noqa: S311
        simple = [each for op in ("=", "<", "is null", "in") for each in queries(chance, op)]
        for _ in range(60):
            one, two, three = chance.sample(simple, 3)
            runs.agrees(Query(Or((And((one, Not(two))), Not(Or((two, three)))))))
        assert len(runs.agrees(Query(And(()))).items) > len(runs.agrees(Query(Or(()))).items) == 0

    def test_every_term_orders_as_core_says(self, stores: Stores) -> None:
        """Any term orders, up and down and after another, mixed types included."""
        runs = Population(stores, *population(5))
        for term in TERMS:
            for descending in (False, True):
                runs.agrees(Query(order=(Sort(term, descending),)))
                runs.agrees(Query(order=(Sort(Term("fields", "start_time")), Sort(term, descending))))

    def test_what_is_missing_comes_last_in_both_directions(self, stores: Stores) -> None:
        """A run without the value is never first, and NaN stands just before it."""
        runs = named(stores, None, 1.0, NAN, -INF, 2, INF)
        for descending, numbers in ((False, [-INF, 1.0, 2, INF]), (True, [INF, 2, 1.0, -INF])):
            found = tags(runs.agrees(Query(order=(Sort(Term("tags", "x"), descending),))))
            assert found[:4] == numbers
            assert found[4] != found[4]
            assert found[5] is None

    def test_ties_are_ordered_by_start_time_then_id(self, stores: Stores) -> None:
        """Equal runs stand newest first, those of one start by id; without a start time the first stamp counts."""
        starts = {"b" * 32: 5_000, "a" * 32: 5_000, "c" * 32: 9_000, "d" * 32: None, "e" * 32: 1_000}
        made = [
            run_batch(run, fields={} if start is None else {"start_time": start}, stamp=7_000_000_000)
            for run, start in starts.items()
        ]
        runs = Population(stores, *made)
        for order in ((), (Sort(NAME),), (Sort(NAME, descending=True),)):
            assert [each.id[0] for each in runs.agrees(Query(order=order)).items] == ["c", "d", "a", "b", "e"]

    def test_strings_are_ordered_by_code_point(self, stores: Stores) -> None:
        """No locale, no case folding, no UTF-16: the same order on every machine."""
        names = ["", "10", "9", "Z", "a", "ab", "b", "é", "\uff5a", "\U0001d4b5"]
        shuffled = random.Random(6).sample(names, len(names))  # noqa: S311
        assert tags(named(stores, *shuffled).agrees(Query(order=(Sort(Term("tags", "x")),)))) == names

    def test_like_minds_case_and_ilike_does_not(self, stores: Stores) -> None:
        """Only percent and underscore stand for others; a dot, a bracket and a backslash for themselves."""
        runs = named(stores, "adam", "Adam", "a.b", "axb", "a\\b", "[a]", "a\nb", "a%b", "a--b", 1)
        wanted = {
            ("like", "a%m"): ["adam"], ("ilike", "a%m"): ["adam", "Adam"], ("like", "a.b"): ["a.b"],
            ("like", "a_b"): ["a.b", "axb", "a\\b", "a\nb", "a%b"], ("like", "[a]"): ["[a]"],
            ("like", "a\\b"): ["a\\b"], ("like", "dam"): [], ("ilike", "%D%"): ["adam", "Adam"], ("like", "1"): [],
        }  # fmt: skip
        for (op, pattern), names in wanted.items():
            assert tags(runs.agrees(Query(Compare(Term("tags", "x"), op, pattern)))) == names, (op, pattern)

    def test_pages_are_a_partition(self, stores: Stores) -> None:
        """Whatever the order and the size, all pages together bring every run once, in the whole's order."""
        runs = Population(stores, *population(7, 30))
        terms = (LR, NAME, LOSS, Term("params", "mixed"))
        for order in ((), *((Sort(term, down),) for term in terms for down in (False, True))):
            query = Query(order=order)
            wanted = [each.id for each in find(runs.entities, query).items]
            for limit in (1, 7, 30):
                assert [each.id for each in pages(runs.store, query, limit)] == wanted

    def test_pages_hold_while_runs_are_added(self, stores: Stores) -> None:
        """Runs that start between two pages shift nothing: what was there comes exactly once."""
        batches = population(8, 30)
        runs = Population(stores, *batches)
        query = Query(order=(Sort(NAME),), limit=4)
        found, token = [], None
        while True:
            page = runs.store.find("run", attrs.evolve(query, token=token))
            found += [each.id for each in page.items]
            token = page.token
            if token is None:
                break
            assert len(found) < 1_000, "the pages have no end"
            for name in ("", "A", "\U0001d4b5") if len(found) < 60 else ():
                runs.store.append(run_batch(fields={"name": name, "start_time": 9_000}))
        before = [each.id for each in find(runs.entities, Query(order=(Sort(NAME),))).items]
        assert len(found) == len(set(found)), "a run came twice"
        assert [each for each in found if each in set(before)] == before

    def test_a_token_of_another_question_is_refused(self, stores: Stores) -> None:
        """A token that was made up, cut or belongs to another order is an error, not the first page."""
        runs = Population(stores, *population(9, 10))
        token = runs.store.find("run", Query(limit=2)).token
        assert token
        for wrong in ("", "x", "é", token[: len(token) // 2], "W10="):
            with pytest.raises(Malformed):
                runs.store.find("run", Query(limit=2, token=wrong))
        with pytest.raises(Malformed):
            runs.store.find("run", Query(order=(Sort(NAME),), limit=2, token=token))

    def test_limit_bounds_a_page(self, stores: Stores) -> None:
        """A page has `limit` runs as long as there are, and a token only if there are more."""
        runs = Population(stores, *population(10, 20))
        there = len(find(runs.entities, Query()).items)
        for limit in (1, there - 1, there, there + 1, None):
            page = runs.agrees(Query(limit=limit))
            assert len(page.items) == min(there, there if limit is None else limit)
            assert (page.token is None) == (limit is None or limit >= there)

    def test_count_is_of_all_that_fit(self, stores: Stores) -> None:
        """The count minds `where` and neither limit nor page, and is given only if asked for."""
        runs = Population(stores, *population(11, 30))
        where = Compare(NAME, "is null")
        fit = len(find(runs.entities, Query(where)).items)
        page = runs.agrees(Query(where, limit=1, count=True))
        assert page.count == fit > 1
        assert runs.agrees(Query(where, limit=1, count=True, token=page.token)).count == fit
        assert runs.agrees(Query(where, limit=1)).count is None

    def test_select_brings_what_was_named(self, stores: Stores) -> None:
        """Named terms and whole families come back, nothing else of fields, attributes and metrics does."""
        made = run_events(
            new_id(), fields={"name": "x", "status": "RUNNING"}, params={"lr": 1, "depth": 2}, tags={"a": 1, "b": 2},
            metrics={"loss": [1.0], "acc": [2.0]},
        )  # fmt: skip
        store = filled(stores, Writer(made[0].id).batch(*made))

        def select(*terms: Term) -> tuple[Any, ...]:
            (entity,) = store.find("run", Query(select=terms)).items
            families = {family: sorted(values) for family, values in entity.attributes.items() if values}
            return sorted(entity.fields), families, sorted(entity.metrics)

        assert select(NAME, LR, LOSS) == (["name"], {"params": ["lr"]}, [("loss", "")])
        assert select(Term("tags", ""), Term("metrics", "")) == ([], {"tags": ["a", "b"]}, [("acc", ""), ("loss", "")])
        assert select(Term("fields", "")) == (["name", "status"], {}, [])
        assert select() == ([], {}, [])
        assert len(store.find("run", Query(select=None)).items[0].metrics) == 2

    def test_deleted_runs_come_only_when_asked_for(self, stores: Stores) -> None:
        """A query that does not name the field `deleted`, however deep, does not see deleted runs."""
        kept, gone = new_id(), new_id()
        deletion = Writer(gone).batch(Updated("run", gone, {"deleted": True}))
        store = filled(stores, run_batch(kept, tags={"a": 1}), run_batch(gone, tags={"a": 1}), deletion)
        deleted, tagged = Compare(Term("fields", "deleted"), "=", value=True), Compare(Term("tags", "a"), "=", 1)

        def found(where: Where | None) -> set[str]:
            page = store.find("run", Query(where, count=True))
            assert page.count == len(page.items)
            return {each.id for each in page.items}

        assert found(None) == found(tagged) == {kept}
        assert found(deleted) == found(And((tagged, deleted))) == {gone}
        assert found(Not(deleted)) == {kept}
        assert found(Or((tagged, Not(Not(deleted))))) == {kept, gone}
