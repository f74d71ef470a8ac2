"""Live events: what is stored is told at once, to everybody, whoever stored it; nobody is forgotten or fed too much."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from listening import Event, Listener, listening
from mlcore.store import Batch, Created, Record, RowsLogged, Updated, clock, digest
from mlcore_local.store import FolderStore
from mlcore_server import live
from mlcore_sql.store import SqlStore, open_store
from serving import Serving, Thread, serving, serving_here


class Source:
    """Make batches of one source."""

    def __init__(self, home: str | None = None) -> None:
        self.source, self.home, self.number, self.previous = os.urandom(16).hex(), home or os.urandom(16).hex(), 0, ""

    def batch(self, *, rows: int = 0, size: int = 0) -> Batch:
        self.number += 1
        event: Any = Updated("run", self.home, {"n": self.number, **({"x": "x" * size} if size else {})})
        if self.number == 1:
            event = Created("run", self.home, "0", {"name": "x"})
        if rows:
            event = RowsLogged("run", self.home, "m", {"step": [self.number] * rows, "value": [float("nan")] * rows})
        records = (Record(self.number, clock.tick(), (event,)),)
        found = Batch(self.source, self.home, records, self.previous)
        self.previous = digest(records, self.previous)
        return found


def numbers(events: list[Event]) -> list[int]:
    """Return the numbers of the records that stored batches have."""
    return [record["number"] for each in events if not each.name for record in each.data["batch"]["records"]]


def take(listener: Listener, count: int) -> list[Event]:
    """Return the next events."""
    return list(islice(listener.events(), count))


def told(listener: Listener, count: int) -> list[Event]:
    """Return the next events that are stored batches, which together have so many records."""
    found: list[Event] = []
    while len(numbers(found)) < count:
        found += [each for each in take(listener, 1) if not each.name]
    return found


@pytest.fixture(params=["folder", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of a store that is not there yet."""
    return str(tmp_path / "store") if request.param == "folder" else f"sqlite:///{tmp_path / 'store.db'}"


def opened(uri: str) -> FolderStore | SqlStore:
    """Open a store as another process does."""
    return open_store(uri) if uri.startswith("sqlite") else FolderStore(Path(uri))


@pytest.fixture
def server(store: str) -> Iterator[Thread]:
    """Serve the store."""
    with serving_here(store) as found:
        yield found


def append(server: Serving, *batches: Batch) -> None:
    """Store batches through a server."""
    from mlcore_remote import protocol

    headers = {"Content-Type": protocol.BATCHES}
    answer = server.ask("POST", "/api/v1/batches", protocol.pack_batches(batches), headers)
    assert answer.json == {"results": [None] * len(batches)}, answer


def test_what_is_stored_is_told_at_once(server: Thread) -> None:
    """Guards the way of one batch: it is the stored batch, its position is the id, and it comes without waiting."""
    source = Source()
    with listening(server) as listener:
        assert listener.status == 200
        assert listener.headers["content-type"].startswith("text/event-stream")
        assert listener.headers["cache-control"] == "no-store"
        (ready,) = take(listener, 1)
        assert (ready.name, ready.data) == ("ready", {"position": ready.id})
        waited = []
        for number in range(1, 6):
            began = time.monotonic()
            append(server, source.batch(rows=number % 2))
            (event,) = take(listener, 1)
            waited.append(event.at - began)
            assert (event.name, numbers([event])) == ("", [number])
            assert event.data["position"] == event.id
            assert event.data["batch"]["source"] == source.source
        assert sorted(waited)[2] < 0.4, waited


def test_what_others_store_is_told_within_a_second(server: Thread, store: str) -> None:
    """Guards other processes and servers, which write to the same store without a word to this one."""
    other, source = opened(store), Source()
    other.append(source.batch())
    with listening(server) as listener:
        take(listener, 1)
        for _ in range(3):
            began = time.monotonic()
            other.append(source.batch())
            (event,) = take(listener, 1)
            assert event.at - began < 1.5
            assert numbers([event]) == [source.number]
    other.close()


def test_a_listener_goes_on_where_it_was(server: Thread) -> None:
    """Guards `after` and `Last-Event-ID`: from START everything, from any position the rest."""
    source = Source()
    append(server, *[source.batch() for _ in range(20)])
    with listening(server, after="") as listener:
        (ready,) = take(listener, 1)
        assert ready.data == {"position": ""}
        events = told(listener, 20)
        for _ in range(3):
            append(server, source.batch())
            events += told(listener, 1)
        assert numbers(events) == list(range(1, 24))
    for event in events[-4:-1]:
        rest = list(range(numbers([event])[-1] + 1, 24))
        for headers, asked in (({}, {"after": str(event.id)}), ({"Last-Event-ID": str(event.id)}, {"after": ""})):
            with listening(server, headers, **asked) as listener:
                (ready,) = take(listener, 1)
                assert ready.id == event.id
                assert numbers(told(listener, len(rest))) == rest
                append(server, Source().batch())
                assert numbers(told(listener, 1)) == [1]


def test_nothing_is_missed_between_what_was_there_and_what_comes(server: Thread) -> None:
    """Guards catching up while others write: each of many listeners has every record, in order, and no hole."""
    sources, done = [Source() for _ in range(4)], threading.Event()
    wanted = {each.source: list(range(1, 61)) for each in sources}

    def write(source: Source) -> None:
        while source.number < 60:
            append(server, *[source.batch() for _ in range(3)])

    def listen(delay: float, found: dict[str, list[int]]) -> None:
        time.sleep(delay)
        with listening(server, after="") as listener:
            for event in listener.events():
                if not event.name:
                    batch = event.data["batch"]
                    found.setdefault(batch["source"], []).extend(each["number"] for each in batch["records"])
                if {name: sorted({*each}) for name, each in found.items()} == wanted or done.is_set():
                    return

    heard: list[dict[str, list[int]]] = [{} for _ in range(8)]
    writers = [threading.Thread(target=write, args=(each,)) for each in sources]
    listeners = [threading.Thread(target=listen, args=(n * 0.05, found), daemon=True) for n, found in enumerate(heard)]
    for each in [*writers, *listeners]:
        each.start()
    for each in [*writers, *listeners]:
        each.join(60)
    done.set()
    assert heard == [wanted] * 8


def test_only_what_is_asked_for_is_told(server: Thread) -> None:
    """Guards the filters, one by one and together."""
    first, second = Source(), Source()
    asked: list[dict[str, str]] = [
        {"of": first.home},
        {"rows": "0"},
        {"kinds": "model,prompt"},
        {"of": second.home, "rows": "0"},
    ]
    wanted: list[list[int]] = [[1, 2, 3], [1, 3, 1, 3], [], [1, 3]]
    for each, right in zip(asked, wanted, strict=True):
        for after in ({}, {"after": ""}):
            one, two = Source(first.home), Source(second.home)
            with listening(server, **each, **after) as listener:
                take(listener, 1)
                for number in range(3):
                    append(server, one.batch(rows=number == 1), two.batch(rows=number == 1))
                events, ends = list[Event](), [Source(each.get("of", "")) for _ in range(2)]
                for end in ends:  # of what one look finds, no order is promised
                    model = (Record(1, clock.tick(), (Created("model", "m"),)),)
                    append(server, Batch(end.source, end.home, model))
                    for event in listener.events():
                        if event.data["batch"]["source"] == end.source:
                            break
                        events.append(event)
                events = [event for event in events if event.data["batch"]["source"] in (one.source, two.source)]
                assert sorted(numbers(events)) == sorted(right), (each, after)


def test_a_lost_position_is_told_and_what_comes_follows(server: Thread) -> None:
    """Guards clients with a position of another store, or of long ago: they hear that they must ask."""
    append(server, Source().batch())
    with listening(server, {"Last-Event-ID": "no such position"}) as listener:
        (lost,) = take(listener, 1)
        assert lost.name == "lost"
        assert lost.data["position"] == lost.id
        append(server, Source().batch())
        assert numbers(take(listener, 1)) == [1]


def test_questions_that_make_no_sense_are_refused(server: Thread) -> None:
    """Guards errors: JSON and a status, before a stream begins; HEAD ends."""
    assert server.get("/api/v1/events/live?rows=2").status == 400
    assert server.ask("HEAD", "/api/v1/events/live").status == 200
    assert server.ask("GET", "/api/v1/events/live", headers={"Authorization": "Bearer no"}).status == 401
    assert server.ask("GET", "/api/v1/events/live", headers={"Origin": "http://elsewhere.example"}).status == 403


def test_a_slow_reader_is_left_and_others_are_not_kept_waiting(server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards memory: what waits for one listener is bounded, and it hears why it is left."""
    monkeypatch.setattr(live, "_QUEUE_BYTES", 200_000)
    source = Source()
    with listening(server, buffer=4_096) as slow, listening(server) as quick:
        take(slow, 1)
        take(quick, 1)
        for _ in range(40):  # more than the kernel keeps for a connection
            append(server, *[source.batch(size=60_000) for _ in range(5)])
            assert numbers(told(quick, 5))[-1] == source.number
        *events, last = list(slow.events())
        assert last.name == "slow"
        count = len(numbers(events))
        assert 0 < count < 200
        assert numbers(events) == list(range(1, count + 1))
    with listening(server, {"Last-Event-ID": str(events[-1].id)}) as slow:
        assert numbers(told(slow, 200 - count)) == list(range(count + 1, 201))


def test_a_connection_that_takes_nothing_is_cut(server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against clients that are gone without a word: the connection and what waits for it go, too."""
    monkeypatch.setattr(live, "_STUCK_SECONDS", 0.2)
    source, deadline = Source(), time.monotonic() + 20
    with listening(server, buffer=4_096) as stuck:
        take(stuck, 1)
        while server._server.server_state.connections:
            assert time.monotonic() < deadline
            append(server, *[source.batch(size=60_000) for _ in range(5)])
            time.sleep(0.01)


def test_a_silent_stream_beats_and_keeps_the_position_fresh(server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards proxies that cut what is silent, and listeners of one run, whose position would grow old."""
    monkeypatch.setattr(live, "_BEAT_SECONDS", 0.1)
    with listening(server, of="nothing") as listener:
        blocks = listener.blocks()
        first = next(blocks).split(b"\n")[1]
        append(server, Source().batch())
        for block in islice(blocks, 100):
            comment, position = block.split(b"\n")
            assert comment == b": beat"
            if position != first:
                break
        else:
            raise AssertionError("the position stays")
    with listening(server, {"Last-Event-ID": position[4:].decode()}) as listener:
        append(server, Source().batch(), Source().batch())
        assert numbers(told(listener, 2)) == [1, 1]


def test_a_stream_ends_in_time_so_that_a_token_is_shown_again(server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards tokens that are taken back: nobody listens for ever with one."""
    monkeypatch.setattr(live, "_LONGEST_SECONDS", 0.2)
    monkeypatch.setattr(live, "_BEAT_SECONDS", 0.1)
    with listening(server) as listener:
        *_, last = list(listener.blocks())
    assert last.startswith(b": ask again")


def test_a_store_that_fails_for_a_while_is_asked_again(server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards streams against a database that is away: they stay, and go on."""
    monkeypatch.setattr(live, "_FAILED_SECONDS", 0.05)
    source, real, failing = Source(), type(server.app.service.store).events, threading.Event()

    def events(self: Any, *args: Any, **asked: Any) -> Any:
        if failing.is_set():
            raise OSError("away")
        return real(self, *args, **asked)

    monkeypatch.setattr(type(server.app.service.store), "events", events)
    append(server, source.batch())
    with listening(server) as listener:
        take(listener, 1)
        failing.set()
        append(server, source.batch())
        time.sleep(0.2)
        failing.clear()
        assert numbers(take(listener, 1)) == [2]


def test_a_server_that_stops_ends_its_streams(tmp_path: Path) -> None:
    """Guards the drain: listeners do not keep a server from ending in order, and at once."""
    with serving(tmp_path / "store") as server, listening(server) as first, listening(server, after="") as second:
        take(first, 1)
        take(second, 1)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8
        assert [list(each.events()) for each in (first, second)] == [[], []]


def test_many_idle_listeners_cost_little(tmp_path: Path) -> None:
    """Guards one look for all: 200 listeners, of which nobody hears anything, and then all hear the same."""
    with serving_here(tmp_path / "store") as server:
        listeners = [Listener(server, {}, {}) for _ in range(200)]
        for each in listeners:
            take(each, 1)
        before = time.process_time()
        time.sleep(2)
        assert time.process_time() - before < 0.5
        append(server, Source().batch())
        assert [numbers(take(each, 1)) for each in listeners] == [[1]] * 200
        for each in listeners:
            each.close()
