"""`mlcore trust`: the list of what models may run, from the shell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mlcore
from mlcore.cli import program
from mlcore.errors import DigestMismatch, InvalidValue, NotAModel, NotFound, Untrusted
from mlcore.models import digest_of

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, as a user who trusts nothing yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("MLCORE_STORE", str(tmp_path / "store"))
    return tmp_path


def call(*arguments: str) -> Result:
    """Run `mlcore trust` with these arguments."""
    return CliRunner().invoke(program, ["trust", *arguments])


def foreign() -> str:
    """Return the digest of a model of somebody else's, in the folder `theirs`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", "somebody")
        mlcore.save_model(lambda data: data, "theirs")
    return digest_of(Path("theirs"))


def test_names_are_added_listed_and_removed() -> None:
    """Guards the round, for people and as JSON."""
    assert (call("list").stdout, call("list").stderr) == ("", "you trust nothing yet\n")
    assert call("add", "mylab.*", "other.tools.*", "--note", "ours").output == (
        "trusting mylab.*  ours\ntrusting other.tools.*  ours\n"
    )
    assert call("list").output == "mylab.*  ours\nother.tools.*  ours\n"
    assert json.loads(call("list", "--json").output) == mlcore.trusted() == {"mylab.*": "ours", "other.tools.*": "ours"}
    assert call("remove", "mylab.*").output == "no longer trusting mylab.*\n"
    assert json.loads(call("remove", "other.tools.*", "--json").output) == ["other.tools.*"]
    assert mlcore.trusted() == {}


def test_a_folder_stands_for_the_model_in_it(place: Path) -> None:
    """Guards the usual way: looked at, then trusted, byte by byte."""
    digest = foreign()
    with pytest.raises(Untrusted):
        mlcore.load_model("theirs")
    assert json.loads(call("add", "theirs", "--json").output) == [digest]
    assert mlcore.trusted() == {digest: "theirs"}
    assert mlcore.load_model("theirs").predict(3) == 3
    assert call("remove", "./theirs").exit_code == 0
    with pytest.raises(Untrusted):
        mlcore.load_model("theirs")


def test_a_uri_stands_for_the_model_there() -> None:
    """Guards models of runs."""
    digest = foreign()
    with mlcore.Client(Path("store")).start_run() as run:
        run.log_artifacts("theirs", "model")
    assert json.loads(call("add", f"runs:/{run.id}/model", "--json").output) == [digest]


def test_a_digest_is_a_digest_in_any_case() -> None:
    """Guards digests that were copied from elsewhere."""
    assert json.loads(call("add", DIGEST.upper(), "--json").output) == [DIGEST]


def test_a_name_is_a_name_even_if_there_is_a_folder_called_so() -> None:
    """Guards packages that lie where the command is run."""
    Path("mylab").mkdir()
    assert json.loads(call("add", "mylab", "--json").output) == ["mylab"]


def test_what_is_nothing_is_told() -> None:
    """Guards against an entry that would never match."""
    assert isinstance(call("add", "no/such/model").exception, NotAModel)
    assert isinstance(call("add", "two words").exception, InvalidValue)
    assert isinstance(call("remove", "mylab.*").exception, NotFound)
    assert call("add").exit_code == 2
    assert mlcore.trusted() == {}


def test_a_model_that_was_changed_is_not_added(place: Path) -> None:
    """Guards against trusting what nobody saved."""
    foreign()
    shutil.copytree("theirs", "changed")
    Path("changed/model.pkl").write_bytes(b"changed")
    assert isinstance(call("add", "changed").exception, DigestMismatch)
    assert mlcore.trusted() == {}


def test_models_saved_here_are_counted_and_listed_when_asked(tmp_path: Path) -> None:
    """Guards that hundreds of models of one's own do not hide the few names that were trusted on purpose."""
    info = mlcore.save_model(lambda data: data, tmp_path / "model")
    mlcore.trust("mylab.*")
    assert call("list").output == "mylab.*\nmodels that you saved yourself: 1; --all lists them\n"
    assert info.verify() in call("list", "--all").output
    assert json.loads(call("list", "--json").output) == {"mylab.*": ""}
    assert json.loads(call("list", "--json", "--all").output) == mlcore.trusted()
