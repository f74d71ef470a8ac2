"""Every route of the live router, asked by everybody and under every name, against a table written down here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mlcore_server import sessions
from mlcore_server.routing import Route
from mlcore_server.tokens import parse_tokens
from serving import Thread, serving_here

WRITER, READER = "writer-token-0123456789-abcdefghij", "reader-token-0123456789-abcdefghij"
WRONG = "wrong-token-0123456789-abcdefghijk"
TOKENS = f"writer={WRITER}\nreader={READER}:read\n"

# What each route needs: who adds a route writes it here as well, or this test fails.
NEEDS = {
    "GET /health": "nothing",
    "GET /livez": "nothing",
    "GET /login": "nothing",
    "GET /openapi.json": "nothing",
    "GET /readyz": "nothing",
    "GET /version": "nothing",
    "POST /login": "nothing",
    "POST /logout": "nothing",
    "GET /api/v1/entities/{kind}/{id}": "read",
    "GET /api/v1/events": "read",
    "GET /api/v1/events/live": "read",
    "GET /api/v1/runs/{run}/files": "read",
    "GET /api/v1/runs/{run}/files/{path:path}": "read",
    "GET /api/v1/runs/{run}/links/{path:path}": "read",
    "GET /api/v1/uploads/{id}": "read",
    "GET /metrics": "read",
    "POST /api/v1/find": "read",
    "POST /api/v1/get": "read",
    "POST /api/v1/keys": "read",
    "POST /api/v1/series": "read",
    "DELETE /api/v1/runs/{run}/files/{path:path}": "write",
    "DELETE /api/v1/uploads/{id}": "write",
    "PATCH /api/v1/uploads/{id}": "write",
    "POST /api/v1/batches": "write",
    "POST /api/v1/uploads": "write",
    "POST /api/v1/uploads/{id}/complete": "write",
    "POST /api/v1/uploads/{id}/links": "write",
    "PUT /api/v1/runs/{run}/files/{path:path}": "write",
    "PUT /api/v1/uploads/{id}/parts/{number}": "write",
}
PROBES = ("/livez", "/readyz")  # let in without a look at what is shown
LED = "a writer's browser led by another page"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve with a token that may read and one that may write; wrong ones are forgotten at once."""
    folder = tmp_path_factory.mktemp("routes")
    file = folder / "tokens"
    file.write_text(TOKENS)
    file.chmod(0o600)
    with serving_here(folder / "store", token="", token_file=str(file), login_window=0) as server:
        yield server


def path_of(route: Route) -> str:
    """Return a path that leads to a route."""
    some = {"kind": "run", "id": uuid4().hex, "run": uuid4().hex, "path": "a.txt", "number": "1"}
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda match: some[match[1]], route.path)


def status(server: Thread, method: str, path: str, headers: dict[str, str]) -> int:
    """Return the status of an answer, however long the answer is; the path goes out as it is."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if method not in ("GET", "HEAD"):
            connection.putheader("Content-Length", "0")
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def cookie(server: Thread, secret: str) -> str:
    """Return the session of somebody who logged in with a token."""
    (token,) = parse_tokens(f"x={secret}", "x").values()
    return f"{sessions.cookie_name(secure=False, port=server.port)}={sessions.open_session(token, lasts=60)}"


def actors(server: Thread) -> dict[str, tuple[dict[str, str], frozenset[str]]]:
    """Return everybody who may come: what they show, and what they may."""
    may_read, may_write = frozenset({"nothing", "read"}), frozenset({"nothing", "read", "write"})
    ours = {"Origin": f"http://127.0.0.1:{server.port}"}
    return {
        "nobody": ({}, frozenset({"nothing"})),
        "an empty token": ({"Authorization": "Bearer "}, frozenset()),
        "a wrong token": ({"Authorization": f"Bearer {WRONG}"}, frozenset()),
        "a password": ({"Authorization": "Basic YWRtaW46cGFzc3dvcmQxMjM0"}, frozenset({"nothing"})),
        "a forged session": ({"Cookie": cookie(server, WRONG), **ours}, frozenset({"nothing"})),
        "a reader": ({"Authorization": f"Bearer {READER}"}, may_read),
        "a writer": ({"Authorization": f"Bearer {WRITER}"}, may_write),
        "a reader's browser": ({"Cookie": cookie(server, READER), **ours}, may_read),
        "a writer's browser": ({"Cookie": cookie(server, WRITER), **ours}, may_write),
        "a writer's browser led by another page": (
            {"Cookie": cookie(server, WRITER), "Origin": "http://evil"},
            frozenset(),
        ),
    }


def test_the_table_has_every_route_and_no_other(server: Thread) -> None:
    """H1: a route that is not written down here fails the build."""
    assert {f"{route.method} {route.path}": route.needs for route in server.app.service.routes} == NEEDS


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_every_route_lets_in_whom_the_table_says(server: Thread, name: str) -> None:
    """H1: every route x everybody, those that need nothing too."""
    (route,) = (each for each in server.app.service.routes if f"{each.method} {each.path}" == name)
    wrong = {}
    for who, (shown, may) in actors(server).items():
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            got = status(server, method, path_of(route), shown)
            fine = NEEDS[name] in may or (route.path in PROBES and who != LED)
            if fine is (got in (401, 403)) and not (name.endswith("/login") and got == 401):
                wrong[f"{who}, {method}"] = got
            assert got < 500 and got != 429
    assert not wrong


def aliases(method: str, path: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield other names of a route: what some servers take for the same."""
    slash = path.rfind("/")
    for other in (
        path + "/", "/" + path, path.replace("/", "//"), path.upper(), path + "%2f", path + ";x=1", path + "%00",
        path[:slash] + "%2f" + path[slash + 1 :], path[:slash] + "%252f" + path[slash + 1 :], "/." + path,
        "/x/.." + path,
        "/livez/.." + path, "/livez;" + path, "/livez%2f.." + path, path + "?x=/livez", path + "#x", path + ".json",
        path[:slash] + "\\" + path[slash + 1 :], path.replace("a", "%61"), f"http://127.0.0.1{path}", path + "%20",
        path + ".",
    ):  # fmt: skip
        yield method, other, {}
    for other_method in ("HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "post", "PROPFIND"):
        yield other_method, path, {}
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        yield ("GET" if method == "POST" else "POST"), path, {header: method}
        yield "GET", "/livez", {header: method, "X-Original-URL": path, "X-Rewrite-URL": path}
    yield method, path + "?_method=" + method, {}
    yield method, path, {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Forwarded-User": "writer"}


@pytest.mark.parametrize("name", sorted(name for name, needs in NEEDS.items() if needs != "nothing"))
def test_no_other_name_of_a_route_leads_past_the_gate(server: Thread, name: str) -> None:
    """H2: slashes, case, encodings, dots, methods, override headers; for nobody, and for a reader who would write."""
    (route,) = (each for each in server.app.service.routes if f"{each.method} {each.path}" == name)
    open_ = []
    for method, path, headers in aliases(route.method, path_of(route)):
        probe = path == "/livez"
        for shown in ({}, {"Authorization": f"Bearer {READER}"}) if NEEDS[name] == "write" else ({},):
            got = status(server, method, path, {**headers, **shown})
            if not (got == 200 and probe) and got < 400:
                open_.append((method, path, headers, got))
            assert got < 500, (method, path)
            if not shown and not probe:
                assert got in (400, 401), (method, path, got)  # who is not known does not learn what there is
    assert not open_


def test_a_plugins_route_passes_the_same_gate(server: Thread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H1: what another distribution adds is asked about like all else, and what is no route is no app."""
    from mlcore import plugins
    from mlcore.hookspecs import Provider
    from mlcore_server.app import App, open_store
    from mlcore_server.settings import Settings

    async def hello(request: Any, service: Any) -> Any:
        from starlette.responses import JSONResponse

        return JSONResponse({"you": request.state.actor.name})

    class Plugin:
        @staticmethod
        def mlcore_routes() -> list[Provider]:
            return [Provider("hello", lambda service: made, "says hello")]

    made: list[Any] = [Route("POST", "/hello", hello, needs="write", summary="Say hello.")]
    plugins.register(Plugin, "hello")
    try:
        with serving_here(tmp_path / "store", token=TOKENS) as other:
            other.token = ""
            assert other.ask("POST", "/hello", b"").status == 401
            assert other.ask("POST", "/hello", b"", {"Authorization": f"Bearer {READER}"}).status == 403
            assert other.ask("POST", "/hello", b"", {"Authorization": f"Bearer {WRITER}"}).json == {"you": "writer"}
        made.append(("GET", "/open", hello))
        told = Settings(store=str(tmp_path / "store"))
        with pytest.raises(TypeError, match="is no Route"):
            App(told, *open_store(told))
    finally:
        plugins.unregister("hello")
