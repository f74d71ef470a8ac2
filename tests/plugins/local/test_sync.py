"""``mlcore sync`` and `mlcore_local.sync`: one store gets what another has, once, whatever happens in between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

import mlcore
from faults.processes import answers, crowd, fsck, mlcore as program, run as python
from histories import log_everything
from memory_store import MemoryStore, Shelf
from mlcore.errors import NotSupported, StoreError
from mlcore.store import START, Batch, Capabilities, Created, Stored, Updated
from mlcore.testing import Writer, points, run_batch
from mlcore_local import FolderStore
from mlcore_local.sync import missing, sync, verify


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with something of everything; nobody writes to it any more."""
    store = tmp_path_factory.mktemp("full") / "store"
    log_everything(store)
    return store


class Counting(FolderStore):
    """Count what is appended, and be unreachable after so many batches."""

    def __init__(self, root: Path, limit: int = 1_000_000) -> None:
        super().__init__(root)
        self.batches: list[Batch] = []
        self.limit = limit

    def append(self, batch: Batch) -> None:
        if len(self.batches) == self.limit:
            raise StoreError("the network is gone")
        super().append(batch)
        self.batches.append(batch)


def test_a_copy_answers_as_the_original_does(full: Path, tmp_path: Path) -> None:
    """Guards every kind of event: what is found, shown and plotted is the same."""
    source, target = FolderStore(full), FolderStore(tmp_path / "copy")
    report = sync(source, target)
    assert report.refused == []
    assert answers(tmp_path / "copy") == answers(full)
    assert target.get("model", ["m", "n"]) == source.get("model", ["m", "n"])
    assert target.get("prompt", ["hello"]) == source.get("prompt", ["hello"])
    assert verify(source, target) == verify(target, source) == []
    assert fsck(tmp_path, tmp_path / "copy")["findings"] == []


def test_what_came_over_is_sealed(full: Path, tmp_path: Path) -> None:
    """Guards that reading the copy costs what reading the original does."""
    sync(FolderStore(full), FolderStore(tmp_path / "copy"))
    names = [
        {path.parent.name for path in place.glob("runs/*/*/*") if path.name == "sealed"}
        for place in (full, tmp_path / "copy")
    ]
    assert names[0] <= names[1]


def test_through_any_other_store_and_back_it_is_the_same(full: Path, tmp_path: Path) -> None:
    """Guards stores that plugins bring, with positions that last or do not."""
    shelf = Shelf()
    sync(FolderStore(full), MemoryStore(shelf))
    report = sync(MemoryStore(shelf), FolderStore(tmp_path / "back"))
    assert report.refused == []
    assert answers(tmp_path / "back") == answers(full)
    assert verify(FolderStore(full), FolderStore(tmp_path / "back")) == []


def test_once_more_sends_nothing_and_then_only_what_is_new(full: Path, tmp_path: Path) -> None:
    """Guards the cost of a sync every minute."""
    source, target, memory = shutil.copytree(full, tmp_path / "s"), tmp_path / "copy", tmp_path / "memory"
    first = sync(FolderStore(source), FolderStore(target), memory=memory)
    again = sync(FolderStore(source), FolderStore(target), memory=memory)
    assert first.records > 50
    assert (again.records, again.batches, again.sources) == (0, 0, 0)
    with mlcore.Client(source).start_run(name="later") as run:
        run.log_metric("x", 1)
        counting = Counting(target)
        assert sync(FolderStore(source), counting, memory=memory).sources == 1
        assert {batch.home for batch in counting.batches} == {run.id}
        run.log_metric("x", 2)
        counting = Counting(target)
        assert sync(FolderStore(source), counting, memory=memory).records == 1
        assert counting.batches[0].first == 3
    sync(FolderStore(source), FolderStore(target), memory=memory)
    assert answers(target) == answers(source)


def test_a_store_whose_positions_last_is_read_on_from_there(tmp_path: Path) -> None:
    """Guards that a large history is not read anew, and that a position that was lost is no end."""

    class Lasting(MemoryStore):
        capabilities = attrs.evolve(MemoryStore.capabilities, shared_positions=True)
        asked: ClassVar[list[str]] = []

        def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:
            self.asked.append(after)
            return super().events(after, **asked)

    source, memory, writer = Lasting(Shelf()), tmp_path / "memory", Writer()
    source.append(writer.batch(Created("run", "a")))
    for number in range(3):
        report = sync(source, FolderStore(tmp_path / "copy"), memory=memory)
        assert report.records == 1
        source.append(writer.batch(Updated("run", "a", {"n": number})))
    assert "" not in Lasting.asked[1:]
    other = Lasting(Shelf())
    other.append(run_batch())
    Lasting.asked.clear()
    assert sync(other, FolderStore(tmp_path / "copy"), memory=memory).refused == []
    assert len(FolderStore(tmp_path / "copy").find("run", mlcore.store.Query()).items) == 2


@pytest.mark.parametrize("loss", ["gone", "older", "one run", "other"])
def test_what_is_remembered_is_not_believed_when_the_target_lost_it(full: Path, tmp_path: Path, loss: str) -> None:
    """Guards whoever puts back a backup, or starts the target anew: nothing is left out for good."""
    source, target, memory = shutil.copytree(full, tmp_path / "s"), tmp_path / "copy", tmp_path / "memory"
    sync(FolderStore(source), FolderStore(target), memory=memory)
    shutil.copytree(target, tmp_path / "older")
    with mlcore.Client(source).start_run(name="later") as run:
        run.log_metric("x", 1)
        sync(FolderStore(source), FolderStore(target), memory=memory)
        if loss == "one run":
            shutil.rmtree(target / "runs" / run.id[-2:] / run.id)
        else:
            shutil.rmtree(target)
        if loss == "older":
            (tmp_path / "older").rename(target)
        if loss == "other":
            FolderStore(target).append(run_batch(run.id))
        run.log_metric("x", 2)
    sync(FolderStore(source), FolderStore(target), memory=memory)
    assert verify(FolderStore(source), FolderStore(target)) == []


def test_a_memory_that_is_rubbish_is_no_memory(full: Path, tmp_path: Path) -> None:
    """Guards against a file that somebody else wrote, or half of one."""
    memory = tmp_path / "memory"
    for text in ("", "{", "[]", '{"format": 1}', '{"format": 1, "journals": {"a": 1}}', '{"format": 2}', "\0"):
        memory.write_text(text)
        sync(FolderStore(full), FolderStore(tmp_path / "copy"), memory=memory)
        assert verify(FolderStore(full), FolderStore(tmp_path / "copy")) == []


def test_an_unreachable_target_ends_it_and_the_next_time_goes_on(full: Path, tmp_path: Path) -> None:
    """Guards the network: what came over before is not sent again."""
    memory, sent = tmp_path / "memory", 0
    for _ in range(100):
        counting = Counting(tmp_path / "copy", limit=3)
        try:
            sync(FolderStore(full), counting, memory=memory)
        except StoreError:
            sent += len(counting.batches)
        else:
            break
    assert verify(FolderStore(full), FolderStore(tmp_path / "copy")) == []
    whole = Counting(tmp_path / "whole")
    sync(FolderStore(full), whole)
    assert sent <= len(whole.batches)


class TestRefusals:
    """What the target does not take is set aside, and all the rest comes over."""

    def test_a_claim_that_is_held_there(self, tmp_path: Path) -> None:
        """Two stores may each have made an experiment of one name: their runs meet in it."""
        clients = [mlcore.Client(tmp_path / name) for name in ("one", "other")]
        for client in clients:
            client.create_experiment("both")
            with client.start_run(experiment="both"):
                pass
        for _ in range(2):
            report = sync(clients[0].store, clients[1].store, memory=tmp_path / "memory")
            (refusal,) = report.refused
            assert refusal.records == 1
            assert "'both' of an experiment was taken in both stores" in refusal.reason
        assert len(mlcore.Client(tmp_path / "other").list_runs("both")) == 2

    @pytest.mark.parametrize("lasting", [False, True])
    def test_other_content_under_the_same_source(self, tmp_path: Path, lasting: bool) -> None:
        """A journal that was copied and went on in two places is told of, each time, and keeps back nobody else."""

        class Source(MemoryStore):
            capabilities = Capabilities(shared_positions=lasting)

        source, target = Source(Shelf()), FolderStore(tmp_path / "copy")
        ours, theirs = Writer("a" * 32, source="b" * 32), Writer("a" * 32, source="b" * 32)
        target.append(theirs.batch(Created("run", "a" * 32)))
        source.append(ours.batch(Created("run", "a" * 32), Updated("run", "a" * 32, {"n": 1})))
        for number in range(3):
            source.append(ours.batch(Updated("run", "a" * 32, {"n": 2})))
            source.append(run_batch())
            report = sync(source, target, memory=tmp_path / "memory")
            (refusal,) = report.refused
            assert (refusal.source, refusal.home, refusal.records) == (ours.source, ours.home, number + 2)
            assert "went on elsewhere" in refusal.reason
            assert report.records == (1 if lasting else number + 1)
        assert len(target.find("run", mlcore.store.Query()).items) == 4

    def test_a_journal_that_is_damaged_in_the_middle(self, tmp_path: Path) -> None:
        """What is before the damage comes over, what is behind cannot; `mlcore fsck` is named."""
        writer, source = Writer("a" * 32), FolderStore(tmp_path / "s")
        source.append(writer.batch(Created("run", writer.home)))
        source.append(writer.batch(Updated("run", writer.home, {"note": "x" * 100})))
        source.append(writer.batch(points(writer.home, "x", [1.0])))
        source.append(run_batch())
        (path,) = (tmp_path / "s" / "runs" / "aa").glob("*/*.journal")
        data = path.read_bytes()
        path.write_bytes(data.replace(b"x" * 100, b"y" * 100))
        report = sync(FolderStore(tmp_path / "s"), FolderStore(tmp_path / "copy"), memory=tmp_path / "memory")
        (refusal,) = report.refused
        assert "fsck" in refusal.reason
        assert report.records == 2
        path.write_bytes(data)  # it was put back from a backup
        assert (
            sync(FolderStore(tmp_path / "s"), FolderStore(tmp_path / "copy"), memory=tmp_path / "memory").refused == []
        )
        assert verify(FolderStore(tmp_path / "s"), FolderStore(tmp_path / "copy")) == []

    def test_a_store_without_history(self, tmp_path: Path) -> None:
        """There is nothing to send from a store that keeps only what is current."""

        class Current(MemoryStore):
            capabilities = Capabilities(history=False)

        with pytest.raises(NotSupported, match="history"):
            sync(Current(Shelf()), FolderStore(tmp_path / "copy"))


class TestVerify:
    """What is not the same is found, source by source."""

    def test_what_is_missing_or_other_is_named(self, full: Path, tmp_path: Path) -> None:
        """Guards the promise of --verify, with a target that lies."""

        class Forgetful(MemoryStore):
            def events(self, after: str = START, **asked: Any) -> Iterator[Stored]:
                return filter(None, map(self.forget, super().events(after, **asked)))

            def forget(self, stored: Stored) -> Stored | None:
                home, records = stored.batch.home, stored.batch.records
                if home == lost[0]:
                    return None
                if home == lost[1] and records:
                    first = attrs.evolve(records[0], stamp=records[0].stamp - 1)
                    return attrs.evolve(stored, batch=attrs.evolve(stored.batch, records=(first, *records[1:])))
                return stored

        lost: Iterable[str] = sorted(path.name for path in full.glob("runs/*/*"))
        target = Forgetful(Shelf())
        sync(FolderStore(full), target)
        found = {each.home: each.what for each in verify(FolderStore(full), target)}
        assert "the target has 0 of" in found[lost[0]]
        assert "digest" in found[lost[1]]
        assert set(found) == set(lost[:2])

    def test_what_was_logged_since_is_no_difference(self, tmp_path: Path) -> None:
        """Guards a sync of a run that goes on."""
        source, target, writer = MemoryStore(Shelf()), MemoryStore(Shelf()), Writer("a")
        source.append(writer.batch(Created("run", "a"), stamp=100))
        sync(source, target)
        source.append(writer.batch(Updated("run", "a", {"n": 1}), stamp=200))
        assert verify(source, target, since=150) == []
        assert [each.what for each in verify(source, target, since=250)] == ["the target has 1 of 2 records"]
        assert [each.what for each in verify(source, target)] == ["the target has 1 of 2 records"]


KILLED = """
import os, signal, sys
from pathlib import Path
from mlcore_local import FolderStore
from mlcore_local.sync import sync
source, target, memory, left = *sys.argv[1:4], int(sys.argv[4])
append = FolderStore.append
def counted(self, batch):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    append(self, batch)
FolderStore.append = counted
sync(FolderStore(Path(source)), FolderStore(Path(target)), memory=Path(memory))
"""


def test_killed_anywhere_and_started_again_it_ends_the_same(full: Path, tmp_path: Path) -> None:
    """Guards a laptop that is closed: SIGKILL after each few batches, then one sync to the end."""
    for left in (0, 1, 3, 5, 8, 2):
        python(tmp_path, KILLED, full, tmp_path / "copy", tmp_path / "memory", left, status=-9)
    python(tmp_path, KILLED, full, tmp_path / "copy", tmp_path / "memory", 10_000)
    assert verify(FolderStore(full), FolderStore(tmp_path / "copy")) == []
    assert answers(tmp_path / "copy") == answers(full)


def test_several_at_once_end_the_same(full: Path, tmp_path: Path) -> None:
    """Guards a cron job that overlaps with the one before."""
    code = """
    from pathlib import Path
    from mlcore_local import FolderStore
    from mlcore_local.sync import sync
    together()
    report = sync(FolderStore(Path(sys.argv[4])), FolderStore(Path("copy")), memory=Path("memory"))
    print(report.refused)
    """
    assert crowd(tmp_path, code, 4, full) == ["[]\n"] * 4
    assert verify(FolderStore(full), FolderStore(tmp_path / "copy")) == []
    assert answers(tmp_path / "copy") == answers(full)
    assert sync(FolderStore(full), FolderStore(tmp_path / "copy"), memory=tmp_path / "memory").records == 0


def test_missing_tells_what_would_come_over(full: Path, tmp_path: Path) -> None:
    """Guards --dry-run: it writes nothing."""
    source, target = FolderStore(full), FolderStore(tmp_path / "copy")
    told = missing(source, target)
    assert not (tmp_path / "copy").exists()
    done = sync(source, target)
    assert (told.records, told.sources) == (done.records, done.sources)
    assert missing(source, target).records == 0


class TestCommand:
    """``mlcore sync``."""

    def test_it_goes_from_the_folder_here_to_the_configured_store(self, full: Path, tmp_path: Path) -> None:
        """Guards the bare command, and what it says of files."""
        shutil.copytree(full, tmp_path / ".mlcore")
        done = program(tmp_path, "sync", "--verify", MLCORE_STORE=str(tmp_path / "team"))
        assert done.returncode == 0, done.stderr
        assert "records of" in done.stdout
        assert f"1 of these runs have files, which stay in {tmp_path}/.mlcore" in done.stdout
        assert "verified" in done.stdout
        assert "made a store at" in done.stderr or done.stderr == ""
        assert answers(tmp_path / "team") == answers(full)
        assert "nothing is new" in program(tmp_path, "sync", MLCORE_STORE=str(tmp_path / "team")).stdout
        told = json.loads(program(tmp_path, "sync", "--all", "--json", MLCORE_STORE=str(tmp_path / "team")).stdout)
        assert told["records"] > 50
        assert answers(tmp_path / "team") == answers(full)

    def test_what_waits_in_a_spool_comes_first(self, full: Path, tmp_path: Path) -> None:
        """Guards the bare command where runs are spooled: the folder store found from here is not what is meant."""
        shutil.copytree(full, tmp_path / ".mlcore")
        settings = {"MLCORE_STORE": str(tmp_path / "team"), "MLCORE_SPOOL": str(tmp_path / "disk")}
        code = "import os, mlcore\nrun = mlcore.start_run()\nmlcore.log_metric('loss', 1)\nos.kill(os.getpid(), 9)"
        python(tmp_path, code, status=-9, **settings)
        told = json.loads(program(tmp_path, "where", "--json", **settings).stdout)
        assert (told["spool"]["runs"], told["spool"]["kept"]) in ((1, 1), (0, 1))
        done = program(tmp_path, "sync", **settings)
        assert done.returncode == 0, done.stderr
        assert f"to {tmp_path}/team" in done.stdout
        (run,) = mlcore.Client(tmp_path / "team").list_runs()
        assert run.metrics == {"loss": 1}
        assert "nothing waits, 1 runs are kept" in program(tmp_path, "doctor", **settings).stdout

    @pytest.mark.parametrize(
        ("arguments", "store", "said"),
        [
            ([], "", "as in MLCORE_STORE"),
            ([], "off", "as in MLCORE_STORE"),
            ([], ".mlcore", "both SRC and DST"),
            (["a", "./a/"], "", "both SRC and DST"),
            (["nowhere", "there"], "", "there is no store at"),
        ],
    )
    def test_what_cannot_be_meant_is_told(self, tmp_path: Path, arguments: list[str], store: str, said: str) -> None:
        """Guards against a sync of a store with itself."""
        done = program(tmp_path, "sync", *arguments, **({"MLCORE_STORE": store} if store else {}))
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "there").exists()

    def test_a_dry_run_writes_nothing(self, full: Path, tmp_path: Path) -> None:
        """Guards those who look first."""
        told = json.loads(program(tmp_path, "sync", full, "team", "--dry-run", "--json").stdout)
        assert told["records"] > 50
        assert told["dry_run"]
        assert not (tmp_path / "team").exists()

    def test_what_was_set_aside_makes_exit_code_1(self, tmp_path: Path) -> None:
        """Guards scripts."""
        for name in ("one", "other"):
            mlcore.Client(tmp_path / name).create_experiment("both")
        done = program(tmp_path, "sync", "one", "other", "--verify")
        assert done.returncode == 1
        assert "set aside: 1 records of the store" in done.stdout
