"""wandb in its offline mode, whose files only its own server reads back."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Any

TITLE = "wandb offline"
REQUIREMENTS = ["wandb", "numpy"]
SLOWER = 10
IMPORT = "import wandb"
FIRST_RUN = "import wandb; r = wandb.init(mode='offline'); r.log({'loss': 0.3}); r.finish()"
HELP = "wandb"


class Adapter:
    """Log into `folder` through the process that wandb starts beside this one."""

    def __init__(self, folder: Path) -> None:
        os.environ |= {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}
        self._folder, self._run, self._step = folder, None, 0

    def log_metric(self, count: int) -> float:
        """Log single points; another process writes them."""
        self._run = self._run or self._start()
        first = self._step
        self._step += count
        start = perf_counter()
        for step in range(first, first + count):
            self._run.log({"loss": 0.5}, step=step)
        return perf_counter() - start

    def log_points(self, calls: int, rows: int, numpy: bool) -> float:
        """Log `calls` keys at once, a call each step: there is no call for columns. Includes writing them."""
        run = self._start()
        start = perf_counter()
        for step in range(rows):
            run.log({f"key{key}": step / 3 for key in range(calls)}, step=step)
        run.finish()
        return perf_counter() - start

    def one_run(self, count: int) -> float:
        """Start, fill and end runs."""
        start = perf_counter()
        for _ in range(count):
            run = self._start({f"param{index}": index for index in range(5)})
            run.log({f"metric{index}": index / 3 for index in range(5)}, step=0)
            run.finish()
        return perf_counter() - start

    def make_history(self, points: int, how: str) -> dict[str, float]:
        """Log one long series."""
        run = self._start()
        for step in range(points):
            run.log({"loss": step / 3}, step=step)
        run.finish()
        return {"stored": sum(path.stat().st_size for path in self._folder.rglob("*.wandb")) / points}

    def _start(self, config: dict[str, Any] | None = None) -> Any:
        import wandb

        return wandb.init(project="benchmark", dir=self._folder, config=config, reinit="create_new")
