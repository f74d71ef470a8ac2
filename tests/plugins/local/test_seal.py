"""Seals: disposable, never believed when they are not whole or not up to date, and never another answer."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import mlcore
import mlcore.store
from mlcore.errors import MlcoreError
from mlcore.folder import Folder
from mlcore.journal import Writer
from mlcore.journal.format import EVENTS, FRAME, MARK, SUFFIX
from mlcore.store import Batch, Created, Entity, Record, Rewound, RowsLogged, Updated, clock
from mlcore_local import FolderStore
from mlcore_local.check import check
from mlcore_local.seal import NAME, open_sealed, seal

RUN = "0" * 24 + "5ea1ed00"
SPECIAL = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -0.0,
    0.0,
    5e-324,
    1.0,
    struct.unpack("<d", b"\1" * 6 + b"\xf8\x7f")[0],
]


def written(root: Path, chance: random.Random) -> Folder:
    """Write a run by chance: several writers, unsorted steps, rewinds, contexts, resumes, no rows at all."""
    folder, _ = Folder.create(root)
    writers = [Writer(folder.run_folder(RUN), RUN) for _ in range(chance.randrange(1, 4))]
    writers[0].events([Created("experiment", "0", fields={"name": "Default"}), Created("run", RUN, "0", {"name": "x"})])
    for _ in range(chance.choice([0, 5, 60, 300])):
        log = chance.choice(writers)
        key = chance.choice(["loss", "acc", "größe/训"])
        value = chance.choice([*SPECIAL, chance.random()])
        way = chance.randrange(8)
        if way < 3:
            log.point(key, value, chance.choice([None, None, chance.randrange(-5, 50)]))
        elif way == 3:
            log.points({key: value, "other": 1}, chance.choice([None, 7]), chance.choice([None, 5]))
        elif way == 4:
            steps = chance.sample(range(100), 10)
            log.block(key, steps, [chance.random() for _ in steps], chance.choice([None, list(range(10))]))
        elif way == 5 and chance.random() < 0.3:
            log.events([Rewound("run", RUN, chance.randrange(40))])
        elif way == 6:
            log.close()
        else:
            log.events([Updated("run", RUN, {f"f{chance.randrange(5)}": chance.random()})])
    if chance.random() < 0.5:  # what came from elsewhere, in a context
        columns = {"step": array("q", [3, 1]), "time": array("q", [1, 1]), "value": array("d", [0.5, SPECIAL[0]])}
        events = (RowsLogged("run", RUN, "loss", columns, "eval"), Updated("run", RUN, {"pushed": True}))
        FolderStore(root).append(Batch(os.urandom(16).hex(), RUN, (Record(1, clock.tick(), events),)))
    writers[0].events([Updated("run", RUN, {"status": "FINISHED"})])
    for log in writers:
        log.close()
    return folder


def told(root: Path) -> tuple[dict[str, Any], dict[tuple[str, str], list[bytes]]]:
    """Return all that a new handle says of the run, bit by bit."""
    store = FolderStore(root)
    (entity,) = store.get("run", [RUN])
    assert entity is not None
    (found,) = store.find("run", mlcore.store.Query()).items
    assert exact(found) == exact(entity)
    return exact(entity), exact_series(store)


def exact(entity: Entity) -> dict[str, Any]:
    """Return an entity so that NaN equals itself."""
    return {
        name: repr(value)
        for name, value in attrs.asdict(entity, recurse=False).items()
        if name not in ("seen", "alive")
    }


def exact_series(store: FolderStore, keys: Sequence[str] | None = None) -> dict[tuple[str, str], list[bytes]]:
    """Return all rows, bit by bit."""
    return {
        (key, context): [bits(columns[name]) for name in ("step", "time", "value")]
        for (_, key, context), columns in store.series("run", [RUN], keys).items()
    }


def bits(values: Sequence[Any]) -> bytes:
    """Return a column bit by bit."""
    return bytes(memoryview(values)) if hasattr(values, "tobytes") else repr(values).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(40))
def test_a_sealed_run_answers_as_the_unsealed_one(seed: int, tmp_path: Path) -> None:
    """Guards the seal by runs made at random: entity, summaries and rows are the same, bit by bit."""
    folder = written(tmp_path / "store", random.Random(seed))
    before = told(folder.root)
    if any(b"[]" in columns for columns in before[1].values()):  # a key whose rows were all rewound
        assert not seal(folder.run_folder(RUN), RUN)
        return
    assert seal(folder.run_folder(RUN), RUN)
    sealed = open_sealed(folder.run_folder(RUN))
    assert sealed is not None
    assert sealed.intact()
    store = FolderStore(folder.root)
    store.get("run", [RUN])
    assert store._folded._homes[RUN]._sealed is not None, "the seal was used"
    assert told(folder.root) == before
    assert check(folder).findings == []


def test_integers_that_were_appended_as_values_are_sealed_as_numbers(tmp_path: Path) -> None:
    """Guards rows from other writers, whose values are whole numbers, or missing."""
    for number, values in enumerate(([1, 2], [1, 2.5], [1.0, None], ["a", "b"])):
        root = tmp_path / f"{number}"
        store = FolderStore(root)
        rows = RowsLogged("run", RUN, "m", {"step": [1, 2], "time": [1, 2], "value": values})
        events = (Created("run", RUN, "0", {"status": "FINISHED"}), rows)
        store.append(Batch(os.urandom(16).hex(), RUN, (Record(1, clock.tick(), events),)))
        before = {key: list(map(repr, each["value"])) for key, each in FolderStore(root).series("run", [RUN]).items()}
        seal(Folder.open(root).run_folder(RUN), RUN)
        after = {key: list(map(repr, each["value"])) for key, each in FolderStore(root).series("run", [RUN]).items()}
        assert after == before


@pytest.mark.parametrize("change", ["grown", "rows", "rewound", "gone", "tag", "torn", "erased"])
def test_a_seal_is_believed_as_long_as_it_holds(change: str, tmp_path: Path) -> None:
    """Guards against stale seals, with a handle that is open all the time and with a new one."""
    folder = written(tmp_path / "store", random.Random(3))
    home = folder.run_folder(RUN)
    assert seal(home, RUN)
    live = FolderStore(folder.root)
    before = exact_series(live)
    log = Writer(home, RUN)
    paths = sorted(home.glob("*" + SUFFIX))
    if change == "grown":
        log.point("loss", 8, 9_999)
        assert seal(home, RUN)
        log.point("loss", 9, 10_000)
    elif change == "rows":
        log.point("loss", 9, 10_000)
    elif change == "rewound":
        log.events([Rewound("run", RUN, -100)])
    elif change == "gone":
        paths[0].unlink()
    elif change == "tag":
        log.events([Updated("run", RUN, {"note": "later"})])
    elif change == "torn":
        with paths[0].open("ab") as file:
            file.write(b"\x4c\xa7\x04")
    else:
        log.events([mlcore.store.Erased("run", RUN)])
    folder.note(RUN)
    fresh = FolderStore(folder.root)
    expected = FolderStore(copy_unsealed(folder.root, tmp_path / "copy"))
    assert exact_series(fresh) == exact_series(expected)
    if change != "gone":  # a handle need not forget what it has read
        assert exact_series(live) == exact_series(expected)
    (one,), (two,) = fresh.get("run", [RUN]), expected.get("run", [RUN])
    assert (one and exact(one)) == (two and exact(two))
    if change == "tag":
        assert fresh._folded._homes[RUN]._sealed is not None, "a tag after the end leaves the seal as it is"
        assert exact_series(fresh) == before
    log.close()


def copy_unsealed(root: Path, target: Path) -> Path:
    """Copy a store without its seals."""
    subprocess.run(["cp", "-r", str(root), str(target)], check=True)
    for path in target.glob(f"runs/*/*/{NAME}"):
        path.unlink()
    return target


def test_a_damaged_seal_gives_no_wrong_answer_that_a_check_does_not_find(tmp_path: Path) -> None:
    """Guards against rot: each byte flipped, and the file cut at each byte; reading raises nothing."""
    root = tmp_path / "store"
    folder, _ = Folder.create(root)
    log = Writer(folder.run_folder(RUN), RUN)
    log.events([Created("run", RUN, "0", {"name": "x", "status": "FINISHED"})])
    for step in range(5):
        log.points({"a": step / 3, "b": -step})
    log.close()
    expected = told(root)
    assert seal(folder.run_folder(RUN), RUN)
    path = folder.run_folder(RUN) / NAME
    whole = path.read_bytes()
    assert len(whole) < 1_500
    wrong = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        if told(root) != expected:
            assert [each.path for each in check(folder).findings] == [path], place
            wrong += 1
    assert 0 < wrong <= 240, "the columns, which are only checked by fsck"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert told(root) == expected, cut
        assert [each.path for each in check(folder).findings] == [path], cut
    path.write_bytes(whole[:500])
    assert [each.severity for each in check(folder, repair=True).findings] == ["repaired"]
    assert not path.exists()
    assert told(root) == expected


@pytest.mark.parametrize("damage", ["removed", "short", "emptied"])
def test_a_seal_that_goes_while_it_is_read_is_done_without(damage: str, tmp_path: Path) -> None:
    """Guards `mlcore reindex` beside a reader: an open handle answers from the journals."""
    folder = written(tmp_path / "store", random.Random(3))
    expected = told(folder.root)
    seal(folder.run_folder(RUN), RUN)
    live = FolderStore(folder.root)
    live.get("run", [RUN])
    path = folder.run_folder(RUN) / NAME
    if damage == "removed":
        path.unlink()
    else:
        os.truncate(path, 40 if damage == "short" else 0)
    assert exact_series(live) == expected[1]


def test_a_seal_cut_short_by_a_kill_leaves_nothing_half(tmp_path: Path) -> None:
    """Guards SIGKILL while sealing, 30 times: the old seal or the new one is there, whole, and answers are the same."""
    folder = written(tmp_path / "store", random.Random(3))
    home = folder.run_folder(RUN)
    log = Writer(home, RUN)
    log.block("many", range(50_000), range(50_000))
    log.close()
    expected = told(folder.root)
    code = """
        import os, sys
        from pathlib import Path
        from mlcore_local.seal import seal
        while True:
            seal(Path(sys.argv[1]), sys.argv[2])
            os.write(1, b".")
    """
    chance = random.Random()
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(home), RUN], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process:
            process.stdout.read(1)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        sealed = open_sealed(home)
        assert sealed is not None
        assert sealed.intact()
        assert told(folder.root) == expected
    assert {each.severity for each in check(folder).findings} <= {"leftover"}
    for path in home.glob("*.tmp"):
        os.utime(path, (1, 1))
    check(folder, repair=True)
    assert check(folder).findings == []
    assert not list(home.glob("*.tmp"))


def test_a_run_that_was_resumed_after_a_crash_is_sealed_too(tmp_path: Path) -> None:
    """Guards the seal of a run with a torn journal: it is used, as the torn end does not change any more."""
    root = tmp_path / "store"
    folder, _ = Folder.create(root)
    home = folder.run_folder(RUN)
    first, second = Writer(home, RUN), Writer(home, RUN)
    first.events([Created("run", RUN, "0", {"name": "x"})])
    first.point("m", 1)
    (path,) = home.glob("*" + SUFFIX)
    with path.open("ab") as file:
        file.write(FRAME.pack(MARK, EVENTS, 0, 100, 3, 1) + b"half a record")
    second.point("m", 2, 1)
    second.events([Updated("run", RUN, {"status": "FINISHED"})])
    before = told(root)
    assert seal(home, RUN)
    store = FolderStore(root)
    store.get("run", [RUN])
    assert store._folded._homes[RUN]._sealed is not None
    assert told(root) == before
    for log in (first, second):
        log.close()


def test_nothing_is_sealed_that_a_seal_cannot_hold(tmp_path: Path) -> None:
    """Guards rows of other kinds: a run with a table, or with a model's rows, is read from its journals."""
    for number, rows in enumerate(
        (
            RowsLogged("run", RUN, "table", {"word": ["a", "b"]}),
            RowsLogged("model", "m", "m", {"step": [1], "time": [1], "value": [1.0]}),
        )
    ):
        store = FolderStore(tmp_path / f"{number}")
        events = (Created("run", RUN, "0", {"status": "FINISHED"}), rows)
        store.append(Batch(os.urandom(16).hex(), RUN, (Record(1, clock.tick(), events),)))
        home = Folder.open(store.root).run_folder(RUN)
        assert not seal(home, RUN)
        assert not (home / NAME).exists()


def test_an_ended_run_takes_three_inodes(tmp_path: Path) -> None:
    """Guards the store's size for 100,000 runs: a folder, a journal and its seal."""
    client = mlcore.Client(tmp_path / "store")
    with client.start_run() as live:
        live.log_metric("m", 1)
    assert live.folder is not None
    assert sorted(path.name[-8:] for path in live.folder.iterdir()) == [".journal", NAME]
    client.close()
    with pytest.raises(MlcoreError):
        client.get_run("nothing")
