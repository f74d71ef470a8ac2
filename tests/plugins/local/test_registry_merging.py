"""Registries that went on apart meet: nothing of a version is lost, and somebody says what became of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sklearn.dummy import DummyClassifier

import mlcore
from faults.processes import fsck, mlcore as program
from mlcore.errors import InvalidValue
from mlcore.registry import ModelVersion, labels
from mlcore.store import Query
from mlcore_local.append import claim_path
from mlcore_local.registry.checking import verify as verify_chain
from mlcore_local.sync import Report, sync, verify
from serving import serving_here


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the folders of models that answer 0, 1, 2, ..."""
    place = tmp_path_factory.mktemp("models")
    made = []
    for answer in range(6):
        model = DummyClassifier(strategy="constant", constant=answer).fit([[0], [1]], [answer, answer + 1])
        mlcore.save_model(model, place / str(answer))
        made.append(str(place / str(answer)))
    return made


def apart(ours: mlcore.Client, theirs: mlcore.Client, models: list[str]) -> tuple[ModelVersion, ModelVersion]:
    """Let two stores have the same two versions, and then make a third each, with an alias."""
    for number in range(2):
        ours.registry.register(models[number], "digits")
    assert sync(ours.store, theirs.store).met == []
    first = ours.registry.register(models[2], "digits", tags={"by": "us"}, aliases=["champion", "old"])
    second = theirs.registry.register(models[3], "digits", tags={"by": "them"}, aliases=["champion"])
    assert (first.version, second.version) == ("3", "3")
    return first, second


def said(report: Report) -> dict[str, str]:
    """Return what a sync said of each kind of meeting."""
    assert report.refused == []
    return {each.kind: each.what for each in report.met}


@pytest.fixture(params=["folder", "sqlite", "postgresql", "server"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlcore.Client]:
    """Yield a client of an empty store of each kind."""
    if request.param == "server":
        with serving_here(tmp_path / "served") as server:
            monkeypatch.setenv("MLCORE_TOKEN", server.token)
            with closing(mlcore.Client(server.url)) as client:
                yield client
        return
    uris = {"folder": str(tmp_path / "theirs"), "sqlite": f"sqlite:///{tmp_path / 'theirs.db'}"}
    uri = uris.get(request.param) or request.getfixturevalue("postgresql")
    with closing(mlcore.Client(uri)) as client:
        yield client


def test_both_stores_made_version_3_and_both_are_loaded_afterwards(
    target: mlcore.Client, tmp_path: Path, models: list[str]
) -> None:
    """Guards the promise of a merge, whichever way it goes and how often."""
    ours = mlcore.Client(tmp_path / "ours")
    first, second = apart(ours, target, models)
    later = f"3~{second.id[-4:]}"
    there = said(sync(ours.store, target.store))
    assert f"is {later} and no longer 3 here" in there["version"]
    assert f"it stays version {later} here" in there["alias"]
    back = said(sync(target.store, ours.store))
    assert "keeps the number" in back["version"]
    assert f"it is version {later} here now, and was version 3" in back["alias"]
    for _ in range(2):
        assert said(sync(ours.store, target.store)) == said(sync(target.store, ours.store)) == {}
    assert verify(ours.store, target.store) == verify(target.store, ours.store) == []
    for client in (ours, target):
        found = client.registry.get("digits")
        assert [each.version for each in found.versions] == ["3", later, "2", "1"]
        assert {alias: each.id for alias, each in found.aliases.items()} == {"champion": second.id, "old": first.id}
        answers = {uri: client.load_model(f"models:/digits/{uri}").predict([[0]])[0] for uri in ("3", later, "1")}
        assert answers == {"3": 2, later: 3, "1": 0}
        assert client.registry.version(f"digits/{later}").tags == {"by": "them"}
        assert [each.severity for each in verify_chain(client.store)] == ["merged"]
    renumbered = target.registry.version(f"digits/{later}")
    renumbered.renumber()
    assert renumbered.version == "4"
    assert said(sync(target.store, ours.store)) == {}
    assert [each.version for each in ours.registry.get("digits").versions] == ["4", "3", "2", "1"]
    assert ours.registry.register(models[4], "digits").version == "5"
    assert verify_chain(ours.store) == []


def test_a_number_that_was_given_later_yields_though_the_version_is_older(tmp_path: Path, models: list[str]) -> None:
    """Guards renumbering in one store while the other goes on: what was registered as 4 stays 4."""
    ours, theirs = mlcore.Client(tmp_path / "ours"), mlcore.Client(tmp_path / "theirs")
    _, second = apart(ours, theirs, models)
    sync(theirs.store, ours.store)
    fourth = theirs.registry.register(models[4], "digits")
    moved = ours.registry.version(f"digits/3~{second.id[-4:]}")
    moved.renumber()
    told = said(sync(ours.store, theirs.store))
    assert "version 4 of digits was made in both stores" in told["version"]
    assert theirs.registry.version("digits/4").id == fourth.id
    assert theirs.registry.version(f"digits/4~{second.id[-4:]}").id == second.id
    with pytest.raises(InvalidValue, match="has its number to itself"):
        theirs.registry.version("digits/2").renumber()


def test_models_of_one_name_meet(tmp_path: Path) -> None:
    """Guards names: two makers of one name mean one model, who renames two to one name has two."""
    ours, theirs = mlcore.Client(tmp_path / "ours"), mlcore.Client(tmp_path / "theirs")
    for client in (ours, theirs):
        client.registry.create("both")
    ours.registry.create("x").rename("new")
    other = theirs.registry.create("y")
    other.rename("new")
    told = said(sync(ours.store, theirs.store))
    assert told["model"] == "model both was made in both stores: it is one here, with the versions of both"
    assert f"by its id {other.id}" in told["name"]
    assert said(sync(ours.store, theirs.store)) == {}
    assert theirs.registry.get(other.id).name == "new"
    (found,) = verify_chain(theirs.store)
    assert (found.severity, found.model) == ("merged", "new")
    theirs.registry.get(other.id).rename("newer")
    assert verify_chain(theirs.store) == []


def test_several_that_merge_at_once_and_the_one_in_the_middle(tmp_path: Path, models: list[str]) -> None:
    """Guards three stores around one, and a store that gets what was merged elsewhere: it is told, too."""
    clients = [mlcore.Client(tmp_path / str(number)) for number in range(3)]
    team, last = mlcore.Client(f"sqlite:///{tmp_path / 'team.db'}"), mlcore.Client(tmp_path / "last")
    for number, client in enumerate(clients):
        client.registry.register(models[number], "digits")
    for client in clients:
        sync(client.store, team.store)
    last.registry.register(models[3], "digits")
    told = said(sync(team.store, last.store))
    assert "version 1 of digits was made in several stores" in told["version"]
    found = last.registry.get("digits").versions
    assert [each.version.partition("~")[0] for each in found] == ["1"] * 4
    entities = last.store.find("model_version", Query()).items
    assert labels(entities) == {each.id: each.version for each in found}
    answers = sorted(last.load_model(each.uri).predict([[0]])[0] for each in found)
    assert answers == [0, 1, 2, 3]
    team.close()


COPIES = (["cp", "-r"], ["cp", "-rn"], ["rsync", "-a"], ["rsync", "-a", "--ignore-existing"])


@pytest.mark.parametrize("copier", COPIES, ids=" ".join)
def test_a_folder_copied_over_another_loses_nothing_of_a_version(
    tmp_path: Path, models: list[str], copier: list[str]
) -> None:
    """Guards people who merge with cp or rsync, which know no claims: files of the same name are replaced, or kept."""
    if shutil.which(copier[0]) is None:
        pytest.skip(f"needs {copier[0]}: install the package {copier[0]}")
    ours, theirs = mlcore.Client(tmp_path / "ours"), mlcore.Client(tmp_path / "theirs")
    first, second = apart(ours, theirs, models)
    live = mlcore.Client(tmp_path / "theirs")
    assert live.registry.version("digits/3").id == second.id
    subprocess.run([*copier, f"{tmp_path}/ours/.", f"{tmp_path}/theirs"], check=False)
    for client in (live, mlcore.Client(tmp_path / "theirs")):
        found = client.registry.get("digits")
        assert {each.id: each.tags for each in found.versions[:2]} == {
            first.id: {"by": "us"}, second.id: {"by": "them"},
        }  # fmt: skip
        assert sorted(client.load_model(each.uri).predict([[0]])[0] for each in found.versions) == [0, 1, 2, 3]
        assert found.aliases["champion"].id == second.id
        assert [each.severity for each in verify_chain(client.store)] == ["merged"]
        assert found.version(f"3~{second.id[-4:]}").id == second.id
    told = fsck(tmp_path, tmp_path / "theirs")
    assert [each["severity"] for each in told["findings"]] == ["merged"]
    assert f"3~{second.id[-4:]}" in told["findings"][0]["what"]
    team = mlcore.Client(tmp_path / "team")
    assert said(sync(live.store, team.store)).keys() == {"version"}
    assert verify_chain(team.store)[0].severity == "merged"
    assert verify(live.store, team.store) == []
    for client in (live, team):
        assert client.registry.register(models[4], "digits").version == "4"


@pytest.mark.parametrize("begun", [None, 0, 10], ids=["none", "an empty one", "a torn one"])
def test_what_is_only_claimed_is_written_to_a_journal_by_a_repair(
    tmp_path: Path, models: list[str], begun: int | None
) -> None:
    """Guards a writer that was killed between the two, or a disk that was full: the claim is all there is."""
    client = mlcore.Client(tmp_path / "store")
    made = client.registry.register(models[0], "digits", tags={"a": 1})
    holder = claim_path(mlcore.folder.Folder.open(tmp_path / "store"), f"model-version/{made.model.id}/1")
    (copy,) = (each for each in (tmp_path / "store" / "store").iterdir() if made.id.encode() in each.read_bytes())
    kept = copy.read_bytes()
    copy.unlink()
    if begun is not None:
        copy.write_bytes(kept[:begun])
    *torn, found = fsck(tmp_path, tmp_path / "store")["findings"]
    assert (found["path"], found["severity"]) == (str(holder), "alone")
    assert [each["severity"] for each in torn] == (["torn"] if begun else [])
    assert mlcore.Client(tmp_path / "store").registry.version("digits/1").tags == {"a": 1}
    assert fsck(tmp_path, tmp_path / "store", "--repair")["findings"][-1]["severity"] == "repaired"
    assert fsck(tmp_path, tmp_path / "store")["findings"] == []
    assert len(copy.read_bytes()) > len(kept) / 2
    holder.unlink()
    assert mlcore.Client(tmp_path / "store").registry.version("digits/1").tags == {"a": 1}


def test_the_command_line_says_what_met_and_renumbers(tmp_path: Path, models: list[str]) -> None:
    """Guards `mlcore sync`, with and without --json, and `mlcore registry renumber`."""
    ours, theirs = mlcore.Client(tmp_path / "ours"), mlcore.Client(tmp_path / "theirs")
    _, second = apart(ours, theirs, models)
    done = program(tmp_path, "sync", "ours", "theirs", "--verify")
    assert done.returncode == 0, done.stderr
    assert "met: version 3 of digits was made in both stores" in done.stdout
    told = json.loads(program(tmp_path, "sync", "theirs", "ours", "--json").stdout)
    assert {each["kind"] for each in told["met"]} == {"version", "alias"}
    (version,) = (each for each in told["met"] if each["kind"] == "version")
    assert version["versions"][second.id] == f"3~{second.id[-4:]}"
    store = ("--store", str(tmp_path / "ours"))
    wrong = program(tmp_path, "registry", "renumber", "digits", *store)
    assert (wrong.returncode, "--all" in wrong.stderr) == (2, True)
    done = program(tmp_path, "registry", "renumber", "digits", f"3~{second.id[-4:]}", *store)
    assert done.stdout == f"version 3~{second.id[-4:]} of digits is 4 now\n", done.stderr
    done = program(tmp_path, "registry", "renumber", "digits", "--all", "--json", *store)
    assert json.loads(done.stdout) == []
    done = program(tmp_path, "registry", "check", *store)
    assert (done.returncode, done.stdout.endswith(", 0 findings\n")) == (0, True), done.stdout
