"""What a page in somebody's browser can make our server do, and what it gets to see: nothing, unless it is ours."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mlcore_server.headers import DEFAULTS
from serving import Answer, Thread, serving_here

TOKEN = "writer-token-0123456789-abcdefghij"
EVIL = ("http://evil.example", "null", "http://localhost:1", "http://127.0.0.1:1", "https://127.0.0.1", "", "x")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve with a token, as a team does."""
    with serving_here(tmp_path_factory.mktemp("browsers") / "store", token=f"writer={TOKEN}", login_window=0) as server:
        server.token = ""
        yield server


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thread]:
    """Serve this machine without a token, where a browser's page is all that could do harm."""
    with serving_here(tmp_path_factory.mktemp("open") / "store", no_token=True) as server:
        yield server


def ours(server: Thread) -> str:
    """Return the origin of the server's own pages."""
    return f"http://127.0.0.1:{server.port}"


def log_in(server: Thread) -> str:
    """Return the cookie that a browser has after it logged in."""
    answer = server.ask("POST", "/login", {"token": TOKEN}, {"Origin": ours(server)})
    assert answer.status == 200 and answer.json == {"name": "writer"}
    return answer.headers["set-cookie"].partition(";")[0]


def raw(server: Thread, text: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; return the status and all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(text)
        got = b""
        while chunk := connection.recv(65536):
            got += chunk
    return int(got.split(b" ", 2)[1]), got


@pytest.mark.parametrize(
    "host",
    ["evil.example", "10.evil.com", "localhost.evil", "127.0.0.1.nip.io", "0.0.0.0", "127.1", "localhost@evil", "[::]"],
)
def test_a_name_that_is_not_ours_is_not_answered(open_server: Thread, host: str) -> None:
    """G1: DNS rebinding gives a page's own name our address; its requests then are same-origin to the browser."""
    for path in ("/version", "/metrics", "/api/v1/events", "/nothing", "/openapi.json"):
        answer = open_server.ask("GET", path, None, {"Host": host})
        assert answer.status == 403 and answer.json["error"]["type"] == "AccessDenied"
    assert open_server.ask("GET", "/livez", None, {"Host": host}).json == {"status": "ok"}  # a probe by address


def test_no_host_two_hosts_and_forwarded_hosts_are_no_way_in(open_server: Thread) -> None:
    """G1: of two readings of a request neither is right; what proxies add is believed of proxies that we know."""
    for head in (
        b"Host:\r\n", b"", b"Host: localhost\r\nHost: evil\r\n", b"Host: evil\r\nX-Forwarded-Host: localhost\r\n",
        b"Host: evil\r\nForwarded: host=localhost\r\n",
    ):  # fmt: skip
        status, got = raw(open_server, b"GET /version HTTP/1.1\r\n" + head + b"Connection: close\r\n\r\n")
        assert status in (400, 403) and b'"error"' in got and b"durability" not in got
    status, _ = raw(open_server, b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status == 200


@pytest.mark.parametrize("origin", EVIL)
def test_a_page_of_another_origin_changes_nothing(server: Thread, open_server: Thread, origin: str) -> None:
    """G2, S11: with a session, with a token, and where no token is needed."""
    for which, shown in (
        (open_server, {}), (server, {"Cookie": log_in(server)}), (server, {"Authorization": f"Bearer {TOKEN}"})
    ):  # fmt: skip
        for method, path in (
            ("POST", "/api/v1/batches"),
            ("POST", "/api/v1/find"),
            ("POST", "/logout"),
            ("GET", "/metrics"),
        ):
            body = {"batches": []} if method == "POST" else None
            answer = which.ask(method, path, body, {**shown, "Origin": origin})
            assert answer.status == 403, (path, answer)
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_session_changes_something_only_where_the_browser_says_that_our_page_asks(server: Thread) -> None:
    """G2: CSRF. A token needs no such word, since no browser adds it by itself."""
    cookie = log_in(server)
    nothing: dict[str, list[object]] = {"batches": []}
    for said, status in (
        ({}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403), ({"Sec-Fetch-Site": "same-origin"}, 200), ({"Origin": ours(server)}, 200),
        ({"Origin": ours(server), "Sec-Fetch-Site": "cross-site"}, 403),
    ):  # fmt: skip
        assert server.ask("POST", "/api/v1/batches", nothing, {"Cookie": cookie, **said}).status == status, said
    assert server.ask("POST", "/api/v1/batches", nothing, {"Authorization": f"Bearer {TOKEN}"}).status == 200
    assert server.ask("GET", "/metrics", None, {"Cookie": cookie}).status == 200


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "",
        "a/b,application/json",
    ],
)
def test_types_that_any_page_may_send_are_not_taken(open_server: Thread, kind: str | None) -> None:
    """G3: a form or a text is sent to other origins without asking them first."""
    for path in ("/api/v1/batches", "/api/v1/find", "/api/v1/get", "/api/v1/series", "/login"):
        headers = {} if kind is None else {"Content-Type": kind}
        assert open_server.ask("POST", path, b'{"batches": []}', headers).status == 415, path


def test_looking_changes_nothing(server: Thread, open_server: Thread) -> None:
    """G4: no route that changes something takes GET or HEAD, and a preview of the link does not use it up."""
    for route in open_server.app.service.routes:
        assert route.method not in ("GET", "HEAD") or route.needs in ("nothing", "read"), route
    assert server.ask("HEAD", "/login?token=x").status == 405


def test_no_answer_ever_opens_the_server_to_other_origins(server: Thread, open_server: Thread) -> None:
    """G5: a preflight is refused, and says nothing that a browser could take for a yes."""
    for which in (server, open_server):
        for origin in (ours(which), *EVIL):
            asked = {
                "Origin": origin, "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type",
            }  # fmt: skip
            answer = which.ask("OPTIONS", "/api/v1/batches", None, asked)
            assert answer.status in (401, 403, 405)
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_websocket_is_refused(server: Thread) -> None:
    """G6: there is none; a page of another origin cannot open one."""
    head = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n" + head + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 ")


def has_every_header(answer: Answer) -> bool:
    """Return whether an answer has every header that every answer must have, once."""
    want = {name.decode(): value.decode() for name, value in DEFAULTS}
    return all(answer.headers.get(name) == value for name, value in want.items())


def test_every_answer_has_every_header(server: Thread) -> None:
    """S4: the good, the bad, and those that uvicorn itself gives."""
    token = {"Authorization": f"Bearer {TOKEN}"}
    answers = [
        server.ask("GET", "/version"), server.ask("GET", "/metrics"), server.ask("GET", "/metrics", None, token),
        server.ask("GET", "/nothing", None, token), server.ask("DELETE", "/version", None, token),
        server.ask("POST", "/api/v1/batches", b"x" * 10, token), server.ask("POST", "/login", {"token": "x"}),
        server.ask("GET", "/version", None, {"Host": "evil"}), server.ask("HEAD", "/version"),
        server.ask("GET", "/version", None, {f"X-{number}": "y" for number in range(150)}),
        server.ask("POST", "/logout", b""), server.ask("GET", "/api/v1/events?after=x", None, token),
    ]  # fmt: skip
    assert {answer.status for answer in answers} >= {200, 204, 401, 403, 404, 405, 415, 431}
    for answer in answers:
        assert has_every_header(answer), answer
        assert answer.headers.get("server") is None and "x-powered-by" not in answer.headers
    _, got = raw(server, b"this is no HTTP\r\n\r\n")
    for name, value in DEFAULTS:
        assert b"%s: %s\r\n" % (name, value) in got


def test_the_policy_leaves_nothing_inline_and_no_frame(server: Thread) -> None:
    """S4, F1."""
    policy = server.ask("GET", "/version").headers["content-security-policy"]
    said = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert (
        said["default-src"] == "'self'"
        and said["object-src"] == said["base-uri"] == said["frame-ancestors"] == "'none'"
    )
    assert "unsafe" not in policy and "*" not in policy


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "<script>alert(1)</script>", '"><svg onload=x>', "{{7*7}}"]
)
def test_an_error_is_json_and_shows_no_markup_as_a_page(server: Thread, text: str) -> None:
    """F3: what was sent never comes back as anything a browser would run; no error has a traceback."""
    token = {"Authorization": f"Bearer {TOKEN}"}
    run = {"type": "Created", "kind": "run", "id": uuid4().hex, "fields": {}}
    record = {"number": 1, "stamp": 1, "events": [run]}
    stored = {"batches": [{"source": uuid4().hex, "home": run["id"], "records": [record]}]}
    assert server.ask("POST", "/api/v1/batches", stored, token).json == {"results": [None]}
    for method, path, body, headers in (
        ("GET", f"/{text.replace(' ', '%20')}", None, token),
        ("POST", "/api/v1/find", b"{}", {**token, "Content-Type": text}),
        ("POST", "/api/v1/find", {"kind": text, "query": text}, token),
        ("POST", "/api/v1/get", {"kind": text, "ids": text}, token),
        ("GET", "/version", None, {"Host": text}),
        ("GET", "/metrics", None, {"Authorization": text}),
        ("GET", f"/api/v1/entities/run/{text.replace(' ', '%20').replace('/', '%2f')}", None, token),
        ("GET", f"/api/v1/events?after={text.replace(' ', '%20')}", None, token),
    ):
        answer = server.ask(method, path, body, headers)
        assert 400 <= answer.status < 500, (path, answer)
        assert answer.headers["content-type"] == "application/json"
        error = json.loads(answer.body)
        assert set(error) == {"error", "request_id"} and set(error["error"]) >= {"type", "message"}
        assert "Traceback" not in error["error"]["message"] and ".py" not in error["error"]["message"]
        assert server.app.service.settings.store.encode() not in answer.body


def test_a_failure_inside_tells_no_more_than_where_to_look(tmp_path: Path) -> None:
    """F3, C7: an exception nobody thought of is a 500 in JSON, without its text."""
    from mlcore import plugins
    from mlcore.hookspecs import Provider
    from mlcore_server.routing import Route

    async def broken(request: object, service: object) -> None:
        raise RuntimeError("the password is hunter2")

    class Plugin:
        @staticmethod
        def mlcore_routes() -> list[Provider]:
            made = [Route("GET", "/broken", broken, needs="nothing", summary="Break.")]  # type: ignore[arg-type]
            return [Provider("broken", lambda service: made, "breaks")]

    plugins.register(Plugin, "broken")
    try:
        with serving_here(tmp_path / "store", no_token=True) as server:
            answer = server.get("/broken")
            assert answer.status == 500 and b"hunter2" not in answer.body and has_every_header(answer)
            assert answer.json["error"]["message"].endswith(answer.json["request_id"])
    finally:
        plugins.unregister("broken")
