"""Stretches of points read at once say exactly what the same points say one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlcore.journal import Writer
from mlcore.store import Columns, ordered
from mlcore_local import Journal, points, read
from mlcore_local.points import Points
from mlcore_local.rows import Rows

numpy = pytest.importorskip("numpy")


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    """Return a journal in which points of two keys meet every other kind of record."""
    random.seed(1)
    writer = Writer(tmp_path, "ab" * 16)
    for step in range(1500):
        kind = random.random()
        if kind < 0.9:
            writer.point("ab"[step > 500 and step % 3 == 0], random.choice([1.5, float("nan"), -0.0, step / 3]), step)
        elif kind < 0.93:
            writer.points({"a": 1, "c": 2}, step)
        elif kind < 0.96:
            writer.point(f"key{step}", 1, step)
        elif kind < 0.98:
            writer.block("a", range(5), range(5))
        else:
            writer.point("a", 2, step, 77)
    writer.close()
    (path,) = tmp_path.glob("*.journal")
    return path.read_bytes()


def found(path: Path) -> tuple[str, int]:
    """Return all that reading a journal tells, and how many stretches there were."""
    journal, taken, stretches = Journal(), dict[int, list[Any]](), 0

    def take(_: Journal, part: Points) -> None:
        nonlocal stretches
        stretches += len(part.stamps) > 1
        columns = (part.numbers, part.stamps, part.steps, part.times, part.values)
        taken.setdefault(part.key, []).extend(tuple(map(float, row)) for row in zip(*columns, strict=True))

    records = list(read(path, journal, points=take))
    state = (journal.damage, journal.tail, journal.gaps, journal.last, journal.first, journal.stamp, journal.offset)
    return repr((records, sorted(taken.items()), state)), stretches


def damaged(data: bytes) -> Iterator[bytes]:
    """Yield copies with flipped bits, lost and repeated frames, and ends cut off."""
    for turn in range(120):
        copy = bytearray(data)
        for _ in range(random.choice([1, 1, 10])):
            copy[random.randrange(200, len(copy))] ^= 1 << random.randrange(8)
        at = random.randrange(200, len(copy))
        if turn % 3 == 0:
            del copy[at:]
        elif turn % 3 == 1:
            del copy[at : at + random.choice([13, 44, 88])]
        else:
            copy[at:at] = copy[at - 44 : at]
        yield bytes(copy)


def test_stretches_and_single_frames_agree_on_any_damage(
    written: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards that speed costs nothing: checksums, gaps, damage and values are the same."""
    monkeypatch.setattr(points, "_FEW", 8)
    path, seen = tmp_path / "copy", 0
    for data in [written, *damaged(written)]:
        path.write_bytes(data)
        together, stretches = found(path)
        with monkeypatch.context() as patch:
            patch.setattr(points, "numpy_for", lambda _: None)
            alone, none = found(path)
        assert together == alone
        assert none == 0
        seen += stretches
    assert seen > 1000


def test_rows_keep_the_order_that_core_defines() -> None:
    """Guards `Rows` against `mlcore.store.ordered`, of which it is the fast form: sources, stretches and rewinds."""
    random.seed(3)
    for _ in range(300):
        rows, logged, stamp, numbers = Rows(), list[Any](), 0, {"a": 0, "b": 0}
        for _ in range(random.randrange(1, 12)):
            source, count = random.choice("ab"), random.randrange(1, 4)
            first = numbers[source] + 1
            stamps = numpy.arange(stamp, stamp + count)
            steps, times = (numpy.array([random.randrange(4) for _ in range(count)]) for _ in range(2))
            columns = {"step": steps, "time": times, "value": numpy.random.rand(count)}
            if random.random() < 0.5:
                rows.add(source, first, stamp, {name: values.tolist() for name, values in columns.items()}, 1)
                logged.append(((stamp, source, first, 1), {name: values.tolist() for name, values in columns.items()}))
                numbers[source] += 1
            else:
                rows.add_points(source, Points(1, range(first, first + count), stamps, *columns.values()))
                for row in range(count):
                    one = {name: [values[row].item()] for name, values in columns.items()}
                    logged.append(((int(stamps[row]), source, first + row, 0), one))
                numbers[source] += count
            stamp += random.randrange(count + 2)
        rewinds = [((random.randrange(stamp + 1), "a", 3, 0), random.randrange(4))] if random.random() < 0.4 else []
        mine, theirs = rows.columns(rewinds), ordered(logged, rewinds)
        assert listed(mine) == listed(theirs)
        assert rows.summary(rewinds) == mine.summary()


def listed(columns: Columns) -> dict[str, list[Any]]:
    """Return columns as lists, to compare."""
    return {name: list(values) for name, values in columns.columns.items() if len(values)}
