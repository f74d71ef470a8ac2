"""Checkpoints: after a restart a store goes on in a journal without reading all of it, and is never misled."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import pytest

from mlcore.errors import OutOfOrder, SourceReused
from mlcore.journal import format as f
from mlcore.store import to_json
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore.testing._checking import exact_records, stored_records
from mlcore_local import append
from mlcore_local.checkpoints import resumed
from mlcore_local.store import FolderStore


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every 4 kB have a checkpoint."""
    monkeypatch.setattr(append, "_CHECKPOINT", 4_000)


def written(count: int) -> Writer:
    """Return a writer of a run with so many records of a few metrics."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": "x"}))
    for number in range(1, count):
        writer.batch(points(writer.home, f"key {number % 5}", [1 / number], steps=[number]))
    return writer


def journal_of(folder: Path) -> Path:
    """Return the only journal of a run in a store."""
    (path,) = folder.glob("runs/*/*/*.journal")
    return path


def test_a_store_goes_on_after_a_restart_without_reading_all_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the time after a restart: what is read is what came after the last checkpoint."""
    writer, store = written(400), FolderStore(tmp_path)
    for number in range(1, 400):
        store.append_all([writer.cut(number, number)])
    known = resumed(journal_of(tmp_path))
    assert known is not None
    assert known[1] > 300
    read: list[int] = []
    real = append.read

    def spied(path: Path, journal: object) -> object:
        read.append(os.stat(path).st_size - journal.offset)  # type: ignore[attr-defined]
        return real(path, journal)  # type: ignore[arg-type]

    monkeypatch.setattr(append, "read", spied)
    assert FolderStore(tmp_path).append_all([writer.cut(400, 400)]) == [None]
    assert 0 < read[0] < 6_000


def test_it_refuses_and_trims_after_a_restart_as_it_would_have_before(tmp_path: Path) -> None:
    """Guards the mark: what is known is trimmed, what is missing or other is refused, wherever the restart was."""
    writer, twin = written(200), written(200)
    twin.source, twin.home = writer.source, writer.home
    chance, at = random.Random(1), 0
    while at < 200:
        store, stop = FolderStore(tmp_path), min(200, at + chance.randint(1, 20))
        for number in range(max(1, at - 3), stop + 1):
            assert store.append_all([writer.cut(number, number)]) == [None]
        at = stop
        fresh = FolderStore(tmp_path)
        if at < 199:
            (gap,) = fresh.append_all([writer.cut(at + 2, at + 2)])
            assert isinstance(gap, OutOfOrder)
        (other,) = FolderStore(tmp_path).append_all([twin.cut(at, at)])
        assert isinstance(other, SourceReused)
    assert stored_records(FolderStore(tmp_path).events()) == exact_records([writer.cut(1)])
    assert len(FolderStore(tmp_path).get("run", [writer.home])[0].metrics) == 5  # type: ignore[union-attr]


def test_a_journal_that_was_torn_after_or_within_a_checkpoint_is_gone_on_with(tmp_path: Path) -> None:
    """Guards the end of a server that was killed: at every byte of the last kilobytes."""
    writer = written(120)
    store = FolderStore(tmp_path)
    for number in range(1, 120):
        store.append_all([writer.cut(number, number)])
    store.close()
    path = journal_of(tmp_path)
    whole = path.read_bytes()
    for cut in [*range(1, 400, 29), *range(400, 3_000, 301)]:
        path.write_bytes(whole[:-cut])
        assert FolderStore(tmp_path).append_all([writer.cut(1)]) == [None]
        assert stored_records(FolderStore(tmp_path).events()) == exact_records([writer.cut(1)])


@pytest.mark.parametrize(
    "mark",
    [
        {"last": 1 << 70, "digest": "0" * 64, "size": 0},
        {"last": "1", "digest": "0" * 64, "size": 0},
        {"last": 1, "digest": "x", "size": 0},
        {"last": 1, "digest": None, "size": 0},
        {"last": 1, "digest": "0" * 64, "size": 1 << 40},
        {"last": 1, "digest": "0" * 64, "size": -1 << 40},
        {"last": 1, "digest": "0" * 64},
        [],
        None,
    ],
)
def test_what_looks_like_a_checkpoint_in_logged_numbers_breaks_nothing(tmp_path: Path, mark: object) -> None:
    """Guards against who knows the format and logs one as the values of a metric: no crash, for nobody."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": "x"}))
    seed = f.Header(writer.source, writer.home).seed
    for content in (to_json({"mark": mark}), to_json(mark), b"no json"):
        frame = f.pack_frame(seed, f.WRITER, 0, 0, 0, content)
        frame += bytes(-len(frame) % 8)
        values = list(struct.unpack(f"<{len(frame) // 8}d", frame))
        writer.batch(points(writer.home, "evil", values))
    store = FolderStore(tmp_path)
    assert store.append_all([writer.cut(1, 3)]) == [None]
    assert FolderStore(tmp_path).append_all([writer.cut(4)]) == [None]
    assert zlib.crc32(b"", seed) == seed


def test_many_keys_make_no_checkpoints_that_outweigh_the_records(tmp_path: Path) -> None:
    """Guards the size of journals with thousands of metrics."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": "x"}))
    for number in range(300):
        writer.batch(points(writer.home, f"a metric with quite a long name, number {number}", [1.0]))
    store = FolderStore(tmp_path)
    for number in range(1, 302):
        store.append_all([writer.cut(number, number)])
    size = journal_of(tmp_path).stat().st_size
    whole = FolderStore(tmp_path / "whole")
    whole.append_all([writer.cut(1)])
    assert size < 1.5 * journal_of(tmp_path / "whole").stat().st_size
