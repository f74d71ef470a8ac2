"""The parts of the gate, each alone: the decision, tokens, sessions, hosts, limits, the audit log."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from mlcore.errors import AccessDenied, ConfigError, Malformed
from mlcore_remote import running
from mlcore_server import limits, sessions
from mlcore_server.audit import Audit, Entry
from mlcore_server.guard import ANYBODY, Gate, authorize, check
from mlcore_server.headers import DEFAULTS, Hosts, comes_from_elsewhere, comes_from_here, secured
from mlcore_server.routing import Actor, Route, Router
from mlcore_server.settings import Settings
from mlcore_server.tokens import PERMISSIONS, Start, Tokens, make_token, parse_tokens, started, use_once

GOOD = "correct-horse-battery-staple-0123456789"
OTHER = "another-token-that-is-long-enough-98765"


@attrs.frozen
class Now:
    read_only: bool = False


async def nothing(request: object, service: object) -> None:
    """Be an endpoint."""


def route(needs: str, method: str = "POST") -> Route:
    """Return a route of some need."""
    return Route(method, "/x", nothing, needs=needs, summary="x")  # type: ignore[arg-type]


def test_a_route_without_a_declared_need_cannot_be_made() -> None:
    """H1: who adds a route and forgets the right it needs has no route."""
    with pytest.raises(TypeError, match="needs"):
        Route("GET", "/x", nothing, summary="x")  # type: ignore[call-arg, arg-type]
    with pytest.raises(ValueError, match="needs is one of"):
        route("everything")
    with pytest.raises(TypeError, match="is no Route"):
        Router([("GET", "/x", nothing)])  # type: ignore[list-item]


@pytest.mark.parametrize("needs", ["nothing", "read", "write", "admin"])
@pytest.mark.parametrize("may", ["nobody", "read", "write", "admin"])
@pytest.mark.parametrize("read_only", [False, True])
def test_one_function_decides_by_actor_route_and_state(needs: str, may: str, read_only: bool) -> None:
    """H1: the whole table of the decision, written down a second time."""
    actor = ANYBODY if may == "nobody" else Actor("x", PERMISSIONS[may], "token")
    order = ["nothing", "read", "write", "admin"]
    rank = 0 if may == "nobody" else order.index(may)
    expected = None
    if order.index(needs) > rank:
        expected = 401 if may == "nobody" else 403
    elif read_only and needs in ("write", "admin"):
        expected = 403
    if expected is None:
        authorize(actor, route(needs), Now(read_only))
    else:
        with pytest.raises(AccessDenied) as caught:
            authorize(actor, route(needs), Now(read_only))
        assert caught.value.status == expected


def test_a_token_file_says_who_may_what() -> None:
    """Guards the format of the file, and that what is kept of a token is not shown."""
    found = {t.name: t for t in parse_tokens(f"# ours\n\nalice={GOOD}\n  {OTHER}:read  \n", "file").values()}
    assert found["alice"].permissions == {"read", "write"}
    (unnamed,) = (t for name, t in found.items() if name != "alice")
    assert unnamed.name.startswith("token-") and unnamed.permissions == {"read"}
    assert GOOD not in repr(found) and found["alice"].digest.hex() not in repr(found)


@pytest.mark.parametrize(
    "line",
    ["password1234", "admin", "", "alice=short", "a" * 64, "alice=", f"{GOOD}:root", f"{GOOD} {GOOD}", "ab" * 40],
)
def test_a_token_that_can_be_guessed_is_refused_by_its_line_and_never_shown(line: str) -> None:
    """H5, C7: empty, short, common and repeated ones."""
    text = f"# first\n{line}"
    if not line:
        assert parse_tokens(text, "file") == {}
        return
    with pytest.raises(ConfigError, match="file, line 2") as caught:
        parse_tokens(text, "file")
    assert line not in str(caught.value)


def test_two_names_or_tokens_alike_are_refused() -> None:
    """H6: nobody acts under another's name."""
    with pytest.raises(ConfigError, match="twice"):
        parse_tokens(f"alice={GOOD}\nalice={OTHER}", "file")
    with pytest.raises(ConfigError, match="twice"):
        parse_tokens(f"alice={GOOD}\nbob={GOOD}", "file")


def test_a_token_taken_out_of_the_file_is_unknown_at_the_next_look(tmp_path: Path) -> None:
    """S8: also when the file is changed twice within one tick of the clock, keeping its size."""
    file = tmp_path / "tokens"
    file.write_text(f"alice={GOOD}\nbob={OTHER}\n")
    file.chmod(0o600)
    tokens = Tokens({}, file)
    assert tokens.find(GOOD) and tokens.find(OTHER)
    for _ in range(20):
        file.write_text(f"alice={GOOD[::-1]}\nbob={OTHER}\n")
        assert tokens.find(GOOD) is None and tokens.find(GOOD[::-1])
        file.write_text(f"alice={GOOD}\nbob={OTHER}\n")
        assert tokens.find(GOOD) and tokens.find(GOOD[::-1]) is None


def test_a_token_file_is_read_again_while_a_change_could_look_like_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S8: on a file system whose clock stands still between two writes."""
    monkeypatch.setattr(Tokens, "_version", lambda self, about: (1, 1, 1, 1))
    file = tmp_path / "tokens"
    file.write_text(f"alice={GOOD}\n")
    file.chmod(0o600)
    tokens = Tokens({}, file)
    file.write_text(f"alice={OTHER}\n")
    assert tokens.find(GOOD) is None and tokens.find(OTHER)


def test_a_token_file_that_is_gone_or_broken_lets_nobody_in(tmp_path: Path) -> None:
    """S8: what cannot be read fails closed, and heals by itself."""
    file = tmp_path / "tokens"
    file.write_text(f"alice={GOOD}\n")
    file.chmod(0o600)
    tokens = Tokens(parse_tokens(f"env={OTHER}", "env"), file)
    file.unlink()
    assert tokens.find(GOOD) is None and tokens.find(OTHER)
    file.write_text("alice=short\n")
    assert tokens.find(GOOD) is None
    file.write_text(f"alice={GOOD}\n")
    assert tokens.find(GOOD)


def test_a_token_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """H4: whoever may write it lets themselves in."""
    file = tmp_path / "tokens"
    file.write_text(f"alice={GOOD}\n")
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod 600"):
        Tokens({}, file)
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens({}, tmp_path / "none")


def test_a_start_leaves_a_note_for_its_user_and_takes_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1, S2: a token a start, 0600, found by the client at any of the machine's own names, gone at the end."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    seen = set()
    for _ in range(2):
        with started("http://127.0.0.1:5151", host="127.0.0.1", port=5151) as start:
            assert start.note.stat().st_mode & 0o777 == 0o600 and start.note.parent.stat().st_mode & 0o777 == 0o700
            token = running.token_of("http://localhost:5151/prefix")
            assert token and token not in start.link and len(token) >= 43
            assert Tokens({}, start.note).find(token)
            seen.add(token)
            start.note.chmod(0o644)
            assert running.token_of("http://127.0.0.1:5151") is None, "others may have read it"
        assert list(start.note.parent.iterdir()) == []
    assert len(seen) == 2
    assert running.token_of("http://127.0.0.1:5151") is None
    assert running.token_of("http://runs.example.org:5151") is None


def test_a_unix_socket_has_a_note_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the other way to be reached by this machine only."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = str(tmp_path / "mlcore.sock")
    with started(f"http+unix://{path}", host=path, port=None):
        assert running.token_of(f"http+unix://{path}")
        assert running.token_of(f"http+unix://{path.replace('/', '%2F')}") == running.token_of(f"http+unix://{path}")


def test_a_link_works_once_whoever_follows_it_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: of sixteen that follow it together exactly one gets in; a wrong one does not use it up."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def follow(start: Start, got: list[bool]) -> None:
        got.append(use_once(start.note, start.link.partition("token=")[2]))

    with started("http://127.0.0.1:5151", host="127.0.0.1", port=5151) as start:
        assert not use_once(start.note, "wrong") and not use_once(start.note, "")
        got: list[bool] = []
        threads = [threading.Thread(target=follow, args=(start, got)) for _ in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert sorted(got) == [False] * 15 + [True]


def test_servers_with_the_same_tokens_share_sessions_and_no_others() -> None:
    """S8: a session ends with its time or its token, and cannot be made longer or another's."""
    here, there = (Tokens(parse_tokens(f"alice={GOOD}\nbob={OTHER}:read", "x")) for _ in range(2))
    alice, bob = here.find(GOOD), here.find(OTHER)
    assert alice and bob
    cookie = sessions.open_session(alice, lasts=60, now=1000)
    assert sessions.session_of(cookie, there, now=1059) == alice
    assert sessions.session_of(cookie, there, now=1061) is None
    assert sessions.session_of(cookie, Tokens(parse_tokens(f"bob={OTHER}", "x")), now=1000) is None
    version, mark, until, signature = cookie.split(".")
    others = sessions.open_session(bob, lasts=60, now=1000).split(".")
    for forged in (
        f"{version}.{mark}.{int(until) + 1}.{signature}", f"{version}.{others[1]}.{until}.{signature}",
        f"{version}.{mark}.{until}.", f"2.{mark}.{until}.{signature}", "", "...", "1.x.1e9.y", f"{cookie}x", "é.é.1.é",
        f"1.{mark}.{'9' * 5000}.{signature}", f"1.{mark}.²{until}.{signature}",
    ):  # fmt: skip
        assert sessions.session_of(forged, here, now=1000) is None, forged


def test_a_cookie_is_for_this_server_alone_and_for_no_script() -> None:
    """S3."""
    said = sessions.set_cookie("x", secure=True, port=443, lasts=60)
    assert said == "__Host-mlcore=x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
    plain = sessions.set_cookie("x", secure=False, port=5151, lasts=60)
    assert plain == "mlcore-5151=x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict"
    assert "Max-Age=0" in sessions.clear_cookie(secure=True, port=443)


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:5151", b"127.0.0.1:80", b"[::1]:5151", b"[::1]"])
def test_a_loopback_server_answers_to_its_machines_names(host: bytes) -> None:
    """G1: the names that are ours."""
    assert Hosts.of("127.0.0.1", (), local=True).allows(host)


@pytest.mark.parametrize(
    "host",
    [
        b"", b"evil.example", b"10.evil.com", b"localhost.evil", b"evil-localhost", b"127.0.0.1.evil",
        b"localhost:80:80",
        b"localhost@evil", b"[::1", b"::1", b"localhost/", b"localhost:x", b"localhost:", b"127.1", b"2130706433",
        b"0.0.0.0", b"localhost:123456", "localhost:²".encode("latin-1"), b"localhost,evil",
    ],
)  # fmt: skip
def test_other_names_are_not_ours(host: bytes) -> None:
    """G1: DNS rebinding gives any name our address."""
    assert not Hosts.of("127.0.0.1", (), local=True).allows(host)


def test_an_operator_lists_names_and_only_those_count() -> None:
    """G1: exact names, with or without a port."""
    hosts = Hosts.of("0.0.0.0", ("runs.example.org", "other.example.org:8443"), local=False)
    assert hosts.allows(b"Runs.Example.org") and hosts.allows(b"runs.example.org:80")
    assert hosts.allows(b"other.example.org:8443") and not hosts.allows(b"other.example.org")
    assert not hosts.allows(b"localhost") and not hosts.allows(b"x.runs.example.org")
    assert Hosts.of("10.0.0.7", (), local=False).allows(b"10.0.0.7:5151")
    assert Hosts.of("0.0.0.0", ("*",), local=False).allows(b"anything")


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "ours"),
    [
        (b"http://localhost:5151", b"localhost:5151", "http", True),
        (b"https://runs.example.org", b"runs.example.org", "http", True),  # a proxy ends TLS
        (b"http://runs.example.org", b"runs.example.org", "https", False),
        (b"http://localhost:1234", b"localhost:5151", "http", False),
        (b"http://evil", b"localhost:5151", "http", False),
        (b"null", b"localhost:5151", "http", False),
        (b"", b"localhost:5151", "http", False),
        (b"file://", b"", "http", False),
        (b"http://localhost:5151.evil", b"localhost:5151", "http", False),
        (b"http://evil@localhost:5151", b"localhost:5151", "http", False),
    ],
)
def test_a_page_of_another_origin_is_known_by_its_origin(origin: bytes, host: bytes, scheme: str, ours: bool) -> None:
    """G2, S11."""
    seen = {b"origin": origin, b"host": host}
    assert comes_from_elsewhere(seen, "POST", scheme) is not ours
    assert comes_from_here(seen, scheme) is ours


@pytest.mark.parametrize(
    ("site", "mode", "dest", "method", "fine"),
    [
        (b"same-origin", b"cors", b"empty", "POST", True),
        (b"none", b"navigate", b"document", "GET", True),
        (b"cross-site", b"navigate", b"document", "GET", True),
        (b"cross-site", b"navigate", b"document", "POST", False),
        (b"cross-site", b"navigate", b"iframe", "GET", False),
        (b"cross-site", b"no-cors", b"image", "GET", False),
        (b"same-site", b"no-cors", b"script", "GET", False),
        (b"same-site", b"cors", b"empty", "POST", False),
    ],
)
def test_what_a_browser_tells_of_a_request_is_believed(
    site: bytes, mode: bytes, dest: bytes, method: str, fine: bool
) -> None:
    """G2, S11: a link may lead here, and nothing else of another site."""
    seen = {b"host": b"x", b"sec-fetch-site": site, b"sec-fetch-mode": mode, b"sec-fetch-dest": dest}
    assert comes_from_elsewhere(seen, method, "http") is not fine


def test_an_answer_has_every_header_once_and_its_own_policy_counts() -> None:
    """S4."""
    assert [*secured([(b"x", b"y")])] == [(b"x", b"y"), *DEFAULTS]
    own = secured([(b"content-security-policy", b"sandbox"), (b"x-frame-options", b"ALLOWALL")])
    assert [value for name, value in own if name == b"content-security-policy"] == [b"sandbox"]
    assert [value for name, value in own if name == b"x-frame-options"] == [b"DENY"]
    assert len(own) == len(DEFAULTS)


def test_a_file_that_others_share_counts_wrong_tokens_of_an_address(tmp_path: Path) -> None:
    """S6: five in the window, in whatever process; another address is asked as before."""
    here, there = (limits.Failures(tmp_path / "x.failures", 300) for _ in range(2))
    for _ in range(5):
        assert here.wait("10.0.0.1") == there.wait("10.0.0.1") == 0
        here.add("10.0.0.1")
    assert 290 < there.wait("10.0.0.1") <= 301 and there.wait("10.0.0.2") == 0
    assert (tmp_path / "x.failures").stat().st_mode & 0o777 == 0o600
    assert limits.Failures(tmp_path / "x.failures", 0).wait("10.0.0.1") == 0


def test_all_addresses_of_a_customer_are_one() -> None:
    """S6: 2^64 addresses of IPv6 are one client."""
    failures = limits.Failures(None, 300)
    for number in range(5):
        failures.add(f"2001:db8:1:2::{number}")
    assert failures.wait("2001:db8:1:2::99") and not failures.wait("2001:db8:1:3::99")


def test_many_addresses_take_the_places_of_those_that_are_quiet_longest() -> None:
    """The file is of one size, whoever knocks."""
    failures = limits.Failures(None, 300)
    for number in range(50_000):
        failures.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    for _ in range(5):
        failures.add("10.9.9.9")
    assert failures.wait("10.9.9.9")


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({b"content-length": b"10"}, False),
        ({b"content-length": b"11"}, True),
        ({b"content-length": b"-1"}, True),
        ({b"content-length": b"9" * 30}, True),
        ({b"transfer-encoding": b"chunked"}, True),
        ({}, False),
    ],
)
def test_no_route_is_given_more_than_the_limit(headers: dict[bytes, bytes], refused: bool) -> None:
    """I1: a plugin's route that reads a body in its own way, whatever is told of its length."""
    parts = [{"type": "http.request", "body": b"x" * 6, "more_body": more} for more in (True, False)]

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def read() -> None:
        bounded = limits.bounded(receive, headers, 10)
        await bounded()
        await bounded()

    if refused:
        with pytest.raises((limits.TooLarge, Malformed)):
            asyncio.run(read())
    else:
        asyncio.run(read())


def test_a_client_is_counted_by_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the rate limit, and that 0 is none."""
    now = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    rate = limits.Rate(3)
    assert [rate.allows("a") for _ in range(4)] == [True, True, True, False]
    assert rate.allows("b")
    now[0] += 1
    assert rate.allows("a")
    assert all(limits.Rate(0).allows("a") for _ in range(100_000))


def entry(path: str = "/x", objects: tuple[str, ...] = ()) -> Entry:
    """Return an entry."""
    return Entry(
        actor="alice", how="token", address="10.0.0.1", request="r", method="POST", route="/x", path=path, status=200,
        objects=objects,
    )  # fmt: skip


def test_no_name_forges_a_line_of_the_audit_log(tmp_path: Path) -> None:
    """S10."""
    audit = Audit(tmp_path / "audit")
    evil = 'x"}\n{"actor": "root"}\r\n\u2028\x85\x0b\x1b[2K'
    audit.write(entry(evil, (evil,) * 99))
    audit.write(entry("y" * 10_000))
    audit.close()
    lines = (tmp_path / "audit").read_bytes().splitlines()
    assert len(lines) == 2 and len((tmp_path / "audit").read_text().splitlines()) == 2
    first = json.loads(lines[0])
    assert first["path"] == evil and len(first["objects"]) == 50 and first["more_objects"] == 49
    assert datetime.fromisoformat(first["time"]).tzinfo == UTC
    assert len(lines[1]) < 1_000 and (tmp_path / "audit").stat().st_mode & 0o777 == 0o600


def test_an_audit_log_that_is_moved_away_goes_on_under_its_name(tmp_path: Path) -> None:
    """S10: logrotate without a signal."""
    audit = Audit(tmp_path / "audit")
    audit.write(entry())
    os.rename(tmp_path / "audit", tmp_path / "audit.1")
    audit._looked = 0
    audit.write(entry())
    audit.close()
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("audit", "audit.1")] == [1, 1]


@pytest.mark.parametrize(
    ("told", "local", "problem"),
    [
        ({}, True, None),
        ({"no_token": True}, True, None),
        ({"token": GOOD}, False, None),
        ({}, False, "there must be a token"),
        ({"no_token": True}, False, "for this machine only"),
        ({"no_token": True, "token": GOOD}, True, "say one of them"),
        ({"no_token": True, "allowed_hosts": ("*",)}, True, "name the hosts"),
    ],
)
def test_a_server_that_would_stand_open_does_not_start(
    told: dict[str, object], local: bool, problem: str | None
) -> None:
    """H4, S1."""
    settings = Settings(**told)  # type: ignore[arg-type]
    if problem is None:
        check(settings, local=local)
    else:
        with pytest.raises(ConfigError, match=problem):
            check(settings, local=local)


def test_without_tokens_nobody_is_let_in_by_an_app_that_another_program_runs() -> None:
    """H4: `application(Settings())` under some other ASGI server."""
    gate = Gate(Settings())
    assert not gate.tokens and gate.tokens.find("") is None and gate.tokens.find(make_token()) is None
