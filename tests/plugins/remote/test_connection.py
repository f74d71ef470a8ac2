"""A server is reached over whatever lies between, and what goes wrong on the way is told in words that help."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import trustme

from mlcore.errors import AccessDenied, ConfigError, MlcoreError, NewerFormat, NotFound, Refused, StoreError
from mlcore.store import Query
from mlcore.testing import Writer, new_id, points, run_batch
from mlcore.testing._checking import at_once, raised
from mlcore_remote.addresses import address_of
from mlcore_remote.connection import Connection, shared
from mlcore_remote.store import RemoteStore, open_store
from remote_peers import Door, Peer, Proxy, Request, Scripted, answer, pump, scripted
from serving import Thread, serving, serving_here

VERSION = {"Mlcore-Version": "0.1.0"}


def jsoned(status: str, body: object, **headers: str) -> bytes:
    """Return an answer as a server of mlcore gives it."""
    return answer(status, json.dumps(body).encode(), Content_Type="application/json", Mlcore_Version="0.1.0", **headers)


def failed(status: str, kind: str, message: str, **headers: str) -> bytes:
    """Return an error as a server of mlcore gives it."""
    return jsoned(status, {"error": {"type": kind, "message": message, "details": {}}}, **headers)


OK = jsoned("200 OK", {"results": [None]})
PAGE = jsoned("200 OK", {"items": [], "token": None, "count": None})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Thread]:
    """Yield a server of an empty folder store."""
    with serving_here(tmp_path / "store") as running:
        yield running


class TestWhereAServerIs:
    @pytest.mark.parametrize(
        ("uri", "base"),
        [
            ("http://h", "http://h"), ("HTTP://H:80/", "http://h"), ("https://h:443/a/b/", "https://h/a/b"),
            ("https://h:8443", "https://h:8443"), ("http://[::1]:5151/", "http://[::1]:5151"),
            ("http+unix:///run/ml.sock", "http+unix:///run/ml.sock"), ("http://h:443", "http://h:443"),
            ("http+unix:///run/ml.sock/a/", "http+unix:///run/ml.sock/a"),
            ("http+unix://%2Frun%2Fml.sock", "http+unix:///run/ml.sock"),
            ("http+unix:///run/other", "http+unix://%2Frun%2Fother"), ("http+unix://%2Fa/b/", "http+unix://%2Fa/b"),
            ("http+unix:///a.sock/b.sock", "http+unix:///a.sock/b.sock"), ("http+unix:///%20.sock", "http+unix:///%20.sock"),
            (" https://h/user/a@b/proxy/1 ", "https://h/user/a@b/proxy/1"),
        ],
    )  # fmt: skip
    def test_a_uri_has_one_form(self, uri: str, base: str) -> None:
        """Guards tokens, which are kept by it."""
        assert address_of(uri).base == base
        assert address_of(base).base == base

    @pytest.mark.parametrize(
        "wrong",
        [
            "http://", "ftp://h", "h:80", "http://h:0", "http://h:99999", "http://h:x", "http://h?a=1", "http://h/#a",
            "http://h/a b", "http://h/../x", "http://h/%2e%2e/x", "http://a b", "http://h\\@evil", "http://[::1", "http://ä",
            "http+unix://", "http+unix://relative.sock", "http+unix:///" + "x" * 108, "http://h/\r\nX: 1", "http://[h]",
        ],
    )  # fmt: skip
    def test_what_is_no_server_is_said_before_anything_is_asked(self, wrong: str) -> None:
        with pytest.raises(ConfigError):
            RemoteStore(wrong)

    @pytest.mark.parametrize("uri", ["https://ml:secret@h/x", "https://secret@h", "https://:secret@h"])
    def test_a_password_in_a_uri_is_refused_and_not_shown(self, uri: str) -> None:
        """Guards against tokens in shell histories, process lists and logs."""
        with pytest.raises(ConfigError, match="mlcore login") as error:
            open_store(uri)
        assert "secret" not in str(error.value)

    def test_nothing_is_connected_to_before_the_first_question(self) -> None:
        """Guards the start of a training from a server that is down."""
        with scripted([OK]) as peer:
            store = RemoteStore(peer.url)
            repr(store)
            store.place("r")
            store.close()
            assert peer.connections == 0

    def test_a_run_has_its_place_on_the_server(self) -> None:
        assert RemoteStore("https://h/a").place("r") == "mlcore+https://h/a/runs/r/files"
        assert RemoteStore("http+unix:///a.sock").place("r") == "mlcore+http+unix:///a.sock/runs/r/files"


class TestOneConnection:
    def test_it_is_kept_open(self, server: Thread) -> None:
        """Guards against a handshake for every question."""
        with Counting(server.port) as counted:
            store = RemoteStore(counted.url, token=server.token)
            for _ in range(5):
                store.append(run_batch())
                store.find("run", Query())
                list(store.events())
            store.close()
            assert counted.connections == 1

    def test_head_and_body_arrive_together(self) -> None:
        """Guards against the 40 ms that two small writes may cost."""
        parts: list[bytes] = []

        def serve(connection: socket.socket) -> None:
            while part := connection.recv(1 << 20):
                parts.append(part)
                connection.sendall(OK)

        peer = Peer(serve)
        store = RemoteStore(f"http://127.0.0.1:{peer.port}")
        for _ in range(3):
            store.append(run_batch())
        store.close()
        peer.close()
        assert len(parts) == 3
        assert all(part.startswith(b"POST") and b"mlcb" in part for part in parts)

    def test_threads_share_it(self, server: Thread) -> None:
        store = RemoteStore(server.url, token=server.token)
        batches = [run_batch() for _ in range(24)]
        assert raised(at_once([lambda batch=batch: store.append(batch) for batch in batches])) == []  # type: ignore[misc]
        assert len(store.find("run", Query()).items) == 24
        store.close()

    def test_the_child_of_a_fork_opens_its_own(self, tmp_path: Path) -> None:
        """Guards data loaders: two processes on one socket would read each other's answers."""
        with serving(tmp_path / "store") as server:  # a process: nobody forks with threads of a server
            store = RemoteStore(server.url, token=server.token)
            store.append(run_batch())
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=_append_some, args=[store]) for _ in range(2)]
            for child in children:
                child.start()
            for _ in range(20):
                store.append(run_batch())
            for child in children:
                child.join(60)
                assert child.exitcode == 0
            assert len(store.find("run", Query()).items) == 61
            store.close()

    def test_it_may_be_closed_and_used_again(self, server: Thread) -> None:
        store = RemoteStore(server.url, token=server.token)
        for _ in range(3):
            store.append(run_batch())
            store.close()
            store.close()

    def test_who_asks_for_the_same_server_shares_one(self) -> None:
        assert shared("http://h:80/") is shared("http://H")
        assert shared("http://h") is not shared("https://h")

    def test_a_connection_that_was_idle_too_long_is_no_error(self) -> None:
        """Guards against a load balancer that closes what is idle just when it is used, whatever `attempts` is."""
        with scripted([PAGE, None, PAGE]) as peer:
            store = RemoteStore(peer.url, attempts=1)
            store.find("run", Query())
            store.find("run", Query())
            assert len(peer.requests) == 3
            store.close()


class Counting:
    """Count connections to a server, and pass on what goes over them."""

    def __init__(self, port: int) -> None:

        def serve(connection: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", port)) as other:
                pump(connection, other)

        self._peer = Peer(serve)
        self.url = f"http://127.0.0.1:{self._peer.port}"

    @property
    def connections(self) -> int:
        return self._peer.connections

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()


def _append_some(store: RemoteStore) -> None:
    for _ in range(20):
        store.append(run_batch())
    os._exit(0)


class TestTryingAgain:
    @pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 X"])
    def test_what_passes_is_waited_for(self, status: str) -> None:
        with scripted([answer(status, b"<html>"), answer(status), OK]) as peer:
            RemoteStore(peer.url).append(run_batch())
            assert len(peer.requests) == 3
            assert len({request.body for request in peer.requests}) == 1

    def test_an_answer_that_was_cut_off_is_asked_for_again(self) -> None:
        """Guards exactly once: the batch is sent again as it was, and the store knows it."""
        with scripted([None, OK[:-5].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK]) as peer:
            RemoteStore(peer.url).append(run_batch())
            assert len(peer.requests) == 3
            assert len({request.body for request in peer.requests}) == 1

    def test_a_server_says_how_long_to_wait(self) -> None:
        with scripted([failed("503 Service Unavailable", "StoreError", "busy", Retry_After="1"), OK]) as peer:
            begin = time.monotonic()
            RemoteStore(peer.url).append(run_batch())
            assert 1.0 <= time.monotonic() - begin < 5

    def test_a_server_that_wants_too_long_is_given_up(self) -> None:
        """Guards a command line from sleeping for an hour."""
        with scripted([failed("503 Service Unavailable", "StoreError", "upgrading", Retry_After="3600")]) as peer:
            with pytest.raises(StoreError, match=f"{peer.url}: upgrading"):
                RemoteStore(peer.url).find("run", Query())
            assert len(peer.requests) == 1

    def test_pauses_grow_and_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards a server that comes back from all its clients at the same moment."""
        pauses: list[float] = []
        monkeypatch.setattr("mlcore_remote.connection.time.sleep", pauses.append)
        with scripted([answer("503 X")]) as peer:
            for _ in range(10):
                with pytest.raises(StoreError):
                    RemoteStore(peer.url).find("run", Query())
        assert len(pauses) == 30 and len(set(pauses)) == 30
        assert [max(pauses[n::3]) < 0.2 * 2**n * 1.5 and min(pauses[n::3]) >= 0.2 * 2**n / 2 for n in range(3)] == [
            True
        ] * 3

    def test_what_does_not_pass_is_not_tried_again(self) -> None:
        for said in (
            failed("400 Bad Request", "InvalidValue", "no"), failed("500 Internal Server Error", "MlcoreError", "bug"),
            answer("401 Unauthorized"), answer("404 Not Found"), answer("301 Moved", Location="http://other/"),
        ):  # fmt: skip
            with scripted(
                lambda request, said=said: said if "version" not in request.line else answer("404 X")
            ) as peer:  # type: ignore[misc]
                with pytest.raises(MlcoreError):
                    RemoteStore(peer.url).get("run", ["a"])
                assert len([each for each in peer.requests if "version" not in each.line]) == 1

    def test_timeouts_are_the_callers(self) -> None:
        """Guards the uploader, which may wait for no more than a moment."""
        with scripted([Scripted.SILENCE]) as peer:
            begin = time.monotonic()
            with pytest.raises(StoreError, match="has not answered within the time"):
                RemoteStore(peer.url, read=0.2, attempts=1).append(run_batch())
            with pytest.raises(StoreError, match="has not answered within the time"):
                Connection(peer.url).request("GET", "/x", read=0.2, attempts=1)
            assert time.monotonic() - begin < 3

    def test_an_answer_that_trickles_is_given_up(self) -> None:
        """Guards against a server that is never silent for long, and never done."""

        def trickle(connection: socket.socket) -> None:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(1_000):
                connection.sendall(b" ")
                time.sleep(0.05)

        peer = Peer(trickle)
        begin = time.monotonic()
        with pytest.raises(StoreError, match="has not answered within the time"):
            RemoteStore(f"http://127.0.0.1:{peer.port}", read=0.1, attempts=1).find("run", Query())
        assert time.monotonic() - begin < 20
        peer.close()

    def test_a_stream_that_was_cut_off_goes_on_where_it_was(self, server: Thread) -> None:
        """Guards `events`: all of it, once, whatever the connection does."""
        store = RemoteStore(server.url, token=server.token)
        for _ in range(6):
            store.append(run_batch(metrics={"loss": [1.0]}))
        wanted = [(each.position, each.batch) for each in store.events()]
        assert len(wanted) == 6
        cuts = iter([700, 1_000, 400, 10_000_000])

        def cut(connection: socket.socket) -> None:
            left = next(cuts)
            with socket.create_connection(("127.0.0.1", server.port)) as other:
                request = connection.recv(65_536).replace(b"Accept-Encoding: gzip\r\n", b"")
                other.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                while left > 0 and (part := other.recv(min(left, 100))):
                    left -= len(part)
                    connection.sendall(part)

        peer = Peer(cut)
        broken = RemoteStore(f"http://127.0.0.1:{peer.port}", token=server.token)
        assert [(each.position, each.batch) for each in broken.events()] == wanted
        assert peer.connections == 4
        peer.close()
        store.close()


class TestWhatIsSent:
    def test_long_bodies_are_compressed_and_short_ones_not(self) -> None:
        with scripted([OK]) as peer:
            store = RemoteStore(peer.url)
            store.append(run_batch())
            store.append(long := run_batch(params={f"name {n}": "some text" for n in range(500)}))
            short, packed = peer.requests
            assert "content-encoding" not in short.headers
            assert packed.headers["content-encoding"] == "gzip"
            from mlcore_remote.protocol import unpack_batches

            assert unpack_batches(gzip.decompress(packed.body))[0].records == long.records
            assert packed.headers["mlcore-version"] == packed.headers["user-agent"].removeprefix("mlcore/")

    def test_a_server_takes_what_is_compressed(self, server: Thread) -> None:
        store = RemoteStore(server.url, token=server.token)
        store.append(run_batch(name := new_id(), params={f"name {n}": "some text" for n in range(2_000)}))
        (found,) = store.get("run", [name])
        assert found is not None and len(found.attributes["params"]) == 2_000

    def test_much_is_sent_in_parts(self, server: Thread) -> None:
        """Guards against messages that a server or a proxy would not take, and keeps every record."""
        store = RemoteStore(server.url, token=server.token)
        writer = Writer(new_id())
        for _ in range(30):
            columns = [points(writer.home, f"k{n}", [0.5] * 2_000) for n in range(10)]
            writer.batch(*columns)
        whole = writer.cut(1)
        assert store.append_all([whole, run_batch(), whole]) == [None, None, None]
        assert sum(len(each.batch.records) for each in store.events(of=writer.home)) == 30
        assert len(store.series("run", [writer.home], ["k3"])[writer.home, "k3", ""]) == 60_000

    def test_less_is_sent_where_a_proxy_takes_no_more(self) -> None:
        """Guards against the limit of nginx, of which the client learns by 413 only."""
        sizes: list[int] = []

        def small(request: Request) -> bytes:
            body = gzip.decompress(request.body) if "content-encoding" in request.headers else request.body
            sizes.append(len(body))
            if len(body) > 3_000:
                return answer("413 Request Entity Too Large", b"<html><title>413</title>", Server="nginx")
            from mlcore_remote.protocol import unpack_batches

            return jsoned("200 OK", {"results": [None] * len(unpack_batches(body))})

        with scripted(small) as peer:
            store = RemoteStore(peer.url)
            writer = Writer(new_id())
            for number in range(50):
                writer.batch(points(writer.home, "loss", [float(number)] * 20))
            assert store.append_all([writer.cut(1), *(run_batch() for _ in range(20))]) == [None] * 21
            assert len([size for size in sizes if size <= 3_000]) > 8
            with pytest.raises(StoreError, match="client_max_body_size"):
                store.append(run_batch(params={"note": "x" * 5_000}))

    def test_a_record_that_no_server_would_take_is_refused_at_once(self) -> None:
        with scripted([OK]) as peer:
            writer = Writer(new_id())
            with pytest.raises(Refused, match="no record may be that large"):
                RemoteStore(peer.url).append(writer.batch(*[points("r", "k", [0.0])] * 100_001))
            assert peer.requests == []

    def test_one_failure_is_the_result_of_all_that_were_not_sent(self) -> None:
        """Guards whoever ships many: what was not stored is never taken for stored."""
        with scripted([OK, failed("503 X", "StoreError", "the disk is full")]) as peer:
            store = RemoteStore(peer.url, attempts=1)
            writer = Writer(new_id())
            large = [writer.batch(*[points(writer.home, f"k{n}", [0.5] * 2_000) for n in range(90)]) for _ in range(3)]
            found = store.append_all(large)
            assert [type(each) for each in found] == [type(None), StoreError, StoreError]
            assert len(peer.requests) == 2


HTML = b"<!doctype html><html><head><title>Sign in - Corp</title></head></html>"


class TestSomethingElseAnswers:
    def ask(self, *said: bytes | None) -> MlcoreError:
        """Return what a client makes of answers, the last of which is given again and again."""
        with scripted(list(said)) as peer, pytest.raises(MlcoreError) as error:
            RemoteStore(peer.url, attempts=1, read=2).find("run", Query())
        assert f"http://127.0.0.1:{peer.port}" in str(error.value)
        assert type(error.value) in (StoreError, AccessDenied, NewerFormat)
        return error.value

    def test_a_login_page(self) -> None:
        assert "a page titled 'Sign in - Corp'" in str(self.ask(answer("200 OK", HTML, Content_Type="text/html")))

    def test_a_page_that_says_no(self) -> None:
        error = self.ask(answer("403 Forbidden", HTML, Server="oauth2"))
        assert isinstance(error, AccessDenied) and error.status == 403
        assert "its own login" in str(error)

    def test_an_mlflow_server(self) -> None:
        page = answer("404 Not Found", b"<!doctype html><title>404 Not Found</title>", Server="gunicorn")
        assert "is an MLflow server" in str(self.ask(page, answer("200 OK", b"3.18.0", Content_Type="text/html")))

    def test_a_jupyter_server(self) -> None:
        page = b"<html><title>Jupyter Server</title>"
        assert "a Jupyter server" in str(self.ask(answer("404 Not Found", page, Server="TornadoServer/6.4")))

    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"OK", b"\x00\xff", b'{"items":1}', b"[" * 5_000])
    def test_nonsense_with_a_good_status(self, body: bytes) -> None:
        assert "no answer of an mlcore server" in str(self.ask(answer("200 OK", body)))

    def test_a_redirect_is_told_and_not_followed(self) -> None:
        """Guards the token, which is meant for one server."""
        with scripted([PAGE]) as other:
            for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
                error = self.ask(answer(status, Location=f"{other.url}/elsewhere"))
                assert "sends us on to" in str(error) and other.url in str(error)
            assert other.connections == 0

    def test_a_proxy_that_cannot_reach_the_server(self) -> None:
        error = self.ask(answer("502 Bad Gateway", b"<html><title>502 Bad Gateway</title>", Server="nginx/1.27"))
        assert "answers 502 Bad Gateway, from a page titled '502 Bad Gateway' of the server 'nginx/1.27'" in str(error)

    def test_an_answer_that_is_too_short(self) -> None:
        error = self.ask(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{")
        assert "was cut off" in str(error)

    def test_broken_compression(self) -> None:
        assert "compression is broken" in str(self.ask(answer("200 OK", b"no gzip", Content_Encoding="gzip")))

    def test_a_bomb(self) -> None:
        """Guards the memory of a client from a few kB that are a gigabyte."""
        bomb = gzip.compress(b"[" * (1 << 20) * 64, 9)
        with scripted([answer("200 OK", bomb, Content_Encoding="gzip")]) as peer:
            connection = Connection(peer.url, attempts=1)
            with pytest.raises(StoreError, match="more than 1,048,576 bytes"):
                connection.request("GET", "/", limit=1 << 20)

    def test_something_that_speaks_no_http(self) -> None:
        assert "does not speak HTTP; if it speaks https" in str(self.ask(b"SSH-2.0-OpenSSH_9.6\r\nConnection: close"))

    def test_text_cannot_move_the_cursor(self) -> None:
        page = b"<title>\x1b[2Jhello</title>"
        assert "\x1b" not in str(self.ask(answer("404 Not Found", page)))
        assert "\x1b" not in str(self.ask(failed("503 X", "StoreError", "\x1b[2J")))

    def test_headers_that_never_end(self) -> None:
        assert self.ask(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"Connection: close\r\n\r\n")


class TestNothingAnswers:
    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        begin = time.monotonic()
        with pytest.raises(StoreError, match=f"no server answers at http://127.0.0.1:{port}: Connection refused"):
            RemoteStore(f"http://127.0.0.1:{port}").append(run_batch())
        assert time.monotonic() - begin < 10

    def test_no_such_name(self) -> None:
        with pytest.raises(StoreError, match=r"name no-such-host\.invalid of the server"):
            RemoteStore("http://no-such-host.invalid", attempts=1).find("run", Query())

    def test_a_black_hole(self) -> None:
        """Guards against the minutes after which the system gives up by itself."""
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):  # until its queue is full, and what comes is dropped
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        with pytest.raises(StoreError, match="no connection in time"):
            RemoteStore(f"http://127.0.0.1:{full.getsockname()[1]}", connect=0.3, attempts=1).append(run_batch())
        for each in (full, *fillers):
            each.close()

    def test_no_such_socket(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="No such file or directory; is it running"):
            RemoteStore(f"http+unix://{tmp_path}/no.sock", attempts=1).find("run", Query())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return an authority that nobody else trusts."""
    return trustme.CA()


@pytest.fixture
def certificates(authority: trustme.CA, tmp_path: Path) -> str:
    """Return the file with the certificate of the authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def door(server: Thread, authority: trustme.CA) -> Iterator[Door]:
    """Yield a way to the server by TLS, with a certificate for localhost and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "far.example").configure_cert(context)
    found = Door(server.port, context)
    yield found
    found.close()


class TestEncryption:
    @pytest.mark.parametrize("name", ["MLCORE_CA", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_an_own_authority_is_named_by_a_variable(
        self,
        name: str,
        server: Thread,
        door: Door,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
        for host in ("localhost", "127.0.0.1"):
            store = RemoteStore(f"https://{host}:{door.port}", token=server.token)
            store.append(run_batch())
            list(store.events())
            store.close()
        assert len(store.find("run", Query()).items) == 2

    def test_a_certificate_of_nobody_known_is_refused(self, door: Door) -> None:
        """Guards against whoever sits in between; nothing was sent."""
        begin = time.monotonic()
        with pytest.raises(StoreError, match="signed by nobody this machine trusts: set MLCORE_CA"):
            RemoteStore(f"https://localhost:{door.port}").find("run", Query())
        assert time.monotonic() - begin < 3  # to try again would not help

    def test_a_certificate_for_another_name_is_refused(
        self, server: Thread, authority: trustme.CA, certificates: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLCORE_CA", certificates)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("other.example").configure_cert(context)
        other = Door(server.port, context)
        with pytest.raises(StoreError, match="for another name"):
            RemoteStore(f"https://localhost:{other.port}").find("run", Query())
        other.close()

    @pytest.mark.parametrize("content", [None, b"no certificate"])
    def test_a_variable_that_names_no_certificates_is_an_error(
        self, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if content:
            (tmp_path / "ca.pem").write_bytes(content)
        monkeypatch.setenv("MLCORE_CA", str(tmp_path / "ca.pem"))
        with pytest.raises(ConfigError, match=r"MLCORE_CA names no certificates.*ca\.pem"):
            RemoteStore("https://localhost:1").find("run", Query())

    def test_https_where_plain_http_is_spoken(self, server: Thread) -> None:
        with pytest.raises(StoreError, match="does not speak TLS: if it is plain HTTP, begin its URI with http://"):
            RemoteStore(f"https://127.0.0.1:{server.port}").find("run", Query())

    def test_plain_http_where_https_is_spoken(self, door: Door) -> None:
        with pytest.raises(StoreError, match=r"does not speak HTTP; if it speaks https|was cut off"):
            RemoteStore(f"http://127.0.0.1:{door.port}", attempts=1).find("run", Query())


class TestProxies:
    @pytest.fixture
    def proxy(self) -> Iterator[Proxy]:
        """Yield a proxy for which every name is this machine."""
        found = Proxy()
        yield found
        found.close()

    def test_plain_http_is_forwarded(self, server: Thread, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", proxy.url)
        with serving_here(server.app.service.settings.store, allowed_hosts=("far.example",)) as far:
            store = RemoteStore(f"http://far.example:{far.port}", token=far.token)
            store.append(run_batch())
            assert len(store.find("run", Query()).items) == 1
        assert proxy.seen[0].line == f"POST http://far.example:{far.port}/api/v1/batches HTTP/1.1"

    def test_https_goes_through_a_tunnel(
        self, server: Thread, authority: trustme.CA, certificates: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards the token: the proxy carries what it cannot read."""
        monkeypatch.setenv("MLCORE_CA", certificates)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.removeprefix("http://"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("far.example").configure_cert(context)
        with serving_here(server.app.service.settings.store, allowed_hosts=("far.example",)) as far:
            door = Door(far.port, context)
            store = RemoteStore(f"https://far.example:{door.port}", token=far.token)
            store.append(run_batch())
            store.append(run_batch())
            store.close()
            door.close()
        (seen,) = proxy.seen
        assert seen.line.startswith(f"CONNECT far.example:{door.port}")
        assert far.token not in str(seen)

    def test_a_proxy_may_want_a_password(self, server: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = Proxy("Basic bWU6cEBzcw==")
        with serving_here(server.app.service.settings.store, allowed_hosts=("far.example",)) as far:
            monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
            RemoteStore(f"http://far.example:{far.port}", token=far.token).append(run_batch())
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            with pytest.raises(AccessDenied, match="407"):
                RemoteStore(f"http://far.example:{far.port}", token=far.token).append(run_batch())
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{proxy.port}")
            with pytest.raises(StoreError, match=r"proxy on the way to .*407") as error:
                RemoteStore("https://far.example", attempts=1).append(run_batch())
            assert "secret" not in str(error.value)
        proxy.close()

    @pytest.mark.parametrize("excepted", ["*", "far.example", ".example", "other,far.example:1"])
    def test_what_is_excepted_goes_directly(self, excepted: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", excepted)
        with pytest.raises(StoreError):
            RemoteStore("http://far.example:1", attempts=1, connect=0.5).find("run", Query())
        assert proxy.seen == []

    def test_this_machine_is_asked_without_a_proxy(
        self, server: Thread, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Guards the token of a server of this machine, which is nothing for a proxy to see."""
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        RemoteStore(server.url, token=server.token).append(run_batch())
        assert proxy.seen == []

    def test_a_proxy_that_is_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        with pytest.raises(StoreError, match=r"the proxy on the way to https://far.* not let through: .*refused"):
            RemoteStore("https://far.example", attempts=1).find("run", Query())

    def test_a_kind_of_proxy_that_is_not_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
        with pytest.raises(ConfigError, match="one of socks5"):
            RemoteStore("https://far.example", attempts=1).find("run", Query())


class TestUnixSockets:
    def test_a_server_listens_at_a_path(self, tmp_path: Path) -> None:
        """Guards the way without any port: whoever may open the socket is let in by the token beside it."""
        path = tmp_path / "ml.sock"
        with serving(tmp_path / "store", "--unix-socket", str(path)) as server:
            store = RemoteStore(server.url, token=server.token)
            store.append(run_batch())
            assert len(store.find("run", Query()).items) == 1
            assert len(list(store.events())) == 1
            store.close()


class TestAnotherVersion:
    def test_a_server_of_a_newer_protocol_is_refused_by_name(
        self, server: Thread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        about = {"mlcore": "0.9.0", "api": 2, "capabilities": {}}

        def later(request: Request) -> bytes:
            if request.line.startswith("GET /version"):
                return jsoned("200 OK", about)
            return failed("404 Not Found", "StoreError", "there is nothing at this path")

        with scripted(later) as peer:
            store = RemoteStore(peer.url)
            for ask in (
                lambda: store.append(run_batch()), lambda: store.find("run", Query()), lambda: store.get("run", ["a"]),
                lambda: list(store.events()), lambda: store.series("run", ["a"]), lambda: store.capabilities,
            ):  # fmt: skip
                with pytest.raises(
                    NewerFormat, match=r"mlcore 0\.9\.0, speaks protocol 2, newer than 1: upgrade mlcore-remote"
                ):
                    ask()
            about |= {"api": 0}
            with pytest.raises(StoreError, match="older than 1: upgrade mlcore-server there"):
                _ = store.capabilities
            about |= {"api": 2, "oldest_api": 1, "capabilities": {"claims": True, "later": {"a": 1}}}
            assert store.capabilities.claims

    @pytest.mark.parametrize("version", ["0.0.9", "0.2.0", "1.0.0.dev1+x"])
    def test_one_of_another_version_works(self, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Guards that nobody must upgrade all machines at once."""
        monkeypatch.setattr("mlcore.__version__", version)
        with serving_here(tmp_path / "store") as server:
            monkeypatch.undo()
            store = RemoteStore(server.url, token=server.token)
            store.append(run_batch())
            assert store.connection.version == version
            assert len(store.find("run", Query()).items) == 1 and store.capabilities.claims

    def test_bytes_of_a_newer_format_are_refused_by_name(self, server: Thread) -> None:
        from mlcore_remote.protocol import API, BATCHES, pack_batches, unpack_series

        later = bytearray(pack_batches([run_batch()]))
        later[4] = 2
        connection = Connection(server.url, token=server.token)
        with pytest.raises(NewerFormat, match="version 2 of its format, newer than 1"):
            connection.request("POST", f"{API}/batches", body=bytes(later), headers={"Content-Type": BATCHES})
        with pytest.raises(NewerFormat):
            unpack_series(b"mlcs\x02\0\0\0")

    def test_a_store_of_a_newer_schema_is_refused_by_name(self, tmp_path: Path) -> None:
        from mlcore_local import FolderStore

        FolderStore(tmp_path / "store").append(run_batch())
        about = tmp_path / "store" / "store.json"
        about.write_text(about.read_text().replace('"format":1', '"format":9'))
        with serving_here(tmp_path / "store") as server, pytest.raises(NewerFormat, match="has format 9, newer than 1"):
            RemoteStore(server.url, token=server.token).find("run", Query())


class TestErrorsOfTheStore:
    def test_they_come_through(self, server: Thread) -> None:
        """Guards that a client tells apart over HTTP what it tells apart on a disk."""
        from mlcore.errors import AlreadyExists, OutOfOrder, PositionLost

        store = RemoteStore(server.url, token=server.token)
        store.append(run_batch(claim="name/x"))
        with pytest.raises(AlreadyExists) as taken:
            store.append(run_batch(claim="name/x"))
        assert taken.value.claim == "name/x" and len(taken.value.holder) == 32
        writer = Writer(new_id())
        for _ in range(3):
            writer.batch(points(writer.home, "loss", [1.0]))
        with pytest.raises(OutOfOrder) as gap:
            store.append(writer.cut(3))
        assert (gap.value.source, gap.value.expected, gap.value.given) == (writer.source, 1, 3)
        with pytest.raises(PositionLost):
            list(store.events("no such position"))
        with pytest.raises(NotFound, match="no 'run' of id"):
            store.connection.request("GET", "/api/v1/entities/run/none")

    def test_a_thread_that_closes_does_not_break_another(self, server: Thread) -> None:
        store = RemoteStore(server.url, token=server.token)
        ended = threading.Event()

        def close() -> None:
            while not ended.wait(0.01):
                store.close()

        closing = threading.Thread(target=close)
        closing.start()
        for _ in range(30):
            store.append(run_batch())
        ended.set()
        closing.join()
        assert len(store.find("run", Query()).items) == 30
