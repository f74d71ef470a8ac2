"""Following a folder store: what is new is listed once, and costs what it costs, however much is there already."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlcore
from mlcore.errors import PositionLost
from mlcore.store import START, Batch, Created, Record, Stored, Updated, clock, digest
from mlcore_local import history, seal
from mlcore_local.store import FolderStore

RUN = "0199a1b2c3d4e5f60718293a4b5c6d7e"


class Follower:
    """Poll a store, and hold what it was told."""

    def __init__(self, store: FolderStore, position: str = START) -> None:
        self.store, self.position = store, position
        self.told: list[Stored] = []

    def poll(self) -> list[Stored]:
        fresh = list(self.store.events(self.position))
        if fresh:
            self.position = fresh[-1].position
        self.told += fresh
        return fresh

    def numbers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for stored in self.told:
            found.setdefault(stored.batch.source, []).extend(record.number for record in stored.batch.records)
        return found


def chained(told: list[Stored]) -> bool:
    """Tell whether the digest of each batch is that of all before it, as `append` elsewhere demands."""
    known: dict[str, str] = {}
    for stored in told:
        batch = stored.batch
        if batch.previous != known.get(batch.source, ""):
            return False
        known[batch.source] = digest(batch.records, batch.previous)
    return True


def batch(source: str, number: int, *, home: str = RUN, claim: str | None = None) -> Batch:
    """Return one record of a source."""
    records = (Record(number, clock.tick(), (Updated("run", home, {"n": number}),)),)
    return Batch(source, home, records, claim=claim)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[mlcore.Run]:
    """Yield a run that goes on."""
    client = mlcore.Client(tmp_path / "store")
    run = client.start_run()
    yield run
    run.end()
    client.close()


def test_a_live_run_is_listed_once_while_it_goes_on(live: mlcore.Run, tmp_path: Path) -> None:
    """Guards the whole chain: pieces of any size, read on where they were left, with digests that fit."""
    follower, chance = Follower(FolderStore(tmp_path / "store")), random.Random(1)
    for step in range(40):
        for _ in range(chance.randrange(120)):
            live.log_metric("m", chance.random(), step=step)
        live.log_params({f"p{step}": step})
        follower.poll()
    numbers = follower.numbers()
    assert all(each == list(range(1, len(each) + 1)) for each in numbers.values())
    assert chained(follower.told)
    again = Follower(follower.store)
    again.poll()
    assert again.numbers() == numbers
    assert chained(again.told)
    for stored in follower.told[::7]:
        rest = Follower(follower.store, stored.position)
        rest.poll()
        (source,) = numbers
        last = stored.batch.records[-1].number
        assert rest.numbers().get(source, []) == numbers[source][last:]


def test_a_poll_reads_only_what_is_new(live: mlcore.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards following against reading a live journal from its start at every poll."""
    follower = Follower(FolderStore(tmp_path / "store"))
    read, journal = [0], history.Journal.feed

    def counted(self: history.Journal, data: bytes, **options: object) -> object:
        read[0] += len(data)
        return journal(self, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(history.Journal, "feed", counted)
    for step in range(50):
        for number in range(100):
            live.log_metric("m", number, step=step)
        follower.poll()
    (path,) = (tmp_path / "store").glob("runs/*/*/*.journal")
    assert path.stat().st_size <= read[0] <= 3 * path.stat().st_size


def test_ended_runs_are_not_read_to_know_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that who wants only what comes does not wait for what is there, nor keep looking at it."""
    store = tmp_path / "store"
    client = mlcore.Client(store)
    for _ in range(5):
        with client.start_run() as run:
            run.log_metric("m", 1)
    old = time.time() - 1_000
    for path in store.rglob("runs/*/*/*"):
        os.utime(path, (old, old))
    opened: list[object] = []
    monkeypatch.setattr(history, "read", lambda *args, **_: opened.append(args) or iter(()))
    monkeypatch.setattr(history, "_DULL", 1e9)
    for path in store.glob("changes/*"):
        path.write_text("")
    follower = FolderStore(store)
    position = follower.latest()
    assert list(follower.events(position)) == []
    assert opened == []
    assert not [each for each in follower._history._open if each]  # type: ignore[union-attr]
    client.close()


def test_a_run_without_a_seal_is_read_once_to_know_that_it_is_over(tmp_path: Path) -> None:
    """Guards stores of a server, whose runs nobody seals: those that ended are left alone, others are looked at."""
    store = FolderStore(tmp_path / "store")
    ids = [os.urandom(16).hex() for _ in range(4)]
    for index, id in enumerate(ids):
        status = {"status": "RUNNING" if index % 2 else "FINISHED"}
        record = Record(1, clock.tick(), (Created("run", id, "0", status),))
        store.append(Batch(os.urandom(16).hex(), id, (record,)))
    old = time.time() - 1_000
    for path in (tmp_path / "store").rglob("*.journal"):
        os.utime(path, (old, old))
    for path in (tmp_path / "store/changes").iterdir():
        path.unlink()
    follower = Follower(FolderStore(tmp_path / "store"))
    assert len(follower.poll()) == 4
    assert follower.store._history is not None
    assert set(follower.store._history._open) == {"", *ids[1::2]}
    for index, id in enumerate(ids):
        store.append(batch(os.urandom(16).hex(), 1, home=id))
        assert [each.batch.home for each in follower.poll()] == [id], index


def test_a_seal_that_came_does_not_end_the_looking_at_a_run_that_was_resumed(tmp_path: Path) -> None:
    """Guards runs that were sealed and go on: what their new journal says is listed."""
    root = tmp_path / "store"
    client = mlcore.Client(root)
    with client.start_run(key="k") as run:
        run.log_metric("m", 1)
    assert (run.folder / seal.NAME).exists()  # type: ignore[operator]
    follower = Follower(FolderStore(root))
    follower.poll()
    again = client.start_run(key="k", resume="must")
    assert follower.poll()
    again.log_metric("m", 2)
    (told,) = follower.poll()
    assert told.batch.home == run.id
    assert chained(follower.told)
    again.end()
    client.close()


def test_a_torn_end_is_listed_when_it_is_whole(tmp_path: Path) -> None:
    """Guards a look in the middle of a write: the record comes with the next look, once."""
    root = tmp_path / "store"
    store = FolderStore(root)
    source = os.urandom(16).hex()
    first, second = batch(source, 1), batch(source, 2)
    second = Batch(source, RUN, second.records, digest(first.records))
    store.append(first)
    (path,) = root.glob("runs/*/*/*.journal")
    short = path.read_bytes()
    store.append(second)
    whole = path.read_bytes()
    follower = Follower(FolderStore(root))
    for cut in range(len(short), len(whole), 7):
        path.write_bytes(whole[:cut])
        follower.poll()
    assert follower.numbers() == {source: [1]}
    path.write_bytes(whole)
    follower.poll()
    assert follower.numbers() == {source: [1, 2]}
    assert chained(follower.told)


def test_old_positions_are_given_up_before_they_take_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a server that follows for months: a position of long ago is lost, and starting over tells all, once."""
    monkeypatch.setattr(history, "_PIECES", 20)
    store, source = FolderStore(tmp_path / "store"), os.urandom(16).hex()
    follower, previous = Follower(FolderStore(tmp_path / "store")), ""
    claimed = os.urandom(16).hex()
    for number in range(1, 60):
        one = batch(source, number)
        one = Batch(source, RUN, one.records, previous)
        previous = digest(one.records, previous)
        store.append(one)
        if number in (5, 30):
            store.append(Batch(claimed if number == 5 else os.urandom(16).hex(), "", (
                Record(1, clock.tick(), (Created("model", f"m{number}"),)),), claim=f"model/{number}"))  # fmt: skip
        follower.poll()
    assert follower.store._history is not None
    assert len(follower.store._history._pieces) <= 25
    assert follower.numbers()[source] == list(range(1, 60))
    with pytest.raises(PositionLost, match="too old"):
        list(follower.store.events(follower.told[2].position))
    late = Follower(follower.store, follower.told[-5].position)
    late.poll()
    assert late.numbers() == {source: [56, 57, 58, 59]}
    again = Follower(follower.store)
    again.poll()
    assert again.numbers() == follower.numbers()
    assert chained(again.told)


def test_the_latest_position_is_followed_by_what_comes(live: mlcore.Run, tmp_path: Path) -> None:
    """Guards `latest`: nothing of before, everything of after, through the same handle and others."""
    store = FolderStore(tmp_path / "store")
    live.log_metric("m", 1)
    follower = Follower(store, store.latest())
    assert follower.poll() == []
    live.log_metric("m", 2)
    store.append(batch(os.urandom(16).hex(), 1))
    assert len(follower.poll()) == 2
