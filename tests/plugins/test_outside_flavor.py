"""A flavor plugin of nobody here, for a library of its own, goes from log to load to predict with core unchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from house.tree import CORE, ROOT
from plugins.test_outside import digests
from wheels import build, environment

PLUGIN = ROOT / "docs" / "examples" / "flavor-plugin"
USE = """
import sys
from importlib.metadata import distributions
from centroids import Centroids
import mlcore

class Mine(Centroids):
    pass

points, labels = [[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [6.0, 5.0]], ["low", "low", "high", "high"]
with mlcore.start_run() as run:
    logged = mlcore.log_model(Mine().fit(points, labels), "model", input_example=points)
assert "sklearn" not in sys.modules and "numpy" not in sys.modules
assert logged.flavor == "centroids"
model = mlcore.load_model(logged.uri)
assert model.predict([[1.0, 1.0], [9.0, 9.0]]) == ["low", "high"]
assert type(model.unwrap()) is Centroids
assert mlcore.get_run(run.id).models[0].digest == logged.digest
try:
    mlcore.log_model(object(), "nothing")
except mlcore.errors.NotInstalled as error:
    assert "centroids" in str(error)
else:
    raise AssertionError("an object was logged as a model")
print(mlcore.get_model(logged.uri).signature)
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder outside the tree with the plugin, and an environment of wheels with it, core and mlcore-local."""
    folder, before = tmp_path_factory.mktemp("outside"), digests(CORE)
    shutil.copytree(PLUGIN, folder / "plugin", ignore=shutil.ignore_patterns("__pycache__"))
    wheels = [build(folder / "plugin", folder / "plugin-wheel"), build(CORE, folder / "core-wheel")]
    wheels.append(build(ROOT / "plugins" / "mlcore-local", folder / "local-wheel"))
    environment(folder / "venv", *wheels, beside="mlcore[testing]")
    yield folder
    assert digests(CORE) == before


def run(outside: Path, *arguments: str | Path) -> str:
    """Run Python in the environment, where no setting of ours reaches it; return what it prints."""
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(outside))
    command = [outside / "venv" / "bin" / "python", *arguments]
    env = {"PATH": os.defpath, "PYTHONWARNINGS": "error", "MLCORE_STORE": str(outside / "store"), **home}
    done = subprocess.run(command, cwd=outside, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_model_of_its_library_is_logged_loaded_and_asked(outside: Path) -> None:
    """Guards that a flavor needs nothing of mlcore's own, neither numpy nor pandas nor another flavor."""
    (outside / "use.py").write_text(USE)
    assert "double" in run(outside, "use.py")


def test_it_keeps_the_contract_in_fifteen_lines_of_tests(outside: Path) -> None:
    """Guards that the kit runs where only wheels are, and skips nothing."""
    file = outside / "plugin" / "tests" / "test_centroids.py"
    assert len(file.read_text().splitlines()) <= 15
    said = run(outside, "-m", "pytest", "-q", "-p", "no:cacheprovider", file)
    passed = re.search(r"^(\d+) passed in", said, re.MULTILINE)
    assert passed, said
    assert int(passed[1]) >= 13
