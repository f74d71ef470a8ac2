"""mlcore on a server, from end to end: what is done with a folder is done with a URL, whatever comes over the wire."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlcore
from histories import log_everything
from mlcore.errors import Malformed
from mlcore.store import Batch, Query
from mlcore.testing import Writer, new_id, points, run_batch
from mlcore.testing._checking import exact_entity, stored_records
from mlcore_local import FolderStore
from mlcore_remote.protocol import API, BATCHES, pack_batches
from mlcore_remote.store import RemoteStore
from serving import Thread, serving_here


@pytest.fixture(params=["folder", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Thread]:
    """Yield a server of an empty store."""
    store = tmp_path / "store" if request.param == "folder" else f"sqlite:///{tmp_path / 'store.db'}"
    with serving_here(store, token="mlc_token-of-these-tests-0123456789-abc") as running:
        yield running


def in_order(store: FolderStore) -> list[Batch]:
    """Return what is stored, every source from its beginning: some of it lies in files of claims."""
    return sorted((each.batch for each in store.events()), key=lambda batch: batch.first)


def test_everything_that_can_be_logged_comes_back(server: Thread, tmp_path: Path) -> None:
    """Guards entities, history and series: a store that was copied to a server and back is the same."""
    log_everything(tmp_path / "here")
    here = FolderStore(tmp_path / "here")
    there = RemoteStore(server.url, token=server.token)
    batches = in_order(here)
    assert there.append_all(batches) == [None] * len(batches)
    assert stored_records(there.events()) == stored_records(here.events())
    for kind in ("run", "experiment", "prompt", "model"):
        ours, theirs = here.find(kind, Query(count=True)), there.find(kind, Query(count=True))
        assert ours.count == theirs.count
        assert [exact_entity(each) for each in theirs.items] == [exact_entity(each) for each in ours.items]
        ids = [each.id for each in ours.items]
        mine, other = here.series(kind, ids), there.series(kind, ids)
        assert mine.keys() == other.keys()
        for key, columns in mine.items():
            assert {name: repr(list(each)) for name, each in columns.columns.items()} == {
                name: repr(list(each)) for name, each in other[key].columns.items()
            }
    here.close()
    there.close()


def test_a_client_reads_a_server_as_a_folder(server: Thread, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards the whole of the reading side: names, filters, metrics and experiments."""
    monkeypatch.setenv("MLCORE_STORE", server.url)
    monkeypatch.setenv("MLCORE_TOKEN", server.token)
    log_everything(tmp_path / "here")
    there = RemoteStore(server.url)
    there.append_all(in_order(FolderStore(tmp_path / "here")))
    ours, theirs = mlcore.Client(tmp_path / "here"), mlcore.Client(server.url)
    for where in ("metrics.loss < 0.5", "params.text like 'sp%' or tags.owner = 'me'", "status = 'FINISHED'", ""):
        found = [[run.id for run in each.search_runs(where, experiment="*")] for each in (ours, theirs)]
        assert found[0] == found[1] != []
    name = "name = 'run 1'"
    run, same = (each.search_runs(name, experiment="*")[0] for each in (theirs, ours))
    assert (run.params, run.tags, run.note, run.status) == (same.params, same.tags, same.note, same.status)
    assert list(run.series("accuracy").values) == list(same.series("accuracy").values)
    assert [each.name for each in theirs.list_experiments()] == [each.name for each in ours.list_experiments()]
    ours.close()
    theirs.close()


def test_the_names_of_a_family_are_listed(server: Thread) -> None:
    """Guards what completes a name that somebody types."""
    there = RemoteStore(server.url, token=server.token)
    script = "\N{MATHEMATICAL SCRIPT SMALL A}"
    there.append(run_batch(params={"b": 1, script: 2}, metrics={"loss": [1.0], "acc": [1.0]}))
    there.append(run_batch(params={"a": 1, "ab": 1}, fields={"deleted": True}))
    assert there.keys("run", "params") == ["a", "ab", "b", script]
    assert there.keys("run", "params", "a") == ["a", "ab"]
    assert there.keys("run", "params", "", 1) == ["a"]
    assert there.keys("run", "metrics") == ["acc", "loss"]
    assert there.keys("run", "tags") == there.keys("model", "params") == []
    with pytest.raises(Malformed):
        there.keys("run", "params", limit=-1)


def test_messages_with_any_damage_are_refused_and_nothing_breaks(server: Thread) -> None:
    """Guards the server: of a thousand damaged messages none is an error of the server's own, and it goes on."""
    writer = Writer(new_id())
    good = [
        pack_batches([run_batch(claim=f"name/{new_id()}", params={"a": [1, {"b": None}]}, metrics={"x": [1.0, 2.0]})]),
        pack_batches([writer.batch(points(writer.home, "loss", [0.5])), writer.life_sign()]),
    ]
    connection = RemoteStore(server.url, token=server.token).connection
    dice, seen = random.Random(7), set()
    for _ in range(500):
        data = bytearray(dice.choice(good))
        for _ in range(dice.choice([1, 1, 3])):
            at = dice.randrange(8, len(data))
            if dice.random() < 0.5:
                data[at] = dice.randrange(256)
            else:
                data[at : at + dice.randrange(5)] = dice.randbytes(dice.randrange(5))
        answer = connection.request(
            "POST", f"{API}/batches", body=bytes(data), headers={"Content-Type": BATCHES}, expected=range(400, 600)
        )
        seen.add(answer.status)
    assert seen <= {200, 400}
    there = RemoteStore(server.url, token=server.token)
    there.append(run_batch(name := new_id()))
    assert there.get("run", [name])[0] is not None
    there.find("run", Query())
    list(there.events())
