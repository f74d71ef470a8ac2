"""What the machine can do with no tool at all: the least that each benchmark could cost."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from array import array
from pathlib import Path
from time import perf_counter
from typing import Any

TITLE = "floor"
SLOWER = 1


class Adapter:
    """Write, pack and read bytes in `folder`, which is on the same file system as the tools' stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fd = os.open(folder / "written", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def log_metric(self, count: int) -> float:
        """Write 32 bytes a call."""
        data, fd = bytes(32), self._fd
        start = perf_counter()
        for _ in range(count):
            os.write(fd, data)
        return perf_counter() - start

    log_metric_next = log_metric

    def log_points(self, calls: int, rows: int, numpy: bool) -> float:
        """Pack two columns, checksum and write them, a call each."""
        steps: Any = range(rows)
        values: Any = [index / 3 for index in range(rows)]
        if numpy:
            import numpy as np

            steps, values = np.arange(rows), np.array(values)
        else:
            steps = list(steps)
        start = perf_counter()
        for _ in range(calls):
            if numpy:
                data = steps.tobytes() + values.tobytes()
            else:
                data = array("q", steps).tobytes() + array("d", values).tobytes()
            os.write(self._fd, data + zlib.crc32(data).to_bytes(4, "little"))
        return perf_counter() - start

    def make_history(self, points: int, how: str) -> None:
        """Write the bytes of three columns of `points` rows."""
        import numpy as np

        np.arange(3 * points).tofile(self.folder / "columns")

    def read_history(self, points: int, how: str) -> dict[str, float]:
        """Read them back as arrays."""
        import numpy as np

        start = perf_counter()
        data = np.fromfile(self.folder / "columns", "<i8")
        columns = data[:points], data[points : 2 * points], data[2 * points :].view("<f8")
        seconds = perf_counter() - start
        assert len(columns[2]) == points
        return {"open": seconds, "series": seconds}

    def make_runs(self, runs: int) -> None:
        """Write a small JSON file a run."""
        (self.folder / "runs").mkdir()
        content = {f"name{index}": index / 3 for index in range(12)}
        for index in range(runs):
            (self.folder / "runs" / f"{index}.json").write_text(json.dumps(content))

    def list_runs(self) -> dict[str, float]:
        """Read all of them."""
        start = perf_counter()
        found = [json.loads(path.read_bytes()) for path in (self.folder / "runs").iterdir()]
        seconds = perf_counter() - start
        assert found
        return {"open": seconds}

    def make_varied(self, runs: int) -> dict[str, float]:
        """Write a small JSON file a run, with something to search by."""
        (self.folder / "varied").mkdir()
        for number in range(runs):
            content = {f"name{index}": number * (7919 + index) % 10_007 / 10_007 for index in range(12)}
            (self.folder / "varied" / f"{number}.json").write_text(json.dumps(content))
        return {}

    def find(self, where: str) -> dict[str, float]:
        """Read all of them, filter, sort and take the first 1,000."""
        start = perf_counter()
        found = [json.loads(path.read_bytes()) for path in (self.folder / "varied").iterdir()]
        found = sorted((each for each in found if each["name0"] < 0.9), key=lambda each: each["name1"])[:1_000]
        seconds = perf_counter() - start
        assert found
        return {"open": seconds, "again": seconds}

    def one_run(self, count: int) -> float:
        """Make a folder and write one file of 1 kB in it, a run each."""
        start = perf_counter()
        for _ in range(count):
            folder = self.folder / os.urandom(16).hex()
            folder.mkdir()
            (folder / "run").write_bytes(bytes(1024))
        return perf_counter() - start

    def log_models(self, count: int) -> float:
        """Write a small model with joblib, each into a folder of its own."""
        import joblib

        model = _model()
        start = perf_counter()
        for _ in range(count):
            folder = self.folder / os.urandom(16).hex()
            folder.mkdir()
            joblib.dump(model, folder / "model.joblib")
        seconds = perf_counter() - start
        joblib.dump(model, self.folder / "model.joblib")
        return seconds

    def make_signed(self, files: int, size: int) -> None:
        """Write so many files of one size."""
        (self.folder / "signed").mkdir()
        for number in range(files):
            (self.folder / "signed" / f"{number}.bin").write_bytes(os.urandom(size))

    def verify_model(self) -> float:
        """Hash each of them, one after the other."""
        start = perf_counter()
        for path in (self.folder / "signed").iterdir():
            with path.open("rb", buffering=0) as file:
                hashlib.file_digest(file, "sha256").hexdigest()
        return perf_counter() - start

    def load_models(self, count: int) -> float:
        """Read it back."""
        import joblib

        start = perf_counter()
        for _ in range(count):
            joblib.load(self.folder / "model.joblib")
        return perf_counter() - start


def _model() -> Any:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000).fit(*load_iris(return_X_y=True))
