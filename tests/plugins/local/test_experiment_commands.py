"""``mlcore experiments``: the names under which runs belong together, from the shell."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlcore
from mlcore.cli import program
from mlcore.errors import AlreadyExists, NotFound


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlcore.Client:
    """Return a client of a store with two runs of one experiment, found from here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLCORE_STORE", raising=False)
    client = mlcore.Client()
    for _ in range(2):
        with client.start_run(experiment="lines"):
            pass
    return client


def said(*arguments: object) -> str:
    """Run a command that must succeed; return what it prints on standard output."""
    done = call(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def call(*arguments: object) -> Result:
    """Run a command."""
    return CliRunner().invoke(program, ["experiments", *map(str, arguments)], prog_name="mlcore")


def test_list_counts_the_runs(client: mlcore.Client) -> None:
    """Guards the table: how many runs, and when the last one started; what nobody uses is left out."""
    made = said("create", "digits", "--tag", "team=vision", "--note", "all ten").strip()
    head, *rows = said("list").splitlines()
    assert re.split(r"  +", head) == ["id", "name", "runs", "last run", "tags.team", "note"]
    assert re.split(r"  +", rows[0]) == [made, "digits", "0", "vision", "all ten"]
    assert re.split(r"  +", rows[1])[1:3] == ["lines", "2"]


def test_the_json_of_an_experiment_has_these_keys(client: mlcore.Client) -> None:
    """Guards scripts: the schema is a promise."""
    (found,) = json.loads(said("list", "--json"))
    run = client.list_runs("lines")[0]
    assert found == {
        "id": run.experiment_id, "name": "lines", "deleted": False, "note": "", "tags": {}, "runs": 2,
        "last_start_time": run.start_time,
    }  # fmt: skip
    made = json.loads(said("create", "digits", "--tag", "team=vision", "--json"))
    assert list(made) == ["id", "name", "deleted", "note", "tags"]
    names, row, _ = csv.reader(said("list", "--csv").splitlines())
    assert dict(zip(names, row, strict=True)) | {"id": ""} == {
        "id": "", "name": "digits", "runs": "0", "last_start_time": "", "tags.team": "vision", "note": "",
    }  # fmt: skip


def test_queries_choose_and_order(client: mlcore.Client) -> None:
    """Guards --filter, --sort and --limit."""
    for name in ("digits", "dogs"):
        said("create", name)
    found = json.loads(said("list", "--json", "--filter", "name like 'd%'", "--sort", "name desc", "--limit", 1))
    assert [each["name"] for each in found] == ["dogs"]


def test_experiments_are_renamed_hidden_and_shown_again(client: mlcore.Client) -> None:
    """Guards the name, which must be free, and runs, which go with their experiment."""
    id = client.get_experiment("lines").id
    assert said("rename", "lines", "curves") == f"renamed {id} curves\n"
    assert len(client.list_runs("curves")) == 2
    assert said("delete", "curves") == f"deleted {id} curves\n"
    assert json.loads(said("list", "--json")) == []
    assert json.loads(said("list", "--json", "--deleted"))[0]["deleted"] is True
    assert call("list").stderr == "there are no experiments\n"
    assert json.loads(said("restore", id, "--json"))["name"] == "curves"
    assert isinstance(call("create", "curves").exception, AlreadyExists)
    assert isinstance(call("rename", "lines", "x").exception, NotFound)
