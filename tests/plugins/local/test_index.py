"""An index changes no answer, whatever happened, and is brought up to date by what is new."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import mlcore
from memory_index import Indexes
from mlcore import plugins
from mlcore.errors import Refused
from mlcore.folder import Folder
from mlcore.journal import _writer
from mlcore.store import (
    And,
    AttributesSet,
    Batch,
    Columns,
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
    clock,
)
from mlcore.testing import StoreContract
from mlcore_local import FolderStore

LOSS, DELETED = Term("metrics", "loss"), Term("fields", "deleted")
EVERY = Or((Compare(DELETED, "is null"), Not(Compare(DELETED, "is null"))))
QUERIES = [
    Query(count=True),
    Query(EVERY, order=(Sort(LOSS),), limit=4),
    Query(Compare(LOSS, ">", 0.3), order=(Sort(Term("fields", "name"), descending=True),), count=True),
    Query(And((Compare(Term("fields", "status"), "=", "RUNNING"), EVERY)), select=(LOSS, Term("fields", "status"))),
    Query(Not(Compare(Term("tags", "t"), "in", (1, 2, "a"))), order=(Sort(Term("params", "lr"), descending=True),)),
    Query(Compare(Term("metrics", "loss", "min"), "<", 0.5), order=(Sort(Term("", "changed")),)),
    Query(Compare(Term("fields", "name"), "like", "%a%"), limit=3),
    Query(EVERY, select=(LOSS,)),
    Query(EVERY, select=tuple(Term(each, "") for each in ("fields", "metrics", "params"))),
]
KINDS = ("run", "experiment", "model")


@pytest.fixture(autouse=True)
def _indexes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_writer, "SIGN_SECONDS", 1e9)  # or one handle may be asked before a sign, another after it
    plugins.register(Indexes, "memory-index")
    yield
    plugins.unregister("memory-index")


@pytest.fixture(params=["memory", "sqlite"])
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose the index to use; what fails with both is the folder store's fault."""
    monkeypatch.setenv("MLCORE_INDEX", request.param)
    return str(request.param)


class Eager(FolderStore):
    """A store that asks its index for single runs, too, which alone are not worth making one."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, indexed=True)

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        self.find(kind, Query(limit=0))
        return super().get(kind, ids)

    def series(self, kind: str, *args: Any, **options: Any) -> dict[Any, Columns]:
        self.find(kind, Query(limit=0))
        return super().series(kind, *args, **options)

    def used(self) -> bool:
        """Tell whether the index could be used all the time."""
        return self._indexed is not None and not self._failed


class TestIndexedFolder(StoreContract):
    @pytest.fixture(autouse=True)
    def _chosen(self, index: str) -> None:
        pass

    def open_store(self, tmp_path: Path) -> Callable[[], FolderStore]:
        return lambda: Eager(tmp_path / "store")


# Whatever happened


def told(value: Any) -> Any:
    """Return what can be compared: NaN is NaN, and no order but that of sequences."""
    if isinstance(value, Entity):
        return {field.name: told(getattr(value, field.name)) for field in attrs.fields(Entity)}
    if isinstance(value, Columns):
        return {name: told(list(column)) for name, column in value.columns.items()}
    if isinstance(value, Page):
        return [told(value.items), value.token, value.count]
    if isinstance(value, dict):
        return {key: told(each) for key, each in value.items()}
    if attrs.has(type(value)):
        return [told(each) for each in attrs.astuple(value, recurse=False)]
    if isinstance(value, list | tuple):
        return [told(each) for each in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def answers(store: FolderStore) -> dict[str, Any]:
    """Return what a store answers to questions of many kinds."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        for number, query in enumerate(QUERIES):
            page = store.find(kind, query)
            found[f"{kind} {number}"] = told(page)
            while page.token is not None:
                page = store.find(kind, attrs.evolve(query, token=page.token))
                found[f"{kind} {number}"] += told(page)
        ids = [each.id for each in store.find(kind, Query(EVERY)).items]
        found[f"{kind} get"] = told(store.get(kind, [*ids, "none"]))
        found[f"{kind} series"] = told(store.series(kind, ids))
        found[f"{kind} loss"] = told(store.series(kind, ids, ["loss"], context="", columns=["value"], max_points=3))
    return found


class History:
    """Let things happen in a store, as they do in life."""

    def __init__(self, place: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.root, self.elsewhere = place / "store", place / "elsewhere"
        self.client, self.other = mlcore.Client(self.root), mlcore.Client(self.elsewhere)
        self.open: list[mlcore.Run] = []
        self.ended: list[str] = []
        self.experiments, self.names = ["Default"], 0
        self.start()

    def any_run(self) -> str:
        if not self.open and not self.ended:
            self.start()
        return self.chance.choice([*(run.id for run in self.open), *self.ended])

    def start(self) -> None:
        run = self.client.start_run(nested=True, experiment=self.chance.choice(self.experiments))
        run.log_params({"lr": self.chance.choice([0.1, 1, "big", None])})
        self.open.append(run)

    def log(self) -> None:
        if self.open:
            run, chance = self.chance.choice(self.open), self.chance
            for _ in range(chance.randrange(1, 4)):
                value = chance.choice([chance.random(), math.nan, math.inf, -1.0, 0.25])
                run.log_metric(chance.choice(["loss", "acc"]), value, step=chance.choice([None, chance.randrange(9)]))
            if chance.random() < 0.3:
                run.log_points("loss", range(20, 24), [chance.random() for _ in range(4)])

    def tag(self) -> None:
        if self.open:
            self.chance.choice(self.open).set_tags({"t": self.chance.choice([1, 2, 3, "a", None, [1]])})

    def end(self) -> None:
        if self.open:
            run = self.open.pop()
            run.end()
            self.ended.append(run.id)

    def resume(self) -> None:
        if self.ended:
            id = self.chance.choice(self.ended)
            self.ended.remove(id)
            rewind = self.chance.choice([None, 0, 3, 20])
            run = self.client.start_run(run_id=id, nested=True, rewind_to=rewind)
            self.open.append(run)

    def edit(self) -> None:
        run = mlcore.Client(self.root).get_run(self.any_run())
        self.chance.choice([lambda: run.set_tag("t", "edited"), run.delete, run.restore])()

    def experiment(self) -> None:
        self.names += 1
        name = f"e{self.names}"
        self.client.create_experiment(name, tags={"t": 1})
        self.experiments.append(name)

    def rename(self) -> None:
        if len(self.experiments) > 1:
            name = self.experiments.pop()
            experiment = self.client.get_experiment(name)
            experiment.rename(f"{name}a")
            if self.chance.random() < 0.3:
                experiment.delete()
            else:
                self.experiments.append(f"{name}a")

    def copy_in(self) -> None:
        with self.other.start_run(nested=True) as run:
            run.log_metric("loss", self.chance.random())
        ended = self.chance.random() < 0.7
        if not ended:
            run = self.other.start_run(nested=True)
            run.log_metric("loss", 1.0)
        source = Folder.open(self.elsewhere).run_folder(run.id)
        target = Folder.open(self.root).run_folder(run.id)
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target)
        run.end()
        if ended:
            self.ended.append(run.id)

    def copy_under_another_name(self) -> None:
        folder, id = Folder.open(self.root), self.any_run()
        twin = "f" * 30 + id[-2:]
        if not folder.run_folder(twin).exists():
            shutil.copytree(folder.run_folder(id), folder.run_folder(twin), ignore=shutil.ignore_patterns("sealed"))

    def append(self) -> None:
        """Append what no run of this machine writes: rows elsewhere, odd rows, rewinds and erasures."""
        chance, id = self.chance, self.any_run()
        step = chance.randrange(9)
        rows = {"step": [step, step + 1], "time": [5, 5], "value": [0.5, chance.random()]}
        odd = {"step": [step], "word": [chance.choice(["a", None])]}
        some: list[Event] = [
            RowsLogged("run", id, "loss", rows),
            RowsLogged("run", id, "loss", rows, "valid"),
            RowsLogged("run", id, "words", odd),
            RowsLogged("run", id, "loss", {**rows, "value": [1, 2]}),
            RowsLogged("model", "m", "loss", rows),
            Updated("run", id, {"status": chance.choice(["RUNNING", "FINISHED"])}),
            AttributesSet("run", id, "params", {"lr": chance.random()}, once=True),
            Rewound("model", "m", step),
            Created("model", "m", fields={"name": "a model"}),
            *([Erased("run", id)] if id in self.ended and chance.random() < 0.2 else []),
        ]
        home = chance.choice(["", "", id, self.any_run()])
        if home == id:  # who rewinds a run writes so where the run is
            some += [Rewound("run", id, step)] * 3
        events = tuple(chance.sample(some, chance.randrange(1, 4)))
        self.ended = [each for each in self.ended if Erased("run", each) not in events]
        claim = f"test/{os.urandom(4).hex()}" if chance.random() < 0.3 else None
        batch = Batch(os.urandom(16).hex(), home, (Record(1, clock.tick(), events),), claim=claim)
        try:
            FolderStore(self.root).append(batch)
        except Refused as error:
            raise AssertionError(f"{batch} was refused") from error

    def tear(self) -> None:
        """Leave half a record at the end of a journal, as a process does that was killed."""
        folder, id = Folder.open(self.root), self.any_run()
        journal = self.chance.choice(sorted(folder.run_folder(id).glob("*.journal")))
        folder.note(id)
        with journal.open("ab") as file:
            file.write(b"\x4c\xa7\x04\x00\x01")

    def remove(self) -> None:
        if self.ended:
            id = self.ended.pop()
            shutil.rmtree(Folder.open(self.root).run_folder(id))

    def happen(self, what: str) -> None:
        getattr(self, what)()

    def close(self) -> None:
        while self.open:
            self.open.pop().end()


WHAT = ["start", "log", "log", "tag", "end", "resume", "edit", "experiment", "rename", "copy_in"]
WHAT += ["copy_under_another_name", "append", "append", "tear", "remove"]


@given(
    seed=st.integers(0, 1 << 32),
    steps=st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 9)), min_size=3, max_size=25),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_changes_no_answer(
    seed: int, steps: list[tuple[str, int]], index: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Guards all that an index remembers: after each step of a random history everybody says the same."""
    history = History(tmp_path_factory.mktemp("history"), seed)
    live = Eager(history.root)
    try:
        for what, luck in steps:
            history.happen(what)
            if luck == 0:
                shutil.rmtree(history.root / "index", ignore_errors=True)
            elif luck == 1:
                live.reindex()
            elif luck == 2:
                live = Eager(history.root)
            expected, early, fresh = answers(FolderStore(history.root)), answers(live), Eager(history.root)
            assert early == expected
            assert answers(fresh) == expected
            assert live.used() and fresh.used()
    finally:
        history.close()


def test_one_look_answers_several_questions_as_of_one_moment(tmp_path: Path) -> None:
    """A command asks several things: the folder is looked at once for them, and anew for whoever asks after it."""
    client = mlcore.Client(tmp_path)
    client.start_run(name="first").end()
    store = client.store
    assert isinstance(store, FolderStore)
    with store.one_look():
        assert len(store.find("run", Query()).items) == 1
        client.start_run(name="second").end()
        with store.one_look():
            assert len(store.find("run", Query()).items) == 1
        assert len(store.find("experiment", Query()).items) == 1
    assert [each.fields["name"] for each in store.find("run", Query()).items] == ["second", "first"]
    client.close()
