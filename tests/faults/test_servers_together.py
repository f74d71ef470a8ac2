"""Several servers on one database: each tells what the others store, none loses or doubles what all of them get."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from listening import listening
from mlcore.store import Batch
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore_remote.protocol import BATCHES, pack_batches
from mlcore_sql.store import open_store
from servers import own_server
from serving import Answer, Process, Serving, serving

TOKEN = "the-token-of-these-tests-0123456789"


def send(server: Process, *batches: Batch) -> Answer:
    """Append batches."""
    return server.ask("POST", "/api/v1/batches", pack_batches(batches), {"Content-Type": BATCHES}, seconds=60)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Yield the URI of an empty database on PostgreSQL."""
    with own_server("postgresql") as server, server.database() as uri:
        yield uri


@pytest.fixture(scope="module")
def pair(database: str) -> Iterator[tuple[Process, Process]]:
    """Start two servers at once on an empty database: one makes the tables, the other waits."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        both = [serving(database, token=TOKEN) for _ in range(2)]
        first, second = pool.map(stack.enter_context, both)
        for each in (first, second):
            each.token = TOKEN
        yield first, second


def test_two_that_start_at_once_on_nothing_make_one_store(pair: tuple[Process, Process], database: str) -> None:
    """Guards R15: both are asked at once, before there is any table; one makes them, and both answer."""
    writers = [Writer(new_id()) for _ in range(2)]
    batches = [writer.batch(*run_events(writer.home, fields={"name": "x"})) for writer in writers]
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(each.post, "/api/v1/find", {"kind": "run"}) for each in pair]
        sent = [pool.submit(send, server, batch) for server, batch in zip(pair, batches, strict=True)]
        assert [each.result().status for each in found] == [200, 200]
        assert [each.result().json for each in sent] == [{"results": [None]}] * 2
    for server in pair:
        answer = server.post("/api/v1/get", {"kind": "run", "ids": [writer.home for writer in writers]})
        assert all(answer.json["entities"])


def test_what_one_stores_the_other_tells(pair: tuple[Process, Process]) -> None:
    """Guards live events across servers: within a second, in order, both ways, and a position is good in both."""
    for here, there in (pair, pair[::-1]):
        writer = Writer(new_id())
        with listening(there, of=writer.home) as listener:
            heard = listener.events()
            assert next(heard).name == "ready"
            send(here, writer.batch(*run_events(writer.home, fields={"name": "x"})))
            next(heard)
            for number in range(5):
                began = time.monotonic()
                assert send(here, writer.batch(points(writer.home, "loss", [1.0], steps=[number]))).status == 200
                event = next(heard)
                assert event.at - began < 1.5
                assert [each["number"] for each in event.data["batch"]["records"]] == [number + 2]
        assert event.id is not None
        with listening(here, {"Last-Event-ID": event.id}, of=writer.home) as listener:
            heard = listener.events()
            assert next(heard).id == event.id
            send(there, writer.batch(points(writer.home, "loss", [1.0], steps=[5])))
            assert next(heard).data["batch"]["records"][0]["number"] == 7


def test_a_batch_that_both_get_at_once_is_stored_once(pair: tuple[Process, Process], database: str) -> None:
    """Guards clients that try again elsewhere while the first server is still at it: nothing doubled, nothing lost."""
    writers = [Writer(new_id()) for _ in range(4)]
    together = threading.Barrier(8)

    def work(writer: Writer, server: Process, batches: list[Batch]) -> None:
        for batch in batches:
            together.wait(60)
            answer = send(server, batch)
            assert answer.json == {"results": [None]}, answer

    with ThreadPoolExecutor(8) as pool:
        done = []
        for writer in writers:
            batches = [writer.batch(*run_events(writer.home, fields={"name": "x"}))]
            batches += [writer.batch(points(writer.home, "loss", [float(n)], steps=[n])) for n in range(14)]
            done += [pool.submit(work, writer, server, batches) for server in pair]
        for each in done:
            each.result()
    store = open_store(database)
    found = Counter((each.batch.source, record.number) for each in store.events() for record in each.batch.records)
    for writer in writers:
        assert [found[writer.source, number] for number in range(1, 16)] == [1] * 15
        (series,) = store.series("run", [writer.home]).values()
        assert list(series["value"]) == [float(n) for n in range(14)]
    store.close()


def test_a_session_of_one_is_good_in_the_other(pair: tuple[Process, Process]) -> None:
    """Guards browsers behind a load balancer: who logged in at one server is known to all that have the token."""
    for here, there in (pair, pair[::-1]):
        visitor, other = Serving(), Serving()  # who show no token
        visitor.url, other.url = here.url, there.url
        answer = visitor.ask("POST", "/login", {"token": TOKEN})
        assert answer.status == 200, answer
        cookie = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
        headers = {"Cookie": f"mlcore-{there.port}={cookie}"}
        assert other.ask("GET", "/metrics", None, headers).status == 200
        headers["Cookie"] += "x"
        assert other.ask("GET", "/metrics", None, headers).status == 401


def test_the_one_that_is_left_goes_on(pair: tuple[Process, Process]) -> None:
    """Guards a server that dies within its work: the other takes what it left, claims and locks included."""
    first, second = pair
    writer = Writer(new_id())
    send(first, writer.batch(*run_events(writer.home, fields={"name": "x"})))
    batches = [writer.batch(points(writer.home, "loss", [float(n)] * 500, steps=[n] * 500)) for n in range(10)]
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(lambda: [send(first, batch).status for batch in batches])
        time.sleep(0.05)
        first.kill()
        sent.exception()
    for batch in batches:
        assert send(second, batch).json == {"results": [None]}
    answer = second.post("/api/v1/get", {"kind": "run", "ids": [writer.home]})
    assert json.loads(answer.body)["entities"][0]["metrics"]["loss"][""][0] == 5_000
    first.start()
    assert first.post("/api/v1/get", {"kind": "run", "ids": [writer.home]}).body == answer.body
