"""``mlcore registry``: models, versions and what stands for them, from the shell."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sklearn.naive_bayes import GaussianNB

import mlcore
from faults.processes import environment
from mlcore.cli import program
from mlcore.errors import AliasMoved, AlreadyExists, InvalidQuery, InvalidValue, NotFound

MODEL = ["name", "id", "latest", "aliases", "tags", "description", "user", "created", "changed", "deleted"]
VERSION = [
    "name", "version", "uri", "id", "number", "stage", "status", "status_message", "aliases", "tags", "source",
    "digest", "flavor", "run_id", "model_id", "parent_version", "description", "user", "created", "changed", "deleted",
]  # fmt: skip
HOSTILE = "\x1b[31mred \u202eabc\nline 深層 `'\"" + "x" * 100


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlcore.Client:
    """Return a client of a store with a model of three versions, the second being @champion, found from here."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLCORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("mlcore.tracking._module._default", None)  # of whichever test set a store before
    client = mlcore.Client()
    for number in (1, 2, 3):
        about = {"source": f"runs:/{number:032x}/model", "digest": f"{number:064x}", "flavor": "toy"}
        client.registry.add("digits", about, tags={"fold": number}, aliases="champion" if number == 2 else ())
    return client


def said(*arguments: object) -> str:
    """Run a command that must succeed; return what it prints on standard output."""
    done = call(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def call(*arguments: object, text: str | None = None) -> Result:
    """Run a command."""
    return CliRunner().invoke(program, ["registry", *map(str, arguments)], prog_name="mlcore", input=text)


def words(text: str) -> list[list[str]]:
    """Return the cells of a table, line by line."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


class TestLooking:
    def test_list_tells_what_stands_for_what(self, client: mlcore.Client) -> None:
        """Guards the table: the newest model first, of each the latest version and the aliases."""
        said("create", "letters", "--tag", "team=vision", "--description", "A to Z.\nAll of them.")
        head, *rows = words(said("list"))
        assert head == ["name", "latest", "aliases", "changed", "tags.team", "description"]
        assert (rows[0][0], rows[0][2:]) == ("letters", ["vision", "A to Z. …"])
        assert rows[1][:3] == ["digits", "3", "@champion 2"]
        assert [list(each) for each in json.loads(said("list", "--json"))] == [MODEL, MODEL]
        (found,) = json.loads(said("list", "--json", "--filter", "tags.team = 'vision'"))
        assert (found["name"], found["latest"], found["aliases"]) == ("letters", None, {})
        names = [each["name"] for each in json.loads(said("list", "--json", "--sort", "name", "--limit", 1))]
        assert names == ["digits"]
        rows = list(csv.reader(said("list", "--csv").splitlines()))
        assert rows[1][-1] == r"A to Z.\nAll of them."

    def test_search_is_over_the_versions_of_all_models(self, client: mlcore.Client) -> None:
        """Guards the table of versions, its columns and the query language."""
        said("stage", "digits/3", "production")
        assert words(said("search"))[0] == [
            "name",
            "version",
            "aliases",
            "stage",
            "created",
            "flavor",
            "tags.fold",
            "source",
        ]
        assert [row[1] for row in words(said("search"))[1:]] == ["3", "2", "1"]
        (found,) = json.loads(said("search", "stage = 'Production'", "--json"))
        assert list(found) == VERSION
        assert (found["uri"], found["stage"], found["aliases"]) == ("models:/digits/3", "Production", [])
        assert [each["version"] for each in json.loads(said("search", "--json", "-s", "number", "-n", 2))] == ["1", "2"]
        assert isinstance(call("search", "sting = 'x'").exception, InvalidQuery)
        assert "no versions that fit" in call("search", "tags.fold = '7'").stderr

    @pytest.mark.parametrize("which", ["digits/2", "digits@champion", "models:/digits/2", "models:/digits@champion"])
    def test_show_takes_every_name_of_a_version(self, client: mlcore.Client, which: str) -> None:
        """Guards that one word names a version wherever one is taken."""
        found = json.loads(said("show", which, "--json"))
        assert list(found) == [*VERSION, "comments", "run"]
        assert (found["version"], found["aliases"]) == ("2", ["champion"])
        page = said("show", which)
        assert page.startswith("digits/2  READY\nuri      models:/digits/2\naliases  @champion\n")
        assert "tags\n  fold  2\n" in page

    def test_show_tells_all_of_a_model(self, client: mlcore.Client) -> None:
        """Guards the page: what it is, what stands for which version, all versions, comments."""
        said("describe", "digits", "Which digit?\nOf ten.")
        said("comment", "digits", "Fine.")
        page = said("show", "digits")
        assert "description\n  Which digit?\n  Of ten.\n" in page
        assert "aliases\n  @champion  2\n" in page
        assert re.search(r"\n3 .*\n2 +@champion .*\n1 ", page)
        assert page.endswith("\n    Fine.\n")
        found = json.loads(said("show", "models:/digits", "--json"))
        assert list(found) == [*MODEL, "comments", "versions"]
        assert [each["version"] for each in found["versions"]] == ["3", "2", "1"]

    def test_what_is_not_there_is_told_with_what_is(self, client: mlcore.Client) -> None:
        """Guards the way out of a typing error."""
        for which, told in (
            ("digit", "did you mean digits?"), ("digits/7", "version 3, version 2, version 1, @champion"),
            ("digits@chmpion", "@champion"), ("digits/Prod", "models:/digits/3"),
        ):  # fmt: skip
            error = call("show", which).exception
            assert isinstance(error, NotFound | InvalidValue)
            assert told in str(error), which
        assert "say which version of it, as digits/3 or digits@alias" in str(call("stage", "digits", "None").exception)

    def test_the_past_is_shown_as_it_was(self, client: mlcore.Client) -> None:
        """Guards --at of show, list and search, and that it says whose word it is."""
        time.sleep(0.01)
        then = int(time.time() * 1000)
        time.sleep(0.01)
        said("alias", "digits/3", "champion")
        said("rename", "digits", "numbers")
        assert json.loads(said("show", "numbers@champion", "--json"))["version"] == "3"
        assert json.loads(said("show", "digits@champion", "--at", then, "--json"))["version"] == "2"
        assert [each["name"] for each in json.loads(said("list", "--at", then, "--json"))] == ["digits"]
        found = json.loads(said("search", "--at", then, "--json"))
        assert [each["aliases"] for each in found] == [[], ["champion"], []]
        told = call("show", "digits@champion", "--at", then)
        assert told.stdout.startswith("digits/2  READY\n")
        assert told.stderr.startswith("as of ")
        assert call("show", "digits", "--at", "tomorrow").exit_code == 2

    def test_no_name_breaks_a_line(self, client: mlcore.Client) -> None:
        """Guards terminals and scripts against what others wrote into descriptions, tags and comments."""
        for action in ("describe", "comment"):
            said(action, "digits/3", HOSTILE)
        said("tag", "digits/3", f"x={HOSTILE}")
        said("describe", "digits", HOSTILE)
        for command in (["list"], ["search"], ["show", "digits"], ["show", "digits/3"]):
            printed = said(*command)
            assert "\x1b" not in printed
            assert "\u202e" not in printed
        assert len(said("list").splitlines()) == 2
        assert json.loads(said("show", "digits/3", "--json"))["description"] == HOSTILE


class TestChanging:
    def test_a_model_is_registered_inspected_and_predicts(self, client: mlcore.Client) -> None:
        """Guards the way from a run to predictions by a name, with any word for the run."""
        with client.start_run(name="bayes") as run:
            run.log_metric("accuracy", 0.75)
            run.log_model(GaussianNB().fit([[0.0], [1.0]], [3, 8]), "model", input_example=[[0.0], [1.0]])
        about = ("--description", "Two of ten.", "--tag", "team=vision", "--alias", "challenger", "--alias", "new")
        assert said("register", "runs:/bayes/model", "digits", *about) == "models:/digits/4\n"
        found = json.loads(said("show", "digits@challenger", "--json"))
        assert (found["description"], found["tags"], found["aliases"]) == (
            "Two of ten.", {"team": "vision"}, ["challenger", "new"],
        )  # fmt: skip
        assert found["source"] == f"runs:/{run.id}/model"
        assert found["run"] == {"id": run.id, "name": "bayes", "metrics": {"accuracy": 0.75}, "params": {}}
        assert "metrics of its run\n  accuracy  0.75\n" in said("show", "digits/4")
        assert said("register", "models:/digits@challenger", "numbers") == "models:/numbers/1\n"
        for uri in ("models:/digits@challenger", "models:/digits/latest", "models:/numbers/1"):
            done = CliRunner().invoke(program, ["models", "inspect", uri, "--json"])
            assert done.exit_code == 0, done.output
            told = json.loads(done.stdout)
            assert (told["digest"], told["version"]) == (
                found["digest"], "models:/numbers/1" if "numbers" in uri else "models:/digits/4"
            )  # fmt: skip
            done = CliRunner().invoke(program, ["models", "predict", uri, "--example"])
            assert json.loads(done.stdout) == {"predictions": [3, 8]}
        missing = call("register", "runs:/bayes/modle", "digits")
        assert missing.exit_code == 1
        assert len(client.registry.get("digits").versions) == 4

    def test_a_model_is_made_and_renamed(self, client: mlcore.Client) -> None:
        """Guards names, which must be free."""
        assert said("create", "letters") == "created letters\n"
        assert list(json.loads(said("create", "words", "--tag", "a=b", "--json"))) == MODEL
        assert isinstance(call("create", "digits").exception, AlreadyExists)
        assert isinstance(call("rename", "letters", "digits").exception, AlreadyExists)
        assert isinstance(call("rename", "digits/1", "numbers").exception, InvalidValue)
        assert said("rename", "digits", "numbers") == "renamed digits to numbers\n"
        assert json.loads(said("show", "numbers@champion", "--json"))["version"] == "2"

    def test_aliases_move_and_go(self, client: mlcore.Client) -> None:
        """Guards promotion: an alias moves to what is named, which may be named by another one."""
        assert said("alias", "digits") == "champion  2\n"
        assert said("alias", "digits/3", "challenger") == "challenger  3\nchampion    2\n"
        assert json.loads(said("alias", "digits@challenger", "champion", "--json")) == {
            "challenger": "3", "champion": "3",
        }  # fmt: skip
        assert said("alias", "digits/2", "previous", "--remove", "challenger") == "champion  3\nprevious  2\n"
        assert said("alias", "digits", "--remove", "previous") == "champion  3\n"
        assert isinstance(call("alias", "digits", "--remove", "chmpion").exception, NotFound)
        assert isinstance(call("alias", "digits", "best").exception, InvalidValue)
        assert isinstance(call("alias", "digits/1", "v1").exception, InvalidValue)
        assert said("alias", "digits") == "champion  3\n"

    def test_an_alias_moves_only_from_where_it_was_seen(self, client: mlcore.Client) -> None:
        """Guards who promotes by what he saw: somebody else was faster, and nothing changes."""
        refused = call("alias", "digits/3", "champion", "--from", "digits/1")
        assert isinstance(refused.exception, AliasMoved)
        assert "digits@champion stands for 2, not for 1" in str(refused.exception)
        assert said("alias", "digits/3", "champion", "--from", "2") == "champion  3\n"
        assert said("alias", "digits/2", "challenger", "--from", "none") == "challenger  2\nchampion    3\n"
        assert isinstance(call("alias", "digits", "--remove", "champion", "--from", "2").exception, AliasMoved)
        assert said("alias", "digits", "--remove", "champion", "--from", "3") == "challenger  2\n"

    def test_stages_and_status(self, client: mlcore.Client) -> None:
        """Guards what users of MLflow know, and that only one version is in production if they ask for that."""
        assert said("stage", "digits/1") == "None\n"
        assert said("stage", "digits/1", "production") == "Production\n"
        assert json.loads(said("stage", "digits/3", "Production", "--archive", "--json"))["stage"] == "Production"
        assert said("stage", "digits/1") == "Archived\n"
        assert json.loads(said("show", "digits/Production", "--json"))["version"] == "3"
        assert said("status", "digits@champion", "FAILED", "--message", "It does not load.") == "FAILED\n"
        assert said("status", "digits/2") == "FAILED\n"
        assert said("show", "digits/2").startswith("digits/2  FAILED: It does not load.\n")
        assert call("stage", "digits/1", "live").exit_code == 2

    def test_tags_descriptions_and_comments(self, client: mlcore.Client) -> None:
        """Guards what is written about models and versions, and that each prints what there is."""
        assert said("tag", "digits/1", "reviewed=yes", "--remove", "fold") == "reviewed  yes\n"
        assert said("tag", "digits", "team=vision") == "team  vision\n"
        assert isinstance(call("tag", "digits", "team").exception, InvalidValue)
        assert said("describe", "digits/1") == ""
        assert call("describe", "digits/1", "-", text="**All** ten.\n").stdout == "**All** ten.\n"
        assert said("describe", "digits/1") == "**All** ten.\n"
        said("comment", "digits/1", "It takes fours for nines.")
        first, second = json.loads(said("comment", "digits/1", "No more.", "--json"))
        assert (first["text"], second["text"]) == ("It takes fours for nines.", "No more.")
        assert first["id"][-8:] in said("comment", "digits/1")
        said("comment", "digits/1", "--remove", first["id"][-12:])
        assert json.loads(said("comment", "digits/1", "--json")) == [second]
        assert "there are" in str(call("comment", "digits/1", "--remove", "nothing").exception)

    def test_what_is_deleted_comes_back(self, client: mlcore.Client) -> None:
        """Guards against the loss of what others load: aliases, and the number, which is not used again."""
        refused = call("delete", "digits/1", "digits/2")
        assert "digits/2 is @champion" in str(refused.exception)
        assert said("delete", "digits/1", "digits/3") == "deleted digits/1\ndeleted digits/3\n"
        assert [each["version"] for each in json.loads(said("search", "--json"))] == ["2"]
        assert json.loads(said("search", "--deleted", "--json"))[0]["deleted"] is True
        assert said("restore", "digits/1", "digits/3") == "restored digits/1\nrestored digits/3\n"
        refused = call("delete", "digits")
        assert str(refused.exception).endswith("give --yes")
        assert said("delete", "digits", "--yes") == "deleted digits\n"
        assert said("list") == ""
        assert "deleted" in said("list", "--deleted")
        assert json.loads(said("restore", "digits", "--json"))["aliases"] == {"champion": "2"}

    def test_whoever_sits_there_is_asked(self, client: mlcore.Client) -> None:
        """Guards the question on a terminal, and that no is no."""
        for answer, left in (("n", 1), ("y", 0)):
            master, slave = pty.openpty()
            os.write(master, f"{answer}\n".encode())
            done = subprocess.run(
                [sys.executable, "-m", "mlcore", "registry", "delete", "digits"], stdin=slave, capture_output=True,
                text=True, timeout=120, check=False, env=environment(Path.cwd()),
            )  # fmt: skip
            os.close(slave)
            os.close(master)
            assert "digits has @champion: hide it?" in done.stderr
            assert done.returncode == left
            assert len(mlcore.Client().registry.list()) == left
