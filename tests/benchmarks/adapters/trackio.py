"""trackio, with its local SQLite file. Its calls fill a queue that a thread of its own writes out."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Any

TITLE = "trackio"
REQUIREMENTS = ["trackio", "numpy"]
SLOWER = 10
IMPORT = "import trackio"
FIRST_RUN = "import trackio; trackio.init('benchmark', embed=False); trackio.log({'loss': 0.3}); trackio.finish()"
HELP = "trackio"


class Adapter:
    """Log into the folder that TRACKIO_DIR names."""

    def __init__(self, folder: Path) -> None:
        os.environ |= {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
        self._folder, self._run, self._step = folder, None, 0

    def log_metric(self, count: int) -> float:
        """Log single points into the queue."""
        import trackio

        self._run = self._run or _start("single")
        first = self._step
        self._step += count
        start = perf_counter()
        for step in range(first, first + count):
            trackio.log({"loss": 0.5}, step=step)
        return perf_counter() - start

    def log_points(self, calls: int, rows: int, numpy: bool) -> float:
        """Log `calls` keys at once, a call each step: there is no call for columns. Includes writing them."""
        import trackio

        run = _start("columns")
        start = perf_counter()
        for step in range(rows):
            trackio.log({f"key{key}": step / 3 for key in range(calls)}, step=step)
        run.finish()
        return perf_counter() - start

    def one_run(self, count: int) -> float:
        """Start, fill and end runs."""
        import trackio

        start = perf_counter()
        for _ in range(count):
            run = _start(None, {f"param{index}": index for index in range(5)})
            trackio.log({f"metric{index}": index / 3 for index in range(5)}, step=0)
            run.finish()
        return perf_counter() - start

    def make_history(self, points: int, how: str) -> dict[str, float]:
        """Log one long series."""
        import trackio

        run = _start("history")
        for step in range(points):
            trackio.log({"loss": step / 3}, step=step)
        run.finish()
        return {"stored": sum(path.stat().st_size for path in self._folder.glob("*.db*")) / points}

    def read_history(self, points: int, how: str) -> dict[str, float]:
        """Read it back, as the dashboard does."""
        from trackio.sqlite_storage import SQLiteStorage

        start = perf_counter()
        found = SQLiteStorage.get_logs("benchmark", "history")
        end = perf_counter()
        assert len(found) == points
        return {"open": end - start, "series": end - start}


def _start(name: str | None, config: dict[str, Any] | None = None) -> Any:
    import trackio

    return trackio.init("benchmark", name=name, config=config, embed=False, auto_log_gpu=False, auto_log_cpu=False)
