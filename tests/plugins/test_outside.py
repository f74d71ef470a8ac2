"""A store plugin of nobody here, built outside the tree and installed beside core, is as good as ours."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from house.tree import CORE, ROOT
from wheels import build, environment

PLUGIN = ROOT / "docs" / "examples" / "store-plugin"
USE = """
import sys
import mlcore

client = mlcore.Client(uri := sys.argv[1])
with client.start_run(name="first", experiment="there", tags={"kind": "test"}) as run:
    run.log_params({"lr": 0.1, "model": {"depth": 3}})
    for value in (3.0, 2.0, float("nan")):
        run.log_metric("loss", value)
    run.log_metrics({"accuracy": 0.5, "loss": 1.0}, step=7)
    run.log_points("curve", range(5_000), [step * step for step in range(5_000)])
    run.set_tag("kind", "trial")
    run.set_note("kept *elsewhere*")
try:
    with client.start_run(name="second", experiment="there", key="job-1"):
        raise ValueError
except ValueError:
    pass
with client.start_run(experiment="there", key="job-1") as resumed:
    resumed.log_metric("loss", 1)

reader = mlcore.Client(uri)
again = reader.get_run(run.id[-8:])
assert (again.name, again.status, again.folder) == ("first", "FINISHED", None)
assert again.params == {"lr": 0.1, "model.depth": 3}
assert (again.tags, again.note) == ({"kind": "trial"}, "kept *elsewhere*")
assert again.metrics == {"accuracy": 0.5, "loss": 1.0, "curve": 4_999.0**2}
assert list(again.series("loss").steps) == [0, 1, 2, 7]
assert list(again.series("curve").values) == [float(step * step) for step in range(5_000)]
assert again.start_time <= again.end_time
assert {each.name: each.status for each in reader.list_runs("there")} == {"first": "FINISHED", "second": "FINISHED"}
assert reader.get_run(resumed.id).metrics == {"loss": 1.0}

made = client.create_experiment("one", tags={"a": 1})
try:
    client.create_experiment("one")
except mlcore.errors.AlreadyExists as error:
    assert "'one'" in str(error)
else:
    raise AssertionError("one name, two experiments")
made.rename("two")
assert reader.get_experiment("two").id == made.id
assert sorted(each.name for each in reader.list_experiments()) == ["there", "two"]
made.delete()
assert [each.name for each in reader.list_experiments()] == ["there"]
made.restore()
assert reader.get_experiment("two").tags == {"a": 1}
again.delete()
assert [each.name for each in reader.list_runs("there")] == ["second"]
print(reader.list_runs("*", include_deleted=True))
for each in (client, reader):
    each.close()
"""


def digests(folder: Path) -> dict[str, str]:
    """Return path -> digest of all Python and data files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder outside the tree with a copy of the plugin, and an environment of wheels with it and core."""
    folder, before = tmp_path_factory.mktemp("outside"), digests(CORE)
    shutil.copytree(PLUGIN, folder / "plugin", ignore=shutil.ignore_patterns("__pycache__"))
    plugin = build(folder / "plugin", folder / "plugin-wheel")
    ours = [build(each, folder / f"{each.name}-wheel") for each in (CORE, ROOT / "plugins" / "mlcore-local")]
    environment(folder / "venv", *ours, plugin, beside="mlcore[testing]")
    yield folder
    (installed,) = folder.glob("venv/lib/python*/site-packages/mlcore")
    assert digests(CORE) == before
    assert digests(installed) == digests(CORE / "src" / "mlcore")


def run(outside: Path, program: str, *arguments: str | Path) -> str:
    """Run a program of the environment in its folder, where no setting of ours reaches it; return what it prints."""
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(outside))
    done = subprocess.run(
        [outside / "venv" / "bin" / program, *arguments],
        cwd=outside,
        env={"PATH": os.defpath, "PYTHONWARNINGS": "error", **home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_program_lists_the_plugin_with_its_distribution(outside: Path) -> None:
    """Guards that an installed plugin is found by its entry point, and is named after who brings it."""
    listed = json.loads(run(outside, "mlcore", "plugins", "list", "--json"))
    assert listed["conflicts"] == []
    local, found = listed["plugins"]
    assert local["distribution"] == "mlcore-local"
    assert (found["name"], found["distribution"], found["version"]) == ("onefile", "mlcore-onefile", "0.1.0")
    assert [each["name"] for each in found["provides"]["stores"]] == ["onefile"]
    assert found["error"] == ""
    assert "runs in one SQLite file" in run(outside, "mlcore", "plugins", "info", "onefile")
    assert json.loads(run(outside, "mlcore", "plugins", "info", "onefile", "--json")) == found


def test_its_uri_takes_runs_and_experiments_and_gives_them_back(outside: Path) -> None:
    """Guards that what users call works as in a folder: logging, ending, resuming, reading, naming, hiding."""
    (outside / "use.py").write_text(USE)
    printed = run(outside, "python", "use.py", f"onefile://{outside}/runs.db")
    assert "first" in printed
    assert "second" in printed


def test_it_keeps_the_contract_in_fifteen_lines_of_tests(outside: Path) -> None:
    """Guards that the kit runs where only wheels are, without numpy and without skipping."""
    file = outside / "plugin" / "tests" / "test_onefile.py"
    assert len(file.read_text().splitlines()) <= 15
    said = run(outside, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", file)
    passed = re.search(r"^(\d+) passed in", said, re.MULTILINE)
    assert passed, said
    assert int(passed[1]) > 75
