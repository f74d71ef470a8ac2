"""The store over HTTP, byte by byte: what is taken, what is answered, and what is refused."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mlcore.errors import MlcoreError, StoreError
from mlcore.store import Batch, SimpleStore, from_json
from mlcore.testing._builders import Writer, new_id, points, run_events
from mlcore_remote.protocol import (
    BATCHES,
    JSON,
    LINES,
    SERIES,
    batches_to_json,
    entity_from_json,
    pack_batches,
    unpack_series,
    unpack_stored,
)
from serving import Thread, serving_here


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Thread]:
    """Yield a server of an empty folder store."""
    with serving_here(tmp_path / "store") as server:
        yield server


def written(name: str = "x") -> Writer:
    """Return a writer of a run with a name and two values of a metric."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": name}))
    writer.batch(points(writer.home, "loss", [0.5, math.nan], steps=[1, 2]))
    return writer


def sent(server: Thread, *batches: Batch) -> object:
    """Append batches as the client does, and return the results."""
    answer = server.ask("POST", "/api/v1/batches", pack_batches(batches), {"Content-Type": BATCHES})
    assert answer.status == 200
    return answer.json["results"]


@pytest.mark.parametrize("form", [BATCHES, JSON])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_batches_are_taken_in_both_forms_and_packed(server: Thread, form: str, packed: bool) -> None:
    """Guards the two content types, and Content-Encoding."""
    writer = written()
    body = pack_batches([writer.cut(1)])
    if form == JSON:
        from mlcore.store import to_json

        body = to_json(batches_to_json([writer.cut(1)]))
    headers = {"Content-Type": form, **({"Content-Encoding": "gzip"} if packed else {})}
    answer = server.ask("POST", "/api/v1/batches", gzip.compress(body) if packed else body, headers)
    assert (answer.status, answer.json) == (200, {"results": [None]})
    found = server.post("/api/v1/get", {"kind": "run", "ids": [writer.home]})
    entity = entity_from_json(from_json(found.body)["entities"][0])
    assert entity.fields["name"] == "x"
    assert entity.metrics["loss", ""].count == 2


def test_each_batch_has_its_own_result(server: Thread) -> None:
    """Guards that what is refused is told with its type, and the others are stored."""
    one, two = written(), written()
    results = sent(server, one.cut(2), two.cut(1))
    assert isinstance(results, list)
    assert results[0]["type"] == "OutOfOrder"
    assert results[0]["details"] == {"source": one.source, "expected": 1, "given": 2}
    assert results[1] is None
    assert sent(server) == []


def test_who_sent_a_batch_is_kept_with_it(tmp_path: Path) -> None:
    """Guards the word of the server about who sent what, which no client can write."""
    token = "mlc_a-token-of-alice-that-nobody-guesses-0123456789"
    with serving_here(tmp_path / "store", token=f"alice={token}") as server:
        server.token = token
        sent(server, written().cut(1))
        (stored,) = unpack_stored([server.get("/api/v1/events").body])
    assert stored.actor == "alice"


def test_a_page_is_found_and_gone_on_with(server: Thread) -> None:
    """Guards find: order, limit, token and count."""
    for name in ("a", "b", "c"):
        sent(server, written(name).cut(1))
    query = {"order": [{"term": {"family": "fields", "name": "name"}}], "limit": 2, "count": True}
    first = server.post("/api/v1/find", {"kind": "run", "query": query}).json
    assert [each["fields"]["name"] for each in first["items"]] == ["a", "b"]
    assert first["count"] == 3
    rest = server.post("/api/v1/find", {"kind": "run", "query": {**query, "token": first["token"]}}).json
    assert [each["fields"]["name"] for each in rest["items"]] == ["c"]
    assert rest["token"] is None


def test_one_entity_has_an_address(server: Thread) -> None:
    """Guards the address of an entity, and the answer where there is none."""
    writer = written()
    sent(server, writer.cut(1))
    assert from_json(server.get(f"/api/v1/entities/run/{writer.home}").body)["id"] == writer.home
    missing = server.get(f"/api/v1/entities/run/{uuid4().hex}")
    assert (missing.status, missing.json["error"]["type"]) == (404, "NotFound")


def test_series_come_as_columns_or_as_json(server: Thread) -> None:
    """Guards both forms of rows: NaN is NaN in each."""
    writer = written()
    sent(server, writer.cut(1))
    asked = {"kind": "run", "ids": [writer.home]}
    binary = server.post("/api/v1/series", asked)
    assert binary.headers["content-type"] == SERIES
    columns = unpack_series(binary.body)[writer.home, "loss", ""].columns
    assert list(columns["step"]) == [1, 2]
    assert math.isnan(columns["value"][1])
    text = server.ask("POST", "/api/v1/series", json.dumps(asked).encode(), {"Content-Type": JSON, "Accept": JSON})
    (series,) = from_json(text.body)["series"]
    assert series["columns"]["step"] == [1, 2]
    assert math.isnan(series["columns"]["value"][1])


def test_events_are_streamed_from_a_position(server: Thread) -> None:
    """Guards the stream: everything, what came after a position, one home, a limit, no rows."""
    one, two = written(), written()
    sent(server, one.cut(1))
    everything = list(unpack_stored([server.get("/api/v1/events").body]))
    assert [record.number for each in everything for record in each.batch.records] == [1, 2]
    sent(server, two.cut(1))
    later = list(unpack_stored([server.get(f"/api/v1/events?after={everything[-1].position}").body]))
    assert {each.batch.home for each in later} == {two.home}
    of = list(unpack_stored([server.get(f"/api/v1/events?of={two.home}&rows=0&kinds=run,model").body]))
    assert [record.number for each in of for record in each.batch.records] == [1]
    assert len(list(unpack_stored([server.get("/api/v1/events?limit=1").body]))) == 1
    lines = server.get("/api/v1/events", Accept=LINES).body.splitlines()
    assert json.loads(lines[-1]) == {"end": True}


def test_a_position_that_is_unknown_is_told_by_the_status(server: Thread) -> None:
    """Guards 410, by which a client knows that it must start over."""
    sent(server, written().cut(1))
    answer = server.get("/api/v1/events?after=nowhere")
    assert (answer.status, answer.json["error"]["type"]) == (410, "PositionLost")


def test_large_answers_are_packed_for_who_takes_that(server: Thread) -> None:
    """Guards gzip of answers and of streams."""
    writer = Writer(new_id())
    writer.batch(*run_events(writer.home, fields={"name": "x" * 5_000}))
    sent(server, writer.cut(1))
    for method, path, body in (("POST", "/api/v1/find", b'{"kind":"run"}'), ("GET", "/api/v1/events", None)):
        headers = {"Content-Type": JSON} if body else {}
        plain = server.ask(method, path, body, headers)
        packed = server.ask(method, path, body, {**headers, "Accept-Encoding": "br, gzip"})
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert len(gzip.decompress(packed.body)) == len(plain.body) > 10 * len(packed.body)
        assert "accept-encoding" in packed.headers["vary"]
        refused = server.ask(method, path, body, {**headers, "Accept-Encoding": "gzip;q=0"})
        assert "content-encoding" not in refused.headers


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Type": JSON}, 400),
        (b"no json", {"Content-Type": JSON}, 400),
        (b"mlcb\x01", {"Content-Type": BATCHES}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": JSON, "Content-Encoding": "br"}, 415),
        (b"no gzip", {"Content-Type": JSON, "Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-4], {"Content-Type": JSON, "Content-Encoding": "gzip"}, 400),
        (gzip.compress(b" " * 2_000_000, mtime=0), {"Content-Type": JSON, "Content-Encoding": "gzip"}, 413),
        (b" " * 2_000_000, {"Content-Type": JSON}, 413),
    ],
)
def test_what_is_no_request_is_refused_as_json(
    tmp_path: Path, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Guards the status of each thing that can be wrong with a body, a bomb of gzip included."""
    with serving_here(tmp_path / "store", max_body=1_000_000) as server:
        answer = server.ask("POST", "/api/v1/batches", body, headers)
    assert answer.status == status
    assert answer.headers["content-type"] == JSON
    assert set(answer.json) == {"error", "request_id"}
    assert {"type", "message", "details"} <= set(answer.json["error"])


class Failing(SimpleStore):
    """Raise what it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def append(self, batch: Batch) -> None:
        raise self.error

    def get(self, kind: str, ids: object) -> list[None]:
        raise self.error


def caused(error: StoreError, cause: Exception) -> StoreError:
    """Return an error with its cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (caused(StoreError("cannot write to /srv/secret"), OSError(28, "No space left on device")), 507, "StoreError"),
        (StoreError("store sqlite:///srv/secret: database or disk is full"), 507, "StoreError"),
        (caused(StoreError("store pg://secret away"), OSError(111, "refused")), 503, "StoreError"),
        (MlcoreError("odd"), 500, "MlcoreError"),
        (RuntimeError("a secret bug"), 500, "MlcoreError"),
    ],
    ids=["full disk", "full database", "away", "odd", "bug"],
)
def test_what_is_wrong_with_the_store_is_told_without_where_it_is(
    tmp_path: Path, error: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards statuses that make clients wait and come again, and that no answer has paths, hosts or tracebacks."""
    with serving_here(tmp_path / "store") as server:
        server.app.service.store = Failing(error)
        server.app.service.committer._store = server.app.service.store
        for answer in (
            server.post("/api/v1/get", {"kind": "run", "ids": ["a"]}),
            server.ask("POST", "/api/v1/batches", pack_batches([written().cut(1)]), {"Content-Type": BATCHES}),
        ):
            assert (answer.status, answer.json["error"]["type"]) == (status, kind)
            assert b"secret" not in answer.body
            assert b"Traceback" not in answer.body
            assert ("retry-after" in answer.headers) == (status in (503, 507))
            assert answer.json["request_id"] == answer.headers["x-request-id"]
    if status != 500 or kind == "RuntimeError":
        assert str(error) in caplog.text
