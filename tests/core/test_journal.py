"""The journal's writer: what was logged is read back exactly, whatever interrupts, forks or refuses."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import random
import signal
import struct
import sys
import threading
import time
import warnings
from array import array
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest

from journals import NAN, RUN
from mlcore.errors import InvalidValue
from mlcore.journal import Writer, format as f
from mlcore.store import Record, RowsLogged, Updated, clock
from mlcore_local import Journal, read
from mlcore_local.rows import Rows


def writer(folder: Path) -> Writer:
    """Return a writer of a run's journal."""
    return Writer(folder, RUN)


def files(folder: Path) -> list[Path]:
    """Return the journals of a folder, the oldest first."""
    return sorted(folder.glob("*" + f.SUFFIX), key=lambda path: path.stat().st_mtime_ns)


def journal(path: Path) -> tuple[Journal, list[Record]]:
    """Return a journal that must be whole."""
    found = Journal()
    records = list(read(path, found))
    assert found.damage == [] and found.tail is None and found.gaps == []
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert [record.stamp for record in records] == sorted({record.stamp for record in records})
    return found, records


def rows(folder: Path) -> list[tuple[str, int, int, bytes]]:
    """Return key, step, time and the bits of each value that the journals of a folder hold, as they were logged."""
    found = []
    for path in files(folder):
        for record in journal(path)[1]:
            for event in record.events:
                assert isinstance(event, RowsLogged)
                columns = (event.columns[name] for name in ("step", "time", "value"))
                found += [(event.key, step, at, bits(value)) for step, at, value in zip(*columns, strict=True)]
    return found


def bits(value: float) -> bytes:
    """Return a float bit by bit."""
    return struct.pack("<d", value)


def values(folder: Path, key: str = "m") -> list[tuple[int, float]]:
    """Return the steps and values of a key, as they were logged."""
    return [(step, struct.unpack("<d", value)[0]) for name, step, _, value in rows(folder) if name == key]


class Item:
    """A number as torch and others give it: only `.item()` makes it one."""

    def __repr__(self) -> str:
        return f"Item({self.value!r})"

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value


class Broken:
    """A value whose own code fails, as that of a tensor on a lost device does."""

    def __float__(self) -> float:
        raise RuntimeError("CUDA error")


EXACT = [
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    NAN,
    -NAN,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    0.1,
]


@pytest.mark.parametrize("way", ["point", "point_at", "points", "block", "block_at", "numpy"])
def test_every_float_comes_back_bit_by_bit(way: str, tmp_path: Path) -> None:
    """Guards NaN with its payload, infinities, negative zero and denormals, on each way into the journal."""
    log = writer(tmp_path)
    if way in ("point", "point_at"):
        for value in EXACT:
            log.point("m", value, time=None if way == "point" else 5)
    elif way == "points":
        for value in EXACT:
            log.points({"m": value, "n": 1})
    else:
        given = numpy.array(EXACT) if way == "numpy" else EXACT
        log.block("m", range(len(EXACT)), given, [5] * len(EXACT) if way == "block_at" else None)
    found = [(step, value) for key, step, _, value in rows(tmp_path) if key == "m"]
    assert found == list(enumerate(map(bits, EXACT)))


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (True, 1.0),
        (Decimal("0.1"), 0.1),
        (Fraction(1, 4), 0.25),
        (1 << 80, float(1 << 80)),
        (Item(2.5), 2.5),
        (Item(7), 7.0),
        (numpy.float32(0.5), 0.5),
        (numpy.float16(0.5), 0.5),
        (numpy.int64(-3), -3.0),
        (numpy.uint8(200), 200.0),
        (numpy.bool_(True), 1.0),
        (numpy.array(1.5), 1.5),
        (numpy.array([1.5]), 1.5),
        (numpy.longdouble(1.5), 1.5),
    ],
    ids=repr,
)
def test_anything_that_is_a_number_is_logged(value: Any, expected: float, warm: bool, tmp_path: Path) -> None:
    """Guards `__float__` and `.item()`, on the first call for a key and on the fast path after it."""
    log = writer(tmp_path)
    if warm:
        log.point("m", 0)
    log.point("m", value)
    assert values(tmp_path)[-1] == (int(warm), expected)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "value",
    ["1.5", b"1", None, [1], {}, 1j, Item("x"), Broken(), 10**400, numpy.array([1, 2]), object()],
    ids=lambda it: type(it).__name__,
)
def test_what_is_no_number_is_named_and_nothing_is_written(value: Any, warm: bool, tmp_path: Path) -> None:
    """Guards the error: it names the metric, and the key's next step stays what it was."""
    log = writer(tmp_path)
    log.point("other" if not warm else "m", 0)
    with pytest.raises(InvalidValue, match=r"metric 'm'.*is no number"):
        log.point("m", value)
    with pytest.raises(InvalidValue, match=r"metric 'm'.*is no number"):
        log.points({"n": 1, "m": value})
    log.point("m", 2)
    assert values(tmp_path)[-1] == (int(warm), 2.0)
    assert values(tmp_path, "n") == []


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "key", ["", "a" * 251, "a\nb", "a\x7f", "\x85", "\u2028", "\ud800", None, 3, b"a", ["a"]], ids=repr
)
def test_what_cannot_be_a_key_is_refused(key: Any, warm: bool, tmp_path: Path) -> None:
    """Guards files, URLs and terminals: empty, too long, control characters, no text at all."""
    log = writer(tmp_path)
    if warm:
        log.point("m", 0)
    with pytest.raises(InvalidValue, match="key"):
        log.point(key, 1)
    if not isinstance(key, list):
        with pytest.raises(InvalidValue, match="key"):
            log.points({key: 1})
    with pytest.raises(InvalidValue, match="key"):
        log.block(key, [1], [1])
    assert values(tmp_path) == [(0, 0.0)] * warm


@pytest.mark.parametrize("key", ["a" * 250, "größe/训练 🦦", " ", "a\\b", '"', "a.b/c-d:e"])
def test_any_other_text_is_a_key(key: str, tmp_path: Path) -> None:
    """Guards names as people write them: 250 characters of any script."""
    log = writer(tmp_path)
    log.point(key, 1)
    log.point(key, 2)
    log.block(key, [2], [3])
    assert values(tmp_path, key) == [(0, 1.0), (1, 2.0), (2, 3.0)]


@pytest.mark.parametrize(
    ("step", "expected"),
    [(5, 5), (5.0, 5), (True, 1), (-(1 << 63), -(1 << 63)), (numpy.int8(5), 5), (numpy.float64(5), 5), (Item(5), 5)],
    ids=repr,
)
def test_a_step_is_a_whole_number_of_any_type(step: Any, expected: int, tmp_path: Path) -> None:
    """Guards steps out of numpy, torch and JSON; the next one is the one after."""
    log = writer(tmp_path)
    for key in ("m", "m"):
        log.point(key, 1, step)
    log.point("m", 2)
    log.points({"m": 3}, step)
    log.block("m", [step], [4])
    assert [step for step, _ in values(tmp_path)] == [expected, expected, expected + 1, expected, expected]


@pytest.mark.parametrize(
    "step",
    [1.5, math.nan, "1", 1 << 63, [1], object()],
    ids=lambda it: f"{type(it).__name__}-{str(it)[:8]}" if type(it) is not object else "object",
)
def test_what_is_no_step_is_refused(step: Any, tmp_path: Path) -> None:
    """Guards 64-bit columns: fractions, text and larger numbers are told of, on the fast path too."""
    log = writer(tmp_path)
    for _ in range(2):
        with pytest.raises(InvalidValue, match="whole number of 64 bits"):
            log.point("m", 1, step)
        log.point("m", 0)
    with pytest.raises(InvalidValue, match="whole number of 64 bits"):
        log.block("m", [step], [1])
    assert values(tmp_path) == [(0, 0.0), (1, 0.0)]


def test_the_step_after_the_last_possible_one_is_refused(tmp_path: Path) -> None:
    """Guards the end of the range: no step comes after 2**63 - 1, and none wraps around."""
    log = writer(tmp_path)
    log.point("m", 1, (1 << 63) - 1)
    with pytest.raises(InvalidValue, match="whole number of 64 bits"):
        log.point("m", 2)
    assert len(values(tmp_path)) == 1


def test_steps_of_small_numpy_integers_do_not_overflow(tmp_path: Path) -> None:
    """Guards the counting on: 127 as an int8 is followed by 128."""
    log = writer(tmp_path)
    log.point("m", 0)
    log.point("m", 1, numpy.int8(127))
    log.point("m", 2)
    assert [step for step, _ in values(tmp_path)] == [0, 127, 128]


def test_the_next_step_follows_the_last_one_of_its_key(tmp_path: Path) -> None:
    """Guards `step=None`: each key counts by itself, on from whatever was logged last, in any way."""
    log = writer(tmp_path)
    log.point("m", 0)
    log.point("n", 0, 100)
    log.point("m", 1)
    log.points({"m": 2, "n": 1})
    log.block("m", [10, 11], [3, 4])
    log.point("m", 5, 3)
    log.point("m", 6, time=1)
    log.close()
    log.point("m", 7)
    log.continue_after({"n": 7})
    assert [step for step, _ in values(tmp_path)] == [0, 1, 2, 10, 11, 3, 4, 5]
    assert [step for step, _ in values(tmp_path, "n")] == [100, 101]


@pytest.mark.parametrize(
    "columns",
    [
        ([1, 2, 3], [0.5, 1.5, 2.5]),
        (range(1, 4), (0.5, 1.5, 2.5)),
        (array("q", [1, 2, 3]), array("d", [0.5, 1.5, 2.5])),
        (array("i", [1, 2, 3]), array("f", [0.5, 1.5, 2.5])),
        (numpy.arange(1, 4), numpy.array([0.5, 1.5, 2.5])),
        (numpy.arange(1, 4, dtype="i4"), numpy.array([0.5, 1.5, 2.5], "f4")),
        (numpy.arange(1, 4, dtype="u1"), numpy.array([0.5, 1.5, 2.5], "f2")),
        (numpy.arange(1, 4, dtype=">i8"), numpy.array([0.5, 1.5, 2.5], ">f8")),
        (numpy.arange(6)[1::2] // 2 + 1, numpy.arange(6)[::2] / 2 + 0.5),
        (numpy.array([1.0, 2.0, 3.0]), [Item(0.5), numpy.float32(1.5), Decimal("2.5")]),
        (iter([1, 2, 3]), (value for value in (0.5, 1.5, 2.5))),
        ([1.0, True + 1, numpy.int8(3)], memoryview(array("d", [0.5, 1.5, 2.5]))),
    ],
    ids=lambda columns: "-".join(type(each).__name__ for each in columns),
)
def test_columns_of_any_kind_are_logged(columns: tuple[Any, Any], tmp_path: Path) -> None:
    """Guards `log_points`: lists, ranges, arrays, numpy of any type, order and stride, and generators."""
    log = writer(tmp_path)
    log.block("m", *columns)
    assert values(tmp_path) == [(1, 0.5), (2, 1.5), (3, 2.5)]


def test_whole_numbers_are_values_too(tmp_path: Path) -> None:
    """Guards integers and booleans as values, in a list and in numpy."""
    log = writer(tmp_path)
    log.block("m", range(3), [1, True, 1 << 70])
    log.block("m", range(3, 5), numpy.array([1, 2]))
    log.block("m", range(5, 7), numpy.array([False, True]))
    assert [value for _, value in values(tmp_path)] == [1.0, 1.0, float(1 << 70), 1.0, 2.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "columns",
    [
        ([1, 2], [1.0]),
        ([1], [1.0], [1, 2]),
        ([1.5], [1.0]),
        ([1], ["x"]),
        ([1], [None]),
        (["1"], [1.0]),
        ([1 << 63], [1.0]),
        (5, [1.0]),
        ([5], 1.0),
        ([1, 2], numpy.ones((2, 2))),
        ([1], numpy.array(["2020"], "M8[Y]")),
        ([1], numpy.array(1.0)),
        ([1], numpy.array([1j])),
        ([1], [[1.0]]),
    ],
    ids=repr,
)
def test_columns_that_do_not_fit_are_refused_whole(columns: tuple[Any, ...], tmp_path: Path) -> None:
    """Guards blocks: other lengths, other types and other shapes are told of, and nothing of them is written."""
    log = writer(tmp_path)
    log.point("m", 0)
    with pytest.raises(InvalidValue, match="'m'"):
        log.block("m", *columns)
    assert values(tmp_path) == [(0, 0.0)]


def test_no_rows_are_no_record(tmp_path: Path) -> None:
    """Guards empty columns and empty dicts: nothing happens."""
    log = writer(tmp_path)
    log.block("m", [], [])
    log.points({})
    log.point("m", 1)
    assert values(tmp_path) == [(0, 1.0)]


def test_more_than_a_million_points_are_several_records(tmp_path: Path) -> None:
    """Guards long calls: 1,500,000 points go in as two records, and all come back."""
    log, count = writer(tmp_path), 1_500_000
    given = numpy.random.default_rng(1).random(count)
    log.block("m", numpy.arange(count), given)
    log.point("m", 1)
    found, records = journal(files(tmp_path)[0])
    assert len(records) == 3
    assert {len(event) for record in records for event in record.events} <= {f.BLOCK_ROWS, 1, 864, 864 + f.BLOCK_ROWS}
    gathered = Rows()
    for record in records:
        for event in record.events:
            assert isinstance(event, RowsLogged)
            gathered.add(found.source, record.number, record.stamp, event.columns)
    columns = gathered.columns().as_numpy()
    assert numpy.array_equal(columns["step"], numpy.arange(count + 1))
    assert numpy.array_equal(columns["value"][:-1], given)  # type: ignore[index]


def test_times_are_the_stamp_s_unless_given(tmp_path: Path) -> None:
    """Guards the time column: now in ms for every way of logging, or what was said."""
    log, before = writer(tmp_path), time.time_ns() // 1_000_000
    log.point("m", 1)
    log.point("m", 1)
    log.points({"m": 1})
    log.block("m", [1, 2], [1, 1])
    after = time.time_ns() // 1_000_000
    log.point("m", 1, time=-5)
    log.points({"m": 1}, time=numpy.int32(6))
    log.block("m", [1, 2], [1, 1], [7.0, -(1 << 63)])
    times = [at for _, _, at, _ in rows(tmp_path)]
    assert all(before <= at <= after for at in times[:5])
    assert times[5:] == [-5, 6, 7, -(1 << 63)]
    with pytest.raises(InvalidValue, match="time"):
        log.point("m", 1, time="now")


def test_stamps_never_go_back_when_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the hybrid logical clock: a wall clock that jumps, stands still and goes back gives rising stamps."""
    now = time.time_ns() + 10**9
    jumps = iter([0, 0, 0, 5, -(10**9), -(10**12), 10**10, 0, -1, 1, 0, 0])
    current = [now]

    def fake() -> int:
        current[0] += next(jumps, 0)
        return current[0]

    monkeypatch.setattr("mlcore.store._clock.time_ns", fake)
    monkeypatch.setattr("mlcore.journal._writer.time_ns", fake)
    log = writer(tmp_path)
    for step in range(30):
        log.point("m", step)
        if step % 4 == 0:
            log.points({"m": 1, "n": 2})
        if step % 7 == 0:
            log.events([Updated("run", RUN, {"x": step})])
    journal(files(tmp_path)[0])  # checks that stamps rise
    assert len(values_of_points(tmp_path)) == 30 + 8


def values_of_points(folder: Path) -> list[int]:
    """Return the steps of key m among records that are not all rows."""
    events = [event for path in files(folder) for record in journal(path)[1] for event in record.events]
    return [event.columns["step"][0] for event in events if isinstance(event, RowsLogged) and event.key == "m"]


def test_stamps_are_above_what_was_observed(tmp_path: Path) -> None:
    """Guards a resume on a machine whose clock is behind: what is logged now comes after what was read."""
    ahead = time.time_ns() + 50_000_000
    clock.observe(ahead)
    log = writer(tmp_path)
    for _ in range(3):
        log.point("m", 1)
    assert all(record.stamp > ahead for record in journal(files(tmp_path)[0])[1])


def test_threads_share_a_journal(tmp_path: Path) -> None:
    """Guards 16 threads with 2,000 points each: all are there, once, and each thread's in its order."""
    log = writer(tmp_path)

    def work(number: int) -> None:
        for step in range(2_000):
            log.point(f"m{number % 8}", number * 10_000 + step, step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    (path,) = files(tmp_path)
    found = [struct.unpack("<d", value)[0] for _, _, _, value in rows(tmp_path)]
    assert sorted(found) == [number * 10_000 + step for number in range(16) for step in range(2_000)]
    for number in range(16):
        own = [value for value in found if value // 10_000 == number]
        assert own == sorted(own)
    assert journal(path)[0].last == 32_000


@pytest.fixture
def interrupts() -> Iterator[Callable[[], None]]:
    """Let SIGALRM be what Ctrl-C is; return what sets the next one off at a random moment."""
    chance = random.Random(5)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    gc.disable()  # an interrupt within what others hang on the collector is lost

    def soon() -> None:
        signal.setitimer(signal.ITIMER_REAL, chance.random() * 300e-6 + 1e-6, 0.1)

    yield soon
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.enable()
    signal.signal(signal.SIGALRM, before)


def test_interrupts_at_any_moment_lose_and_repeat_nothing(interrupts: Callable[[], None], tmp_path: Path) -> None:
    """Guards Ctrl-C: 3,000 interrupts amid logging; each call that returned is there once, and no step twice."""
    log, returned, broken = writer(tmp_path), dict[str, list[float]](), 0
    log.point("m", -1)  # so that opening is done
    count = 0
    while broken < 3_000:
        try:
            interrupts()
            while True:
                count += 1
                log.point("m", count)
                returned.setdefault("m", []).append(count)
                if count % 5 == 0:
                    log.points({"a": count, f"b{count % 3}": count})
                    returned.setdefault("a", []).append(count)
                if count % 7 == 0:
                    log.block("block", [count, count], [count, count])
                    returned.setdefault("block", []).extend([count, count])
        except KeyboardInterrupt:
            broken += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    log.point("m", -2)
    log.close()
    assert broken == 3_000
    found = [row for path in files(tmp_path) for row in rows_of(path)]
    for key, expected in returned.items():
        logged = [value for name, _, value in found if name == key]
        if key != "block":
            assert len(set(logged)) == len(logged), "a call was written twice"
        # the call that an interrupt broke off may be there or not
        assert set(expected) <= set(logged)
        assert len(logged) - len(expected) <= 2 * broken + 2
        if key == "m":
            steps = [step for name, step, _ in found if name == "m"]
            assert len(set(steps)) == len(steps), "a step was given twice"
            assert sorted(steps) == list(range(len(steps)))


def rows_of(path: Path) -> list[tuple[str, int, float]]:
    """Return key, step and value of what a journal holds; a torn record where an interrupt struck is no fault."""
    found = Journal()
    records = list(read(path, found))
    assert found.damage == [] and found.gaps == []
    events = [event for record in records for event in record.events]
    assert all(isinstance(event, RowsLogged) for event in events)
    return [
        (event.key, step, value)
        for event in events
        if isinstance(event, RowsLogged)
        for step, value in zip(event.columns["step"], event.columns["value"], strict=True)
    ]


def test_an_interrupt_right_after_the_write_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the worst moment: the bytes are in the file, the call does not return, and the next one goes on."""
    log = writer(tmp_path)
    log.point("m", 0)
    log.point("m", 1)
    done = os.write

    def write(fd: int, data: Any) -> int:
        size = done(fd, data)
        signal.raise_signal(signal.SIGINT)
        return size

    with monkeypatch.context() as patch:
        patch.setattr("mlcore.journal._writer.os.write", write)
        with pytest.raises(KeyboardInterrupt):
            log.point("m", 2)
    with monkeypatch.context() as patch:
        patch.setattr("mlcore.journal._writer.os.write", write)
        with pytest.raises(KeyboardInterrupt):
            log.points({"m": 3})
    log.point("m", 4)
    assert values(tmp_path) == [(step, float(step)) for step in range(5)]
    assert len(files(tmp_path)) == 1


def test_a_write_that_an_interrupt_broke_off_half_way_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards what follows: a torn record is the end of its journal, and logging goes on in another."""
    log = writer(tmp_path)
    log.point("m", 0)
    done = os.write

    def write(fd: int, data: Any) -> int:
        done(fd, bytes(data)[:30])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlcore.journal._writer.os.write", write)
        with pytest.raises(KeyboardInterrupt):
            log.point("m", 1)
    log.point("m", 2)
    first, second = files(tmp_path)
    found = Journal()
    assert len(list(read(first, found))) == 1
    assert found.tail is not None and found.tail.length == 30
    assert [value for _, _, value in rows_of(second)] == [2.0]


def test_a_handler_that_logs_amid_a_call_does_not_wait_for_itself(tmp_path: Path) -> None:
    """Guards SIGTERM handlers that log, and finalizers: no deadlock, and nothing of either call is lost."""
    log, inner = writer(tmp_path), [0]

    def handler(*_: object) -> None:
        inner[0] += 1
        log.point("handler", inner[0])
        log.points({"handler": inner[0], "two": 1})
        log.events([Updated("run", RUN, {"x": 1})])

    before = signal.signal(signal.SIGALRM, handler)
    chance, count, seen = random.Random(6), 0, -1
    try:
        while inner[0] < 1_000:
            if seen != inner[0]:
                seen = inner[0]
                signal.setitimer(signal.ITIMER_REAL, chance.random() * 200e-6 + 1e-6)
            log.point("m", count)
            log.points({"m": count + 1, "n": 1})
            log.block("m", [count], [count + 2])
            count += 3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    log.close()
    assert log.dropped == 0
    found = [event for path in files(tmp_path) for record in journal(path)[1] for event in record.events]
    logged = [event for event in found if isinstance(event, RowsLogged)]
    assert sorted(event.columns["value"][0] for event in logged if event.key == "m") == list(range(count))
    assert sum(event.key == "handler" for event in logged) == 2 * inner[0]
    assert sum(isinstance(event, Updated) for event in found) == inner[0]
    assert len(files(tmp_path)) == 2


def test_a_handler_s_timeout_is_not_taken_for_the_disk_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards `signal.alarm` with TimeoutError, which is an OSError: it reaches whoever set the alarm."""
    log = writer(tmp_path)
    log.point("m", 0)

    def write(fd: int, data: Any) -> int:
        raise TimeoutError("an epoch took too long")

    with monkeypatch.context() as patch:
        patch.setattr("mlcore.journal._writer.os.write", write)
        with pytest.raises(TimeoutError, match="an epoch took too long"):
            log.point("m", 1)
    assert log.dropped == 0


def in_child(work: Callable[[], None], seconds: float = 20) -> None:
    """Run `work` in a forked child, and fail if it fails or does not end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail("the child hangs")


def test_a_forked_child_goes_on_in_a_journal_of_its_own(tmp_path: Path) -> None:
    """Guards data loaders: the child's points go to its own file, the parent's file and numbers are untouched."""
    log = writer(tmp_path)
    log.point("m", 0)
    (path,) = files(tmp_path)
    before = path.read_bytes()

    def work() -> None:
        log.point("m", 100)
        log.points({"m": 101, "n": 1})
        log.events([Updated("run", RUN, {"x": 1})])

    in_child(work)
    assert path.read_bytes() == before
    log.point("m", 1)
    assert values_in(path) == [0.0, 1.0]
    (theirs,) = set(files(tmp_path)) - {path}
    assert values_in(theirs)[0] == 100.0
    assert journal(theirs)[0].writer["pid"] != os.getpid()
    assert next(event.columns["step"][0] for event in events_in(theirs) if isinstance(event, RowsLogged)) == 1


def events_in(path: Path) -> list[Any]:
    """Return the events of a journal that must be whole."""
    return [event for record in journal(path)[1] for event in record.events]


def values_in(path: Path) -> list[float]:
    """Return the values of a journal that must be whole."""
    return [event.columns["value"][0] for event in events_in(path) if isinstance(event, RowsLogged)]


def test_forking_while_other_threads_log_does_not_hang_the_child(tmp_path: Path) -> None:
    """Guards locks held by threads that the child lacks: 150 forks amid logging, opening and closing."""
    log, stop, interval = writer(tmp_path), threading.Event(), sys.getswitchinterval()
    opened = [writer(tmp_path / str(number)) for number in range(2)]

    def work() -> None:
        while not stop.is_set():
            log.point("m", 1)
            log.points({"m": 1, "n": 2})

    def reopen(own: Writer) -> None:
        while not stop.is_set():
            own.point("m", 1)
            own.close()
            for path in own.folder.iterdir():
                path.unlink()

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads += [threading.Thread(target=reopen, args=(each,)) for each in opened]
    for thread in threads:
        thread.start()
    sys.setswitchinterval(1e-5)  # so that threads are caught at every place
    try:
        for _ in range(150):
            in_child(lambda: [each.point("m", 5) for each in (log, *opened)] and None)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join()
    assert len(files(tmp_path)) == 151
    for path in files(tmp_path):
        journal(path)


def _child(folder: Path, log: Writer | None) -> None:
    (log or writer(folder)).point("m", 7)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing_log(method: str, tmp_path: Path) -> None:
    """Guards worker processes: forked with an open journal, or spawned with none."""
    log = writer(tmp_path)
    log.point("m", 1)
    context = multiprocessing.get_context(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(target=_child, args=(tmp_path, log if method == "fork" else None))
        process.start()
    process.join(20)
    assert process.exitcode == 0
    assert sorted(value for path in files(tmp_path) for value in values_in(path)) == [1.0, 7.0]


def test_the_keeper_syncs_and_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards life signs: the journal of a silent process shows a new time of change, and the same content."""
    monkeypatch.setattr("mlcore.journal._writer.SYNC_SECONDS", 0.01)
    monkeypatch.setattr("mlcore.journal._writer.SIGN_SECONDS", 0.05)
    log = writer(tmp_path)
    log.point("m", 1)
    (path,) = files(tmp_path)
    before = path.read_bytes()
    os.utime(path, (1, 1))
    until = time.monotonic() + 10
    while path.stat().st_mtime < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert path.stat().st_mtime > 2
    assert path.read_bytes() == before
    log.close()


def test_a_journal_opened_while_another_is_synced_is_synced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the loss of power: as many records as the journal before had do not make a new one look synced."""
    log, synced = writer(tmp_path), list[int]()
    log.point("m", 1)

    def fdatasync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        if len(synced) == 1:  # the writer goes on in another journal meanwhile
            log._let_go()
            log.point("m", 2)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    log.sync()
    log.sync()
    assert synced == [path.stat().st_ino for path in files(tmp_path)]


def test_the_keeper_outlives_journals_that_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the one thread: journals made and dropped while it looks at them all do not end it."""
    from mlcore.journal import _writer

    monkeypatch.setattr("mlcore.journal._writer.SYNC_SECONDS", 0.0)
    kept = [writer(tmp_path / "kept") for _ in range(200)]
    for number in range(3_000):
        writer(tmp_path / str(number))
    kept[0].point("m", 1)
    assert _writer._thread is not None and _writer._thread.is_alive()


def test_what_the_disk_refuses_is_counted_by_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the report: a call with ten new keys that is not written is one call, told of once."""
    log = writer(tmp_path / "run")
    (tmp_path / "run").write_text("no folder can be here")
    for _ in range(3):
        log.points({f"k{number}": 1 for number in range(10)})
    log.point("m", 1)
    log.block("m", [1], [1])
    log.events([Updated("run", RUN, {})])
    assert log.dropped == 6
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1
    (tmp_path / "run").unlink()
    log.point("m", 2)
    assert values(tmp_path / "run") == [(0, 2.0)]


@pytest.mark.parametrize("short", [1, 20, 43, 44, 51, 100])
def test_a_short_write_is_cut_back(short: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a disk that fills up amid a record: the half of it goes, and the next record follows whole ones."""
    log = writer(tmp_path)
    log.points({"m": 0, "n": 0})
    log.point("m", 1)
    done, left = os.write, [short]

    def write(fd: int, data: Any) -> int:
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        size = done(fd, bytes(data)[: left[0]])
        left[0] -= size
        return size

    with monkeypatch.context() as patch:
        patch.setattr("mlcore.journal._writer.os.write", write)
        log.points({"m": 2, "n": 2, "o": 2})
        log.point("m", 3)
        log.block("n", range(100), range(100))
    assert log.dropped >= 2
    log.point("m", 4, 4)
    assert (4, 4.0) in values(tmp_path)
    assert len(files(tmp_path)) == 1
