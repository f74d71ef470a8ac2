"""The registry as it was: what was in it at any time, on every store, and what is said about that."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from mlcore import Client
from mlcore.errors import InvalidValue, NotFound, NotSupported
from mlcore.store import Created, Erased, Updated, clock
from mlcore.testing import Writer
from mlcore_local.registry.facts import MODEL, VERSION, facts
from mlcore_local.registry.history import history
from mlcore_local.registry.past import at, look, moment, shown
from mlcore_local.store import FolderStore
from mlcore_local.sync import sync
from random_registry import Random, next_ms, now, seen
from serving import serving_here

CHANGES = {"folder": 500, "sqlite": 150, "postgresql": 150, "server": 150}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URI of a store that is new, of the kind that the test names."""
    kind = request.param
    sqlite = f"sqlite:///{tmp_path / 'store.db'}"
    if kind == "server":
        with serving_here(sqlite) as server:
            monkeypatch.setenv("MLCORE_TOKEN", server.token)
            yield server.url
    else:
        found = {"folder": str(tmp_path / "store"), "sqlite": sqlite}
        yield found[kind] if kind in found else request.getfixturevalue(kind)


@pytest.mark.parametrize(("place", "changes"), CHANGES.items(), indirect=["place"], ids=[*CHANGES])
def test_any_time_of_a_random_history_gives_what_a_replay_gives(place: str, changes: int, tmp_path: Path) -> None:
    """Guards the answer about the past: up to 500 changes by two writers, asked at 100 times, there and in a copy."""
    clients = [Client(place), Client(place)]
    random = Random(clients, seed=8)
    random.run(changes)
    assert seen(clients[0].registry) == random.marks[-1][2]
    known, times = facts(clients[1].store), random.times(100)
    for asked, view in times:
        assert seen(look(clients[1], asked, known=known).registry) == view, shown(asked)
    assert seen(at(clients[0], times[0][0])) == times[0][1]
    copy = Client(f"sqlite:///{tmp_path / 'copy.db'}")
    sync(clients[0].store, copy.store)
    known = facts(copy.store, "writer")
    for asked, view in times[:50]:
        assert seen(look(copy, asked, clock="writer", known=known).registry) == view, shown(asked)
    for client in (*clients, copy):
        client.close()


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Return a client of a folder with a model whose champion is version 1, and has been for a moment."""
    client = Client(tmp_path / "store")
    for number in (1, 2):
        client.registry.add(
            "digits", {"source": f"runs:/{number:032x}/model", "digest": "d", "run_id": f"{number:032x}"}
        )
    client.registry.get("digits").set_alias("champion", 1)
    return client


def test_who_was_champion_is_told_under_the_name_of_then(client: Client) -> None:
    """Guards the question that people ask, after the alias moved and the model was renamed."""
    then = next_ms()
    next_ms()
    model = client.registry.get("digits")
    model.set_alias("champion", 2)
    model.rename("numbers")
    assert at(client, then).version("models:/digits@champion").version == "1"
    assert at(client, now()).version("models:/numbers@champion").version == "2"
    assert (
        at(client, "now").version("models:/numbers@champion").source == "runs:/00000000000000000000000000000002/model"
    )
    with pytest.raises(
        NotFound, match=r"no model 'numbers' in .* as of .*; what is or was called so was 'digits' then"
    ):
        at(client, then).get("numbers")
    assert list(at(client, "2026-03-01").list()) == []


def test_nothing_is_written_to_the_past(client: Client) -> None:
    """Guards that who asks about the past cannot change anything, and is told so."""
    past = at(client, next_ms())
    acts: list[Callable[[], object]] = [
        lambda: past.create("other"), lambda: past.get("digits").set_alias("champion", 2),
        lambda: past.version("digits/1").transition("Production"), lambda: past.add("digits", {"source": "s"}),
        lambda: past.get("digits").delete(),
    ]  # fmt: skip
    for act in acts:
        with pytest.raises(NotSupported, match="the past stays as it was: change the present"):
            act()
    assert len(history(client, "digits")) == 4


def test_what_came_from_elsewhere_is_dated_by_the_store_and_else_by_its_writers(client: Client, tmp_path: Path) -> None:
    """Guards that a database vouches for what it received, says what it received later, and can be asked otherwise."""
    began = clock.tick() // 1_000_000
    later = Client(f"sqlite:///{tmp_path / 'later.db'}")
    monday = began - 7 * 86_400_000
    writer = Writer()
    made = Created(MODEL, "m", fields={"name": "old"})
    change = Updated(MODEL, "m", {"change": {"action": "create", "model": "old", "model_id": "m", "at": monday}})
    later.store.append(writer.batch(made, change, stamp=monday * 1_000_000))
    past = look(later, monday + 1)
    assert (past.late, list(past.registry.list())) == (1, [])
    assert "the store says when and who" in past.told()
    with pytest.raises(NotFound, match=r"1 change of before came to this store only later: .*--clock writer"):
        past.registry.get("old")
    said = look(later, monday + 1, clock="writer")
    assert (said.late, [each.name for each in said.registry.list()]) == (0, ["old"])
    assert "no store vouches for it" in said.told()
    assert look(later, monday - 1, clock="writer").late == 0
    with pytest.raises(InvalidValue, match="a clock is 'store' or 'writer', not 'wall'"):
        facts(later.store, "wall")  # type: ignore[arg-type]
    later.close()


def test_what_was_erased_is_gone_from_the_past(client: Client) -> None:
    """Guards whoever must have something forgotten; a version whose run was erased is still told."""
    then = next_ms()
    next_ms()
    first, second = client.registry.version("digits/1"), client.registry.version("digits/2")
    client.store.append(Writer().batch(Erased(VERSION, second.id)))
    client.store.append(Writer(str(first.run_id)).batch(Erased("run", str(first.run_id))))
    past = at(client, then)
    assert [each.version for each in past.get("digits").versions] == ["1"]
    assert past.version("digits@champion").run_id == first.run_id
    assert {each.version for each in history(client, "digits")} == {"", "1", "2"}


def test_a_clock_that_runs_ahead_does_not_date_a_change_after_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a folder's answer against writers whose clock is an hour ahead: the file's time is the last there is."""
    monkeypatch.setattr("mlcore.store._clock._last", time.time_ns() + 3_600_000_000_000)
    client = Client(tmp_path / "store")
    client.registry.create("digits").set_tag("a", 1)
    known = facts(client.store)
    assert all(each.stamped > now() for each in known)
    assert all(each.time == each.received_at <= now() for each in known)
    assert at(client, "now").get("digits").tags == {"a": 1}


def test_a_folder_lists_its_models_without_a_look_at_runs(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the time that a question about models takes beside many runs, and that what comes late is listed."""
    with client.start_run() as run:
        pass
    store, writer = FolderStore(Path(client.setting.value)), Writer()
    monkeypatch.setattr("mlcore_local.history.Watch.runs", None)
    store.append(writer.batch(Created(MODEL, "m")))
    assert {stored.batch.home for stored in store.events(of="")} == {""}
    for path in (store.root / "store").iterdir():  # as if nothing had been written for an hour
        os.utime(path, (time.time() - 3_600,) * 2)
    known = len(facts(store))
    store.append(writer.batch(Updated(MODEL, "m", {"late": True})))
    assert len(facts(store)) == known + 1
    monkeypatch.undo()
    assert {stored.batch.home for stored in store.events()} == {"", run.id}


TIMES = {
    "2026-03-01": "2026-03-01T05:00:00Z", "20260301": "2026-03-01T05:00:00Z",
    "2026-03-01T12:00": "2026-03-01T17:00:00Z", "2026-03-01 12:00:30": "2026-03-01T17:00:30Z",
    "2026-07-01": "2026-07-01T04:00:00Z", "2026-03-01T12:00Z": "2026-03-01T12:00:00Z",
    "2026-03-01T12:00+01:00": "2026-03-01T11:00:00Z", "1772323200000": "2026-03-01T00:00:00Z",
    " 2026-03-01 ": "2026-03-01T05:00:00Z",
}  # fmt: skip


@pytest.fixture
def _in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_new_york")
@pytest.mark.parametrize(("text", "meant"), TIMES.items())
def test_a_time_is_that_of_the_local_zone_unless_it_says_another(text: str, meant: str) -> None:
    """Guards what a date on the command line means: the start of the day, where the reader is."""
    assert moment(text) == datetime.fromisoformat(meant).timestamp() * 1000
    assert shown(moment("2026-07-01")) == "2026-07-01 00:00:00-04:00"


@pytest.mark.parametrize(("text", "seconds"), {"-7d": 604_800, "-1.5h": 5_400, "- 2w": 1_209_600}.items())
def test_a_span_counts_back_from_now(text: str, seconds: int) -> None:
    """Guards relative times as the query language has them."""
    assert abs(now() - seconds * 1000 - moment(text)) < 5_000


WRONG = {"tomorrow": "give 2026-03-01", "": "give 2026-03-01", "2026-13-01": "give", "7d": "give", "-7y": "give"}
WRONG |= {
    "1772323200": "it is given in ms, which 1772323200000 would be",
    "9999-01-01": "still to come",
    "-9e9d": "give",
}
WRONG |= {"-999999w": "give"}


@pytest.mark.parametrize(("text", "why"), WRONG.items())
def test_what_is_no_time_of_the_past_is_refused_with_what_is(text: str, why: str) -> None:
    """Guards against an answer about another time than was meant: seconds, the future, a typing error."""
    with pytest.raises(InvalidValue, match=re.escape(why)):
        moment(text)
