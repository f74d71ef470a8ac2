"""What is logged for a store that is no folder: spooled at once, shipped by a thread, whatever the store does."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mlcore
from memory_store import MemoryStore, Shelf
from mlcore import Provider, plugins
from mlcore.errors import ArtifactError, ArtifactNotFound, ConfigError, InvalidValue, Malformed, StoreError, UnsafePath
from mlcore.store import Batch, RowsLogged, Unknown
from mlcore_local import FolderStore, uploading
from mlcore_local.keeping import pending
from mlcore_local.shipping import SetAside, Shipper
from mlcore_local.spools import Spool, spool_of
from mlcore_local.uploads import Uploads
from mlcore_local.waiting import waiting

URI = "toy://x"


class Toy(MemoryStore):
    """A toy store: it is reached or not, refuses a metric called "bad", and counts what it is sent, as it is told."""

    reached, late, deaf, sent = True, 0.0, 0, 0

    def append(self, batch: Batch) -> None:
        type(self).sent += 1
        time.sleep(self.late)
        if not self.reached:
            raise ConnectionRefusedError("nobody listens there")
        if any(isinstance(e, RowsLogged) and e.key == "bad" for r in batch.records for e in r.events):
            raise Malformed("the store wants no 'bad'")
        super().append(batch)
        if self.deaf:
            type(self).deaf -= 1
            raise ConnectionResetError("the answer was cut off")

    def find(self, kind: str, query: Any) -> Any:
        if not self.reached:
            raise StoreError("nobody listens there")
        return super().find(kind, query)

    def get(self, kind: str, ids: Any) -> Any:
        time.sleep(self.late)
        if not self.reached:
            raise StoreError("nobody listens there")
        return super().get(kind, ids)


class Toys:
    """Make toys of one shelf, and let them all be changed."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.kind: type[Toy] = type("OneToy", (Toy,), {})

    def open(self, uri: str) -> Toy:
        return self.kind(self.shelf)

    def records(self) -> list[tuple[str, int]]:
        """Return source and number of every record that is stored."""
        return [(each.batch.source, r.number) for each in self.shelf.stored for r in each.batch.records]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Toys]:
    """Provide toy stores under the scheme ``toy`` until the test ends."""
    found = Toys()
    monkeypatch.setenv("MLCORE_SPOOL_WAIT", "5s")
    plugins.register(SimpleNamespace(mlcore_stores=lambda: [Provider("toy", found.open)]), "toys")
    yield found
    found.kind.reached, found.kind.late = True, 0.0
    while (run := mlcore.active_run()) is not None:  # of a test that failed
        run.end()
    plugins.unregister("toys")


@pytest.fixture
def spool(toys: Toys) -> Spool:
    """Return where the runs of the toys are spooled."""
    return spool_of(URI)


def until(done: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something."""
    limit = time.monotonic() + seconds
    while not done() and time.monotonic() < limit:
        time.sleep(0.01)
    assert done()


def shipped(spool: Spool, toys: Toys, **options: Any) -> list[SetAside]:
    """Ship a spool as `mlcore sync` does; return what was set aside."""
    found: list[SetAside] = []
    shipper = Shipper(spool, lambda: toys.open(URI), lambda id: "", found.append, **options)
    for home in spool.homes():
        shipper.ship(home)
    shipper.close()
    return found


def test_what_is_logged_is_read_at_once(toys: Toys) -> None:
    """Guards that nobody sees that a thread ships: a process reads what it wrote, live and ended."""
    client = mlcore.Client(URI)
    with client.start_run(name="one") as run:
        run.log_metric("loss", 0.5)
        assert list(client.get_run(run.id).series("loss").values) == [0.5]
        run.log_params({"lr": 0.1})
        assert client.get_run(run.id).params == {"lr": 0.1}
    assert (client.get_run(run.id).status, run.status, mlcore.Client(URI).get_run(run.id).name) == (
        *["FINISHED"] * 2, "one",
    )  # fmt: skip


def test_nothing_is_lost_or_doubled_while_the_store_is_away(toys: Toys, spool: Spool) -> None:
    """Guards a run whose store comes back, and whose answers are cut off after they were stored."""
    toys.kind.reached = False
    client = mlcore.Client(URI)
    with client.start_run() as run:
        for step in range(100):
            run.log_metric("loss", step)
        toys.kind.reached, toys.kind.deaf = True, 3
    until(lambda: client.get_run(run.id).status == "FINISHED")
    assert list(client.get_run(run.id).series("loss").values) == list(range(100))
    assert len(toys.records()) == len(set(toys.records()))


def test_who_waits_goes_on_waiting_when_the_store_answers_again(
    toys: Toys, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the last seconds of a run from a round that began before and succeeds: it is not the one waited for."""
    there, asked, answered = threading.Event(), threading.Event(), threading.Event()

    class Held(toys.kind):  # type: ignore[name-defined, misc]
        def append(self, batch: Batch) -> None:
            if not there.is_set():
                raise ConnectionRefusedError("nobody listens there")
            asked.set()
            answered.wait(20)
            super().append(batch)

    toys.kind = Held
    run = mlcore.Client(URI).start_run()
    uploader = uploading._uploaders[spool.root]
    until(lambda: uploader._failures > 0)
    there.set()
    uploader.ready()  # wakes the thread
    assert asked.wait(20)
    run.log_metric("loss", 0.5)
    run.end()
    finish = threading.Thread(target=uploader.finish)
    before = uploader._asked
    finish.start()
    until(lambda: uploader._asked > before)
    answered.set()
    finish.join()
    assert ("yet" in caplog.text, uploader._homes) == (False, {})


def test_no_call_waits_for_a_store_that_is_slow(toys: Toys) -> None:
    """Guards training from the network: while the store is slow by seconds, nobody waits for it."""
    toys.kind.late = 3.0
    began = time.monotonic()
    client = mlcore.Client(URI)
    client.set_experiment("digits")
    run = client.start_run(tags={"a": "b"})
    for step in range(100):
        run.log_metrics({"loss": step, "acc": step})
    run.log_params({"a": 1})
    run.end()
    assert time.monotonic() - began < 1
    toys.kind.late = 0.0


def test_a_run_that_goes_on_is_named_and_asked_while_the_store_is_away(toys: Toys) -> None:
    """Guards what a script prints of its own run: the spool knows it."""
    toys.kind.reached = False
    with mlcore.Client(URI).start_run(name="mine") as run:
        run.log_params({"lr": 0.1})
        assert (run.name, run.status, run.params) == ("mine", "RUNNING", {"lr": 0.1})
    with pytest.raises(StoreError, match="nobody listens"):
        mlcore.Client(URI).list_runs()


def test_what_is_refused_is_set_aside_and_the_rest_goes_on(
    toys: Toys, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards a run from one record that no store takes: only that one is missing, and it is told and kept."""
    client = mlcore.Client(URI)
    with client.start_run() as run:
        for step in range(50):
            run.log_metrics({"good": step} if step != 20 else {"bad": step})
    assert list(client.get_run(run.id).series("good").values) == [*range(20), *range(21, 50)]
    assert "bad" not in client.get_run(run.id).metrics
    assert "the store wants no 'bad'" in caplog.text
    placeholders = [
        event for each in toys.shelf.stored for r in each.batch.records for event in r.events
        if isinstance(event, Unknown)
    ]  # fmt: skip
    assert [event.type for event in placeholders] == ["SetAside"]
    assert run.id in waiting(spool).set_aside[0]
    assert shipped(spool, toys, again=True) == []  # and nothing is sent twice


def test_who_begins_anew_after_a_refusal_sends_the_same(toys: Toys, spool: Spool) -> None:
    """Guards the digests: what was set aside stays so when a process dies before it remembered how far it came."""
    with mlcore.Client(URI).start_run() as run:
        for step in range(10):
            run.log_metric("bad" if step == 5 else "good", step)
    until(lambda: not waiting(spool).runs)
    (note,) = spool.run_folder(run.id).glob("*.shipped")
    content = json.loads(note.read_bytes())
    note.write_text(json.dumps(content | {"mark": [0, ""], "size": -1}))
    before = toys.records()
    assert shipped(spool, toys) == []
    assert toys.records() == before


def test_a_store_that_was_put_back_gets_all_of_it_again(toys: Toys, spool: Spool) -> None:
    """Guards a store that is restored from a backup while a run goes on: what it lost is still here."""
    with mlcore.Client(URI).start_run() as run:
        run.log_metric("loss", 1)
        until(lambda: len(toys.records()) >= 2)
        with toys.shelf.lock:
            toys.shelf.stored.clear()
            toys.shelf.marks = type(toys.shelf.marks)()
        run.log_metric("loss", 2)
    fresh = toys.open(URI)
    until(lambda: len(toys.records()) >= 4)
    (series,) = fresh.series("run", [run.id], ["loss"]).values()
    assert list(series["value"]) == [1, 2]


def test_a_damaged_record_does_not_hold_up_the_others(toys: Toys, spool: Spool) -> None:
    """Guards what a bad disk left of a journal."""
    toys.kind.reached = False
    with mlcore.Client(URI).start_run() as run:
        for step in range(10):
            run.log_metric("loss", step, time=step)
    (path,) = spool.run_folder(run.id).glob("*.journal")
    data = bytearray(path.read_bytes())
    data[-300] ^= 1
    path.write_bytes(data)
    fresh = Toys()  # the run's own uploader may have read it before, and goes on being refused
    until(lambda: (shipped(spool, fresh), bool(waiting(spool).set_aside))[1])
    (series,) = fresh.open(URI).series("run", [run.id], ["loss"]).values()
    assert len(series["value"]) == 9
    assert "damaged" in waiting(spool).set_aside[0]


def test_a_live_run_gives_signs_of_life(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a run that logs nothing for long from being shown as lost."""
    monkeypatch.setattr("mlcore_local.shipping._SIGN_SECONDS", 0.1)
    monkeypatch.setattr("mlcore_local.uploading.POLL_SECONDS", 0.05)
    with mlcore.Client(URI).start_run() as run:
        until(lambda: sum(not each.batch.records for each in toys.shelf.stored) >= 3)
        assert {each.batch.home for each in toys.shelf.stored} == {run.id}


def test_a_renamed_experiment_is_known_after_it_was_heard_of(toys: Toys) -> None:
    """Guards names: they stand for ids that a server may have changed, and a start asks what was heard last."""
    client = mlcore.Client(URI)
    with client.start_run(experiment="old") as first:
        pass
    client.get_experiment("old").rename("new")
    until(lambda: (client.start_run(experiment="new").end(), client.list_runs("new")[0].experiment_id)[1]
          == first.experiment_id)  # fmt: skip
    toys.kind.reached = False
    with client.start_run(experiment="new") as away, client.start_run(experiment="old", nested=True) as other:
        pass
    toys.kind.reached = True
    until(lambda: client.get_run(other.id).status == "FINISHED")
    assert client.get_run(away.id).experiment_id == first.experiment_id != client.get_run(other.id).experiment_id


def test_a_requeued_job_goes_on_while_the_store_is_away(toys: Toys, caplog: pytest.LogCaptureFixture) -> None:
    """Guards a run of a key: it waits two seconds at most, and then goes on from what is known here."""
    client = mlcore.Client(URI)
    with client.start_run(key="job") as run:
        run.log_metric("loss", 1)
    toys.kind.reached = False
    with client.start_run(key="job") as again:
        again.log_metric("loss", 2)
    assert again.id == run.id
    assert "goes on from what is known here" in caplog.text
    toys.kind.reached = True
    until(lambda: list(client.get_run(run.id).series("loss").steps) == [0, 1])


def test_a_store_that_never_answers_delays_a_requeued_job_by_two_seconds(toys: Toys) -> None:
    """Guards a start against a black hole, and the run from what the late answer would do."""
    toys.kind.late = 4.0
    began = time.monotonic()
    with mlcore.Client(URI).start_run(key="job") as run:
        waited = time.monotonic() - began
        run.log_metric("loss", 1)
    assert 1.9 < waited < 3.5
    toys.kind.late = 0.0
    time.sleep(3)
    until(lambda: mlcore.Client(URI).get_run(run.id).status == "FINISHED")
    assert not toys.shelf.claims


def test_a_worker_joins_a_run_of_this_machine_without_asking(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards data loaders and ranks: they join by MLCORE_RUN_ID although the store is away, and do not end the run."""
    toys.kind.reached = False
    monkeypatch.setattr("mlcore_local.uploading.ASK_SECONDS", 0.0)
    client = mlcore.Client(URI)
    run = client.start_run()

    def work() -> None:
        with mlcore.Client(URI).start_run(run_id=run.id) as joined:
            joined.log_metric("theirs", 1)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    run.log_metric("ours", 2)
    toys.kind.reached = True
    assert child.exitcode == 0
    until(lambda: client.get_run(run.id).metrics == {"ours": 2, "theirs": 1})
    assert run.status == "RUNNING"
    run.end()


def test_the_parent_ships_what_a_forked_child_logs(toys: Toys) -> None:
    """Guards forked workers, in which no thread of the parent runs: what they log into its run arrives."""
    client = mlcore.Client(URI)
    with client.start_run() as run:
        run.log_metric("loss", 1)
        client.get_run(run.id)
        pid = os.fork()
        if not pid:
            run.log_metric("child", 1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        until(lambda: client.get_run(run.id).metrics == {"loss": 1, "child": 1})


def test_editing_an_ended_run_is_online_and_fails_aloud(toys: Toys) -> None:
    """Guards whoever edits from believing that it was done."""
    client = mlcore.Client(URI)
    with client.start_run() as run:
        pass
    found = client.get_run(run.id)
    found.set_tag("verdict", "good")
    assert client.get_run(run.id).tags == {"verdict": "good"}
    found = client.get_run(run.id)
    toys.kind.reached = False
    with pytest.raises(StoreError, match="nobody listens"):
        found.set_tag("verdict", "bad")


def test_off_means_no_spool(toys: Toys, monkeypatch: pytest.MonkeyPatch, spool: Spool) -> None:
    """Guards the setting that writes directly, as for a machine without a disk."""
    monkeypatch.setenv("MLCORE_SPOOL", "off")
    with mlcore.Client(URI).start_run() as run:
        assert len(toys.records()) == 1
    assert toys.open(URI).get("run", [run.id]) != [None]
    assert not spool.root.exists()


def test_a_folder_store_is_spooled_when_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a store on a slow network disk: runs are written to this machine's, and shipped there with their files."""
    monkeypatch.setenv("MLCORE_SPOOL", str(tmp_path / "local"))
    (tmp_path / "note.txt").write_text("hello")
    client = mlcore.Client(tmp_path / "slow")
    with client.start_run() as run:
        run.log_metric("loss", 1)
        run.log_artifact(tmp_path / "note.txt")
    assert list(client.get_run(run.id).series("loss").values) == [1]
    assert client.get_run(run.id).artifacts.get("note.txt").read_text() == "hello"
    assert (Path(FolderStore(tmp_path / "slow").place(run.id)) / "note.txt").exists()
    (each,) = [path for path in (tmp_path / "local").iterdir() if path.is_dir()]
    assert [pending(folder) for folder in each.glob("runs/*/*")] == [[]]
    client.close()


class TestFiles:
    """Files of runs, in the spool and on their way."""

    @pytest.fixture
    def client(self, toys: Toys, tmp_path: Path) -> mlcore.Client:
        return mlcore.Client(URI, artifacts=tmp_path / "files")

    def test_they_wait_with_the_run(self, client: mlcore.Client, toys: Toys, spool: Spool, tmp_path: Path) -> None:
        """Guards files while the store is away: they can be changed and removed, and what was logged arrives."""
        toys.kind.reached = False
        (tmp_path / "a.txt").write_text("as it was")
        with client.start_run() as run:
            run.log_artifact(tmp_path / "a.txt")
            run.log_text("first", "b.txt")
            run.log_text("second", "b.txt")
        (tmp_path / "a.txt").write_text("changed")
        assert len(pending(spool.run_folder(run.id))) == 2
        toys.kind.reached = True
        until(lambda: not pending(spool.run_folder(run.id)))
        files = client.get_run(run.id).artifacts
        assert (files.get("a.txt").read_text(), files.get("b.txt").read_text()) == ("as it was", "second")
        assert list(files.verify()) == []

    def test_a_large_one_stays_where_it_is(
        self, client: mlcore.Client, toys: Toys, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards the disk from a second copy of what is large, and the store from what it is not any more."""
        monkeypatch.setattr("mlcore_local.keeping._COPIED", 10)
        monkeypatch.setattr("mlcore_local.keeping._clone", lambda source, path: False)
        toys.kind.reached = False
        for name in ("same", "changed", "removed"):
            (tmp_path / name).write_text(f"large {name}" * 10)
        with client.start_run() as run:
            for name in ("same", "changed", "removed"):
                run.log_artifact(tmp_path / name)
            run.log_metric("loss", 1)
        (tmp_path / "changed").write_text("other")
        (tmp_path / "removed").unlink()
        assert not [each for each in pending(spool.run_folder(run.id)) if each.copied]
        toys.kind.reached = True
        until(lambda: client.get_run(run.id).status == "FINISHED")
        assert [each.path for each in client.get_run(run.id).artifacts.list()] == ["same"]
        assert client.get_run(run.id).artifacts.get("same").read_text() == "large same" * 10
        assert client.get_run(run.id).metrics == {"loss": 1}
        told = "\n".join(waiting(spool).set_aside)
        assert "changed before it was uploaded" in told
        assert "was removed before it was uploaded" in told

    def test_a_large_one_does_not_hold_up_the_metrics(
        self, client: mlcore.Client, toys: Toys, spool: Spool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards curves from a slow upload: what comes after a large file is there before it, and the file once."""
        going, put = threading.Event(), Uploads._put

        def slow(self: Uploads, home: str, file: Any) -> None:
            assert going.wait(30)
            put(self, home, file)

        monkeypatch.setattr(Uploads, "_put", slow)
        monkeypatch.setattr("mlcore_local.shipping._AT_ONCE", 1_000)
        with client.start_run() as run:
            run.log_bytes(b"x" * 2_000, "large")
            run.log_metric("loss", 1)
        store = toys.open(URI)
        until(lambda: bool(store.series("run", [run.id], ["loss"])))
        assert "artifacts" not in store.get("run", [run.id])[0].attributes
        assert waiting(spool).runs == 1
        going.set()
        until(lambda: [each.path for each in client.get_run(run.id).artifacts.list()] == ["large"])
        assert list(client.get_run(run.id).artifacts.verify()) == []
        until(lambda: not waiting(spool).runs)
        assert waiting(spool).set_aside == ()
        assert len(toys.records()) == len(set(toys.records()))

    def test_a_place_that_cannot_be_reached_does_not_hold_up_the_metrics(
        self, client: mlcore.Client, toys: Toys, spool: Spool, tmp_path: Path
    ) -> None:
        """Guards runs whose files go to a bucket that says no: all else arrives, and they do once it says yes."""
        (tmp_path / "files").write_text("in the way")
        with client.start_run() as run:
            run.log_text("hello", "a.txt")
            run.log_metric("loss", 1)
        store = toys.open(URI)
        until(lambda: bool(store.series("run", [run.id], ["loss"])))
        assert waiting(spool).runs == 1
        (tmp_path / "files").unlink()
        until(lambda: [each.path for each in client.get_run(run.id).artifacts.list()] == ["a.txt"])
        assert client.get_run(run.id).artifacts.get("a.txt").read_text() == "hello"

    def test_a_spool_has_a_limit_for_files(
        self, client: mlcore.Client, spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Guards the disk, and the training: a file too much is told once and counted, metrics go on."""
        monkeypatch.setenv("MLCORE_SPOOL_LIMIT", "1kB")
        with client.start_run() as run:
            run.log_text("small", "small.txt")
            for number in range(3):
                run.log_bytes(b"x" * 2_000, f"large-{number}")
            run.log_metric("loss", 1)
        assert [each.path for each in client.get_run(run.id).artifacts.list()] == ["small.txt"]
        assert client.get_run(run.id).metrics == {"loss": 1}
        assert caplog.text.count("a file is not kept") == 1

    def test_what_is_no_file_is_told_at_once(self, client: mlcore.Client, tmp_path: Path) -> None:
        """Guards the mistakes of whoever logs: they are raised as without a spool."""
        with client.start_run() as run:
            with pytest.raises(ArtifactNotFound, match="there is no file"):
                run.log_artifact(tmp_path / "missing")
            with pytest.raises(UnsafePath):
                run.log_text("x", "../x")
            with pytest.raises(InvalidValue):
                run.log_text(3, "x")  # type: ignore[arg-type]

    def test_a_store_without_a_place_says_so(self, toys: Toys) -> None:
        """Guards the hint that no place for files was named, as soon as the store is there."""
        with mlcore.Client(URI).start_run() as run, pytest.raises(ArtifactError, match="MLCORE_ARTIFACTS"):
            run.log_text("x", "x")


def test_what_was_shipped_is_dropped_after_a_while(toys: Toys, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the disk: a run that ended and is shipped goes after spool_keep, one with something set aside stays."""
    toys.kind.reached = False
    for key in ("good", "bad"):
        pid = os.fork()  # whose process is gone, so that nobody can go on with it
        if not pid:
            run = mlcore.Client(URI).start_run()
            run.log_metric(key, 1)
            run.end()
            os._exit(0)
        os.waitpid(pid, 0)
    toys.kind.reached = True
    assert len(spool.homes()) == 2
    shipper = Shipper(spool, lambda: toys.open(URI), lambda id: "")
    shipper.adopt()
    assert len(spool.homes()) == 2
    monkeypatch.setenv("MLCORE_SPOOL_KEEP", "0s")
    shipper.tidy()
    shipper.close()
    assert len(spool.homes()) == 1
    assert len(waiting(spool).set_aside) == 1


@pytest.mark.parametrize(("key", "value"), [("WAIT", "soon"), ("KEEP", "x"), ("LIMIT", "much"), ("LIMIT", "")])
def test_a_setting_that_says_nothing_is_told_at_the_start(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    """Guards whoever mistypes a time or a size from hearing of it as the training ends."""
    monkeypatch.setenv(f"MLCORE_SPOOL_{key}", value)
    if not value:  # is as if it were not set
        mlcore.Client(URI).start_run().end()
        return
    with pytest.raises(ConfigError, match=f"spool_{key.lower()} is a"):
        mlcore.Client(URI).start_run()
    assert mlcore.active_run() is None
