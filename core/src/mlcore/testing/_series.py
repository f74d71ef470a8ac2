"""Checks of `series`: what was logged over time comes back, in order and exactly."""

from __future__ import annotations

import importlib.util
import math
import random
from typing import Any

from mlcore.store import Rewound, RowsLogged, Store
from mlcore.testing._builders import Writer, new_id, points, run_batch
from mlcore.testing._checking import Stores, exact, exact_columns, filled, folded, is_array, metric

RUN = "0" * 31 + "1"
EXTREMES = [
    float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 5e-324, -2.2250738585072014e-308, 1.7976931348623157e308,
    0.1 + 0.2, 1 / 3, float(2**53 + 2),
]  # fmt: skip


def curve(store: Store, key: str = "loss", context: str = "", run: str = RUN, **asked: Any) -> list[tuple[int, float]]:
    """Return the steps and values of a series."""
    columns = store.series("run", [run], [key], **asked).get((run, key, context))
    return list(zip(metric(columns, "step"), metric(columns), strict=True))


class Series:
    """Check `series`."""

    def test_rows_come_in_order_of_step_time_and_logging(self, stores: Stores) -> None:
        """Several sources that log one key, late and out of order, make one series in one order."""
        writers = [Writer(RUN, source=char * 32) for char in "abc"]
        batches = [
            writers[1].batch(points(RUN, "loss", [5.0, 1.0], steps=[5, 1]), stamp=300),
            writers[0].batch(points(RUN, "loss", [2.0, 5.1], steps=[2, 5], times=[9, 5000]), stamp=200),
            writers[2].batch(points(RUN, "loss", [5.2], steps=[5], times=[4999]), stamp=400),
            writers[0].batch(points(RUN, "loss", [5.3, 5.4, -7.0], steps=[5, 5, -3], times=[5000, 5000, 0]), stamp=300),
            writers[2].batch(points(RUN, "loss", [5.5], steps=[5], times=[5000]), stamp=500),
        ]
        store = filled(stores, *batches)
        values = [-7.0, 1.0, 2.0, 5.2, 5.1, 5.3, 5.4, 5.0, 5.5]
        assert [value for _, value in curve(store)] == values
        wanted = folded(batches).series("run", RUN)["loss", ""]
        assert exact_columns(store.series("run", [RUN])[RUN, "loss", ""]) == exact_columns(wanted)

    def test_every_number_survives_exactly(self, stores: Stores) -> None:
        """No value, step or time is rounded, lost or changed in sign, at either end of its range."""
        steps = [-(2**63), -1, 0, 1, 2**31, 2**53 + 1, 2**63 - 2, 2**63 - 1]
        rows = points(RUN, "loss", EXTREMES[: len(steps)], steps=steps, times=steps)
        more = points(RUN, "more", EXTREMES)
        store = filled(stores, Writer(RUN).batch(rows, more))
        answer = store.series("run", [RUN])
        assert exact_columns(answer[RUN, "loss", ""]) == exact({"step": steps, "time": steps, "value": EXTREMES[:8]})
        assert exact(metric(answer[RUN, "more", ""])) == exact(EXTREMES)

    def test_columns_are_arrays(self, stores: Stores) -> None:
        """Numbers come as arrays, numpy's where it is importable, not as a list of objects."""
        store = filled(stores, Writer(RUN).batch(points(RUN, "loss", [1.0, 2.0])))
        columns = store.series("run", [RUN])[RUN, "loss", ""]
        codes = {"step": "q", "time": "q", "value": "d"}
        assert [name for name, code in codes.items() if not is_array(columns[name], code)] == []
        numpy_is_here = importlib.util.find_spec("numpy") is not None
        assert type(columns["value"]).__module__ == ("numpy" if numpy_is_here else "array")

    def test_contexts_are_apart(self, stores: Stores) -> None:
        """One key under two contexts is two series; asking for a context brings that one, empty or not."""
        train, test = points(RUN, "loss", [1.0], context="train"), points(RUN, "loss", [2.0], context="test")
        store = filled(stores, Writer(RUN).batch(train, test, points(RUN, "loss", [3.0])))
        assert sorted(store.series("run", [RUN])) == [(RUN, "loss", each) for each in ("", "test", "train")]
        for context, value in (("train", 1.0), ("test", 2.0), ("", 3.0)):
            answer = store.series("run", [RUN], context=context)
            assert {key: metric(columns) for key, columns in answer.items()} == {(RUN, "loss", context): [value]}
        assert store.series("run", [RUN], context="no such") == {}

    def test_keys_and_ids_choose(self, stores: Stores) -> None:
        """Only the entities and keys asked for come back; what is not there is left out, not an error."""
        other, ghost = new_id(), new_id()
        batches = [run_batch(run, metrics={"loss": [1.0], "acc": [2.0], "a/b c": [3.0]}) for run in (RUN, other)]
        store = filled(stores, *batches)
        assert set(store.series("run", [RUN, ghost], ["loss", "no such"])) == {(RUN, "loss", "")}
        assert set(store.series("run", [other, RUN], ["a/b c"])) == {(RUN, "a/b c", ""), (other, "a/b c", "")}
        assert {key for _, key, _ in store.series("run", [RUN])} == {"loss", "acc", "a/b c"}
        assert store.series("run", [RUN], []) == store.series("run", []) == store.series("model", [RUN]) == {}

    def test_columns_choose(self, stores: Stores) -> None:
        """Asking for columns brings those, as they would come with the others, and no error for an unknown one."""
        store = filled(stores, Writer(RUN).batch(points(RUN, "loss", [3.0, 1.0], steps=[2, 1])))
        columns = store.series("run", [RUN], columns=["value", "no such"])[RUN, "loss", ""]
        assert exact_columns(columns) == exact({"value": [1.0, 3.0]})
        assert set(store.series("run", [RUN], columns=["step", "value"])[RUN, "loss", ""].columns) == {"step", "value"}

    def test_columns_of_anything_come_back(self, stores: Stores) -> None:
        """Rows need not be a metric: text, nested values, and columns that only some rows have."""
        first: dict[str, list[Any]] = {"time": [3, 1], "text": ["c", "ä"], "level": ["INFO", None]}
        second: dict[str, list[Any]] = {"time": [2], "text": ["b"], "more": [{"a": [1, 2.0, True]}]}
        events = [RowsLogged("run", RUN, "log", each, "stdout") for each in (first, second)]
        worker: dict[str, list[Any]] = {"step": [1], "time": [1], "value": [1.0], "worker": ["w"]}
        store = filled(stores, Writer(RUN).batch(*events, RowsLogged("run", RUN, "loss", worker)))
        wanted = {
            "time": [1, 2, 3], "text": ["ä", "b", "c"], "level": [None, None, "INFO"],
            "more": [None, {"a": [1, 2.0, True]}, None],
        }  # fmt: skip
        answer = store.series("run", [RUN])
        assert exact_columns(answer[RUN, "log", "stdout"]) == exact(wanted)
        assert exact_columns(answer[RUN, "loss", ""]) == exact(worker)

    def test_a_thinned_series_keeps_the_extremes(self, stores: Stores) -> None:
        """Thinning obeys its bound and loses no spike: every bucket keeps its least and greatest value."""
        size, chance = 3_000, random.Random(1)  # noqa: S311
        values = [chance.random() for _ in range(size)]
        for spike in range(8):
            values[spike * 375 + 100], values[spike * 375 + 200] = 10.0 + spike, -10.0 - spike
        values[5] = values[2_000] = math.nan
        whole = list(enumerate(values))
        halves = [points(RUN, "loss", values[at : at + 1_500], steps=range(at, at + 1_500)) for at in (0, 1_500)]
        writer = Writer(RUN)
        store = filled(stores, *map(writer.batch, halves))
        for bound in (1, 2, 3, 16, 17, 100, 1_000, 2_999):
            thin = curve(store, max_points=bound)
            assert 0 < len(thin) <= bound
            assert [step for step, _ in thin] == sorted({step for step, _ in thin})
            assert exact([whole[step] for step, _ in thin]) == exact(thin)
        for bound in (16, 17, 100, 1_000):
            kept = {value for _, value in curve(store, max_points=bound)}
            lost = [spike for spike in range(8) if not {10.0 + spike, -10.0 - spike} <= kept]
            assert lost == [], f"of {size} rows, thinned to {bound}"
        assert len(curve(store, max_points=1_000)) >= 500

    def test_a_short_series_is_not_thinned(self, stores: Stores) -> None:
        """A bound that is not reached changes nothing."""
        store = filled(stores, Writer(RUN).batch(points(RUN, "loss", [1.0] * 100)))
        assert curve(store, max_points=100) == curve(store, max_points=500) == curve(store)
        assert len(curve(store)) == 100

    def test_a_rewind_forgets_later_steps_logged_before(self, stores: Stores) -> None:
        """Rows above the step are gone, of every source and key; what is logged after the rewind stays."""
        first, second = Writer(RUN), Writer(RUN)
        batches = [
            first.batch(points(RUN, "loss", [0.0, 1.0, 2.0, 3.0]), points(RUN, "acc", [9.0], steps=[3]), stamp=100),
            second.batch(Rewound("run", RUN, 1), stamp=200),
            second.batch(points(RUN, "loss", [20.0, 30.0], steps=[2, 3]), stamp=300),
            first.batch(points(RUN, "loss", [4.0], steps=[4]), stamp=150),
        ]
        store = filled(stores, *batches)
        assert curve(store) == [(0, 0.0), (1, 1.0), (2, 20.0), (3, 30.0)]
        assert curve(store, "acc") == []
