"""Chunks give back what they were made of, and series put together from them are those of the fold."""

from __future__ import annotations

from array import array
from typing import Any

from hypothesis import given, settings, strategies as st

from mlcore.store import Columns, Rewind, Summary, ordered
from mlcore.testing._checking import exact, exact_columns
from mlcore_sql.chunks import Chunk, Logged, pack
from mlcore_sql.curves import assembled, summed
from mlcore_sql.rows import portions

int64 = st.integers(-(2**63), 2**63 - 1)
steps = st.one_of(st.integers(0, 4), int64)
points = st.lists(st.tuples(steps, st.integers(0, 2) | int64, st.floats(allow_nan=True) | st.just(-0.0)), max_size=4)


@st.composite
def logged(draw: st.DrawFn, *, plain: bool = False) -> dict[str, list[Logged]]:
    """Draw what some sources logged of one series."""
    found = {}
    for source in draw(st.lists(st.sampled_from("abcd"), unique=True, min_size=1)):
        events, stamp = [], draw(st.integers(0, 5))
        for number in range(1, draw(st.integers(1, 5)) + 1):
            stamp += draw(st.integers(0, 3))
            each = [draw(plain_columns if plain else columns) for _ in range(draw(st.integers(1, 2)))]
            events += [Logged(number, index, stamp, rows) for index, rows in enumerate(each)]
        found[source * 32] = events
    return found


def _columns(rows: list[Any]) -> dict[str, Any]:
    each = list(zip(*rows, strict=True)) or [(), (), ()]
    return {"step": array("q", each[0]), "time": array("q", each[1]), "value": array("d", each[2])}


plain_columns = st.builds(_columns, points.filter(bool))
odd_columns = st.fixed_dictionaries(
    {}, optional={"step": st.just(array("q", [1, 2])), "value": st.just([1, None]), "text": st.just(["ä\n", {"$a": 1}])}
)
columns = st.one_of(st.builds(_columns, points), plain_columns, odd_columns)


@st.composite
def rewinds(draw: st.DrawFn) -> list[Rewind]:
    """Draw rewinds whose orders are nobody else's."""
    order = st.tuples(st.integers(0, 20), st.sampled_from("bcdx").map(lambda it: it * 32), st.just(9), st.just(0))
    return draw(st.lists(st.tuples(order, steps), max_size=2))


def chunks_of(found: dict[str, list[Logged]], cuts: int = 1) -> list[Chunk]:
    """Pack events, some at a time."""
    return [
        Chunk(source, pack(part))
        for source, events in found.items()
        for start in range(0, len(events), cuts)
        for part in portions(events[start : start + cuts])
    ]


def by_oracle(found: dict[str, list[Logged]], cuts: list[Rewind]) -> Columns:
    """Return what the fold makes of the same."""
    events = [((e.stamp, source, e.number, e.index), e.columns) for source, some in found.items() for e in some]
    return ordered(events, cuts)


def plain(event: Logged) -> Any:
    """Return an event to compare."""
    return event.number, event.index, event.stamp, {k: (type(v), exact(v)) for k, v in event.columns.items()}


@settings(deadline=None)
@given(logged(), st.integers(1, 12))
def test_a_chunk_gives_back_its_events(found: dict[str, list[Logged]], cuts: int) -> None:
    """Guards that no number, type or place is lost on the way into a chunk and out of it."""
    for source, events in found.items():
        back = [e for chunk in chunks_of({source: events}, cuts) for e in chunk.events()]
        assert list(map(plain, back)) == list(map(plain, events))


@settings(deadline=None)
@given(logged(), st.integers(0, 3), st.integers(0, 3))
def test_some_records_of_a_chunk_can_be_asked_for(found: dict[str, list[Logged]], first: int, more: int) -> None:
    """Guards that reading a part of a chunk brings that part."""
    for source, events in found.items():
        back = [e for chunk in chunks_of({source: events}, 9) for e in chunk.events(first, first + more)]
        assert list(map(plain, back)) == [plain(e) for e in events if first <= e.number <= first + more]


@settings(max_examples=300, deadline=None)
@given(logged() | logged(plain=True), rewinds(), st.integers(1, 12))
def test_a_series_is_the_one_of_the_fold(found: dict[str, list[Logged]], cuts: list[Rewind], size: int) -> None:
    """Guards that order, ties and rewinds are those of the oracle, however the rows were cut into chunks."""
    assert exact_columns(assembled(chunks_of(found, size), cuts)) == exact_columns(by_oracle(found, cuts))


@settings(deadline=None)
@given(logged(plain=True))
def test_a_summary_is_the_one_of_the_fold(found: dict[str, list[Logged]]) -> None:
    """Guards that the rows of one event or of many sum up to what the oracle says of them."""
    for source, events in found.items():
        summary, order = summed(events, source)
        wanted = by_oracle({source: events}, []).summary()
        assert wanted is not None
        assert exact(_values(summary)) == exact(_values(wanted))
        assert any(order == (e.stamp, source, e.number, e.index) for e in events)


def _values(summary: Summary) -> list[Any]:
    # of zeros, which are equal, either may be the least
    return [summary.count, summary.min + 0, summary.max + 0, summary.step, summary.time, summary.value]


def test_even_columns_take_no_room() -> None:
    """Guards that steps, numbers and sizes cost next to nothing where they count up evenly."""
    event = {"step": array("q", range(1000)), "time": array("q", [5] * 1000), "value": array("d", [0.5] * 1000)}
    assert len(pack([Logged(1, 0, 1, event)])) < 8_000 + 200
