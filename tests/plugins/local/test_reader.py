"""The reader: everything undamaged is read, and what is damaged is reported with its offset."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from journals import Span, content, parse, sample, spans, survivors, told
from mlcore.errors import JournalError, MlcoreError, NewerFormat
from mlcore.journal import format as f
from mlcore.store import RowsLogged
from mlcore_local import Journal, read
from mlcore_local.points import Points

_PARTS = 8  # of the flips, so that several processes may share them


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a journal with every type of record."""
    return sample(tmp_path_factory.mktemp("journal"))


@pytest.fixture(scope="module")
def frames(data: bytes) -> list[Span]:
    """Return what its bytes are."""
    return spans(data)


@pytest.fixture(scope="module")
def whole(data: bytes) -> dict[int, str]:
    """Return what it holds, undamaged."""
    records, journal = parse(data)
    assert journal.damage == [] and journal.tail is None and journal.gaps == []
    return content(records)


def check(data: bytes, hit: list[tuple[int, int]], frames: list[Span], whole: dict[int, str]) -> Journal:
    """Read damaged bytes: what must survive has, as it was, and every byte of the damage is told of."""
    records, journal = parse(data)
    assert content(records) == {number: whole[number] for number in survivors(frames, hit)}
    ranges = told(journal)
    for start, end in hit:
        assert any(first <= start and end <= last for first, last in merged(ranges)), (start, end, ranges)
    return journal


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def test_the_sample_has_every_type_of_frame(data: bytes, frames: list[Span]) -> None:
    """Guards the tests below: they prove something for each type, flag and header."""
    assert {span.kind for span in frames} == set(f.NAMES)
    assert 5_000 < len(data) < 7_500
    flags = {data[span.start + 3] for span in frames}
    assert flags >= {0, f.CONTINUES, f.STAMPED, f.CONTINUED, f.CONTINUES | f.CONTINUED}


def test_a_cut_at_any_byte_loses_only_what_was_cut(data: bytes, frames: list[Span], whole: dict[int, str]) -> None:
    """Guards SIGKILL and copies of growing files: the records before the cut, and a tail that says "not yet"."""
    ends = {span.end for span in frames if not data[span.start + 3] & f.CONTINUES}
    for cut in range(len(data)):
        records, journal = parse(data[:cut])
        expected = survivors(frames, [(cut, len(data))])
        assert content(records) == {number: whole[number] for number in expected}, cut
        assert journal.damage == [], cut
        assert (journal.tail is None) == (cut in ends or cut == 2 * f.HEADER_SIZE), cut
        if journal.tail:
            assert journal.tail.offset + journal.tail.length == cut


def test_a_cut_at_any_byte_is_completed_by_what_comes_later(data: bytes, whole: dict[int, str]) -> None:
    """Guards a live journal: what was short at first is read when the rest is there, once."""
    for cut in range(len(data)):
        journal = Journal()
        records = list(journal.feed(data[:cut]))
        records += journal.feed(data[journal.offset :])
        assert content(records) == whole, cut
        assert journal.damage == [] and journal.tail is None, cut


@pytest.mark.parametrize("part", range(_PARTS))
def test_a_flip_of_any_bit_loses_only_its_record(
    part: int, data: bytes, frames: list[Span], whole: dict[int, str]
) -> None:
    """Guards against rot: each bit once; everything undamaged is read, the flip is told of, and nothing is raised."""
    damaged = bytearray(data)
    for position in range(part, len(data), _PARTS):
        assert len(survivors(frames, [(position, position + 1)])) >= len(whole) - 1, "nothing hangs on one frame alone"
        for bit in range(8):
            damaged[position] ^= 1 << bit
            check(bytes(damaged), [(position, position + 1)], frames, whole)
            damaged[position] ^= 1 << bit


def test_two_flips_lose_only_their_records(data: bytes, frames: list[Span], whole: dict[int, str]) -> None:
    """Guards against more rot: two random bits, both headers excepted."""
    chance = random.Random(1)
    for _ in range(1_500):
        damaged, places = bytearray(data), sorted(chance.sample(range(len(data)), 2))
        for place in places:
            damaged[place] ^= 1 << chance.randrange(8)
        if places[0] >= f.HEADER_SIZE or places[1] >= 2 * f.HEADER_SIZE:
            check(bytes(damaged), [(place, place + 1) for place in places], frames, whole)


def test_both_headers_destroyed_is_no_journal(data: bytes) -> None:
    """Guards the one error that reading raises: without a header there is no checksum to trust."""
    damaged = bytearray(data)
    damaged[40] ^= 1
    damaged[40 + f.HEADER_SIZE] ^= 1
    with pytest.raises(JournalError, match="neither copy of its header"):
        parse(bytes(damaged))


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x4c", b"\x4c\xa7"])
def test_an_overwritten_range_loses_only_its_records(
    fill: bytes, data: bytes, frames: list[Span], whole: dict[int, str]
) -> None:
    """Guards against lost sectors: zeros, ones and marks written over a range, at the end too."""
    chance = random.Random(2)
    for _ in range(400):
        start = chance.randrange(2 * f.HEADER_SIZE, len(data) - 2)
        end = min(len(data), start + chance.choice([1, 7, 44, 512, 4096, 10_000]))
        patch = (fill * (end - start))[: end - start]
        damaged = data[:start] + patch + data[end:]
        changed = [place for place in range(start, end) if damaged[place] != data[place]]
        if changed:
            check(damaged, [(changed[0], changed[-1] + 1)], touched(frames, changed), whole)


def touched(frames: list[Span], changed: list[int]) -> list[Span]:
    """Return the frames; those in the range of which no byte changed by chance stay whole."""
    gone = set(changed)
    assert all(gone & set(range(s.start, s.end)) or s.end <= changed[0] or s.start > changed[-1] for s in frames)
    return frames


@pytest.mark.parametrize("size", [1, 2, 3, 23, 44, 1000])
def test_garbage_at_the_end_loses_nothing(size: int, data: bytes, frames: list[Span], whole: dict[int, str]) -> None:
    """Guards what a failing disk appends: it is told of, and all records are read."""
    chance = random.Random(size)
    for _ in range(100):
        garbage = chance.randbytes(size)
        check(data + garbage, [(len(data), len(data) + size)], frames, whole)


def test_frames_of_another_journal_are_damage(tmp_path: Path, data: bytes, whole: dict[int, str]) -> None:
    """Guards against mixed-up blocks: a frame fits only into the journal that it was written for."""
    other = sample(tmp_path / "other")
    theirs, ours = spans(other)[3:9], spans(data)
    for span in ours[2::7]:
        pasted = b"".join(other[each.start : each.end] for each in theirs)
        damaged = data[: span.start] + pasted + data[span.start :]
        records, journal = parse(damaged)
        split = data[span.start + 3] & f.CONTINUED  # pasted into the middle of a record
        lost = {span.number} if split else set()
        assert content(records) == {number: each for number, each in whole.items() if number not in lost}
        assert any(start <= span.start and end >= span.start + len(pasted) for start, end in merged(told(journal)))


def test_frames_written_twice_count_once(data: bytes, whole: dict[int, str]) -> None:
    """Guards against repeated blocks: a record comes out once, and the repeat is told of."""
    ours = spans(data)
    for span in [each for each in ours if each.number and not data[each.start + 3]][::3]:
        again = data + data[span.start : span.end]
        records, journal = parse(again)
        assert content(records) == whole
        assert told(journal) == [(len(data), len(again))]


@pytest.mark.parametrize("step", [1, 7, 44, 100, 1024])
def test_reading_as_it_grows_is_reading_at_once(step: int, data: bytes, whole: dict[int, str]) -> None:
    """Guards live reading: a file that grows by any number of bytes gives the same records, each once."""
    journal, records = Journal(), []
    for size in [*range(step, len(data), step), len(data)]:
        records += journal.feed(data[journal.offset : size])
    assert content(records) == whole
    assert journal.damage == [] and journal.tail is None


@pytest.mark.parametrize("chunk", [50, 300, 1 << 12])
def test_damage_is_the_same_whether_read_in_chunks_or_at_once(
    chunk: int, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards large files, which are read in chunks: nothing depends on where a chunk ends."""
    monkeypatch.setattr("mlcore_local.reader._CHUNK", chunk)
    chance, path = random.Random(3), tmp_path / "x.journal"
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(chance.randrange(4)):
            start = chance.randrange(2 * f.HEADER_SIZE, len(data))
            damaged[start : start + chance.randrange(60)] = chance.randbytes(chance.randrange(60))
        path.write_bytes(damaged)
        journal = Journal()
        records = list(read(path, journal))
        at_once, other = parse(bytes(damaged))
        assert content(records) == content(at_once)
        assert merged(told(journal)) == merged(told(other))


def test_points_given_out_singly_are_the_points_of_the_records(data: bytes, frames: list[Span]) -> None:
    """Guards the fast path: what goes to `points` and what comes as records is one and the same."""
    chance = random.Random(4)
    for round_ in range(200):
        damaged = bytearray(data)
        for _ in range(round_ % 5):
            damaged[chance.randrange(256, len(data))] ^= 1 << chance.randrange(8)
        records, journal = parse(bytes(damaged))
        slow = []
        for record in records:
            for event in record.events:
                if isinstance(event, RowsLogged) and set(event.columns) == {"step", "time", "value"}:
                    rows = zip(*(event.columns[name] for name in ("step", "time", "value")), strict=True)
                    slow += [(event.key, record.number, step, time, bits(value)) for step, time, value in rows]
        fast: list[tuple[str, int, int, int, bytes]] = []

        def take(found: Journal, points: Points) -> None:
            rows = zip(points.numbers, points.steps, points.times, points.values, strict=True)
            key = found.named(points.key)[2]
            fast.extend((key, number, step, time, bits(value)) for number, step, time, value in rows)  # noqa: B023

        other = Journal()
        for record in other.feed(bytes(damaged), points=take):
            for event in record.events:
                if isinstance(event, RowsLogged) and set(event.columns) == {"step", "time", "value"}:
                    rows = zip(*(event.columns[name] for name in ("step", "time", "value")), strict=True)
                    fast += [(event.key, record.number, step, time, bits(value)) for step, time, value in rows]
        assert fast == slow
        assert told(other) == told(journal)


def bits(value: float) -> bytes:
    """Return a float bit by bit, so that NaN equals itself and 0.0 does not equal -0.0."""
    return struct.pack("<d", value)


@given(st.binary(max_size=3000))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_called_no_journal(junk: bytes) -> None:
    """Guards against files of any other kind: nothing but `JournalError` comes out of them."""
    try:
        records, _ = parse(junk)
    except JournalError:
        return
    assert records == []


@given(patch=st.binary(max_size=200), start=st.integers(0, 6_000), cut=st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_any_patch_raises_nothing_but_a_journal_error(data: bytes, patch: bytes, start: int, cut: int) -> None:
    """Guards the reader's own code: inserted, replaced and removed bytes never raise anything else."""
    try:
        records, _ = parse(data[:start] + patch + data[start + cut :])
    except MlcoreError as error:
        assert isinstance(error, JournalError)
        return
    assert len({record.number for record in records}) == len(records)


def test_a_journal_of_a_newer_format_is_not_guessed_at(data: bytes) -> None:
    """Guards the future: a higher version in an intact header is told of, and nothing is read."""
    import zlib

    body = bytearray(data[: f.HEADER.size])
    body[8:10] = (2).to_bytes(2, "little")
    header = bytes(body) + zlib.crc32(body).to_bytes(4, "little")
    with pytest.raises(NewerFormat, match="journal format 2 is newer than 1"):
        parse(header * 2 + data[256:])


def test_a_frame_of_an_unknown_kind_is_told_of(data: bytes, frames: list[Span], whole: dict[int, str]) -> None:
    """Guards what a later version adds: it is passed over and reported, and what follows is read."""
    import zlib

    seed = parse(data)[1].header.seed  # type: ignore[union-attr]
    body = f.FRAME.pack(f.MARK, 9, 0, 5, 3, 99) + b"hello"
    strange = body + zlib.crc32(body, seed).to_bytes(4, "little")
    place = frames[10].end
    records, journal = parse(data[:place] + strange + data[place:])
    assert content(records) == whole
    assert told(journal) == [(place, place + len(strange))]
