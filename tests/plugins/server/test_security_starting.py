"""A real server as it starts: who can get in before anybody decided who may, and who no longer can."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from mlcore_remote import running
from mlcore_server import live
from serving import serving, serving_here

GOOD, OTHER = "correct-horse-battery-staple-0123456789", "another-token-that-is-long-enough-98765"


def bearer(secret: str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {secret}"}


def test_a_fresh_server_lets_in_only_who_can_read_its_users_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1, S2: nothing is open, the link works once, the token is in one file of mode 600 and nowhere else."""
    with serving(tmp_path / "store", "--log-level", "debug") as server:
        secret, server.token = server.token, ""
        for guess in ("", "admin", "password1234", "mlcore", "mlc_"):
            assert server.ask("GET", "/metrics", None, bearer(guess) if guess else {}).status in (401, 429)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.errors.parent / "runtime"))
        assert running.token_of(server.url) == secret
        note = running.note_of("127.0.0.1", server.port)
        assert note.stat().st_mode & 0o777 == 0o600 and {
            each.stat().st_mode & 0o077 for each in note.parent.iterdir()
        } == {0}

        path = server.link.removeprefix(server.url)
        assert secret not in path
        got = server.ask("GET", path)
        assert got.status == 303 and got.headers["location"] == "version"
        cookie = SimpleCookie(got.headers["set-cookie"])[f"mlcore-{server.port}"]
        assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/" and cookie["max-age"]
        assert server.ask("GET", path).status in (401, 429)
        session = {"Cookie": f"{cookie.key}={cookie.value}"}
        assert server.ask("GET", "/metrics", None, session).status == 200
        cleared = server.ask("POST", "/logout", b"", {**session, "Origin": server.url}).headers["set-cookie"]
        assert cleared.startswith(f"{cookie.key}=;") and "Max-Age=0" in cleared

        assert server.process is not None
        shown = Path(f"/proc/{server.process.pid}/cmdline").read_bytes() + server.errors.read_bytes()
        assert secret.encode() not in shown and path.partition("=")[2].encode() not in shown
        assert server.stop() == 0
        assert list(note.parent.iterdir()) == []
        assert secret.encode() not in server.errors.read_bytes()


@pytest.mark.parametrize(
    ("options", "token", "problem"),
    [
        (["--host", "0.0.0.0"], "", "there must be a token"),
        (["--host", "0.0.0.0", "--no-token"], "", "for this machine only"),
        (["--host", "0.0.0.0"], "password1234", "too easy to guess"),
    ],
)
def test_a_server_that_others_could_reach_does_not_start_open(
    tmp_path: Path, options: list[str], token: str, problem: str
) -> None:
    """H4, H5, S1: the default of an address that others reach is no answer at all."""
    command = [sys.executable, "-m", "mlcore", "server", "--store", str(tmp_path / "store"), "--port", "0", *options]
    variables = {**os.environ, "MLCORE_SERVER_TOKEN": token} if token else dict(os.environ)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=variables)
    assert ended.returncode not in (0, None) and problem in ended.stderr and "Traceback" not in ended.stderr
    assert not token or token not in ended.stderr


def test_no_secret_can_stand_in_a_command_line_and_none_in_the_package() -> None:
    """S12: no option takes a token, and no file that is shipped has one."""
    help_ = subprocess.run(
        [sys.executable, "-m", "mlcore", "server", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "--token-file" in help_ and not re.search(r"--token[ =,]", help_)
    import mlcore_server

    for file in Path(mlcore_server.__file__).parent.rglob("*.py"):
        assert not re.search(
            r"mlc_[A-Za-z0-9_-]{20,}|(?i:password|secret|token)\w*\s*=\s*[\"'][^\"'{}\s]{8,}", file.read_text()
        )


def test_a_token_that_is_taken_away_is_refused_at_the_next_request_by_every_process(tmp_path: Path) -> None:
    """S8, H7: two servers of two processes read one file; so do sessions made with the token."""
    file = tmp_path / "tokens"
    file.write_text(f"alice={GOOD}\nbob={OTHER}:read\n")
    file.chmod(0o600)
    with (
        serving(tmp_path / "store", token_file=str(file), workers="2") as one,
        serving_here(tmp_path / "store", token="", token_file=str(file)) as other,
    ):
        session = (
            one.ask("POST", "/login", {"token": GOOD}, {"Origin": one.url}).headers["set-cookie"].partition(";")[0]
        )
        elsewhere = session.replace(str(one.port), str(other.port))
        for _ in range(10):  # whichever worker takes it
            assert one.ask("GET", "/metrics", None, bearer(GOOD)).status == 200
            assert one.ask("GET", "/metrics", None, {"Cookie": session}).status == 200
        assert other.ask("GET", "/metrics", None, {"Cookie": elsewhere}).status == 200, "they share sessions"
        file.write_text(f"bob={OTHER}:read\n")
        for _ in range(10):
            assert one.ask("GET", "/metrics", None, bearer(GOOD)).status in (401, 429)
            assert one.ask("GET", "/metrics", None, {"Cookie": session}).status == 401
            assert one.ask("GET", "/metrics", None, bearer(OTHER)).status in (200, 429)
        assert other.ask("GET", "/metrics", None, {"Cookie": elsewhere}).status == 401
        assert other.ask("POST", "/api/v1/batches", {"batches": []}, bearer(OTHER)).status == 403


def test_the_sixth_wrong_token_is_told_to_wait_and_so_is_a_right_one_nobody_showed_before(tmp_path: Path) -> None:
    """S6: and who was let in before is not locked out by a stranger behind the same proxy."""
    with serving_here(tmp_path / "store", token=f"alice={GOOD}\nbob={OTHER}", login_window=2) as server:
        server.token = ""
        session = server.ask("POST", "/login", {"token": OTHER}).headers["set-cookie"].partition(";")[0]
        assert server.ask("GET", "/metrics", None, bearer(GOOD)).status == 200
        wrong = [server.ask("GET", "/metrics", None, bearer(f"wrong-{number}")).status for number in range(5)]
        assert wrong == [401] * 5
        sixth = server.ask("GET", "/metrics", None, bearer("wrong-6"))
        assert sixth.status == 429 and 0 < int(sixth.headers["retry-after"]) <= 3
        assert server.ask("POST", "/login", {"token": "wrong"}).status == 429
        assert server.ask("GET", "/login?token=wrong").status == 429
        assert server.ask("POST", "/login", {"token": GOOD}).status == 429
        assert server.ask("GET", "/metrics", None, bearer(OTHER)).status == 429
        assert server.ask("GET", "/metrics", None, bearer(GOOD)).status == 200
        assert server.ask("GET", "/metrics", None, {"Cookie": session}).status == 200
        time.sleep(int(sixth.headers["retry-after"]))
        assert server.ask("GET", "/metrics", None, bearer(OTHER)).status == 200
        assert server.ask("POST", "/login", {"token": GOOD}).status == 200


def test_behind_a_proxy_that_we_know_addresses_and_tls_are_the_clients(tmp_path: Path) -> None:
    """S3, S6: and what a client says of itself that way is not believed."""
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    log = tmp_path / "audit"
    for proxies in ((), ("127.0.0.1",)):
        with serving_here(tmp_path / "store", token=GOOD, trusted_proxies=proxies, audit_log=str(log)) as server:
            answer = server.ask("POST", "/login", {"token": GOOD}, forwarded)
            assert answer.headers["set-cookie"].startswith("__Host-mlcore=" if proxies else f"mlcore-{server.port}=")
            assert ("; Secure" in answer.headers["set-cookie"]) is bool(proxies)
    assert [("203.0.113.9" in line) for line in log.read_text().splitlines()] == [False, True]


def asked_over(path: Path, secret: str) -> int:
    """Return the status of an answer over a Unix socket."""
    with closing(HTTPConnection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/metrics", headers=bearer(secret))
        return connection.getresponse().status


def test_a_unix_socket_is_its_users_alone(tmp_path: Path) -> None:
    """S1: nobody else on the machine can connect, whatever the umask."""
    path = tmp_path / "mlcore.sock"
    before = os.umask(0)
    try:
        with serving(tmp_path / "store", unix_socket=str(path)) as server:
            assert path.stat().st_mode & 0o777 == 0o600
            assert server.url == f"http+unix://{path}" and server.token and not server.link
            shown = [OTHER] * 6 + [server.token]  # S6: who errs there is not told from the others: none has to wait
            assert [asked_over(path, secret) for secret in shown] == [401] * 6 + [200]
    finally:
        os.umask(before)


@pytest.mark.parametrize("way", ["token", "session"])
def test_who_listens_hears_nothing_more_once_the_token_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """S8: an answer without end is looked at again and again."""
    monkeypatch.setattr(live, "_BEAT_SECONDS", 0.2)
    file = tmp_path / "tokens"
    file.write_text(f"alice={GOOD}\nbob={OTHER}:read\n")
    file.chmod(0o600)
    with serving_here(tmp_path / "store", token="", token_file=str(file)) as server:
        shown = bearer(GOOD)
        if way == "session":
            shown = {"Cookie": server.ask("POST", "/login", {"token": GOOD}).headers["set-cookie"].partition(";")[0]}
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", "/api/v1/events/live", headers=shown)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.readline().startswith(b"event: ready")
        while b"beat" not in answer.readline():
            pass
        file.write_text(f"bob={OTHER}:read\n")
        assert b": ask again" in answer.read()
        connection.close()


def test_a_page_of_another_origin_cannot_listen(tmp_path: Path) -> None:
    """G6: not even where no token is needed."""
    with serving_here(tmp_path / "store", no_token=True) as server:
        for said in ({"Origin": "http://evil"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}):
            assert server.ask("GET", "/api/v1/events/live", None, said).status == 403
