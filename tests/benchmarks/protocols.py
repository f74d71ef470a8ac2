"""Speak to servers: MLflow's REST API, which several have, and mlcore's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.load import asking, request

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
            point = {"run_id": self._runs[index], "key": "loss", "value": 0.5, "timestamp": step, "step": step}
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
