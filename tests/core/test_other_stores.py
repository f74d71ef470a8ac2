"""What is logged into a store that is no folder: from threads, from forked processes, and when the store fails."""

from __future__ import annotations

import importlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlcore
from house.tree import ROOT
from memory_store import MemoryStore, Shelf
from mlcore import Provider, plugins
from mlcore.errors import InvalidValue
from mlcore.store import Batch


class Moody(MemoryStore):
    """Takes a batch and then fails to say so, as a connection that breaks does, when told to."""

    failing = False

    def append(self, batch: Batch) -> None:
        super().append(batch)
        if self.failing:
            raise sqlite3.OperationalError("database is locked")


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """Yield a function that provides a store under the scheme ``other`` until the test ends."""
    yield lambda opened: plugins.register(SimpleNamespace(mlcore_stores=lambda: [Provider("other", opened)]), "x")
    plugins.unregister("x")


@pytest.fixture
def shelf(register: Callable[..., None]) -> Shelf:
    """Return what the handles of the store share."""
    shelf = Shelf()
    register(lambda uri: Moody(shelf))
    return shelf


def test_threads_log_into_one_run(shelf: Shelf) -> None:
    """Guards the numbers of records: sixteen threads lose nothing, and steps that nobody names are each given once."""
    client = mlcore.Client("other://")
    with client.start_run() as run, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: [run.log_metric("loss", number) for _ in range(50)], range(16)))
    again = client.get_run(run.id)
    assert list(again.series("loss").steps) == list(range(800))
    assert again.status == "FINISHED"


def test_a_store_that_fails_costs_what_it_failed_at(
    shelf: Shelf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a training from whatever a store's library raises, and what comes later from a batch half answered."""
    monkeypatch.setenv("MLCORE_SPOOL", "off")
    client = mlcore.Client("other://")
    with client.start_run() as run:
        run.log_metric("loss", 3)
        client.store.failing = True  # type: ignore[attr-defined]
        run.log_metric("loss", 2)
        client.store.failing = False  # type: ignore[attr-defined]
        run.log_metric("loss", 1)
    assert list(client.get_run(run.id).series("loss").values)[::2] == [3, 1]
    assert "1 calls could not be written: database is locked" in caplog.text


@pytest.mark.parametrize("steps", [3, None, [0.5], ["a"], [[1]]])
def test_wrong_points_are_refused_as_in_a_folder(shelf: Shelf, tmp_path: Path, steps: object) -> None:
    """Guards that code tried on one store does not fail on another, and that a refusal logs nothing."""
    messages = []
    for uri in ("other://", tmp_path):
        client = mlcore.Client(uri)
        with client.start_run() as run:
            with pytest.raises(InvalidValue) as refusal:
                run.log_points("loss", steps, [1.0])
            run.log_metrics({})
            run.log_points("loss", iter(range(3)), (number / 2 for number in range(3)))
        assert list(client.get_run(run.id).series("loss").values) == [0, 0.5, 1]
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "wrong", [{"rewind_to": "x"}, {"rewind_to": 0.5}, {"parent": "nobody"}, {"parent": 3}, {"run_id": 3}], ids=str
)
def test_a_run_that_cannot_start_leaves_nothing(shelf: Shelf, wrong: dict[str, object]) -> None:
    """Guards the store from what nobody could read again, and the process from a run half open."""
    with pytest.raises(InvalidValue):
        mlcore.Client("other://").start_run(**wrong)  # type: ignore[arg-type]
    assert shelf.stored == []
    assert mlcore.active_run() is None


def test_a_forked_process_opens_the_store_anew(
    register: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards connections, which no fork survives: parent and children log into one run, and all of it is there."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples" / "store-plugin" / "src")
    store = importlib.import_module("mlcore_onefile.store")
    register(lambda uri: store.OneFileStore(uri.removeprefix("other://")))
    uri = f"other://{tmp_path}/runs.db"
    client = mlcore.Client(uri)
    with client.start_run() as run:
        run.log_metric("parent", 1)

        def work(number: int) -> None:
            for value in range(20):
                run.log_metric(f"child-{number}", value)

        forked = multiprocessing.get_context("fork")
        children = [forked.Process(target=work, args=(number,)) for number in range(4)]
        for child in children:
            child.start()
        for value in range(20):
            run.log_metric("parent", value)
        for child in children:
            child.join()
    again = client.get_run(run.id)
    counts = {key: len(again.series(key)) for key in again.metrics}
    assert counts == {"parent": 21, "child-0": 20, "child-1": 20, "child-2": 20, "child-3": 20}
    assert again.status == "FINISHED"
    client.close()


def test_a_forked_worker_joins_the_run_by_its_id(tmp_path: Path) -> None:
    """Guards that what works in a spawned worker works in a forked one, which inherits an active run."""

    def work() -> None:
        with mlcore.Client(tmp_path).start_run(run_id=run.id) as joined:
            joined.log_metric("theirs", 1)

    with mlcore.Client(tmp_path).start_run() as run:
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join()
        run.log_metric("ours", 1)
    assert (child.exitcode, mlcore.Client(tmp_path).get_run(run.id).metrics) == (0, {"theirs": 1.0, "ours": 1.0})


@pytest.mark.parametrize("key", ["", None, 3, ["a"], "a\nb"], ids=repr)
def test_what_cannot_be_a_key_is_refused_by_name(key: object, register: Callable[..., None]) -> None:
    """Guards the same error in every store, for keys that no dict can hold as well."""
    shelf = Shelf()
    register(lambda uri: MemoryStore(shelf))
    client = mlcore.Client("other://x")
    with client.start_run() as run, pytest.raises(InvalidValue, match="key"):
        run.log_metric(key, 1)  # type: ignore[arg-type]
    assert client.get_run(run.id).metrics == {}
