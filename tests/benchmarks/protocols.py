"""Speak to servers: MLflow's REST API, which several have, and mlcore's own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from tests.benchmarks.load import asking, request

from mlcore.store import Batch, Compare, Query, Record, Sort, Term, digest
from mlcore.testing import new_id, points, run_batch
from mlcore_remote.protocol import BATCHES, pack_batches, query_to_json

Ask = Callable[[bytes], bytes]
PREFIX = "/api/2.0/mlflow"
RUNS = 200  # that there are, of whom 100 are searched for


class Rest:
    """Speak MLflow's protocol."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._runs = [self._filled(number) for number in range(RUNS)]
        self._steps: dict[int, int] = {}

    def _filled(self, number: int) -> str:
        (made,) = self.create(1)
        run: str = json.loads(self._ask(made))["run"]["info"]["run_id"]
        metrics = [{"key": f"metric{i}", "value": number / (i + 1), "timestamp": 1, "step": 0} for i in range(5)]
        params = [{"key": f"param{i}", "value": str(number % (i + 2))} for i in range(5)]
        tags = [{"key": "team", "value": "ab"[number % 2]}]
        batch = {"run_id": run, "metrics": metrics, "params": params, "tags": tags}
        self._ask(asking("POST", f"{PREFIX}/runs/log-batch", batch))
        return run

    def log(self, index: int, count: int) -> Iterator[bytes]:
        """Yield requests that log a point each, all to one run."""
        first = self._steps.get(index, 0)
        self._steps[index] = first + count
        for step in range(first, first + count):
            point = {"run_id": self._runs[index], "key": "loss", "value": 0.5, "timestamp": step + 1, "step": step}
            yield asking("POST", f"{PREFIX}/runs/log-metric", point)

    def create(self, count: int) -> Iterator[bytes]:
        """Yield requests that make a run each."""
        made = {"experiment_id": "0", "run_name": "a run", "start_time": 1, "tags": [{"key": "k", "value": "v"}]}
        return (asking("POST", f"{PREFIX}/runs/create", made) for _ in range(count))

    def get(self, count: int) -> Iterator[bytes]:
        """Yield requests for one run each."""
        return (request("GET", f"{PREFIX}/runs/get?run_id={self._runs[n % RUNS]}") for n in range(count))

    def search(self, count: int) -> Iterator[bytes]:
        """Yield requests for 100 runs each."""
        what = {"experiment_ids": ["0"], "filter": "tags.team = 'a'", "max_results": 100,
                "order_by": ["metrics.metric1 ASC"]}  # fmt: skip
        return (asking("POST", f"{PREFIX}/runs/search", what) for _ in range(count))


class Native:
    """Speak mlcore's protocol: every connection writes the journal of one run."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._runs = [new_id() for _ in range(RUNS)]
        self._asked(self._filled(number, run) for number, run in enumerate(self._runs))
        self._writers = {index: _Journal(run) for index, run in enumerate(self._runs)}

    def _asked(self, batches: Iterator[Batch]) -> None:
        results = json.loads(self._ask(_appending(list(batches))))["results"]
        assert not any(results), results

    def _filled(self, number: int, run: str) -> Batch:
        metrics = {f"metric{index}": [number / (index + 1)] for index in range(5)}
        params = {f"param{index}": number % (index + 2) for index in range(5)}
        fields = {"name": f"run {number}", "start_time": number, "status": "RUNNING"}
        return run_batch(
            run, parent="0", fields=fields, params=params, tags={"team": "ab"[number % 2]}, metrics=metrics
        )

    def log(self, index: int, count: int) -> Iterator[bytes]:
        """Yield requests that log a point each: the next record of a journal."""
        journal = self._writers[index]
        return (_appending([journal.batch()]) for _ in range(count))

    def create(self, count: int) -> Iterator[bytes]:
        """Yield requests that make a run each: the first record of a journal."""
        fields = {"name": "a run", "start_time": 1, "status": "RUNNING"}
        return (_appending([run_batch(parent="0", fields=fields, tags={"k": "v"})]) for _ in range(count))

    def get(self, count: int) -> Iterator[bytes]:
        """Yield requests for one run each."""
        return (request("GET", f"/api/v1/entities/run/{self._runs[n % RUNS]}") for n in range(count))

    def search(self, count: int) -> Iterator[bytes]:
        """Yield requests for 100 runs each."""
        query = Query(
            where=Compare(Term("tags", "team"), "=", "a"), order=(Sort(Term("metrics", "metric1")),), limit=100
        )
        what = asking("POST", "/api/v1/find", {"kind": "run", "query": query_to_json(query)})
        return (what for _ in range(count))


class _Journal:
    """Chain the records of one journal, without keeping them."""

    def __init__(self, run: str) -> None:
        self._run, self._source = run, new_id()
        self._number, self._stamp, self._previous = 0, time.time_ns(), ""

    def batch(self) -> Batch:
        """Return the next record."""
        self._number += 1
        self._stamp += 1
        event = points(self._run, "loss", [0.5], steps=[self._number])
        record = Record(self._number, self._stamp, (event,))
        batch = Batch(self._source, self._run, (record,), self._previous)
        self._previous = digest([record], self._previous)
        return batch


def _appending(batches: list[Batch]) -> bytes:
    return request("POST", "/api/v1/batches", bytes(pack_batches(batches)), {"Content-Type": BATCHES})
