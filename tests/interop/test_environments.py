"""Check the environment that the other tests in this folder stand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_the_mlflow_that_is_asked_is_the_one_we_promise(mlflow_run: Callable[..., str], tmp_path: Path) -> None:
    """Guards against results of another version, or of one that a path of this process smuggled in."""
    script = "import mlflow, sklearn, skops, cloudpickle, pandas; print(mlflow.__version__)"
    assert mlflow_run(script, cwd=tmp_path).split() == ["3.17.2"]
