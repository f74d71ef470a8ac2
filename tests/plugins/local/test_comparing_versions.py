"""`mlcore registry compare`: what two versions do not have alike, of themselves and of the runs that they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

import mlcore
from mlcore.cli import program
from mlcore_local.differences import Change
from mlcore_local.registry.comparing import PARTS, VersionDifferences, compare_versions

IRIS = datasets.load_iris(as_frame=True).frame
X, Y = IRIS.iloc[:, :4], IRIS["target"]
PINS = ["scikit-learn==1.9.0", "skops==0.13.0  # to read it", "", "# a remark", "numpy>=2; python_version>'3'"]


def log(client: mlcore.Client, rows: slice = slice(None), columns: slice = slice(None), **options: Any) -> mlcore.Run:
    """Train in a run on some rows and columns, and register the model."""
    frame, target = X.iloc[rows, columns], Y.iloc[rows]
    with client.start_run(capture="off") as run:
        run.log_dataset(frame, "iris", context="train")
        run.log_param("rows", len(frame))
        run.log_metric("rows", len(frame))
        fitted = LogisticRegression(max_iter=500).fit(frame, target)
        options = {"requirements": PINS, "input_example": frame.iloc[:2]} | options
        run.log_model(fitted, "model", register="iris", **options)
    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlcore.Client]:
    """Yield a store with versions of one model: the same twice, then each with one thing else."""
    place = tmp_path_factory.mktemp("compare")
    client = mlcore.Client(place / "store")
    log(client)
    log(client)
    log(client, rows=slice(10, None))
    log(client, columns=slice(3))
    log(client, requirements=["scikit-learn==1.9.1", "numpy>=2; python_version>'3'", "pandas"])
    log(client, metadata={"team": "vision"})
    mlcore.save_model(LogisticRegression(max_iter=500).fit(X, Y), place / "plain", requirements=PINS)
    client.register_model(str(place / "plain"), "plain")
    client.registry.get("iris").set_alias("champion", 3)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _here(store: mlcore.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the store."""
    monkeypatch.setenv("MLCORE_STORE", store.setting.value)


def compared(client: mlcore.Client, first: str, second: str, **options: Any) -> VersionDifferences:
    """Compare two versions by their URIs."""
    return compare_versions(client, *map(client.registry.version, (first, second)), **options)


def differing(found: VersionDifferences) -> dict[str, list[str]]:
    """Return the names of what differs, by part."""
    return {part: [each.name for each in getattr(found, part)] for part in PARTS if getattr(found, part)}


def test_the_same_trained_twice_is_the_same(store: mlcore.Client) -> None:
    """Guards against what no two models have alike: ids, times, and addresses in memory."""
    found = compared(store, "iris/1", "iris/2")
    assert store.registry.version("iris/1").digest != store.registry.version("iris/2").digest
    assert (differing(found), bool(found)) == ({}, False)
    assert (found.first, found.second) == ("models:/iris/1", "models:/iris/2")
    assert {each.partition(":")[0] for each in found.unknown} == {"code", "packages"}  # nothing was captured
    whole = compared(store, "iris/1", "iris/1")
    assert (differing(whole), whole.unknown) == ({}, ())


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("iris@champion", {
            "files": ["model.skops", "input_example.json", "serving_input_example.json"], "params": ["rows"],
            "data": ["iris (train)"], "metrics": ["rows"],
        }),
        ("iris/5", {"requirements": ["pandas", "scikit-learn", "skops"]}),
        ("iris/6", {"model": ["metadata.team"]}),
    ],
)  # fmt: skip
def test_what_differs_is_told_and_nothing_else(
    other: str, expected: dict[str, list[str]], store: mlcore.Client
) -> None:
    """Guards the parts: each difference in its own, and in no other."""
    assert {part: sorted(names) for part, names in differing(compared(store, "iris/1", other)).items()} == {
        part: sorted(names) for part, names in expected.items()
    }


def test_types_requirements_and_digests_are_told(store: mlcore.Client) -> None:
    """Guards what is said of each."""
    found = compared(store, "iris/1", "iris/4")
    assert found.signature == (Change("inputs.petal width (cm)", "removed", "double"),)
    assert compared(store, "iris/1", "iris/5").requirements == (
        Change("pandas", "added", None, ""), Change("scikit-learn", "changed", "==1.9.0", "==1.9.1"),
        Change("skops", "removed", "==0.13.0"),
    )  # fmt: skip
    assert compared(store, "iris/6", "iris/1").model == (Change("metadata.team", "removed", "vision"),)
    (skops,) = (each for each in found.files if each.name == "model.skops")
    assert (len(skops.before), len(skops.after), skops.before != skops.after) == (12, 12, True)


def test_versions_of_two_models_and_without_a_run_are_compared(store: mlcore.Client) -> None:
    """Guards models that were registered from a folder: what is known of them is compared, and what not is told."""
    found = compared(store, "iris/1", "plain/1")
    assert differing(found) == {
        "signature": [*(f"inputs.{name}" for name in sorted(X.columns)), "outputs.0"],
        "files": ["input_example.json", "serving_input_example.json"],
    }
    assert found.unknown == ("runs: models:/plain/1 came of no run that is known",)


def test_files_that_are_not_what_was_registered_are_not_compared(tmp_path: Path) -> None:
    """Guards against telling of a file that somebody put there since, as if the version had it."""
    client = mlcore.Client(tmp_path / "store")
    run = log(client)
    first = client.registry.version("iris/1")
    with client.start_run(run_id=run.id, capture="off"):
        mlcore.active_run().log_model(
            LogisticRegression(C=9, max_iter=500).fit(X, Y), "model", requirements=PINS, register="iris"
        )  # type: ignore[union-attr]
    mlcore.save_model(LogisticRegression(max_iter=500).fit(X, Y), tmp_path / "plain", requirements=PINS)
    plain = client.register_model(str(tmp_path / "plain"), "plain")
    (tmp_path / "plain" / "model.skops").write_bytes(b"changed")
    for version, told in ((first, "is not what was registered"), (plain, "model.skops was changed")):
        found = compare_versions(client, client.registry.version("iris/2"), version)
        assert [each for each in found.unknown if each.startswith(f"model: {version.uri}: ") and told in each]
        assert (found.files, found.signature, found.requirements) == ((), (), ())


def invoke(*arguments: str) -> Any:
    """Run ``mlcore registry compare``."""
    return CliRunner().invoke(program, ["registry", "compare", *arguments])


def test_the_command_prints_that_and_exits_as_runs_diff_does() -> None:
    """Guards text, JSON, options and exit codes."""
    assert (invoke("iris/1", "iris/2").stdout, invoke("iris/1", "iris/2", "--exit-code").exit_code) == ("", 0)
    done = invoke("iris/1", "models:/iris/6", "--exit-code")
    assert (done.stdout, done.exit_code) == ("model\n  metadata.team  added: vision\n", 1)
    assert done.stderr.count("mlcore: not compared: ") == 4
    told = invoke("iris/1", "iris@champion", "--ignore", "files.*", "--ignore", "data.*", "--within", "rows=10").stdout
    assert told == "params\n  rows  150 -> 140\n"
    found = json.loads(invoke("iris/5", "iris/1", "--json").stdout)
    assert (found["versions"], found["same"]) == (["models:/iris/5", "models:/iris/1"], False)
    assert [part for part in PARTS if found[part]] == ["requirements"]
    assert "models" not in found
    assert "is a model: say which version" in str(invoke("iris", "iris/1").exception)
    assert invoke("iris/1", "iris/99").exit_code != 0
