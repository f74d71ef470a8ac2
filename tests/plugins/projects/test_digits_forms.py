"""The example in docs/examples/digits: one training in four forms, in three kinds of environments, and under MLflow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from faults.processes import environment
from house.tree import ROOT
from interop.environments import mlflow_python
from mlcore import Client, Run
from plugins.projects.repositories import SECONDS, kinds, mlcore, path_with_tools

__all__ = ["mlflow_python"]

ASKED = {"epochs": 2, "lr": 0.01, "hidden": 16, "seed": 3}
FORMS = {"MLproject": ".", "pyproject": "pyproject.toml", "script": "train.py", "command": None}
# One thread a library, so that two runs at once add up numbers in the same order as one alone.
CALM = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@attrs.frozen
class Place:
    """Hold a copy of the example, beside mlcore as in a checkout, with a store and a cache of its own."""

    home: Path

    @property
    def example(self) -> Path:
        """The folder of the example."""
        return self.home / "docs" / "examples" / "digits"

    @property
    def store(self) -> Path:
        """Where its runs are."""
        return self.home / "store"

    def run(self, form: str, kind: str) -> str:
        """Run the example in one form and one kind of environment, as a user would; return what is said meanwhile."""
        source = FORMS[form]
        typed = [text for name, value in ASKED.items() for text in ("-P", f"{name}={value}")]
        command = [text for name, value in ASKED.items() for text in (f"--{name}", value)]
        asked = ["--", "python", "train.py", *command] if source is None else [source, *typed]
        done = mlcore(
            self.home, "run", "--env", kind, "--name", f"{form} {kind}", *asked, cwd=self.example,
            MLCORE_STORE=str(self.store), PATH=path_with_tools(), **CALM,
        )  # fmt: skip
        assert "% of the digits it had not seen are right" in done.stdout
        return done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return the example as a checkout has it."""
    place = Place(tmp_path_factory.mktemp("digits"))
    for name in ("core", "plugins"):
        (place.home / name).symlink_to(ROOT / name)
    ignored = shutil.ignore_patterns("__pycache__", ".mlcore")
    shutil.copytree(ROOT / "docs" / "examples" / "digits", place.example, ignore=ignored)
    return place


@pytest.fixture(scope="module")
def runs(place: Place) -> dict[str, Run]:
    """Return a run of each form in each kind of environment, by its name: two at a time, and one first a kind."""
    with ThreadPoolExecutor(2) as pool:
        first = list(pool.map(lambda kind: place.run("MLproject", kind), kinds()))
        others = [
            (form, kind) for kind in (*kinds(), "system") for form in FORMS if (form, kind) != ("MLproject", kind)
        ]
        list(pool.map(lambda each: place.run(*each), [("MLproject", "system"), *others]))
    assert all("building" in said for said in first)
    return {run.name: run for run in Client(place.store).list_runs("*")}


def skops(run: Run) -> str:
    """Return the digest of what was learned."""
    return next(each.sha256 for each in run.artifacts.list("model") if each.path == "model/model.skops")


def test_four_forms_in_three_kinds_of_environments_learn_the_same(runs: dict[str, Run]) -> None:
    """Guards that it does not matter how a project is written down, nor what makes its environment."""
    assert sorted(runs) == sorted(f"{form} {kind}" for form in FORMS for kind in (*kinds(), "system"))
    one = runs["MLproject system"]
    assert one.metrics["accuracy"] > 0.7
    for run in runs.values():
        assert run.status == "FINISHED", run.name
        assert run.metrics == one.metrics, run.name
        assert run.params == ASKED, run.name
        assert not run.conflicts, run.name
        assert {each.context: each.digest for each in run.datasets} == {e.context: e.digest for e in one.datasets}
        assert skops(run) == skops(one), run.name


def test_a_second_run_finds_the_environment_of_the_first(place: Place, runs: dict[str, Run]) -> None:
    """Guards the wait: forms that want the same share one environment, and nothing is resolved or built again."""
    for kind in kinds():
        assert len({runs[f"{form} {kind}"].context["project.lock"] for form in FORMS}) == 1
        said = place.run("MLproject", kind)
        assert [word for word in ("building", "resolving", "installing") if word in said] == []


@pytest.mark.slow
def test_mlflow_runs_the_same_project(place: Place, runs: dict[str, Run], mlflow_python: Path) -> None:
    """Guards what people have: `mlflow run` of the same MLproject, in an environment that MLflow makes by uv.

    MLflow resolves the paths of python_env.yaml from a temporary folder, so they are absolute here.
    """
    if "uv" not in kinds():
        pytest.skip("no uv: pip install uv")
    project = shutil.copytree(place.example, place.home / "mlflow")
    wanted = (project / "python_env.yaml").read_text().replace("../../..", str(ROOT))
    (project / "python_env.yaml").write_text(wanted)
    settings = environment(
        place.home, MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ALLOW_FILE_STORE="true",
        MLFLOW_ENV_ROOT=str(place.home / "environments"),
        MLFLOW_TRACKING_URI=(place.home / "mlruns").as_uri(), MLCORE_STORE=str(place.home / "other"),
        PATH=path_with_tools(), **CALM,
    )  # fmt: skip
    typed = [text for name, value in ASKED.items() for text in ("-P", f"{name}={value}")]
    command = [mlflow_python, "-m", "mlflow", "run", ".", "--env-manager", "uv", *typed]
    done = subprocess.run(
        command, cwd=project, env=settings, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = Client(place.home / "other").list_runs("digits")
    assert run.metrics == runs["MLproject uv"].metrics
    assert run.params == ASKED


def test_the_example_is_what_a_reader_sees() -> None:
    """Guards that the four forms say the same: parameters, defaults, and what they need."""
    from mlcore_projects.reading import read_project

    folder = ROOT / "docs" / "examples" / "digits"
    projects = [read_project(folder / (source or "train.py")) for source in FORMS.values()]
    said = [
        [(each.name, each.type, each.default) for each in project.entry_points["main"].parameters]
        for project in projects
    ]
    assert said[0] == said[1] == said[2]
    assert len({tuple(sorted(project.environment.requirements)) for project in projects}) == 1
    shown = subprocess.run(
        [sys.executable, folder / "train.py", "--help"], capture_output=True, text=True, check=True, env=os.environ
    )
    assert all(f"--{name}" in shown.stdout for name, _, _ in said[0])
