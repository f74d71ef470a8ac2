"""Runs that are made again: elsewhere, from nothing but the store, and what is told when one thing is changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

import mlcore
from faults.processes import environment
from mlcore import Client, Run
from mlcore_projects.reproducing import TAG, NotReproducible, prepare, reproduce
from plugins.projects.repositories import SECONDS, checkout, kinds, own_packages, path_with_tools, wheel, write

INPUTS = ("code", "command", "environment", "packages", "params", "data")


@attrs.frozen
class Place:
    """Hold a run of a project in git, whose checkout is gone, and a home without any environments."""

    home: Path
    original: Run
    python: Path  # of the environment that it was made in

    @property
    def store(self) -> Path:
        """Where the runs are."""
        return self.home / "store"

    def settings(self, home: Path) -> dict[str, str]:
        """Return the variables of whoever has this home: where the packages are that no index has."""
        index = str(self.home / "index")
        return environment(
            home, TMPDIR=str(self.home / "tmp"), MLCORE_STORE=str(self.store), UV_FIND_LINKS=index,
            PIP_FIND_LINKS=index, PATH=path_with_tools(),
        )  # fmt: skip

    def mlcore(self, *arguments: object, status: int = 0, home: str = "elsewhere", **settings: str) -> Any:
        """Run the mlcore command at another place, and return what it prints."""
        (folder := self.home / home).mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "mlcore", *map(str, arguments)], cwd=folder, env=self.settings(folder) | settings,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def reproduce(self, *arguments: object, status: int, run: str | None = None, **settings: str) -> dict[str, Any]:
        """Reproduce the run, and return the JSON that is printed."""
        asked = ["reproduce", run or self.original.id, "--json", "--quiet", *arguments]
        found: dict[str, Any] = json.loads(self.mlcore(*asked, status=status, **settings).stdout)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a run that `mlcore run` made of a dirty checkout."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed: apt-get install git, or the like")
    home = tmp_path_factory.mktemp("reproduce")
    for version, factor in (("1.0", 2.0), ("1.1", 3.0)):
        wheel(home / "index", version, factor)
    clone = checkout(home, [*own_packages(), "wobble==1.0"])
    (home / "tmp").mkdir()
    place = Place(home, None, None)  # type: ignore[arg-type]
    typed = ["-P", "lr=0.05", "-P", "data=../points.csv"]
    said = subprocess.run(
        [sys.executable, "-m", "mlcore", "run", ".", "--env", kinds()[0], "--json", *typed], cwd=clone,
        env=place.settings(home), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    original = Client(place.store).get_run(json.loads(said.stdout)["run"])
    (python,) = (home / "cache" / "mlcore" / "environments").glob("*/env/bin/python")
    return Place(home, original, python)


@pytest.fixture(scope="module")
def prepared(place: Place) -> Path:
    """Return a folder that was prepared for the run, after its checkout was moved away."""
    (place.home / "here").rename(place.home / "gone")
    said = place.mlcore("reproduce", place.original.id, "--folder", "again", "--prepare", "--json")
    told = json.loads(said.stdout)
    assert told["tree"] == place.original.context["git.tree"]
    assert Path(told["python"]).is_relative_to(place.home / "elsewhere" / "cache")
    return Path(told["folder"])


def found(place: Place, told: dict[str, Any]) -> Run:
    """Return the run that was made."""
    return Client(place.store).get_run(told["run"])


def inputs(told: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of what went in and differs, by part."""
    return {part: [each["name"] for each in told["differences"][part]] for part in INPUTS if told["differences"][part]}


def test_a_run_of_a_dirty_tree_is_made_again_elsewhere(place: Place, prepared: Path) -> None:
    """Guards the promise: the same tree, the same packages and the same metrics, with nothing but the store at hand."""
    assert (prepared / "extra.py").read_text() == "start = 2.5\n"  # was not known to git
    assert (prepared / "shared" / "shift.py").read_text() == "SHIFT = 0.75\n"  # was changed in the submodule
    assert "default=10" in (prepared / "train.py").read_text()  # was changed
    assert not (prepared / "notes.txt").exists()  # was deleted
    assert not (prepared / "leftover.log").exists()  # is ignored
    before = sorted(path.name for path in prepared.iterdir())

    told = place.reproduce("--folder", prepared, status=0)
    again, original = found(place, told), place.original
    assert told["same"]
    assert told["tree"] == [original.context["git.tree"]] * 2
    assert again.context["git.submodules"][0]["tree"] == original.context["git.submodules"][0]["tree"]
    assert again.context["packages.digest"] == original.context["packages.digest"]
    assert again.context["project.lock"] == original.context["project.lock"]
    assert again.metrics == original.metrics
    assert list(again.series("loss").values) == list(original.series("loss").values)
    assert again.params == original.params == {"lr": 0.05, "steps": 20, "data": str(place.home / "points.csv")}
    assert again.tags[TAG] == original.id
    assert again.experiment_id == original.experiment_id
    assert sorted({path.name for path in prepared.iterdir()} - {"__pycache__"}) == before


CHANGES = {
    "line": ("train.py", "asked.lr * 2 *", "asked.lr * 2.5 *", {"code": ["train.py"]}),
    "submodule": ("shared/shift.py", "0.75", "0.5", {"code": ["shared/shift.py"]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_in_the_tree_is_named_and_nothing_else(place: Place, prepared: Path, change: str) -> None:
    """Guards that a different result is never without its reason, nor with another one."""
    name, old, new, expected = CHANGES[change]
    text = (prepared / name).read_text()
    assert text.count(old) == 1
    (prepared / name).write_text(text.replace(old, new))
    try:
        told = place.reproduce("--folder", prepared, status=1)
    finally:
        (prepared / name).write_text(text)
    assert inputs(told) == expected
    assert [each["name"] for each in told["differences"]["metrics"]] == ["loss", "slope"]
    if change == "line":
        (changed,) = told["differences"]["code"]
        assert [line[0] for line in changed["lines"]] == ["@", "-", "+"]


def test_a_changed_row_of_data_is_named_and_nothing_else(place: Place, prepared: Path) -> None:
    """Guards data that are not in the tree, by the digest that `log_dataset` recorded."""
    data = place.home / "points.csv"
    text = data.read_text()
    data.write_text(text.replace("\n1.0,", "\n1.5,"))
    try:
        told = place.reproduce("--folder", prepared, status=1)
    finally:
        data.write_text(text)
    assert inputs(told) == {"data": ["points (train)"]}


def test_a_changed_parameter_is_named_and_nothing_else(place: Place, prepared: Path) -> None:
    """Guards -P, and that the value before and after is told with its type."""
    told = place.reproduce("--folder", prepared, "-P", "lr=0.06", status=1)
    assert inputs(told) == {"params": ["lr"]}
    (lr,) = told["differences"]["params"]
    assert (lr["before"], lr["after"]) == (0.05, 0.06)


def test_a_changed_package_is_named_and_nothing_else(place: Place, prepared: Path) -> None:
    """Guards --with: the same lock but for one package."""
    told = place.reproduce("--folder", prepared, "--with", "wobble==1.1", status=1)
    assert inputs(told) == {"packages": ["wobble"]}
    (wobble,) = told["differences"]["packages"]
    assert (wobble["before"], wobble["after"]) == ("1.0", "1.1")
    assert found(place, told).metrics != place.original.metrics


def test_a_run_of_python_alone_is_made_again_from_the_packages_that_it_saw(place: Place, prepared: Path) -> None:
    """Guards runs that `mlcore run` had no part in: their command, their folder, their packages."""
    done = subprocess.run(
        [place.python, "train.py", "--lr", "0.05", "--data", place.home / "points.csv"], cwd=place.home / "gone",
        env=place.settings(place.home), capture_output=True,
        text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (original,) = Client(place.store).search_runs("params.steps = 10", experiment="*")
    assert original.context["git.tree"] == place.original.context["git.tree"]
    told = place.reproduce(run=original.id, status=0)
    again = found(place, told)
    assert again.metrics == original.metrics
    assert again.context["packages.digest"] == original.context["packages.digest"]
    assert again.context["command.arguments"] == original.context["command.arguments"]
    assert told["folder"] is None  # it was temporary
    told = place.reproduce("-P", "lr=0.06", run=original.id, status=1)
    assert inputs(told) == {"params": ["lr"]}


def test_the_page_for_people_tells_the_same(place: Place, prepared: Path) -> None:
    """Guards what is printed."""
    said = place.mlcore("reproduce", place.original.id, "--folder", prepared, "-P", "lr=0.06", status=1)
    lines = said.stdout.splitlines()
    assert lines[1] == f"reproduces  {place.original.name} ({place.original.id[-8:]})"
    assert lines[2:4] == ["params differ", "  lr  0.05 -> 0.06"]
    assert lines[-2:] == ["the same: code, command, environment, packages, data, models", f"its folder is {prepared}"]


# What is not about environments is tried with the Python of the tests, which is quick.

NOISY = """
import argparse, os, random
import mlcore

parser = argparse.ArgumentParser()
parser.add_argument("--token", default="")
parser.parse_args()
with mlcore.start_run():
    mlcore.log_metrics({"loss": 0.5 + random.random() / 1e5, "constant": 3})
"""


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder without git, with a script whose loss is not the same twice, and make it the current one."""
    write(folder := tmp_path / "code", {"noisy.py": NOISY})
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("MLCORE_RUN_ID", "MLCORE_EXPERIMENT", "MLCORE_CAPTURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(folder)
    return folder


def made(*arguments: str, **settings: str) -> Run:
    """Run the script as its user would, and return the run."""
    subprocess.run([sys.executable, *arguments], check=True, env=os.environ | settings)
    return Client().list_runs("*")[0]


def nothing_is_left(folder: Path) -> None:
    """Check that no folder was left where temporary ones are made."""
    assert list((folder.parent / "tmp").iterdir()) == []


def test_checks_decide_and_all_else_that_came_out_is_told(noisy: Path) -> None:
    """Guards trainings that are not the same twice: it is said what is near enough."""
    original = made("noisy.py")
    exactly = reproduce(original, environment="system")
    assert list(exactly.differing) == ["metrics"]
    assert not exactly.same
    assert exactly.folder.exists()
    shutil.rmtree(exactly.folder)
    near = reproduce(original.id[-8:], check=["loss +- 1%", "constant >= 3"], environment="system")
    assert near.same
    assert [each.name for each in near.differences.metrics] == ["loss"]
    assert [each.passed for each in near.checks] == [True, True]
    far = reproduce(original, check=["loss +- 1%", "loss < 0.4"], environment="system")
    assert [each.passed for each in far.checks] == [True, False]
    assert not far.same
    shutil.rmtree(far.folder)
    nothing_is_left(noisy)


def test_a_misspelt_metric_is_told_before_anything_is_made(noisy: Path) -> None:
    """Guards the minutes that an environment takes."""
    original = made("noisy.py")
    with pytest.raises(mlcore.errors.InvalidValue, match="has no metric 'los'; did you mean 'loss'"):
        reproduce(original, check=["los +- 1"], environment="system")
    nothing_is_left(noisy)
    assert len(Client().list_runs("*")) == 1


def test_a_secret_that_was_masked_is_asked_for(noisy: Path) -> None:
    """Guards against a run with *** for a token, which may do anything."""
    secret = "sk-proj-0123456789abcdefghijABCDEFGHIJ0123456789"
    original = made("noisy.py", "--token", secret)
    with pytest.raises(NotReproducible, match=r"--token \*\*\*; give what is missing by -P"):
        reproduce(original, environment="system")
    nothing_is_left(noisy)
    again = reproduce(original, parameters={"token": secret}, environment="system", check=["constant == 3"])
    assert again.run.status == "FINISHED"


@pytest.mark.parametrize(
    ("code", "settings", "problem"),
    [
        ("mlcore.start_run().end()", {"MLCORE_CAPTURE": "off"}, "did not record what was started"),
        ("mlcore.start_run().end()", {"MLCORE_CAPTURE": "command"}, "did not record its code"),
    ],
)
def test_what_a_run_does_not_say_is_told(noisy: Path, code: str, settings: dict[str, str], problem: str) -> None:
    """Guards one clear error, and that nothing is left."""
    (noisy / "other.py").write_text(f"import mlcore\n{code}\n")
    original = made("other.py", **settings)
    with pytest.raises(mlcore.errors.MlcoreError, match=problem):
        reproduce(original, environment="system")
    nothing_is_left(noisy)


def test_a_folder_of_something_else_is_left_alone(noisy: Path, tmp_path: Path) -> None:
    """Guards a user's files from a mistyped --folder."""
    first, second = made("noisy.py"), made("noisy.py")
    write(tmp_path / "mine", {"thesis.tex": "..."})
    with pytest.raises(NotReproducible, match="is not empty"):
        prepare(first, tmp_path / "mine", environment="system")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    place = prepare(first, tmp_path / "new", environment="system").folder
    assert prepare(first, place, environment="system").folder == place
    with pytest.raises(NotReproducible, match="was prepared for run"):
        prepare(second, place, environment="system")
    assert (place / "noisy.py").exists()


def test_a_run_that_fails_where_the_original_did_not_is_not_the_same(noisy: Path, tmp_path: Path) -> None:
    """Guards against taking no metrics for the same metrics."""
    (noisy / "other.py").write_text("import mlcore\nwith mlcore.start_run():\n    open('/tmp/none').read()\n")
    (noisy / "other.py").write_text("import os, mlcore\nwith mlcore.start_run():\n    os.environ['MODE']\n")
    original = made("other.py", MODE="fast")
    again = reproduce(original, environment="system")
    assert (again.original.status, again.run.status) == ("FINISHED", "FAILED")
    assert not again.differing
    assert not again.same


def test_exit_codes_tell_what_could_not_be_made_from_what_differs(noisy: Path, place: Place) -> None:
    """Guards scripts and CI: 1 is a difference, 2 wrong usage, 3 neither tree nor environment nor run."""
    unknown = place.mlcore("reproduce", "nosuchrun", status=3)
    assert unknown.stderr.startswith("mlcore: ")
    assert unknown.stderr.count("\n") == 1
    bad = place.mlcore("reproduce", place.original.id, "--check", "accuracy about 0.9", status=2)
    assert "is not a metric, a relation and a number, such as 'accuracy +- 0.001'" in bad.stderr
    place.mlcore("reproduce", place.original.id, "--with", "wobble", status=2)
    folder = place.home / "elsewhere" / "new"
    wrong = place.mlcore("reproduce", place.original.id, "--with", "woble==2", "--folder", folder, status=3)
    assert "has no package 'woble'; did you mean 'wobble'?" in wrong.stderr
    assert not folder.exists()
    missing = place.mlcore(
        "reproduce",
        place.original.id,
        "--folder",
        folder,
        status=3,
        home="nowhere",
        UV_FIND_LINKS="",
        PIP_FIND_LINKS="",
    )
    assert "wobble" in missing.stderr
    assert not folder.exists()
