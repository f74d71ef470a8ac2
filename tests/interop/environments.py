"""Give tests a Python with MLflow in it, kept in a cache folder outside this tree.

``mlflow_python`` is the fixture; conftest.py hands it to every test here, and elsewhere
``from interop.environments import mlflow_python`` does. ``mlflow_run`` runs a script under it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

__all__ = ["clean_environment", "mlflow_python", "mlflow_run"]

# What both sides read must be of one version on both sides: that of this environment, if it is here.
SHARED = ("cloudpickle", "numpy", "pandas", "safetensors", "scikit-learn", "scipy", "skops", "torch")
MLFLOW = ("mlflow==3.17.2", "mlserver==1.7.1", "mlserver-mlflow==1.7.1")  # what serves is beside what it serves


def _pinned(name: str) -> str:
    try:
        return f"{name}=={version(name).partition('+')[0]}"  # which build of it, the installer chooses
    except PackageNotFoundError:
        return name


def cache() -> Path:
    """Return the folder of the environments; it may be deleted at any time."""
    base = os.environ.get("MLCORE_INTEROP_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlcore-interop"


def environment(*requirements: str) -> Path:
    """Return the Python of an environment with these requirements; only one process at a time makes it.

    On a laptop a missing one skips the test that asks for it, since it takes minutes and a network.
    """
    name = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    folder = cache() / name
    complete, python = folder / "complete", folder / "bin" / "python"
    if not complete.exists() and os.environ.get("MLCORE_TEST_ALL") != "1":
        pytest.skip(f"no environment with {requirements[0]} yet: MLCORE_TEST_ALL=1 makes one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, requirements)
            complete.touch()
    return python


def _make(folder: Path, requirements: tuple[str, ...]) -> None:
    python, uv = folder / "bin" / "python", shutil.which("uv")
    links = [f"--find-links={each}" for each in os.environ.get("PIP_FIND_LINKS", "").split()]  # uv reads its own only
    if uv:
        commands = [
            [uv, "venv", "-q", "--python", sys.executable, folder],
            [uv, "pip", "install", "-q", *links, "--python", python, *requirements],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", folder],
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements],
        ]
    for command in commands:
        _run(command)


def clean_environment() -> dict[str, str]:
    """Return this process's environment variables without those that would change what another Python does."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLSERVER_", "PYTHON"))}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def _run(command: list[str | Path], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def mlflow_python() -> Path:
    """Return the Python of an environment with MLflow, and the model libraries in the versions that are here."""
    return environment(*MLFLOW, *map(_pinned, SHARED))


@pytest.fixture(scope="session")
def mlflow_run(mlflow_python: Path) -> Callable[..., str]:
    """Return a function that runs a script under MLflow's Python, in `cwd`, with arguments; it returns what it prints.

    A script that fails fails the test, with what it printed.
    """

    def run(script: str, *arguments: str | Path, cwd: Path) -> str:
        return _run([mlflow_python, "-c", script, *arguments], cwd)

    return run
