"""The example in docs/examples/digits: one training in four forms, in three kinds of environments, and under MLflow."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from faults.processes import environment
from house.tree import ROOT
from mlcore import Client, Run
from plugins.projects.repositories import kinds, mlcore, path_with_tools

EPOCHS = 2
FORMS = ("MLproject", "pyproject", "script", "command")


@attrs.frozen
class Place:
    """A copy of the example, with mlcore's packages where it looks for them, and a store and environments of its own."""

    home: Path
    example: Path

    @property
    def store(self) -> Path:
        return self.home / "store"

    def run(self, form: str, kind: str) -> dict[str, Any]:
        """Run the example in one form and one kind of environment, as the user would type it."""
        source = {"MLproject": ".", "pyproject": "../digits-pyproject", "script": "train.py"}.get(form)
        epochs = (
            ["--", "python", "train.py", "--epochs", EPOCHS] if source is None else [source, "-P", f"epochs={EPOCHS}"]
        )
        done = mlcore(
            self.home, "run", "--env", kind, "--name", f"{form} {kind}", *epochs, cwd=self.example,
            MLCORE_STORE=str(self.store), PATH=path_with_tools(), OMP_NUM_THREADS="1",
        )  # fmt: skip
        return {"out": done.stdout, "err": done.stderr}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Return the example as a checkout has it."""
    home = tmp_path_factory.mktemp("digits")
    examples = home / "docs" / "examples"
    for name in ("core", "plugins"):
        (home / name).symlink_to(ROOT / name)
    for name in ("digits", "digits-pyproject"):
        ignored = shutil.ignore_patterns("__pycache__", ".mlcore")
        shutil.copytree(ROOT / "docs" / "examples" / "digits", examples / name, ignore=ignored)
    (examples / "digits-pyproject" / "MLproject").unlink()
    yield Place(home, examples / "digits")
