"""Appending many batches to a folder store: journals that stay open, other processes, the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlcore.errors import MlcoreError, SourceReused, StoreError
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore.testing._checking import exact_records, stored_records
from mlcore_local import append
from mlcore_local.store import FolderStore


def written(count: int) -> Writer:
    """Return a writer of a run with so many records, each of another key."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": "x"}))
    for number in range(1, count):
        writer.batch(points(writer.home, f"key {number}", [1.0], steps=[number]))
    return writer


def test_two_processes_that_take_turns_with_a_source_write_one_journal(tmp_path: Path) -> None:
    """Guards a server with several workers: each knows what the other wrote, and which keys the journal defines."""
    one, two, writer = FolderStore(tmp_path), FolderStore(tmp_path), written(12)
    for number in range(1, 13):
        (one, two)[number % 2].append_all([writer.cut(number, number)])
    assert stored_records(FolderStore(tmp_path).events()) == exact_records([writer.cut(1)])
    assert len(FolderStore(tmp_path).get("run", [writer.home])[0].metrics) == 11  # type: ignore[union-attr]


def test_a_claim_that_another_process_took_is_known(tmp_path: Path) -> None:
    """Guards a source whose records lie in a claim's file as well, which the other's journal does not tell."""
    one, two, writer = FolderStore(tmp_path), FolderStore(tmp_path), written(3)
    assert one.append_all([writer.cut(1, 1)]) == [None]
    assert two.append_all([writer.cut(2, 2, claim="name/x")]) == [None]
    assert one.append_all([writer.cut(3, 3)]) == [None]
    assert one.append_all([writer.cut(2, 2, claim="name/x")]) == [None]  # again, as its answer was lost


def test_a_source_that_goes_on_elsewhere_is_refused(tmp_path: Path) -> None:
    """Guards that the records of one source stay in one home."""
    store, writer = FolderStore(tmp_path), written(2)
    store.append_all([writer.cut(1, 1)])
    writer.home = new_id()
    (error,) = store.append_all([writer.cut(2, 2)])
    assert isinstance(error, SourceReused)
    (error,) = FolderStore(tmp_path).append_all([writer.cut(2, 2)])
    assert isinstance(error, MlcoreError)


def test_few_files_stay_open_and_none_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the limit on files of a process that many runs write to."""
    monkeypatch.setattr(append, "_FILES", 3)
    monkeypatch.setattr(append, "_SOURCES", 5)
    store, writers = FolderStore(tmp_path), [written(3) for _ in range(8)]
    before = len(os.listdir("/proc/self/fd"))
    for number in (1, 2, 3):
        assert store.append_all([each.cut(number, number) for each in writers]) == [None] * 8
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    store.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert stored_records(store.events()) == exact_records([each.cut(1) for each in writers])


def test_a_run_that_was_removed_or_cut_back_meanwhile_is_read_again(tmp_path: Path) -> None:
    """Guards files that are held open against what others do to the folder."""
    store, writer = FolderStore(tmp_path), written(3)
    store.append_all([writer.cut(1, 2)])
    (journal,) = tmp_path.glob("runs/*/*/*.journal")
    journal.unlink()
    assert store.append_all([writer.cut(1, 2)]) == [None]
    size = journal.stat().st_size
    os.truncate(journal, size - 5)  # the last record is torn
    assert store.append_all([writer.cut(2, 3)]) == [None]
    assert stored_records(FolderStore(tmp_path).events()) == exact_records([writer.cut(1)])


def test_a_disk_that_is_full_for_one_run_fails_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that a short write is cut back, told, and that the same batch is taken once there is room."""
    store, one, two = FolderStore(tmp_path), written(3), written(3)
    assert store.append_all([one.cut(1, 1), two.cut(1, 1)]) == [None, None]
    write, full = os.write, [True]

    def half(fd: int, data: bytes) -> int:
        if full[0] and one.home in os.readlink(f"/proc/self/fd/{fd}"):
            return write(fd, data[:20])
        return write(fd, data)

    monkeypatch.setattr("mlcore_local.append.os.write", half)
    error, other = store.append_all([one.cut(2, 3), two.cut(2, 3)])
    assert isinstance(error, StoreError)
    assert isinstance(error.__cause__, OSError)
    assert (error.__cause__.errno, other) == (28, None)
    full[0] = False
    assert store.append_all([one.cut(2, 3)]) == [None]
    assert stored_records(FolderStore(tmp_path).events()) == exact_records([one.cut(1), two.cut(1)])


def test_power_syncs_once_a_group_and_the_journals_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards durability "power": data before anybody is told, and journals and the names that lead to them later."""
    synced: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def sync(fd: int, real: object = real) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            real(fd)  # type: ignore[operator]

        monkeypatch.setattr(os, name, sync)
    store, writers = FolderStore(tmp_path / "s", power=True), [written(3) for _ in range(2)]
    assert store.capabilities.durability == "power"
    store.append_all([each.cut(1, 1) for each in writers])
    (log,) = (tmp_path / "s/commits").iterdir()
    assert {str(log), str(log.parent), str(log.parent.parent)} <= set(synced)
    synced.clear()
    store.append_all([writers[0].cut(2, 2), writers[1].cut(2, 2), writers[0].cut(3, 3)])
    assert synced == [str(log)]
    store.close()
    folders = {str(each) for one in writers for each in (tmp_path / f"s/runs/{one.home[-2:]}/{one.home}/x").parents}
    assert {each for each in folders if each.startswith(str(tmp_path / "s"))} <= set(synced)
    assert {f"{one.source}.journal" for one in writers} <= set(map(os.path.basename, synced))
    assert not log.exists()


def test_nothing_is_acknowledged_that_the_disk_did_not_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a sync that failed: none of the group is answered with success, and all can be sent again."""
    store, writers = FolderStore(tmp_path, power=True), [written(2) for _ in range(2)]

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("mlcore_local.commit_log.os.fdatasync", fails)
        answers = store.append_all([each.cut(1) for each in writers])
        assert [type(each) for each in answers] == [StoreError, StoreError]
    assert store.append_all([each.cut(1) for each in writers]) == [None, None]


def test_a_store_in_the_child_of_a_fork_opens_files_of_its_own(tmp_path: Path) -> None:
    """Guards journals and locks, which a fork would share."""
    store, writer = FolderStore(tmp_path), written(3)
    store.append_all([writer.cut(1, 1)])
    pid = os.fork()
    if pid == 0:
        os._exit(0 if store.append_all([writer.cut(2, 2)]) == [None] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.append_all([writer.cut(3, 3)]) == [None]
    assert stored_records(FolderStore(tmp_path).events()) == exact_records([writer.cut(1)])
