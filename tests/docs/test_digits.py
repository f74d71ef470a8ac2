"""The first example: what it prints and keeps, in a folder and, by one setting, on a server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import mlcore
from faults.processes import environment
from house.tree import ROOT
from mlcore.store import Entity, Query
from serving import serving

# What no two runs have alike, wherever they are kept: when they were, and names made of chance.
TIMES = {"start_time", "end_time"}
OF_A_MODEL = {"model_id", "model_uuid", "run_id", "utc_time_created"}


def about(run: mlcore.Run, entity: Entity) -> dict[str, Any]:
    """Return all that a run is, but for times and names made of chance."""
    digests = {each.path: each.sha256 for each in run.artifacts.list()}
    text = run.artifacts.get("model/MLmodel").read_text()
    model = {name: each for name, each in yaml.safe_load(text).items() if name not in OF_A_MODEL}
    del digests["model/MLmodel"]  # known by what is in it
    attributes = {family: dict(values) for family, values in entity.attributes.items()}
    attributes.get("context", {}).pop("seeds.torch", None)  # where it is installed, it begins with chance
    assert attributes.get("context", {}).pop("command.folder", "locally") in ("locally", "remotely")
    assert {name: each["sha256"] for name, each in attributes.pop("artifacts").items() if name in digests} == digests
    logged = {name: dict(each) for name, each in attributes.pop("models").items()}
    assert [sorted(each) for each in logged.values()] == [["digest", "flavor", "id", "time"]]
    series = {key: run.series(key) for key in run.metrics}
    return {
        "parent": entity.parent,
        "fields": {name: each for name, each in entity.fields.items() if name not in TIMES},
        "attributes": attributes,
        "metrics": {
            key: (each.count, each.min, each.max, each.step, each.value) for key, each in entity.metrics.items()
        },
        "series": {key: (list(each.steps), list(each.values)) for key, each in series.items()},
        "conflicts": entity.conflicts,
        "digests": digests,
        "model": model,
        "flavors": [each["flavor"] for each in logged.values()],
    }


def stored(uri: str) -> dict[str, Any]:
    """Return the experiments and, by their names, the runs of a store, and what it has registered."""
    client = mlcore.Client(uri)
    entities = client.store.find("run", Query()).items
    experiments = [(each.id, each.fields, each.attributes) for each in client.store.find("experiment", Query()).items]
    runs = {each.fields["name"]: about(client.get_run(each.id), each) for each in entities}
    model = client.registry.get("digits")
    (version,) = model.versions
    origin = client.get_run(str(version.run_id)).name
    kept = {"aliases": list(model.aliases), "version": version.version, "run": origin, "tags": version.tags}
    kept |= {"description": version.description, "source": version.source == f"runs:/{version.run_id}/model"}
    client.close()
    return {"experiments": experiments, "runs": runs, "registry": kept}


def started(folder: Path, **settings: str) -> subprocess.Popen[str]:
    """Start the example in an empty folder."""
    folder.mkdir()
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "examples" / "digits" / "first_run.py")]
    return subprocess.Popen(
        command, cwd=folder, env=environment(folder, **settings), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the example, and return what it prints."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors.replace("\n", "").startswith("made a store at") or not errors
    return out


def plain(printed: str) -> list[str]:
    """Return what is printed but for ids, times and places."""
    text = re.sub(r"runs:/\w+/|\b[0-9a-f]{8}\b|\d{4}-\d\d-\d\d \d\d:\d\d", "", printed)
    return [line for line in text.splitlines() if not line.startswith("What it confuses")]


def test_the_digits_are_learned_and_are_the_same_on_a_server_as_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the first code a stranger sees, and the promise that one setting brings it to a server."""
    with serving(tmp_path / "served") as server:
        locally = started(tmp_path / "locally")
        remotely = started(tmp_path / "remotely", MLCORE_STORE=server.url, MLCORE_TOKEN=server.token)
        printed = ended(locally)
        assert plain(ended(remotely)) == plain(printed)
        assert list((tmp_path / "remotely").glob(".mlcore")) == []
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        there, here = stored(server.url), stored(str(tmp_path / "locally" / ".mlcore"))
    assert sorted(here["runs"]) == ["bernoulli", "gaussian", "huber", "logistic", "neural net"]
    assert there["experiments"] == here["experiments"]
    assert there["registry"] == here["registry"]
    assert here["registry"]["aliases"] == ["champion"]
    for name, run in here["runs"].items():
        for part, expected in run.items():
            assert there["runs"][name][part] == expected, (name, part)
    check_the_page(printed, tmp_path / "locally" / ".mlcore")


def check_the_page(printed: str, store: Path) -> None:
    """Check that lines fit and curves are in the store."""
    runs = mlcore.Client(store).list_runs("digits")
    assert [each.status for each in runs] == ["FINISHED"] * 5
    assert all(each.id[-8:] in printed for each in runs)
    assert max(map(len, printed.splitlines())) <= 100
    for each in runs:
        assert list(each.series("loss.valid").steps) == list(range(15))
        assert len(each.series("loss.batch")) == 15 * 19
        assert {"confusion.png", "data/digits.csv.gz", "model/MLmodel"} <= {each.path for each in each.artifacts.list()}
        assert not each.artifacts.verify()
    best = max(runs, key=lambda run: run.metrics["accuracy.valid"])
    assert best.metrics["accuracy.valid"] > 0.95
    right = round(540 * best.metrics["accuracy.valid"])
    assert f"gets {right} of 540 digits right" in printed
    assert "@champion is version 1 of digits, and was none\n\nModel('models:/digits@champion'" in printed
