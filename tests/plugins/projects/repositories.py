"""Make a small project in git, with a submodule and a package of its own, and run it as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from faults.processes import environment
from house.tree import ROOT

SECONDS = 300

TRAIN = '''"""Fit a line through points, by steps; what the package and the submodule say goes into the numbers."""

import argparse
import csv

import wobble

import mlcore
from extra import start
from shared.shift import SHIFT

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--data", required=True)
asked = parser.parse_args()

with open(asked.data) as file:
    rows = list(csv.DictReader(file))
points = [(float(row["x"]), float(row["y"])) for row in rows]

with mlcore.start_run():
    mlcore.log_params(vars(asked))
    mlcore.log_dataset(asked.data, name="points", context="train")
    slope = start
    for step in range(asked.steps):
        errors = [((slope * x + SHIFT * wobble.FACTOR - y), x) for x, y in points]
        mlcore.log_metric("loss", sum(error**2 for error, _ in errors) / len(errors), step=step)
        slope -= asked.lr * 2 * sum(error * x for error, x in errors) / len(errors)
    mlcore.log_metric("slope", slope)
'''
POINTS = "x,y\n" + "".join(f"{x / 4},{x / 2 + 1 + (x % 3) / 10}\n" for x in range(12))
PROJECT = """[tool.mlcore.environment]
requirements = {requirements}

[tool.mlcore.entry_points.main]
command = ["python", "train.py", "--lr", "{{lr}}", "--steps", "{{steps}}", "--data", "{{data}}"]

[tool.mlcore.entry_points.main.parameters]
lr = {{ type = "float", default = 0.1 }}
steps = {{ type = "int", default = 20 }}
data = {{ type = "path" }}
"""


def git(folder: Path, *arguments: str | Path) -> str:
    """Run git in a folder, as nobody in particular."""
    settings = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "protocol.file.allow=always"]
    command = ["git", *settings, "-c", "init.defaultBranch=main", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout


def wheel(folder: Path, version: str, factor: float) -> Path:
    """Write the wheel of a package of one module, `wobble`, as small as one can be, the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"wobble-{version}.dist-info"
    files = {
        "wobble.py": f"FACTOR = {factor}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: wobble\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = folder / f"wobble-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return path


def write(folder: Path, files: dict[str, str]) -> None:
    """Write texts below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def checkout(folder: Path, requirements: list[str]) -> Path:
    """Make two repositories, one the submodule of the other, and data beside them, and return a dirty clone.

    Of the clone a file is changed, one is deleted, one is added and not known to git, and the submodule is changed.
    """
    shared, origin = folder / "shared", folder / "origin"
    write(folder, {"points.csv": POINTS})
    write(shared, {"shift.py": "SHIFT = 0.5\n", "__init__.py": ""})
    write(origin, {"train.py": TRAIN, "notes.txt": "To be deleted.\n", "extra.py": "start = 9\n"})
    write(origin, {"pyproject.toml": PROJECT.format(requirements=requirements), ".gitignore": "*.log\n__pycache__\n"})
    for each in (shared, origin):
        git(each, "init", "-q")
        git(each, "add", "-A")
        git(each, "commit", "-qm", "Begin")
    git(origin, "submodule", "-q", "add", shared, "shared")
    git(origin, "rm", "-q", "--cached", "extra.py")
    git(origin, "commit", "-qm", "Share")
    clone = folder / "here"
    git(folder, "clone", "-q", "--recurse-submodules", origin, clone)
    write(clone, {"extra.py": "start = 2.5\n", "shared/shift.py": "SHIFT = 0.75\n", "leftover.log": "ignored\n"})
    (clone / "notes.txt").unlink()
    (clone / "train.py").write_text(TRAIN.replace("default=20", "default=10"))
    return clone


def mlcore(
    home: Path, *arguments: object, cwd: Path, status: int = 0, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the mlcore command of this Python."""
    done = subprocess.run(
        [sys.executable, "-m", "mlcore", *map(str, arguments)], cwd=cwd, env=environment(home, **settings),
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def own_packages() -> list[str]:
    """Return what an environment needs for mlcore to log there, from this tree."""
    return [str(ROOT / "core"), str(ROOT / "plugins" / "mlcore-local")]


def kinds() -> list[str]:
    """Return the kinds of environments that can be tried here."""
    return ["uv", "venv"] if shutil.which("uv") or (Path(sys.executable).parent / "uv").exists() else ["venv"]


def path_with_tools() -> str:
    """Return a PATH on which the programs of this Python come first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
