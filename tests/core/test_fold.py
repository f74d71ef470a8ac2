"""The fold: state is a function of the set of batches, whatever their order and however they were cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings, strategies as st

from mlcore.store import (
    AttributesRemoved,
    AttributesSet,
    Batch,
    Created,
    Entity,
    Erased,
    Event,
    Fold,
    Rewound,
    RowsLogged,
    Unknown,
    Updated,
    same,
)
from mlcore.testing import Writer, new_id, points
from mlcore.testing._checking import exact_columns, exact_entity

kinds, names = st.sampled_from(["run", "model"]), st.sampled_from(["a", "b"])
ids = st.sampled_from(["1", "2"])
values = st.sampled_from([0, 0.0, True, None, "x", float("nan"), -0.0, [1], {"a": 1}])
dicts = st.dictionaries(names, values, min_size=1)
steps = st.integers(0, 2)
families = st.sampled_from(["params", "tags"])
metric_rows = st.lists(st.tuples(steps, steps, st.floats()), min_size=1, max_size=4).map(
    lambda rows: {
        "step": [row[0] for row in rows], "time": [row[1] for row in rows], "value": [row[2] for row in rows]
    }
)  # fmt: skip
other_rows = st.lists(st.tuples(steps, values), min_size=1, max_size=3).map(
    lambda rows: {"time": [row[0] for row in rows], "text": [row[1] for row in rows]}
)
step_rows = st.lists(st.floats(), min_size=1, max_size=2).map(lambda rows: {"value": rows, "step": [1] * len(rows)})
plain: st.SearchStrategy[Event] = st.one_of(
    st.builds(Created, kinds, ids, names, dicts),
    st.builds(Updated, kinds, ids, dicts),
    st.builds(AttributesSet, kinds, ids, families, dicts, st.booleans()),
    st.builds(AttributesRemoved, kinds, ids, families, st.lists(names, min_size=1, max_size=2)),
    st.builds(RowsLogged, kinds, ids, names, metric_rows | other_rows | step_rows, st.sampled_from(["", "eval"])),
    st.builds(Unknown, kinds, ids, st.just("Later"), raw=st.just(b'{"type":"Later","kind":"run","id":"1"}')),
)
crowded = st.builds(RowsLogged, st.just("run"), st.just("1"), st.just("a"), metric_rows | step_rows)
final: st.SearchStrategy[Event] = st.one_of(
    st.builds(Rewound, st.just("run"), ids, steps), st.builds(Erased, kinds, st.just("2"))
)
events = st.sampled_from([plain] * 5 + [crowded] * 4 + [final]).flatmap(lambda each: each)
# stamps of one source may even fall from batch to batch: the order must not depend on them being right
sources = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.lists(events, min_size=1, max_size=3)), min_size=1, max_size=6),
    min_size=1,
    max_size=3,
)


def state(fold: Fold) -> Any:
    """Return all that can be asked of a fold."""
    entities = {kind: {each.id: exact_entity(each) for each in fold.entities(kind)} for kind in ("run", "model")}
    series = {
        (kind, id, *key): exact_columns(columns)
        for kind in ("run", "model")
        for id in ("1", "2")
        for key, columns in fold.series(kind, id).items()
    }
    return entities, series, fold.stamp, fold.claims


def folded(batches: Sequence[Batch], *, asking: bool = False) -> Any:
    """Return the state that batches make, with or without questions in between."""
    fold = Fold()
    for batch in batches:
        fold.add(batch)
        if asking:
            state(fold)
    return state(fold)


@settings(max_examples=250, deadline=None)
@given(sources, st.data())
def test_order_partition_and_repetition_do_not_matter(made: list[Any], data: st.DataObject) -> None:
    """Batches cut anywhere, some twice, in any order, asked in between or not, make one and the same state."""
    writers, whole, pieces = [], [], []
    for index, records in enumerate(made):
        writer = Writer("1", source=f"{index:032x}")
        for stamp, of_record in records:
            writer.batch(*of_record, stamp=stamp)
        writers.append(writer)
        whole.append(writer.cut(1))
        count = len(writer.records)
        cuts = sorted(data.draw(st.sets(st.integers(2, count)))) if count > 1 else []
        pieces += [writer.cut(first, last - 1) for first, last in zip([1, *cuts], [*cuts, count + 1], strict=True)]
    again = [data.draw(st.sampled_from(pieces)) for _ in range(data.draw(st.integers(0, 3)))]
    overlap = [writer.cut(data.draw(st.integers(1, len(writer.records)))) for writer in writers]
    shuffled = data.draw(st.permutations(pieces + again + overlap))
    wanted = folded(whole)
    assert folded(shuffled) == wanted
    assert folded(shuffled[::-1], asking=True) == wanted


def test_records_of_one_event_order_keep_their_place_in_every_order() -> None:
    """Rows of several events of one record, with other columns each, stand as they were logged."""
    first = RowsLogged("run", "1", "k", {"step": [1, 1], "value": [1.0, 2.0]})
    second = points("1", "k", [3.0, 4.0], steps=[1, 1], times=[0, 0])
    writer = Writer("1")
    writer.batch(first, second, first)
    writer.batch(second)
    for order in ([0, 1], [1, 0]):
        fold = Fold()
        for index in order:
            fold.add(writer.cut(index + 1, index + 1))
        assert list(fold.series("run", "1")["k", ""]["value"]) == [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]


def test_a_rewind_spares_what_its_own_record_logs_after_it() -> None:
    """Rewinding and logging anew in one call keeps what is new."""
    fold = Fold()
    rows = points("1", "loss", [1.0, 2.0, 3.0])
    fold.add(Writer("1").batch(rows, Rewound("run", "1", 0), points("1", "loss", [9.0], steps=[2])))
    assert list(fold.series("run", "1")["loss", ""]["value"]) == [1.0, 9.0]


def test_a_claim_of_two_merged_stores_has_one_holder() -> None:
    """Two stores that were merged may both have given a name; everyone agrees on whose it is."""
    batches = [Writer(source=char * 32).batch(Created("model", "m"), claim="model/m") for char in "ab"]
    assert folded(batches)[3] == folded(batches[::-1])[3] == {"model/m": "a" * 32}


def test_unknown_events_leave_no_trace() -> None:
    """What a later version wrote makes no entity today."""
    fold = Fold()
    fold.add(Writer("1").batch(Unknown("run", "1", type="Later", raw=b"{}")))
    assert fold.entity("run", "1") is None
    assert list(fold.entities("run")) == []


def test_rows_that_are_no_metric_have_no_summary() -> None:
    """Log lines and rows whose value is text are kept as rows, and break no summary."""
    fold, run = Fold(), new_id()
    text = RowsLogged("run", run, "answer", {"step": [1], "time": [1], "value": ["yes"]})
    mixed = RowsLogged("run", run, "mixed", {"step": [1, 2], "time": [1, 2], "value": [1, 2.5]})
    fold.add(Writer(run).batch(text, mixed, RowsLogged("run", run, "log", {"text": ["x"]})))
    entity = fold.entity("run", run)
    assert isinstance(entity, Entity)
    assert {key: (each.min, each.max) for key, each in entity.metrics.items()} == {("mixed", ""): (1, 2.5)}
    assert len(fold.series("run", run)) == 3


def test_same_tells_numbers_of_different_types_apart() -> None:
    """One is neither 1.0 nor True, and NaN is the NaN that was logged before."""
    for one, other, wanted in (
        (1, 1, True), (1, 1.0, False), (1, True, False), (float("nan"), float("nan"), True), ([1], [1], True),
        ({"a": float("nan")}, {"a": float("nan")}, True), ("1", 1, False), (None, None, True), ({}, [], False),
    ):  # fmt: skip
        assert same(one, other) is wanted
