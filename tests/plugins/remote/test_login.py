"""A token is kept for one server, read by nobody else, and sent nowhere else."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mlcore
from mlcore.cli import program
from mlcore.errors import AccessDenied, ConfigError
from mlcore.store import Query
from mlcore.testing import run_batch
from mlcore_remote import credentials, running
from mlcore_remote.addresses import address_of
from mlcore_remote.store import RemoteStore
from remote_peers import Request, answer, scripted
from serving import Thread, serving, serving_here

TOKEN = "mlc_one-token-for-tests-0123456789-abcdef"
OTHER = "mlc_another-token-for-tests-9876543210-fedcba"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Thread]:
    """Yield a server that knows TOKEN."""
    with serving_here(tmp_path / "store", token=TOKEN) as running:
        yield running


def run(*words: str, given: str | None = None) -> Result:
    """Run a command; `given` is its standard input."""
    return CliRunner().invoke(program, [*words], input=given)


def said(result: Result) -> str:
    """Return all that a command said, its error included."""
    return result.output + (str(result.exception) if result.exception else "")


class TestLogin:
    def test_a_token_is_kept_and_used(self, server: Thread) -> None:
        with pytest.raises(AccessDenied, match=f"`mlcore login {server.url}` keeps a token") as error:
            RemoteStore(server.url).find("run", Query())
        assert error.value.status == 401
        done = run("login", server.url + "/", given=TOKEN + "\n")
        assert done.exit_code == 0 and f"logged in to {server.url}" in done.output
        assert TOKEN not in done.output
        store = RemoteStore(server.url)
        store.append(run_batch())
        assert len(store.find("run", Query()).items) == 1
        assert run("login", "--list").output == f"{server.url}\n"
        assert json.loads(run("login", "--list", "--json").output) == [{"url": server.url}]
        assert run("logout", server.url).output == f"logged out of {server.url}\n"
        assert run("logout", server.url).output == f"there was no token for {server.url}\n"
        with pytest.raises(AccessDenied):
            RemoteStore(server.url).find("run", Query())

    def test_a_wrong_token_is_not_kept(self, server: Thread) -> None:
        """Guards against finding out in the middle of the night."""
        done = run("login", server.url, given=OTHER)
        assert done.exit_code == 1 and OTHER not in said(done)
        assert not credentials.known()

    def test_it_comes_from_a_file(self, server: Thread, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(TOKEN + "\n")
        done = run("login", server.url, "--token-file", str(tmp_path / "token"), "--json")
        assert json.loads(done.output) == {"url": server.url, "file": str(credentials.credentials_file())}
        assert run("login", server.url, "--token-file", "-", given=TOKEN).exit_code == 0

    def test_it_is_never_an_argument(self, server: Thread) -> None:
        """Guards against process lists: there is no option for it."""
        assert run("login", server.url, TOKEN).exit_code == 2
        assert run("login", server.url, "--token", TOKEN).exit_code == 2
        assert run("login", server.url.replace("//", f"//{TOKEN}@")).exit_code != 0

    def test_the_configured_store_is_the_server(self, server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLCORE_STORE", server.url)
        assert run("login", given=TOKEN).exit_code == 0
        assert run("logout", "--json").output == f'{{"url": "{server.url}", "forgotten": true}}\n'
        monkeypatch.setenv("MLCORE_STORE", "/some/folder")
        assert "/some/folder is no server (environment variable MLCORE_STORE)" in said(run("login", given=TOKEN))

    @pytest.mark.parametrize("wrong", ["", "two words", "two\nlines", "ä", "x" * 5_000, "a\x00b", "a\tb"])
    def test_what_is_no_token_is_said(self, wrong: str, server: Thread) -> None:
        done = run("login", server.url, given=wrong)
        assert done.exit_code == 1 and "holds no token" in said(done)

    def test_a_server_of_something_else_gets_no_token(self) -> None:
        """Guards the token from a mistyped URL: first it is asked what it is."""
        with scripted(lambda request: answer("200 OK", b"<title>Shop</title>")) as peer:
            done = run("login", peer.url, given=TOKEN)
            assert done.exit_code == 1 and "a page titled 'Shop'" in said(done)
            assert not any(TOKEN in str(request.headers) for request in peer.requests)

    def test_a_network_that_can_be_read_is_warned_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done = run("login", "http://no-such-host.invalid", given=TOKEN)
        assert "is not encrypted" in done.output and done.exit_code == 1

    def test_list_takes_nothing_else(self) -> None:
        assert run("login", "--list", "http://h").exit_code == 2
        assert run("login", "--list").output == ""

    def test_a_stronger_token_is_told_of(self, server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLCORE_TOKEN", OTHER)
        assert "another token, which is stronger" in run("login", server.url, given=TOKEN).output


class TestTheFile:
    def test_nobody_else_reads_it(self) -> None:
        before = os.umask(0)
        try:
            credentials.remember(address_of("http://h"), TOKEN)
        finally:
            os.umask(before)
        file = credentials.credentials_file()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) & 0o022 == 0
        assert sorted(each.name for each in file.parent.iterdir()) == ["credentials.json", "credentials.lock"]

    def test_one_that_others_may_read_is_refused(self) -> None:
        credentials.remember(address_of("http://h"), TOKEN)
        credentials.credentials_file().chmod(0o640)
        with pytest.raises(ConfigError, match="`chmod 600` it"):
            credentials.known()
        assert "chmod 600" in said(run("login", "--list"))

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 1, "tokens": {"h": 1}}', "\xff", "[" * 10_000])
    def test_a_broken_one_is_told_and_not_overwritten(self, content: str) -> None:
        file = credentials.credentials_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="latin-1")
        file.chmod(0o600)
        with pytest.raises(ConfigError, match="is broken: remove it"):
            credentials.remember(address_of("http://h"), TOKEN)
        assert file.read_text(encoding="latin-1") == content

    def test_a_newer_one_is_left_alone(self) -> None:
        credentials.remember(address_of("http://h"), TOKEN)
        file = credentials.credentials_file()
        file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
        with pytest.raises(ConfigError, match="newer mlcore"):
            credentials.forget(address_of("http://h"))

    def test_two_logins_at_once_lose_nothing(self) -> None:
        threads = [
            threading.Thread(target=credentials.remember, args=[address_of(f"http://h{n}"), TOKEN]) for n in range(20)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(credentials.known()) == 20

    def test_a_full_disk_keeps_the_old_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        credentials.remember(address_of("http://h"), TOKEN)

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("mlcore_remote.credentials.os.fsync", full)
        with pytest.raises(ConfigError, match="No space left"):
            credentials.remember(address_of("http://other"), TOKEN)
        assert credentials.known() == {"http://h": TOKEN}
        assert len(list(credentials.credentials_file().parent.iterdir())) == 2


def sent(uri: str) -> list[str]:
    """Return the tokens that would be sent to a server, one after the other."""
    return list(credentials.tokens_for(address_of(uri)))


class TestWhereATokenGoes:
    def test_to_its_own_server_only(self) -> None:
        """Guards against another port, scheme, host or path getting what it was not given."""
        credentials.remember(address_of("https://h/a"), TOKEN)
        assert sent("https://h:443/a/") == [TOKEN]
        for other in (
            "http://h/a",
            "https://h:8443/a",
            "https://h",
            "https://h/b",
            "https://h.evil/a",
            "https://h/a/b",
        ):
            assert sent(other) == []

    def test_that_of_the_environment_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        credentials.remember(address_of("https://h"), TOKEN)
        monkeypatch.setenv("MLCORE_TOKEN", f" {OTHER}\n")
        assert sent("https://h") == [OTHER]
        monkeypatch.delenv("MLCORE_TOKEN")
        (tmp_path / "token").write_text(OTHER + "x\n")
        monkeypatch.setenv("MLCORE_TOKEN_FILE", str(tmp_path / "token"))
        assert sent("https://h") == [OTHER + "x"]
        monkeypatch.setenv("MLCORE_TOKEN", OTHER)
        assert sent("https://h") == [OTHER]

    @pytest.mark.parametrize("content", [None, b"", b"a b", b"\xff"])
    def test_a_file_that_holds_none_is_an_error(
        self, content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Guards against going on without, and being refused for a reason that nobody sees."""
        if content is not None:
            (tmp_path / "token").write_bytes(content)
        monkeypatch.setenv("MLCORE_TOKEN_FILE", str(tmp_path / "token"))
        with pytest.raises(ConfigError, match="MLCORE_TOKEN_FILE"):
            sent("https://h")

    def test_that_of_the_environment_goes_to_the_configured_store_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards a token from every other server that a command or a script names."""
        monkeypatch.setenv("MLCORE_TOKEN", TOKEN)
        monkeypatch.setenv("MLCORE_STORE", "https://team.example/ml")
        assert sent("https://team.example/ml/") == [TOKEN]
        assert sent("https://evil.example") == sent("https://team.example") == []
        assert credentials.withheld(address_of("https://evil.example")) == (
            "the token of the environment is for https://team.example/ml (environment variable MLCORE_STORE)"
        )
        monkeypatch.delenv("MLCORE_STORE")
        assert sent("https://in-code.example") == [TOKEN]
        mlcore.config.user_file().parent.mkdir(parents=True, exist_ok=True)
        mlcore.config.user_file().write_text('store = "https://mine.example"\n')
        assert sent("https://mine.example") == [TOKEN]
        assert sent("https://in-code.example") == []

    def test_it_does_not_go_where_only_a_project_points(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Guards whoever runs a training of a stranger's repository with a token in the environment."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "pyproject.toml").write_text('[tool.mlcore]\nstore = "https://evil.example"\n')
        monkeypatch.setenv("MLCORE_TOKEN", TOKEN)
        assert sent("https://evil.example") == []
        assert "gets no token of the environment: set MLCORE_STORE" in credentials.withheld(
            address_of("https://evil.example")
        )
        monkeypatch.setenv("MLCORE_STORE", "https://evil.example")  # if the user says so
        assert sent("https://evil.example") == [TOKEN]

    def test_a_server_of_this_machine_needs_no_login(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards the way without any setting: who starts a server uses it, and one started anew as well."""
        runtime = tmp_path / "runtime"
        with serving(tmp_path / "store") as server:
            # the server has a runtime folder of its own in tests; the user's client and server share one
            runtime.mkdir()
            monkeypatch.setattr(running, "notes", lambda: _notes_of(server))
            store = RemoteStore(server.url)
            store.append(run_batch())
            first = server.token
            server.stop()
            server.start()
            assert server.token != first
            store.append(run_batch())  # by the token of the new start
            assert len(store.find("run", Query()).items) == 2
            store.close()

    def test_a_token_that_was_renewed_by_a_login_is_taken(self, server: Thread) -> None:
        """Guards trainings that run for longer than a token."""
        store = RemoteStore(server.url)
        credentials.remember(address_of(server.url), OTHER)
        with pytest.raises(AccessDenied):
            store.find("run", Query())
        credentials.remember(address_of(server.url), TOKEN)
        store.append(run_batch())
        assert len(store.find("run", Query()).items) == 1

    def test_who_is_refused_learns_that_a_token_was_kept_back(
        self, server: Thread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLCORE_TOKEN", TOKEN)
        monkeypatch.setenv("MLCORE_STORE", "https://team.example")
        with pytest.raises(AccessDenied, match=r"the token of the environment is for https://team\.example"):
            RemoteStore(server.url).find("run", Query())

    def test_no_error_shows_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLCORE_TOKEN", TOKEN)
        shown: list[str] = []

        def refuse(request: Request) -> bytes:
            shown.append(request.headers["authorization"])
            body = {"error": {"type": "AccessDenied", "message": "no", "details": {"status": 403}}}
            return answer("403 Forbidden", json.dumps(body).encode())

        with scripted(refuse) as peer, pytest.raises(AccessDenied) as error:
            RemoteStore(peer.url).find("run", Query())
        assert shown == [f"Bearer {TOKEN}"]
        assert TOKEN not in str(error.value) and error.value.status == 403


def _notes_of(server: Any) -> Path:
    return Path(server._environment["XDG_RUNTIME_DIR"]) / "mlcore" / "servers"
