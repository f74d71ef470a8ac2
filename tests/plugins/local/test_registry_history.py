"""The history of a model: each change, who made it and when, and what it was before."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlcore import Client
from mlcore.cli import program
from mlcore.errors import NotFound
from mlcore.store import AttributesSet, Updated
from mlcore.testing import Writer
from mlcore_local.registry.facts import MODEL
from mlcore_local.registry.history import Edit, Entry, history
from mlcore_local.sync import sync
from random_registry import Random, next_ms, now, seen
from serving import serving_here


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Return a client of a folder with a model of two versions."""
    monkeypatch.setenv("USER", "alice")
    client = Client(tmp_path / "store")
    client.registry.create("digits", description="Which digit?")
    for number in (1, 2):
        client.registry.add("digits", {"source": f"runs:/{number:032x}/model", "digest": "d"}, tags={"n": number})
    return client


def told(entry: Entry) -> tuple[str, str, list[tuple[Any, ...]]]:
    """Return the action, the version and the edits of an entry."""
    return entry.action, entry.version, [(each.version, each.name, each.before, each.after) for each in entry.edits]


def test_each_change_is_told_with_what_was_before(client: Client) -> None:
    """Guards what history is read for, of everything that can be changed."""
    model, second = client.registry.get("digits"), client.registry.version("digits/2")
    model.set_alias("champion", 1)
    model.set_alias("champion", 2)
    model.remove_alias("champion")
    client.registry.version("digits/1").transition("Production")
    second.transition("Production", archive_existing=True)
    model.set_tags({"team": "vision", "n": 1})
    model.set_tag("n", 1.0)
    model.remove_tag("n")
    second.describe("*new*")
    comment = second.comment("nice")
    second.remove_comment(comment)
    second.set_status("FAILED", "it fell over")
    second.delete()
    second.restore()
    model.rename("numbers")
    found = history(client, "numbers")
    assert [each.time for each in found] == sorted((each.time for each in found), reverse=True)
    text = {"id": comment, "text": "nice", "user": "alice", "time": int(comment[:12], 16)}
    assert [told(each) for each in reversed(found)][3:] == [
        ("set_alias", "", [("", "aliases.champion", None, "1")]),
        ("set_alias", "", [("", "aliases.champion", "1", "2")]),
        ("remove_alias", "", [("", "aliases.champion", "2", None)]),
        ("transition", "1", [("1", "stage", None, "Production")]),
        ("transition", "2", [("2", "stage", None, "Production"), ("1", "stage", "Production", "Archived")]),
        ("set_tags", "", [("", "tags.team", None, "vision"), ("", "tags.n", None, 1)]),
        ("set_tags", "", [("", "tags.n", 1, 1.0)]),
        ("remove_tag", "", [("", "tags.n", 1.0, None)]),
        ("describe", "2", [("2", "description", "", "*new*")]),
        ("comment", "2", [("2", f"comments.{comment}", None, text)]),
        ("remove_comment", "2", [("2", f"comments.{comment}", text, None)]),
        ("set_status", "2", [("2", "status", None, "FAILED"), ("2", "status_message", None, "it fell over")]),
        ("delete", "2", [("2", "deleted", None, True)]),
        ("restore", "2", [("2", "deleted", True, False)]),
        ("rename", "", [("", "name", "digits", "numbers")]),
    ]
    assert {each.by for each in found} == {each.actor for each in found} == {"alice"}
    assert not any(each.unseen for each in found)


def test_the_edits_of_a_random_history_make_the_model_that_there_is(tmp_path: Path) -> None:
    """Guards that no change is left out: who applies them in order has what the store has."""
    client = Client(tmp_path / "store")
    random = Random([client, Client(tmp_path / "store")], seed=3)
    random.run(120)
    for id, model in seen(client.registry).items():
        values: dict[tuple[str, str], Any] = {}
        for entry in reversed(history(client, id)):
            assert entry.action != "unknown"
            for each in entry.edits:
                values[each.version, each.name] = each.after
        assert values["", "name"] == model["name"]
        assert family(values, "", "tags") == model["tags"]
        numbers = {id: str(each["number"]) for id, each in model["versions"].items()}
        assert family(values, "", "aliases") == {alias: numbers[id] for alias, id in model["aliases"].items()}
        for version in model["versions"].values():
            number = str(version["number"])
            assert values.get((number, "stage"), "None") == version["stage"]
            assert values.get((number, "status"), "READY") == version["status"]
            assert bool(values.get((number, "deleted"))) == version["deleted"]
            assert family(values, number, "tags") == version["tags"]


def family(values: dict[tuple[str, str], Any], version: str, name: str) -> dict[str, Any]:
    """Return the attributes of a family that are there."""
    of = {each: value for (of, each), value in values.items() if of == version and value is not None}
    return {each.removeprefix(f"{name}."): value for each, value in of.items() if each.startswith(f"{name}.")}


def test_a_model_has_one_history_under_all_its_names(client: Client) -> None:
    """Guards who asks by a name of before, by an id, or by a name that another model has by now."""
    model = client.registry.get("digits")
    model.rename("numbers")
    found = history(client, "numbers")
    assert history(client, "digits") == history(client, model.id) == history(client, "models:/numbers") == found
    client.registry.create("digits")
    assert [each.action for each in history(client, "digits")] == ["create"]
    with pytest.raises(NotFound, match=r"there never was a model 'digit' in .*: did you mean digits"):
        history(client, "digit")


def test_history_may_begin_and_end(client: Client) -> None:
    """Guards --since and --until: both times are included."""
    first, second, third = reversed(history(client, "digits"))
    assert history(client, "digits", since=second.time) == [third, second]
    assert history(client, "digits", until=second.time) == [second, first]
    assert history(client, "digits", since=third.time + 1) == []


def test_a_change_that_had_not_seen_another_of_the_same_is_marked(client: Client, tmp_path: Path) -> None:
    """Guards that a merge hides nothing: of two that set the same apart the later one counts, and is marked."""
    shutil.copytree(tmp_path / "store", tmp_path / "other")
    other = Client(tmp_path / "other")
    client.registry.get("digits").describe("here")
    next_ms()
    other.registry.get("digits").describe("there")
    other.registry.get("digits").set_tag("team", "vision")
    sync(client.store, other.store)
    other.registry.get("digits").describe("agreed")
    tag, agreed = (found := history(other, "digits"))[1], found[0]
    there, here = (
        next(each for each in found if each.details.get("description") == name) for name in ("there", "here")
    )
    assert there.unseen == (here.digest,)
    assert there.edits == (Edit("", "description", "here", "there"),)
    assert (here.unseen, tag.unseen, agreed.unseen) == ((), (), ())
    assert client.registry.get("digits").description == "here"
    assert other.registry.get("digits").description == "agreed"


def test_what_no_change_tells_of_is_told_as_well(client: Client) -> None:
    """Guards against changing a model silently, by events alone: they stand in the history as unknown."""
    model = client.registry.get("digits")
    client.store.append(Writer().batch(AttributesSet(MODEL, model.id, "tags", {"sneaked": "in"})))
    client.store.append(Writer().batch(Updated(MODEL, model.id, {"name": "digits"})))  # as it is: nothing to tell
    found = history(client, "digits")
    assert len(found) == 4
    assert told(found[0]) == ("unknown", "", [("", "tags.sneaked", None, "in")])


def test_a_server_says_who_it_was_whatever_the_writer_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the word of the server: the name of the token and its own clock, beside what the writer claims."""
    with serving_here(f"sqlite:///{tmp_path / 'store.db'}") as server:
        monkeypatch.setenv("MLCORE_TOKEN", server.token)
        monkeypatch.setenv("USER", "mallory")
        client = Client(server.url)
        hour = 3_600_000_000_000
        client.registry.create("digits")
        monkeypatch.setattr("mlcore.tracking._changes.time.time", lambda: (time.time_ns() - hour) / 1e9)
        client.registry.get("digits").set_tag("a", 1)
        late, made = history(client, "digits")
        assert (made.by, late.by) == ("mallory", "mallory")
        assert made.actor == late.actor != "mallory"
        assert abs(late.received_at - now()) < 60_000
        assert late.received_at - late.at > 3_500_000
        shown = said("digits", "--store", server.url)
        assert shown.splitlines()[0].split() == ["time", "who", "version", "change", "the", "writer", "said"]
        assert shown.splitlines()[1].endswith("mallory")
        client.close()


def call(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(program, ["registry", "history", *map(str, arguments)], prog_name="mlcore")


def said(*arguments: object) -> str:
    """Run the command, which must succeed; return what it prints on standard output."""
    done = call(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_the_command_prints_a_line_for_each_change(client: Client, tmp_path: Path) -> None:
    """Guards the page: newest first, values before and after, whose word it is."""
    model = client.registry.get("digits")
    model.set_alias("champion", 1)
    model.set_alias("champion", 2)
    client.registry.version("digits/2").comment("a\nb")
    where = ("--store", tmp_path / "store")
    done = call("digits", *where)
    lines = [line.split("alice", 1) for line in done.stdout.splitlines()]
    assert lines[0][0].split() == ["time", "who", "version", "change"]
    assert [" ".join(line[1].split()) for line in lines[1:]] == [
        r"2 comment 'a\nb'", "set alias @champion: 1 -> 2", "set alias @champion: none -> 1",
        f"2 register source runs:/{2:032x}/model tags.n 2", f"1 register source runs:/{1:032x}/model tags.n 1",
        "create description 'Which digit?'",
    ]  # fmt: skip
    assert "a folder cannot vouch" in done.stderr
    assert len(said("digits", "-n", 2, *where).splitlines()) == 3
    assert "nothing about digits was changed" in call("digits", "--until", "2026-03-01", *where).stderr
    assert len(said("digits", "--since", "-1h", "--clock", "writer", *where).splitlines()) == 7
    wrong = call("digits", "--since", "tomorrow", *where)
    assert (wrong.exit_code, "is no time of the past" in wrong.stderr) == (2, True)


def test_json_has_all_of_it(client: Client, tmp_path: Path) -> None:
    """Guards what scripts read: an object for each change, with values before and after."""
    client.registry.get("digits").set_tag("team", None)
    newest, *others = json.loads(said("digits", "--json", "--store", tmp_path / "store"))
    assert len(others) == 3
    about = {key: newest[key] for key in ("action", "model", "by", "actor", "version", "unseen")}
    assert about == {
        "action": "set_tags",
        "model": "digits",
        "by": "alice",
        "actor": "alice",
        "version": "",
        "unseen": [],
    }
    assert others[0]["edits"][-1] == {"version": "2", "name": "tags.n", "before": None, "after": 2}
    assert {"time", "received_at", "stamp", "at", "digest", "details"} < newest.keys()
