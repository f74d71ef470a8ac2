"""Make the virtual environments that peers run in, in a cache folder outside this tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """Return the folder of the environments; it may be deleted at any time."""
    base = os.environ.get("MLCORE_BENCHMARKS_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlcore-benchmarks"


def python_of(requirements: list[str]) -> Path:
    """Return the Python of an environment with these requirements, made if there is none.

    Raises `subprocess.CalledProcessError` if they cannot be installed, as without a network.
    """
    name = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    folder = cache() / name
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        make(folder, requirements)
        (folder / "complete").touch()
    return python


def make(folder: Path, requirements: list[str]) -> None:
    """Make a fresh virtual environment."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", folder)
    _run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements)


def distributions(python: Path) -> list[str]:
    """Return what is installed, without what every fresh environment has."""
    listed = json.loads(_run(python, "-m", "pip", "list", "--format=json"))
    return sorted({each["name"] for each in listed} - {"pip", "setuptools", "wheel"})


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr[-2000:])
        done.check_returncode()
    return done.stdout
