"""Many processes change one registry at once: numbers have no gap, an alias has one mover, a kill leaves nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from faults.processes import crowd, fsck, mlcore, run
from mlcore import Client
from mlcore.registry import Change, digest_of
from mlcore.store import Updated
from servers import own_server
from serving import serving

PROCESSES, EACH = 16, 2
TOKEN = "the-token-of-these-tests-0123456789"
STORES = ("folder", "sqlite", "postgresql", "server")


class Place(NamedTuple):
    """Hold the URI of an empty store, and the settings to reach it."""

    uri: str
    settings: Mapping[str, str]


@pytest.fixture(scope="module")
def databases() -> Iterator[Any]:
    """Yield the PostgreSQL server of this module."""
    with own_server("postgresql") as server:
        yield server


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Yield an empty store of each kind."""
    with ExitStack() as stack:
        if request.param == "postgresql":
            server = request.getfixturevalue("databases")
            yield Place(stack.enter_context(server.database()), {"IMPORTS": "mlcore_sql.store psycopg"})
        elif request.param == "server":
            monkeypatch.setenv("MLCORE_TOKEN", TOKEN)
            url = stack.enter_context(serving(tmp_path / "served", token=TOKEN)).url
            yield Place(url, {"MLCORE_TOKEN": TOKEN, "IMPORTS": "mlcore_remote.store"})
        else:
            name = str(tmp_path / "store")
            uri = name if request.param == "folder" else f"sqlite:///{name}.db"
            yield Place(uri, {"IMPORTS": "mlcore_sql.store mlcore_sql.index"})


@contextlib.contextmanager
def opened(place: Place) -> Iterator[Client]:
    """Open a client, and close it."""
    client = Client(place.uri)
    yield client
    client.close()


REGISTERING = """
from mlcore import Client
store, each = sys.argv[4:]
client = Client(store)
together()
for at in range(int(each)):
    made = client.registry.add("digits", {"source": f"/models/{rank}/{at}"}, tags={"rank": rank})
    os.write(1, f"{made.version} {made.id}\\n".encode())
client.close()
"""


def given_to(outs: list[str]) -> list[tuple[int, str]]:
    """Return the numbers and ids that processes were given; what was killed may have written half a line."""
    lines = [
        line.split() for out in outs for line in out[: out.rfind("\n") + 1].splitlines() if "made a store" not in line
    ]
    assert all(len(line) == 2 for line in lines), lines
    return [(int(number), id) for number, id in lines]


def chained(client: Client) -> int:
    """Check that each change holds the digest of what it changed and of one that is there; return their number."""
    changes = []
    for stored in client.store.events(kinds=["registered_model", "model_version"]):
        for record in stored.batch.records:
            match record.events[-1]:
                case Updated(fields={"change": change}):
                    assert digest_of(record.events[:-1], Change(**change)) == change["digest"]
                    changes.append(change)
    digests = {each["digest"] for each in changes}
    assert {each["previous"] for each in changes} <= digests | {""}
    assert [each["action"] for each in changes if not each["previous"]] == ["create"]
    return len(changes)


def test_sixteen_processes_get_numbers_without_a_gap(place: Place, tmp_path: Path) -> None:
    """Guards numbers: each of 16 processes registers 2 versions of a model that none found there; they are 1 to 32."""
    given = given_to(crowd(tmp_path / "home", REGISTERING, PROCESSES, place.uri, EACH, **place.settings))
    assert sorted(number for number, _ in given) == list(range(1, PROCESSES * EACH + 1))
    with opened(place) as client:
        (model,) = client.registry.list()
        assert {(each.number, each.id) for each in model.versions} == set(given)
        assert [each.version for each in model.versions] == [str(number) for number in range(PROCESSES * EACH, 0, -1)]
        assert chained(client) == 1 + PROCESSES * EACH
    if "://" not in place.uri:
        assert fsck(tmp_path, Path(place.uri))["findings"] == []


def test_a_kill_leaves_no_number_for_nothing(place: Place, tmp_path: Path) -> None:
    """Guards against orphans: half of 16 are killed amid it; what is there is 1 to N, and the next one is N + 1."""

    def kill_half(pids: list[int]) -> None:
        deadline = time.monotonic() + 120
        with opened(place) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(Exception):  # there is no store yet
                    if len(client.registry.get("digits").versions) >= 10:
                        break
                time.sleep(0.01)
        for pid in random.sample(pids, PROCESSES // 2):
            os.kill(pid, signal.SIGKILL)

    outs = crowd(tmp_path / "home", REGISTERING, PROCESSES, place.uri, EACH * 2, kill=kill_half, **place.settings)
    given = given_to(outs)
    with opened(place) as client:
        versions = client.registry.get("digits").versions
        assert sorted(each.number for each in versions) == list(range(1, len(versions) + 1))
        assert set(given) <= {(each.number, each.id) for each in versions}, "what was told is there"
        assert len(versions) < PROCESSES * EACH * 2, "nobody was killed amid it"
        assert client.registry.add("digits", {"source": "x"}).number == len(versions) + 1
        chained(client)
    if "://" not in place.uri:  # who is killed right after a claim has it in no journal yet: no harm here, and told
        assert {each["severity"] for each in fsck(tmp_path, Path(place.uri))["findings"]} <= {"alone"}


MOVING = """
os.environ["USER"] = f"user-{rank}"
from mlcore import Client
from mlcore.errors import AliasMoved
client = Client(sys.argv[4])
for turn in range(5):
    model = client.registry.get("digits")
    while (model.version("champion").number > 8) == turn % 2:  # what another did is seen within a second
        model.refresh()
    together()
    try:
        model.set_alias("champion", turn % 2 * 8 + rank + 1)
        os.write(1, b"won\\n")
    except AliasMoved as error:
        os.write(1, f"{error}\\n".encode())
    together()
client.close()
"""


def test_of_those_who_move_an_alias_one_wins_and_the_others_know_who(place: Place, tmp_path: Path) -> None:
    """Guards aliases: of 8 processes that saw the same one moves it, and the others are told to where and by whom."""
    with opened(place) as client:
        for number in range(16):
            made = client.registry.add("digits", {"source": f"/x/{number}"})
        made.model.set_alias("champion", made)
    outs = crowd(tmp_path / "home", MOVING, 8, place.uri, **place.settings)
    turns = list(zip(*(out.splitlines() for out in outs), strict=True))
    assert len(turns) == 5
    with opened(place) as client:
        model = client.registry.get("digits")
        for at, turn in enumerate(turns):
            winner = turn.index("won")
            assert turn.count("won") == 1, turn
            number = at % 2 * 8 + winner + 1
            told = f"digits@champion was moved to version {number} by user-{winner}, not by you"
            assert {line.partition(":")[0] for line in turn if line != "won"} == {told}
        assert model.version("champion").number == number
        chained(client)


LOGGING = """
    import mlcore, toy_flavor
    from toy_library import Scale
    mlcore.plugins.register(toy_flavor, "toy")
    with mlcore.start_run() as run:
        logged = run.log_model(Scale(2), "model", register="scale")
    print(logged.uri, logged.version)
"""


def test_a_model_is_registered_later_where_the_server_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards trainings that end while the server is away: the model is logged, and a line says how to register it."""
    monkeypatch.setenv("MLCORE_TOKEN", TOKEN)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))  # where the process below spools
    known = str(Path(__file__).parents[1])
    with serving(tmp_path / "served", token=TOKEN) as server:
        settings = {"MLCORE_STORE": server.url, "MLCORE_TOKEN": TOKEN, "MLCORE_SPOOL_WAIT": "0s", "PYTHONPATH": known}
        server.kill()
        said, warned = run(tmp_path / "home", LOGGING, **settings)
        uri, version = said.split()
        assert version == "None"
        assert "the model is logged, and not registered: " in warned
        assert f"`mlcore registry register {uri} scale` does it later" in warned
        server.start()
        done = mlcore(tmp_path / "home", "sync", **settings)
        assert done.returncode == 0, done.stderr
        client = Client(server.url)
        assert client.register_model(uri, "scale").uri == "models:/scale/1"
        assert client.get_model("models:/scale/1").flavor == "toy"
        client.close()
