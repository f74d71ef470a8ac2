"""The app: what every request passes, what it is told about the server, and what is logged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

import mlcore
from mlcore import plugins
from mlcore.errors import ConfigError, StoreError
from mlcore.store import SimpleStore
from mlcore_server import Route
from mlcore_server.app import open_store
from mlcore_server.routing import Router
from mlcore_server.settings import Settings
from serving import Thread, serving, serving_here


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Thread]:
    """Yield a server of an empty folder store."""
    with serving_here(tmp_path / "store") as server:
        yield server


class Away(SimpleStore):
    """Answer as a database does that cannot be reached."""

    def get(self, kind: str, ids: object) -> list[None]:
        raise StoreError("away")


async def nothing(request: object, service: object) -> None:
    """Answer nothing."""


def test_a_server_as_a_user_starts_it_answers_and_ends_in_order(tmp_path: Path) -> None:
    """Guards the command: it prints where it is, answers, logs a line a request as JSON, and its exit code is 0."""
    with serving(tmp_path / "store") as server:
        home, source = uuid4().hex, uuid4().hex
        created = {"type": "Created", "kind": "run", "id": home, "fields": {"name": "x"}}
        batch = {"source": source, "home": home, "records": [{"number": 1, "stamp": 1, "events": [created]}]}
        answer = server.ask("POST", "/api/v1/batches", {"batches": [batch]}, {"X-Request-ID": "mine-1"})
        assert answer.json == {"results": [None]}
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.errors.read_text().splitlines()]
    (line,) = [each for each in lines if each.get("request_id") == "mine-1"]
    assert line["logger"] == "mlcore.requests"
    assert (line["status"], line["method"], line["path"]) == (200, "POST", "/api/v1/batches")
    assert server.token not in json.dumps(lines)


def test_an_answer_has_the_id_of_its_request(server: Thread) -> None:
    """Guards that one who asks for help can name the request: their own id if it is one, else ours."""
    assert server.get("/livez", **{"X-Request-ID": "abc-1.2_3:4"}).headers["x-request-id"] == "abc-1.2_3:4"
    for odd in ("a b", "x" * 65, "<script>", "ä"):
        made = server.ask("GET", "/livez", None, {"X-Request-ID": odd.encode("latin-1").decode("latin-1")})
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made.headers["x-request-id"])
    ids = {server.get("/livez").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_a_path_or_method_that_is_not_there_is_told_as_json(server: Thread) -> None:
    """Guards 404 and 405, and that HEAD is answered where GET is."""
    missing = server.get("/api/v1/nothing")
    assert (missing.status, missing.json["error"]["type"]) == (404, "StoreError")
    wrong = server.ask("DELETE", "/api/v1/batches")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    head = server.ask("HEAD", "/version")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", ["/mlcore/livez", "/livez"], ids=["a proxy that passes on", "one that strips"])
def test_a_server_below_a_path_answers_either_way(tmp_path: Path, path: str) -> None:
    """Guards --root-path: whether the proxy takes its prefix away or not."""
    with serving_here(tmp_path / "store", root_path="/mlcore") as server:
        server.url = server.url.removesuffix("/mlcore")
        assert server.get(path).status == 200
        assert server.get("/mlcore/openapi.json").json["servers"] == [{"url": "/mlcore"}]
        assert server.get("/mlcorelivez").status == 404


def test_the_server_tells_what_it_is_and_promises(tmp_path: Path) -> None:
    """Guards /version: versions, durability, capabilities; and no path, host or password."""
    with serving_here(f"sqlite:///{tmp_path / 's.db'}", durability="power", read_only=True) as server:
        answer = server.get("/version")
    about = answer.json
    assert (about["mlcore"], about["api"]) == (mlcore.__version__, 1)
    assert (about["store"], about["durability"], about["read_only"]) == ("sqlite", "power", True)
    assert about["capabilities"]["durability"] == "power"
    assert answer.headers["mlcore-version"] == mlcore.__version__
    assert str(tmp_path).encode() not in answer.body


def test_a_server_is_ready_until_it_ends_or_the_store_fails(server: Thread) -> None:
    """Guards what a load balancer asks; /livez never looks at the store."""
    assert [server.get(path).status for path in ("/livez", "/readyz", "/health")] == [200] * 3
    service = server.app.service
    store, service.store = service.store, Away()
    assert (server.get("/livez").status, server.get("/readyz").status) == (200, 503)
    service.store = store
    service.stop()
    answer = server.get("/readyz")
    assert (answer.status, answer.json["reason"]) == (503, "the server is about to stop")
    assert server.get("/livez").status == 200


def test_requests_and_commits_are_counted(server: Thread) -> None:
    """Guards /metrics: by route as it is declared, not by path, as paths have no end."""
    for _ in range(3):
        server.get(f"/api/v1/entities/run/{uuid4().hex}")
    server.post("/api/v1/batches", {"batches": [{"source": uuid4().hex, "home": "a"}]})
    text = server.get("/metrics").body.decode()
    route = 'route="/api/v1/entities/{kind}/{id}"'
    assert f'mlcore_request_seconds_count{{method="GET",{route},status="404"}} 3.0' in text
    assert 'mlcore_batches_total{result="stored"} 1.0' in text
    assert "mlcore_commit_batches_count 1.0" in text
    assert "mlcore_waiting_batches 0.0" in text


def test_the_document_describes_every_route(server: Thread) -> None:
    """Guards /openapi.json: every route, each reference with its target, each path with its parameters."""
    document = server.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    operations = {(method, path) for path, each in document["paths"].items() for method in each}
    routes = server.app.service.routes
    assert operations == {(each.method.lower(), re.sub(r":\w+}", "}", each.path)) for each in routes}
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))
    known = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in known
    for path, each in document["paths"].items():
        for operation in each.values():
            given = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
            assert given == set(re.findall(r"{(\w+)}", path))


def test_a_route_must_say_what_right_it_needs() -> None:
    """Guards the door: a route without a right cannot be made, and what is no route is not served."""
    with pytest.raises(TypeError, match="needs"):
        Route("GET", "/x", nothing, summary="X.")  # type: ignore[call-arg, arg-type]
    with pytest.raises(ValueError, match="needs is one of nothing, read, write, admin, not 'all'"):
        Route("GET", "/x", nothing, needs="all", summary="X.")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method is one of"):
        Route("get", "/x", nothing, needs="read", summary="X.")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is no Route, which says what right it needs"):
        Router([SimpleNamespace(method="GET", path="/x")])  # type: ignore[list-item]
    route = Route("GET", "/x", nothing, needs="read", summary="X.")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="GET /x is declared twice"):
        Router([route, route])


def test_a_plugin_adds_routes(tmp_path: Path) -> None:
    """Guards the hook `mlcore_routes`: a plugin's route passes the same door as ours."""
    from starlette.responses import JSONResponse

    async def hello(request: object, service: object) -> JSONResponse:
        return JSONResponse({"hello": request.state.actor.name})  # type: ignore[attr-defined]

    def routes(service: object) -> list[Route]:
        return [Route("GET", "/hello/{name}", hello, needs="read", summary="Say hello.")]

    plugin = SimpleNamespace(mlcore_routes=lambda: [mlcore.Provider("hello", routes, "says hello")])
    plugins.register(plugin, "hello")
    try:
        with serving_here(tmp_path / "store") as server:
            assert server.get("/hello/you").status == 200
            server.token = ""
            assert server.get("/hello/you").status == 401
    finally:
        plugins.unregister("hello")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"store": "off"}, "is nothing to serve"),
        ({"store": "https://mlcore.example"}, "is nothing to serve"),
        ({"store": "sqlite:////tmp/x.db?durability=process", "durability": "power"}, "say one of them"),
    ],
)
def test_what_cannot_be_served_is_told(settings: dict[str, str], told: str) -> None:
    """Guards a server of a server, and one that promises more than its store."""
    with pytest.raises(ConfigError, match=told):
        open_store(Settings(**settings))  # type: ignore[arg-type]
