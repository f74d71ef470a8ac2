"""MLflow runs the same MLproject: what its program is told is what ours is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlcore_projects.binding import bind
from mlcore_projects.reading import read_project
from payloads import PAYLOADS

ECHO = "import json, sys\nwith open(sys.argv[1], 'w') as file:\n    json.dump(sys.argv[2:], file)\n"
MLPROJECT = """
name: demo
entry_points:
  main:
    parameters:
      out: {type: string, default: told.json}
      alpha: {type: float, default: 0.5}
      depth: {type: int, default: 3}
      flag: {default: true}
      data: {type: path, default: data.csv}
      where: {type: uri, default: "s3://bucket/x"}
      note: string
      day: {default: 2026-01-31}
    command: >-
      python echo.py {out} --alpha {alpha} --depth={depth} --flag {flag} "a b" 'c "d"' e\\ f
      --data {data} {where} {note} {day} {{literal}}
  other: {command: python echo.py other.json}
"""
# Runs a project with MLflow: whole, and then only to the command, for many values.
THEIRS = """
import json, os, subprocess, sys
import mlflow
from mlflow.projects import _project_spec

folder, values, many = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
mlflow.set_tracking_uri("sqlite:///" + os.path.join(os.getcwd(), "mlflow.db"))
mlflow.projects.run(folder, parameters=values, env_manager="local", experiment_name="x", synchronous=True)
entry = _project_spec.load_project(folder).get_entry_point("main")
told = []
os.chdir(folder)
for note in many:
    command = entry.compute_command({**values, "note": note, "zz": note, "out": "many.json"}, os.getcwd() + "/..")
    subprocess.run(["bash", "-c", command], check=True)
    told.append(json.load(open("many.json")))
print(json.dumps(told))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a project without an environment of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text(MLPROJECT)
    (folder / "echo.py").write_text(ECHO)
    (folder / "data.csv").touch()
    return folder


def told(folder: Path, values: dict[str, Any], file: str) -> list[str]:
    """Run our way, without the runner, and return what the program was told."""
    bound = bind(read_project(folder), values=values, base=folder)
    assert bound.argv[0] == "python"
    subprocess.run([sys.executable, "-I", "-S", *bound.argv[1:]], cwd=folder, check=True)
    return [str(each) for each in json.loads((folder / file).read_text())]


def test_mlflow_runs_the_same_project_and_tells_it_the_same(
    folder: Path, tmp_path: Path, mlflow_python: Path, mlflow_run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the whole of our reading of the schema: types, defaults, quotes and appended parameters."""
    monkeypatch.setenv("PATH", f"{mlflow_python.parent}{os.pathsep}{os.environ['PATH']}")
    values = {"alpha": "1e-3", "note": "it's a; $(note)", "extra": "x y"}
    many = [each.format(m="marker") for each in PAYLOADS]
    monkeypatch.chdir(folder)  # where MLflow looks for a default of type path
    printed = mlflow_run(THEIRS, folder, json.dumps(values), json.dumps(many), cwd=folder)
    theirs = json.loads((folder / "told.json").read_text())
    (folder / "told.json").unlink()
    ours = told(folder, values, "told.json")
    assert ours == theirs
    assert "--extra" in ours
    notes = json.loads(printed.splitlines()[-1])
    shown = [told(folder, {**values, "note": each, "zz": each, "out": "many.json"}, "many.json") for each in many]
    assert shown == notes
    assert not (folder / "marker").exists()
