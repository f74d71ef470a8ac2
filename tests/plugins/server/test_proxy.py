"""The server behind a real nginx, as docs/examples/proxy/nginx.conf puts it there: TLS, and a path of its own."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

import mlcore
from house.tree import ROOT
from servers import SECONDS, find_program, free_port
from serving import serving

NAME = "runs.example.org"
TOKEN = "mlc_0123456789abcdefghijklmnopqrstuvwxyz"


class Proxy:
    """Know where nginx is, and ask it as a browser or a program does that resolves the name."""

    def __init__(self, port: int, authority: Path) -> None:
        self.port, self.authority = port, authority
        self.url = f"https://localhost:{port}/mlcore"
        self._context = ssl.create_default_context(cafile=str(authority))

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=SECONDS, context=self._context)
        given = {"Host": NAME, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        answer.text = answer.read().decode()
        connection.close()
        return answer


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Run nginx and the server behind it, with the settings that the page shows."""
    program = find_program("nginx")
    if program is None:
        pytest.skip("no nginx: apt-get install --no-install-recommends nginx-light (or what your system calls it)")
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert(NAME, "localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    (folder / "tokens").write_text(f"team={TOKEN}\n")
    (folder / "tokens").chmod(0o600)
    options = ["--root-path", "/mlcore", "--allowed-hosts", f"{NAME},localhost", "--trusted-proxies", "127.0.0.1"]
    with serving(folder / "store", *options, "--token-file", str(folder / "tokens")) as server:
        settings = (ROOT / "docs" / "examples" / "proxy" / "nginx.conf").read_text()
        for shown, here in {
            "listen 443": f"listen 127.0.0.1:{port}", "127.0.0.1:5151": f"127.0.0.1:{server.port}",
            "/etc/ssl/certs/runs.pem": f"{folder}/both.pem", "/etc/ssl/private/runs.key": f"{folder}/both.pem",
            "http {": "http {\n" + "".join(
                f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ) + "access_log off;",
        }.items():  # fmt: skip
            assert settings.count(shown) == 1
            settings = settings.replace(shown, here)
        (folder / "nginx.conf").write_text(f"daemon off; pid {folder}/pid; error_log {folder}/errors;\n{settings}")
        process = subprocess.Popen(
            [str(program), "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")], stdin=subprocess.DEVNULL
        )
        found = Proxy(port, folder / "ca.pem")
        try:
            _wait(found, process, folder / "errors")
            yield found
        finally:
            process.terminate()
            process.wait(SECONDS)


def _wait(proxy: Proxy, process: subprocess.Popen[bytes], errors: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            assert proxy.ask("GET", "/mlcore/livez").status == 200
            return
        time.sleep(0.05)
    raise RuntimeError(f"nginx does not start:\n{errors.read_text()[-4000:]}")


def test_a_client_logs_and_reads_through_the_proxy(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards teams whose server has no address of its own: runs, points and a file of more than nginx would keep."""
    monkeypatch.setenv("MLCORE_CA", str(proxy.authority))
    monkeypatch.setenv("MLCORE_TOKEN", TOKEN)
    monkeypatch.setenv("MLCORE_SPOOL", str(tmp_path / "spool"))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    client = mlcore.Client(proxy.url)
    data = os.urandom(3 << 20)
    with client.start_run(name="behind") as run:
        run.log_metric("loss", 0.5)
        run.log_bytes(data, "large.bin")
    again = client.get_run(run.id)
    assert again.metrics == {"loss": 0.5}
    assert again.artifacts.get("large.bin").read_bytes() == data
    client.close()


def test_live_events_are_not_held_back_by_the_proxy(proxy: Proxy) -> None:
    """Guards dashboards: what nginx collects before it sends comes too late."""
    connection = http.client.HTTPSConnection("localhost", proxy.port, timeout=10, context=proxy._context)
    connection.request("GET", "/mlcore/api/v1/events/live", headers={"Authorization": f"Bearer {TOKEN}", "Host": NAME})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline() == b"event: ready\n"  # long before the connection ends
    answer.close()
    connection.close()


def test_the_server_knows_where_it_is_shown(proxy: Proxy) -> None:
    """Guards links, cookies and the check of origins, which need the path, the name and TLS that browsers see."""
    document = json.loads(proxy.ask("GET", "/mlcore/openapi.json").text)
    assert document["servers"] == [{"url": "/mlcore"}]
    ask = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/json"}
    own = proxy.ask("POST", "/mlcore/api/v1/find", '{"kind":"run"}', Origin=f"https://{NAME}", **ask)
    assert own.status in (200, 404), own.text  # 404: nothing was logged yet
    other = proxy.ask("POST", "/mlcore/api/v1/find", '{"kind":"run"}', Origin="https://elsewhere.example.org", **ask)
    assert other.status == 403
    assert proxy.ask("GET", "/mlcore/version", Host="elsewhere.example.org").status == 403
    assert proxy.ask("POST", "/mlcore/api/v1/find", '{"kind":"run"}', Content_Type="application/json").status == 401
