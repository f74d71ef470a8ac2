"""``mlcore history``: what each run changed against the one before it, and what came out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlcore
from mlcore.cli import program


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[mlcore.Run]:
    """Return four runs, of which the third is inside the second, in the store that is found from here."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLCORE_STORE", "MLCORE_EXPERIMENT"):
        monkeypatch.delenv(name, raising=False)
    client = mlcore.Client()
    client.set_experiment("lines")

    def start(name: str, **settings: bool) -> mlcore.Run:
        time.sleep(0.002)  # what starts within one millisecond comes in any order
        return client.start_run(name=name, **settings)

    with start("first") as first:
        first.log_params({"rate": 0.1, "depth": 3})
        first.log_metrics({"loss": 1.0})
    with start("second") as second:
        second.log_params({"rate": 0.2, "model": "cnn"})
        second.log_metrics({"loss": 0.75})
        with start("inside", nested=True) as inside:
            inside.log_params({"rate": 7})
    second.set_note("Better:\n*keep* the rate.")
    with start("third") as third:
        third.log_params({"rate": 0.2, "model": "cnn"})
        third.log_metrics({"loss": float("nan")})
    return [first, second, inside, third]


def said(*arguments: object) -> str:
    """Run the command, which must succeed; return what it prints on standard output."""
    done = call(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def call(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(program, ["history", *map(str, arguments)], prog_name="mlcore")


def test_the_newest_run_comes_first_with_what_it_changed(runs: list[mlcore.Run]) -> None:
    """Guards the page: changes of parameters and metrics against the run before, and the note."""
    entries = said("lines").split("\n\nrun ")
    assert [entry.removeprefix("run ").split()[0] for entry in entries] == [run.id for run in reversed(runs)]
    second = entries[2].splitlines()
    for line in ("Name:     second", "    Better:", "    ~ rate: 0.1 -> 0.2", "    + model=cnn", "    - depth=3"):
        assert line in second
    assert "    loss=0.75  (-0.25)" in second
    assert f"  params, against {runs[0].id[-8:]} first" in second
    assert "    rate=0.1" in entries[3].splitlines()
    assert "params" not in entries[0]
    assert "    loss=nan" in entries[0].splitlines()


def test_a_run_inside_another_is_compared_with_its_own_kind(runs: list[mlcore.Run]) -> None:
    """Guards searches, whose trials have nothing to do with the run that they are in."""
    found = {each["name"]: each for each in json.loads(said("lines", "--json"))}
    assert found["inside"]["compared_with"] is None
    assert found["third"]["compared_with"] == runs[1].id
    assert found["second"]["changed_params"] == {
        "rate": {"before": 0.1, "now": 0.2},
        "model": {"before": None, "now": "cnn"},
        "depth": {"before": 3, "now": None},
    }  # fmt: skip
    assert found["third"]["changed_metrics"] == {"loss": {"before": 0.75, "now": "NaN"}}


def test_what_is_shown_can_be_less_or_more(runs: list[mlcore.Run]) -> None:
    """Guards --filter, --limit, --metric, --oneline and --all, and the experiment that is taken by itself."""
    lines = said("--oneline", "-n", 3).splitlines()
    assert lines[2] == f"{runs[1].id}  FINISHED  second  loss=0.75  + model=cnn  ~ rate: 0.1 -> 0.2  - depth=3"
    assert [line.split()[2] for line in lines] == ["third", "inside", "second"]
    assert "rate=0.2" in said("--all", "-n", 1)
    assert "loss" not in said("--metric", "acc", "-n", 1)
    found = json.loads(said("--filter", "metrics.loss < 0.9", "--json"))
    assert [each["compared_with"] for each in found] == [runs[0].id]
    assert call("--filter", "name = 'x'").stderr == "there are no runs in lines that fit\n"
