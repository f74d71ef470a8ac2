"""mlcore, with its folder store."""

from __future__ import annotations

import os
import time
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

TITLE = "mlcore"
REQUIREMENTS: list[str] = []
SLOWER = 1
IMPORT = "import mlcore"
FIRST_RUN = "import mlcore; mlcore.start_run(); mlcore.log_metric('loss', 0.3); mlcore.end_run()"
HELP = "mlcore"
SERVER = "mlcore"
SPEAKS = "Native"


def list_command(folder: Path, runs: int, store: str = "many") -> tuple[list[str], dict[str, str]]:
    """Return what lists so many of the runs that `make_runs` made, or another store has, and its environment."""
    return ["runs", "list", "--limit", str(runs)], {"MLCORE_STORE": str(folder / store)}


def server(port: int, level: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the arguments and the environment of its servers that keep what they are told so well."""
    command = ["server", "--port", str(port), "--no-token", "--durability", level]
    return {"": (command, {}), "store on SQLite": ([*command, "--store", "sqlite:///team.db"], {})}


class Adapter:
    """Log into a store in `folder` and read it back through fresh clients."""

    def __init__(self, folder: Path) -> None:
        import mlcore

        self.root = folder / ".mlcore"
        mlcore.set_store(self.root)
        self._step = 0
        self._run_id = ""
        self._team_uri = f"sqlite:///{folder / 'team.db'}"
        self._asked: dict[str, Any] = {}

    def log_metric(self, count: int) -> float:
        """Log single points with the module's function, steps given."""
        import mlcore

        _active()
        log, first = mlcore.log_metric, self._step
        self._step += count
        start = perf_counter()
        for step in range(first, first + count):
            log("loss", 0.5, step)
        return perf_counter() - start

    def log_metric_team(self, count: int) -> float:
        """Log single points into a team store: each call is a transaction."""
        run = self._team.start_run()
        start = perf_counter()
        for step in range(count):
            run.log_metric("loss", 0.5, step)
        end = perf_counter()
        run.end()
        return end - start

    def log_metric_next(self, count: int) -> float:
        """Log single points, steps counted by mlcore."""
        import mlcore

        _active()
        log = mlcore.log_metric
        start = perf_counter()
        for _ in range(count):
            log("next", 0.5)
        return perf_counter() - start

    def log_points(self, calls: int, rows: int, numpy: bool) -> float:
        """Log columns of `rows` points, a call each."""
        import mlcore

        _active()
        columns = _columns(rows, numpy)
        start = perf_counter()
        for _ in range(calls):
            mlcore.log_points("columns", *columns)
        return perf_counter() - start

    def one_run(self, count: int) -> float:
        """Start, fill and end runs."""
        import mlcore

        start = perf_counter()
        for _ in range(count):
            mlcore.start_run()
            mlcore.log_params({f"param{index}": index for index in range(5)})
            mlcore.log_metrics({f"metric{index}": index / 3 for index in range(5)}, step=0)
            mlcore.set_tags({"one": "1", "two": "2"})
            mlcore.end_run()
        return perf_counter() - start

    def make_history(self, points: int, how: str) -> dict[str, float]:
        """Log one long series, in "blocks" or as "single" points, and end the run, or leave it "open".

        Returns the bytes a point of the journal and of the seal, and the run's inodes.
        """
        import mlcore

        run = self._team.start_run() if how == "team" else mlcore.start_run()
        if "single" not in how:
            for first in range(0, points, 1000):
                steps = list(range(first, min(first + 1000, points)))
                run.log_points("loss", steps, [step / 3 for step in steps])
        else:
            for step in range(points):
                run.log_metric("loss", step / 3, step)
        self._run_id = run.id
        if "open" not in how:
            run.end()
        if how == "team":
            return {"stored": self._team_size() / points}
        folder = run.folder
        assert folder is not None
        sizes = {path.suffix: path.stat().st_size / points for path in folder.iterdir()}
        return {"journal": sizes[".journal"], "seal": sizes.get("", 0.0), "inodes": 1 + len(list(folder.iterdir()))}

    def read_history(self, points: int, how: str) -> dict[str, float]:
        """Read the series back through a fresh client: all of it, and the call of `series` alone."""
        from mlcore import Client

        start = perf_counter()
        run = Client(self._team_uri if how == "team" else self.root).get_run(self._run_id)
        opened = perf_counter()
        series = run.series("loss")
        end = perf_counter()
        assert len(series) == points
        return {"open": end - start, "series": end - opened}

    @property
    def _team(self) -> Any:
        import mlcore

        return mlcore.Client(self._team_uri)

    def _team_size(self) -> int:
        paths = self.root.parent.glob("team.db*")
        return sum(path.stat().st_size for path in paths)

    def make_varied(self, runs: int) -> dict[str, float]:
        """Fill runs that a search tells apart, and bring them to a team store."""
        taken = self.log_varied(runs)
        self.settle_varied()
        return {"log": taken / runs} | self.bring_varied(runs)

    def log_varied(self, runs: int, first: int = 0, step: int = 1) -> float:
        """Fill every so manieth of the runs that a search tells apart, capturing nothing, which takes longer."""
        os.environ["MLCORE_CAPTURE"] = "off"
        client = self._client("folder")
        start = perf_counter()
        for number in range(first, runs, step):
            metrics, params, tags = varied(number)
            with client.start_run(name=f"run {number}") as run:
                run.log_params(params)
                run.log_metrics(metrics, step=0)
                run.set_tags(tags)
        taken = perf_counter() - start
        client.close()
        return taken

    def settle_varied(self) -> None:
        """Let the runs be as two minutes after their end."""
        _settle(self.root.with_name("varied"))

    def bring_varied(self, runs: int) -> dict[str, float]:
        """Bring the runs to a team store; return seconds a run, and what both stores have of bytes a run."""
        from mlcore_local.sync import sync

        folder, team = self._client("folder"), self._team
        start = perf_counter()
        sync(folder.store, team.store)
        taken = perf_counter() - start
        folder.close()
        team.close()
        paths = self.root.with_name("varied").rglob("*")
        bytes_ = sum(path.stat().st_size for path in paths if path.is_file() and path.parent.name != "index")
        return {"sync": taken / runs, "folder": bytes_ / runs, "team": self._team_size() / runs}

    def index_varied(self) -> dict[str, float]:
        """Make the index of the folder; return its seconds and bytes."""
        start = perf_counter()
        client = self._client("folder")
        client.search_runs(limit=1)
        taken = perf_counter() - start
        client.close()
        paths = self.root.with_name("varied").glob("index/*")
        return {"seconds": taken, "bytes": sum(path.stat().st_size for path in paths)}

    def _client(self, where: str) -> Any:
        from mlcore import Client

        return Client(self._team_uri if where == "team" else self.root.with_name("varied"))

    def find(self, where: str) -> dict[str, float]:
        """Filter, order and return the first 1,000 runs with everything, through a fresh client, and once more."""
        start = perf_counter()
        client = self._client(where)
        found = _everything(client)
        opened = perf_counter()
        again = _everything(client)
        end = perf_counter()
        assert found == again > 0
        client.close()
        return {"open": opened - start, "again": end - opened}

    def page(self, where: str, filter: str, order: str) -> float:
        """Return the seconds of CPU of the first 1,000 runs with everything, asked for the second time."""
        client = self._asked.get(where) or self._asked.setdefault(where, self._client(where))
        taken = 0.0
        for _ in range(2):
            start = process_time()
            found = client.search_runs(filter, order_by=[order], limit=1_000)
            taken = process_time() - start
            assert found
        return taken

    def make_runs(self, runs: int) -> None:
        """Fill runs in a store of their own."""
        import mlcore

        before = mlcore.client()
        mlcore.set_store(self.root.with_name("many"))
        self.one_run(runs)
        mlcore.set_store(before.setting.value)
        _settle(self.root.with_name("many"))

    def list_runs(self) -> dict[str, float]:
        """List all runs through a fresh client, and once more through the same one."""
        from mlcore import Client

        client = Client(self.root.with_name("many"))
        start = perf_counter()
        found = client.list_runs("*")
        opened = perf_counter()
        again = client.list_runs("*")
        end = perf_counter()
        assert len(found) == len(again)
        return {"open": opened - start, "again": end - opened}

    def log_models(self, count: int) -> float:
        """Log a small model: files, digests, requirements and all."""
        import mlcore

        model = _model()
        start = perf_counter()
        with mlcore.start_run() as run:
            for index in range(count):
                run.log_model(model, f"model{index}")
        self._run_id = run.id
        return perf_counter() - start

    def make_signed(self, files: int, size: int) -> None:
        """Sign a model of so many files of one size."""
        from mlcore_signing import make_key, sign

        made, folder = make_key(self.root.parent / "key"), self.root.parent / "signed"
        folder.mkdir()
        (folder / "MLmodel").write_text("flavors: {python_function: {loader_module: none}}")
        for number in range(files):
            (folder / f"{number}.bin").write_bytes(os.urandom(size))
        sign(folder, made.private)

    def verify_model(self) -> float:
        """Verify it, as loading does before anything of it is read."""
        from mlcore.models import check_signed

        keys = {"the benchmark": [(self.root.parent / "key.pub").read_text()]}
        start = perf_counter()
        found = check_signed(self.root.parent / "signed", keys)
        seconds = perf_counter() - start
        assert found
        return seconds

    def load_models(self, count: int) -> float:
        """Load it from its run, digests checked."""
        import mlcore

        start = perf_counter()
        for _ in range(count):
            mlcore.load_model(f"runs:/{self._run_id}/model0")
        return perf_counter() - start

    def train(self, intervals: int) -> dict[str, float]:
        """Train with steps of about a millisecond of CPU time, each interval of 50 without a Monitor, then with one.

        Returns the CPU time of a step each.
        """
        from mlcore_torch import Monitor

        _active()
        train, model, optimizer = _training()
        taken = {"bare": 0.0, "monitored": 0.0}
        with Monitor(model, optimizer, every=50) as monitor:
            for _ in range(intervals):
                start = process_time()
                for _ in range(50):
                    train()
                between = process_time()
                for _ in range(50):
                    monitor.step(train(), 32)
                taken["monitored"] += process_time() - between
                taken["bare"] += between - start
        return {name: each / intervals / 50 for name, each in taken.items()}


def varied(number: int) -> tuple[dict[str, float], dict[str, int], dict[str, str]]:
    """Return metrics, params and tags of a run."""
    metrics = {f"metric{index}": number * (7919 + index) % 10_007 / 10_007 for index in range(5)}
    return metrics, {f"param{index}": number % (index + 2) for index in range(5)}, {"team": "ab"[number % 2]}


def _settle(root: Path) -> None:
    """Let runs be as two minutes after their end: 2,000 in less are a benchmark's, and each is watched for 90 s."""
    for journal in root.glob("runs/*/*/*.journal"):
        os.utime(journal, (time.time() - 120,) * 2)
    time.sleep(6)  # a folder is watched for 5 s, whatever its files say


def _everything(client: Any) -> int:
    runs = client.search_runs("metrics.metric0 < 0.9 and tags.team = 'a'", order_by=["metrics.metric1"], limit=1_000)
    return sum(len(run.metrics) + len(run.params) + len(run.tags) > 0 for run in runs)


def _training() -> tuple[Any, Any, Any]:
    """Return a small network, its optimizer, and a step of training of about a millisecond on any machine."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(32, 128)

    def train() -> Any:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    def taken() -> float:
        start = process_time()
        for _ in range(100):
            train()
        return (process_time() - start) / 100

    taken()
    while (found := taken()) < 0.9e-3:
        batch = torch.randn(max(len(batch) + 1, int(len(batch) * min(2, 1e-3 / found))), 128)
    return train, model, optimizer


def _active() -> None:
    import mlcore

    if mlcore.active_run() is None:
        mlcore.start_run()


def _columns(rows: int, numpy: bool) -> tuple[Any, Any]:
    steps, values = list(range(rows)), [index / 3 for index in range(rows)]
    if not numpy:
        return steps, values
    import numpy as np

    return np.array(steps), np.array(values)


def _model() -> Any:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000).fit(*load_iris(return_X_y=True))
