"""The commit log: after a loss of power all that was acknowledged is there, whatever the disk had of journals."""

from __future__ import annotations

import os
import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlcore.folder import Folder
from mlcore.testing import new_id, points, run_batch
from mlcore.testing._builders import Writer
from mlcore.testing._checking import exact_records, stored_records
from mlcore_local import FolderStore, commit_log
from mlcore_local.check import check


def written(count: int) -> Writer:
    """Return a writer that wrote so many records about a run."""
    writer = Writer(new_id())
    for number in range(count):
        writer.batch(points(writer.home, "loss", [float(number)], steps=[number]))
    return writer


def crashed(store: Path, copy: Path, cut: random.Random, *, other_boot: bool = True) -> Path:
    """Copy a store as a disk could have it after a loss of power: of journals and their folders any beginning."""
    shutil.copytree(store, copy)
    for journal in copy.glob("runs/*/*/*.journal"):
        if cut.random() < 0.3:
            shutil.rmtree(journal.parent)
        else:
            os.truncate(journal, cut.randrange(journal.stat().st_size + 1))
    for log in commit_log.logs(copy) if other_boot else ():
        log.write_bytes(of_another_boot(log.read_bytes()))
    return copy


def of_another_boot(content: bytes) -> bytes:
    """Return a log as the machine finds it that went down since."""
    return content[:8] + b"another-boot".ljust(36) + content[44:]


def ends(content: bytes) -> list[int]:
    """Return where the entries of a log end, first where they begin."""
    found = [commit_log._HEAD.size]
    for name, _, data in commit_log._entries(content):
        found.append(found[-1] + commit_log._ENTRY.size + len(name) + len(data))
    return found


def recovered(store: Path, log: bytes) -> list[object]:
    """Return what a store has of whose journals nothing is left, and which has this log."""
    copy = store.parent / "recovered"
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("*.journal", "*.log"))
    (copy / "commits" / "0.log").write_bytes(log)
    commit_log.recover(copy)
    assert not commit_log.logs(copy)
    found = stored_records(FolderStore(copy).events())
    shutil.rmtree(copy)
    return found


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow over a size, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("seed", range(8))
def test_what_was_acknowledged_is_there_after_a_loss_of_power(tmp_path: Path, seed: int) -> None:
    """Guards the promise itself, however little of the journals the disk had: once the next server writes."""
    store, writers = FolderStore(tmp_path / "s", power=True), [written(20) for _ in range(6)]
    for number in range(1, 16):
        assert store.append_all([each.cut(number, number) for each in writers]) == [None] * 6
    copy = crashed(tmp_path / "s", tmp_path / "copy", random.Random(seed))
    after, other = FolderStore(copy, power=seed % 2 == 0), written(1)
    assert after.append_all([other.cut(1)]) == [None]
    assert stored_records(after.events()) == exact_records([*(each.cut(1, 15) for each in writers), other.cut(1)])
    assert after.append_all([each.cut(10, 20) for each in writers]) == [None] * 6
    after.close()
    assert not commit_log.logs(copy)
    assert not check(Folder.open(copy)).findings


def test_journals_that_were_synced_need_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the emptying of the log: what comes after it is kept, on top of what was synced then."""
    monkeypatch.setattr(commit_log, "_MOST", 600)
    store, writer = FolderStore(tmp_path / "s", power=True), written(30)
    sizes = []
    for number in range(1, 31):
        store.append_all([writer.cut(number, number)])
        (log,) = commit_log.logs(tmp_path / "s")
        sizes.append(ends(log.read_bytes())[-1] - commit_log._HEAD.size)
        if number > 25 and sizes[-1]:
            break
    assert max(sizes) < 1_000
    assert sorted(sizes) != sizes
    (journal,) = (tmp_path / "s").glob("runs/*/*/*.journal")
    content = journal.read_bytes()
    assert 0 < sizes[-1] < len(content)
    copy = shutil.copytree(tmp_path / "s", tmp_path / "copy")
    again = tmp_path / "copy" / "runs" / writer.home[-2:] / writer.home / f"{writer.source}.journal"
    os.truncate(again, len(content) - 20)  # what was synced when the log was emptied, and a part of the rest
    (log,) = commit_log.logs(copy)
    log.write_bytes(of_another_boot(log.read_bytes()))
    commit_log.recover(copy)
    assert again.read_bytes() == content


def test_a_log_that_the_disk_has_as_it_was_before_it_was_emptied_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a loss of power right after that: the journals were synced before, and nothing came after."""
    store, writer, other = FolderStore(tmp_path / "s", power=True), written(20), written(1)
    for number in range(1, 20):
        store.append_all([writer.cut(number, number)])
    (log,) = commit_log.logs(tmp_path / "s")
    before = log.read_bytes()
    monkeypatch.setattr(commit_log, "_MOST", 600)
    store.append_all([writer.cut(20, 20)])
    assert log.stat().st_size == commit_log._HEAD.size
    copy = shutil.copytree(tmp_path / "s", tmp_path / "copy")
    (copy / "commits" / log.name).write_bytes(of_another_boot(before))
    journals = {path: path.read_bytes() for path in copy.rglob("*.journal")}
    after = FolderStore(copy)
    assert after.append_all([other.cut(1)]) == [None]
    assert {path: path.read_bytes() for path in journals} == journals
    assert stored_records(after.events()) == exact_records([writer.cut(1), other.cut(1)])


def test_a_commit_leaves_the_log_as_long_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what a sync costs: a length that changed would be written as well, and now and then it does."""
    monkeypatch.setattr(commit_log, "_AHEAD", 2_000)
    store, writer = FolderStore(tmp_path, power=True), written(100)
    sizes = []
    for number in range(1, 101):
        store.append_all([writer.cut(number, number)])
        (log,) = commit_log.logs(tmp_path)
        sizes.append(log.stat().st_size)
        content = log.read_bytes()
        assert not content[ends(content)[-1] :].strip(b"\0")
    assert 5 < len(set(sizes)) < 15
    assert sorted(sizes) == sizes
    store.close()
    assert not commit_log.logs(tmp_path)


@pytest.mark.parametrize(("limit", "most"), [(10_000, 40), (4_000, 30)])
def test_a_disk_without_room_for_what_is_written_ahead_takes_what_is_written(
    tmp_path: Path, limit: int, most: int
) -> None:
    """Guards full disks: the log grows by its entries alone then, until it does not."""
    store, writer = FolderStore(tmp_path / "s", power=True), written(40)
    store.append_all([writer.cut(1, 1)])
    store.close()
    done = 1
    with files_up_to(limit):
        for number in range(2, 41):
            (error,) = store.append_all([writer.cut(number, number)])
            if error is not None:
                break
            done = number
            (log,) = commit_log.logs(tmp_path / "s")
            assert ends(log.read_bytes())[-1] == log.stat().st_size
    assert done == 40 if most == 40 else 15 < done < most
    assert store.append_all([writer.cut(done, 40)]) == [None]
    assert stored_records(store.events()) == exact_records([writer.cut(1)])
    store.append_all([run_batch(new_id())])
    (log,) = commit_log.logs(tmp_path / "s")
    assert (log.stat().st_size > 100_000) is (done < 40)  # room again is asked for once the log was emptied


def test_a_server_that_was_killed_leaves_a_log_that_changes_nothing(tmp_path: Path) -> None:
    """Guards the common case: the machine did not go down, so journals are synced, and nothing else."""
    store, writers = FolderStore(tmp_path / "s", power=True), [written(3) for _ in range(2)]
    store.append_all([each.cut(1) for each in writers])
    copy = crashed(tmp_path / "s", tmp_path / "copy", random.Random(1), other_boot=False)
    before = {path: path.read_bytes() for path in copy.rglob("*.journal")}
    commit_log.recover(copy)
    assert {path: path.read_bytes() for path in copy.rglob("*.journal")} == before
    assert not commit_log.logs(copy)


def test_a_log_whose_writer_lives_is_left_alone(tmp_path: Path) -> None:
    """Guards several servers of one store."""
    one, other, writers = FolderStore(tmp_path, power=True), FolderStore(tmp_path, power=True), [written(2), written(2)]
    one.append_all([writers[0].cut(1, 1)])
    other.append_all([writers[1].cut(1, 1)])
    assert len(commit_log.logs(tmp_path)) == 2
    FolderStore(tmp_path).append_all([written(1).cut(1)])
    assert len(commit_log.logs(tmp_path)) == 2
    one.append_all([writers[0].cut(2, 2)])
    one.close()
    assert len(commit_log.logs(tmp_path)) == 1
    other.close()


@pytest.mark.parametrize("ahead", [0, 300], ids=["as-older-versions-wrote-it", "with-zeros-after-it"])
def test_a_log_that_ends_anywhere_gives_what_is_whole(tmp_path: Path, ahead: int) -> None:
    """Guards a loss of power amid a sync: of what nobody was told the whole entries count, in their order."""
    store, writer = FolderStore(tmp_path / "s", power=True), written(4)
    for number in range(1, 5):
        store.append_all([writer.cut(number, number)])
    (log,) = commit_log.logs(tmp_path / "s")
    content = of_another_boot(log.read_bytes())
    whole, entries = ends(content), list(commit_log._entries(content))
    for size in range(whole[-1] + 1):
        cut = content[:size] + bytes(ahead if size >= whole[0] else 0)
        count = sum(end <= len(cut.rstrip(b"\0")) or end <= size for end in whole[1:])
        assert list(commit_log._entries(cut)) == entries[:count], size
        if size % 40 and size not in whole:
            continue  # what comes after that is the same
        assert recovered(tmp_path / "s", cut) == exact_records([writer.cut(1, count)] if count else []), size


def test_a_log_that_is_damaged_anywhere_gives_what_is_before(tmp_path: Path) -> None:
    """Guards against taking for an entry what is none: no byte of one can change, nor can zeros become one."""
    store, writer, cut = FolderStore(tmp_path / "s", power=True), written(4), random.Random(7)
    for number in range(1, 5):
        store.append_all([writer.cut(number, number)])
    (log,) = commit_log.logs(tmp_path / "s")
    content = of_another_boot(log.read_bytes())
    whole, entries = ends(content), list(commit_log._entries(content))
    content = content[: whole[-1] + 100]
    for at in range(whole[0], len(content)):
        damaged = bytearray(content)
        damaged[at] ^= cut.randrange(1, 256)
        count = sum(end <= at for end in whole[1:])
        assert list(commit_log._entries(bytes(damaged))) == entries[:count], at
        if at % 40:
            continue
        assert recovered(tmp_path / "s", bytes(damaged)) == exact_records([writer.cut(1, count)] if count else []), at


@pytest.mark.parametrize("seed", range(4))
def test_sectors_that_a_commit_did_not_write_cost_no_other(tmp_path: Path, seed: int) -> None:
    """Guards a loss of power amid a sync: the disk has any of the sectors, in any order, and all of those before."""
    store, writer, cut = FolderStore(tmp_path / "s", power=True), written(24), random.Random(seed)
    store.append_all([writer.cut(1, 1)])
    (log,) = commit_log.logs(tmp_path / "s")
    for number in range(2, 24, 3):
        before = of_another_boot(log.read_bytes())
        store.append_all([writer.cut(number, number + 2)])
        after = of_another_boot(log.read_bytes())
        sectors = [(cut.choice((before, after))[at : at + 512]) for at in range(0, len(after), 512)]
        found = recovered(tmp_path / "s", b"".join(sectors))
        assert found in (exact_records([writer.cut(1, number - 1)]), exact_records([writer.cut(1, number + 2)]))


@pytest.mark.parametrize("name", ["../out.journal", "/tmp/out.journal", "runs/../../out.journal", "store.json"])
def test_a_log_that_somebody_made_up_reaches_nothing_else(tmp_path: Path, name: str) -> None:
    """Guards stores that came from elsewhere: a log names journals of its own store, or nothing."""
    FolderStore(tmp_path / "s").append_all([run_batch(new_id())])
    before = set(tmp_path.rglob("*"))
    content = (tmp_path / "s" / "store.json").read_bytes()
    folder = tmp_path / "s" / "commits"
    folder.mkdir()
    head = commit_log._HEAD.pack(b"mlcorecl", b"another")
    (folder / "x.log").write_bytes(head + commit_log._packed(name.encode(), 0, b"x"))
    commit_log.recover(tmp_path / "s")
    assert set(tmp_path.rglob("*")) - before == {folder}
    assert (tmp_path / "s" / "store.json").read_bytes() == content
    assert not Path("/tmp/out.journal").exists()


def test_a_link_in_place_of_a_journal_is_not_followed(tmp_path: Path) -> None:
    """Guards the same against a link."""
    store, writer = FolderStore(tmp_path / "s", power=True), written(1)
    store.append_all([writer.cut(1)])
    copy = crashed(tmp_path / "s", tmp_path / "copy", random.Random(3))
    target = copy / "runs" / writer.home[-2:] / writer.home / f"{writer.source}.journal"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(tmp_path / "out")
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OSError, match="symbolic"):
        commit_log.recover(copy)
    assert (tmp_path / "out").read_bytes() == b""


def test_fsck_brings_back_what_the_log_holds(tmp_path: Path) -> None:
    """Guards who repairs a store before a server writes to it again."""
    store, writer = FolderStore(tmp_path / "s", power=True), written(5)
    store.append_all([writer.cut(1)])
    copy = crashed(tmp_path / "s", tmp_path / "copy", random.Random(5))
    check(Folder.open(copy), repair=True)
    assert stored_records(FolderStore(copy).events()) == exact_records([writer.cut(1)])
