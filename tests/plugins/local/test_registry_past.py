"""The registry as it was: what was in it at any time, on every store, and what is said about that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcore import Client
from mlcore_local.registry.facts import facts
from mlcore_local.registry.past import at, look, shown
from mlcore_local.sync import sync
from registries import Random, seen
from serving import serving_here

CHANGES = {"folder": 500, "sqlite": 150, "postgresql": 150, "server": 150}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URI of a store that is new, of the kind that the test names."""
    kind = getattr(request, "param", "folder")
    sqlite = f"sqlite:///{tmp_path / 'store.db'}"
    if kind.startswith("server"):
        with serving_here(sqlite if kind == "server" else tmp_path / "served") as server:
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
