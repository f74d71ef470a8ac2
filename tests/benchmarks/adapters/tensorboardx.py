"""tensorboardX, which writes event files and reads nothing back."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

TITLE = "tensorboardX"
REQUIREMENTS = ["tensorboardX", "numpy"]
SLOWER = 10
IMPORT = "import tensorboardX"
FIRST_RUN = "import tensorboardX; w = tensorboardX.SummaryWriter('run'); w.add_scalar('loss', 0.3, 0); w.close()"
HELP = None


class Adapter:
    """Log into event files in `folder`; a thread of the writer's own writes them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._step = folder, 0
        self._writer = _writer(folder / "single")

    def log_metric(self, count: int) -> float:
        """Log single points."""
        first = self._step
        self._step += count
        start = perf_counter()
        for step in range(first, first + count):
            self._writer.add_scalar("loss", 0.5, step)
        return perf_counter() - start

    def log_points(self, calls: int, rows: int, numpy: bool) -> float:
        """Log a call a point: there is no call for columns. Includes writing them."""
        writer = _writer(self._folder / "columns")
        start = perf_counter()
        for key in range(calls):
            for step in range(rows):
                writer.add_scalar(f"key{key}", step / 3, step)
        writer.close()
        return perf_counter() - start

    def one_run(self, count: int) -> float:
        """Start, fill and end runs."""
        start = perf_counter()
        for index in range(count):
            writer = _writer(self._folder / f"run{index}")
            writer.add_text("params", str({f"param{index}": index for index in range(5)}))
            for key in range(5):
                writer.add_scalar(f"metric{key}", key / 3, 0)
            writer.close()
        return perf_counter() - start

    def make_history(self, points: int, how: str) -> dict[str, float]:
        """Log one long series."""
        writer = _writer(self._folder / "history")
        for step in range(points):
            writer.add_scalar("loss", step / 3, step)
        writer.close()
        return {"stored": sum(path.stat().st_size for path in (self._folder / "history").iterdir()) / points}


def _writer(folder: Path) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder))
