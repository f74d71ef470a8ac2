"""MLflow, with its SQLite store."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter, time

TITLE = "mlflow"
REQUIREMENTS = ["mlflow==3.17.2"]
SLOWER = 20
IMPORT = "import mlflow"
FIRST_RUN = "import mlflow; mlflow.start_run(); mlflow.log_metric('loss', 0.3); mlflow.end_run()"
HELP = "mlflow"
SERVER = "mlflow"
SPEAKS = "Rest"
BATCH = 1000  # the most points that one request may have


def list_command(folder: Path, runs: int) -> tuple[list[str], dict[str, str]]:
    """Return what lists the runs that `make_runs` made: 1,000 of them at most, there is no option."""
    settings = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return ["runs", "list", "--experiment-id", "1"], settings


def server(port: int, level: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the arguments and the environment of its servers, as small as can be and as by default.

    Every commit of its SQLite store waits for the disk, which no option changes.
    """
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    command = ["server", "--port", str(port)]
    small = ([*command, "--workers", "1"], {**quiet, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    return {"1 worker, no jobs": small, "4 workers and jobs, its default": (command, quiet)}


class Adapter:
    """Log into a database in `folder`, which is MLflow's default."""

    def __init__(self, folder: Path) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.chdir(folder)
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment("benchmark")
        self._step, self._run_id, self._model = 0, "", ""

    def log_metric(self, count: int) -> float:
        """Log single points."""
        import mlflow

        mlflow.active_run() or mlflow.start_run()
        first = self._step
        self._step += count
        start = perf_counter()
        for step in range(first, first + count):
            mlflow.log_metric("loss", 0.5, step)
        return perf_counter() - start

    log_metric_team = log_metric

    def log_points(self, calls: int, rows: int, numpy: bool) -> float:
        """Log batches, which are lists of objects."""
        from mlflow import MlflowClient, active_run, start_run

        run = active_run() or start_run()
        start = perf_counter()
        for _ in range(calls):
            self._batch(MlflowClient(), run.info.run_id, range(rows))
        return perf_counter() - start

    def one_run(self, count: int) -> float:
        """Start, fill and end runs."""
        import mlflow

        start = perf_counter()
        for _ in range(count):
            with mlflow.start_run():
                mlflow.log_params({f"param{index}": index for index in range(5)})
                mlflow.log_metrics({f"metric{index}": index / 3 for index in range(5)}, step=0)
                mlflow.set_tags({"one": "1", "two": "2"})
        return perf_counter() - start

    def make_history(self, points: int, how: str) -> dict[str, float]:
        """Log one long series in batches."""
        from mlflow import MlflowClient, start_run

        before = _size()
        with start_run() as run:
            for first in range(0, points, BATCH):
                self._batch(MlflowClient(), run.info.run_id, range(first, min(first + BATCH, points)))
        self._run_id = run.info.run_id
        return {"stored": (_size() - before) / points}

    def read_history(self, points: int, how: str) -> dict[str, float]:
        """Read it back."""
        from mlflow import MlflowClient

        start = perf_counter()
        found = MlflowClient().get_metric_history(self._run_id, "loss")
        end = perf_counter()
        assert len(found) == points
        return {"open": end - start, "series": end - start}

    def make_varied(self, runs: int) -> dict[str, float]:
        """Fill runs that a search tells apart, the same as mlcore's."""
        import mlflow

        before, start = _size(), perf_counter()
        for number in range(runs):
            with mlflow.start_run(run_name=f"run {number}"):
                mlflow.log_params({f"param{index}": number % (index + 2) for index in range(5)})
                metrics = {f"metric{index}": number * (7919 + index) % 10_007 / 10_007 for index in range(5)}
                mlflow.log_metrics(metrics, step=0)
                mlflow.set_tags({"team": "ab"[number % 2]})
        return {"log": (perf_counter() - start) / runs, "stored": (_size() - before) / runs}

    def find(self, where: str) -> dict[str, float]:
        """Filter, order and return the first 1,000 runs, which come with everything."""
        from mlflow import MlflowClient

        client = MlflowClient()
        experiment = client.get_experiment_by_name("benchmark")
        start = perf_counter()
        found = client.search_runs(
            [experiment.experiment_id], "metrics.metric0 < 0.9 and tags.team = 'a'", max_results=1_000,
            order_by=["metrics.metric1"],
        )  # fmt: skip
        end = perf_counter()
        assert found
        return {"open": end - start, "again": end - start}

    def make_runs(self, runs: int) -> None:
        """Fill runs."""
        self.one_run(runs)

    def list_runs(self) -> dict[str, float]:
        """List all runs."""
        from mlflow import MlflowClient

        client = MlflowClient()
        experiment = client.get_experiment_by_name("benchmark")
        start = perf_counter()
        found = client.search_runs([experiment.experiment_id], max_results=50_000)
        end = perf_counter()
        assert found
        return {"open": end - start, "again": end - start}

    def log_models(self, count: int) -> float:
        """Log a small model with MLflow's defaults, which find its requirements by importing it elsewhere."""
        import mlflow
        import mlflow.sklearn
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(max_iter=2000).fit(*load_iris(return_X_y=True))
        start = perf_counter()
        with mlflow.start_run():
            for index in range(count):
                self._model = mlflow.sklearn.log_model(model, name=f"model{index}").model_uri
        return perf_counter() - start

    def load_models(self, count: int) -> float:
        """Load it, as the estimator that it is."""
        import mlflow.sklearn

        start = perf_counter()
        for _ in range(count):
            mlflow.sklearn.load_model(self._model)
        return perf_counter() - start

    def _batch(self, client: object, run_id: str, steps: range) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        client.log_batch(run_id, metrics=[Metric("loss", step / 3, now, step) for step in steps])


def _size() -> int:
    return sum(path.stat().st_size for path in Path().glob("mlflow.db*"))
