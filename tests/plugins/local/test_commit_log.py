"""The commit log: after a loss of power all that was acknowledged is there, whatever the disk had of journals."""

from __future__ import annotations

import os
import random
import shutil
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
        with log.open("r+b") as file:
            file.seek(8)
            file.write(b"another-boot".ljust(36))
    return copy


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
        sizes.append(commit_log.logs(tmp_path / "s")[0].stat().st_size)
        if number > 25 and sizes[-1] > commit_log._HEAD.size:
            break
    assert max(sizes) < 1_000
    assert sorted(sizes) != sizes
    (journal,) = (tmp_path / "s").glob("runs/*/*/*.journal")
    content, kept = journal.read_bytes(), sizes[-1] - commit_log._HEAD.size
    assert 0 < kept < len(content)
    copy = shutil.copytree(tmp_path / "s", tmp_path / "copy")
    again = tmp_path / "copy" / "runs" / writer.home[-2:] / writer.home / f"{writer.source}.journal"
    os.truncate(again, len(content) - 20)  # what was synced when the log was emptied, and a part of the rest
    with commit_log.logs(copy)[0].open("r+b") as log:
        log.seek(8)
        log.write(b"x")
    commit_log.recover(copy)
    assert again.read_bytes() == content


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


def test_a_log_that_ends_anywhere_gives_what_is_whole(tmp_path: Path) -> None:
    """Guards a loss of power amid a sync: of what nobody was told the whole entries count, in their order."""
    store, writer = FolderStore(tmp_path / "s", power=True), written(4)
    for number in range(1, 5):
        store.append_all([writer.cut(number, number)])
    (log,) = commit_log.logs(tmp_path / "s")
    content, counts = log.read_bytes(), []
    for size in range(0, len(content) + 1, 3):
        copy = shutil.copytree(tmp_path / "s", tmp_path / "copy")
        shutil.rmtree(copy / "runs")
        (copy / "runs").mkdir()
        (copy / "commits" / log.name).write_bytes((content[:8] + b"another".ljust(36) + content[44:])[:size])
        commit_log.recover(copy)
        counts.append(len(stored_records(FolderStore(copy).events())))
        shutil.rmtree(copy)
    assert counts == sorted(counts)
    assert {0, 1, 2, 3} <= set(counts)


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
