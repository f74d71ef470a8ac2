"""Azurite for tests: Microsoft's own emulator of Azure Blob Storage, thrown away, on this machine only."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import http.client
import os
import re
import signal
import sys
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers import KINDS, SECONDS, Server, find_program, reap, share

ACCOUNT, OTHER = "mltests", "mlothers"
KEY, OTHER_KEY = (base64.b64encode(hashlib.sha512(name.encode()).digest()).decode() for name in (ACCOUNT, OTHER))
_VERSION = "2024-11-04"
_EVERYTHING = "racwdl"


class Azurite(Server):
    """Run the part for blobs; a container is what a database is elsewhere."""

    name, schemes, user = "Azurite", ("az",), "nobody"
    package, program = "azurite", "azurite-blob"
    end = crash = signal.SIGKILL  # nothing that it has is kept

    @property
    def url(self) -> str:
        """Return where the account is."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY};{OTHER}:{OTHER_KEY}"}

    def create(self) -> None:
        """Need nothing: it is all in memory."""

    def command(self, port: int) -> list[str | Path]:
        return [
            find_program("azurite-blob") or "azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", str(port),
            "--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck",
        ]  # fmt: skip

    def connect(self, port: int) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.request("GET", "/")
        connection.getresponse().read()  # that it cannot be asked that, and so it is there
        return connection

    @contextmanager
    def container(self) -> Iterator[Container]:
        """Make an empty container, yield it, and remove it with all that it then has."""
        self._count += 1
        container = Container(self.port, f"t{os.getpid()}-{self._count}-{os.urandom(3).hex()}")
        container.call("PUT", restype="container")
        try:
            yield container
        finally:
            if self.running():
                container.call("DELETE", restype="container")


KINDS["azurite"] = Azurite


class Container:
    """Look into a container by plain signed requests, with none of the code that is tested."""

    def __init__(self, port: int, name: str) -> None:
        self.port, self.name = port, name

    @property
    def uri(self) -> str:
        return f"az://{self.name}"

    @property
    def url(self) -> str:
        """Return where the account is."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def settings(self, url: str = "", **others: str) -> dict[str, str]:
        """Return what the environment must say for clients to reach it, at another URL if a proxy is before it."""
        return {
            "AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_ENDPOINT": url or self.url,
        } | others  # fmt: skip

    def call(self, method: str, name: str = "", body: bytes = b"", **query: str) -> bytes:
        """Send one request that the account's key signs. Raises `RuntimeError` with what an error says."""
        path = urllib.parse.quote(f"/{ACCOUNT}/{self.name}" + (f"/{name}" if name else ""))
        now = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": now, "x-ms-version": _VERSION} | ({"x-ms-blob-type": "BlockBlob"} if body else {})
        lines = "".join(f"{each}:{headers[each]}\n" for each in sorted(headers))
        asked = "".join(f"\n{each}:{query[each]}" for each in sorted(query))
        size = str(len(body)) if body else ""
        text = f"{method}\n\n\n{size}\n\n\n\n\n\n\n\n\n{lines}/{ACCOUNT}{path}{asked}"
        headers["authorization"] = f"SharedKey {ACCOUNT}:{_signed(text)}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, f"{path}?{urllib.parse.urlencode(query)}", body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode(errors='replace')}")
        return content

    def sizes(self, **query: str) -> dict[str, int]:
        """Return the sizes of all blobs by name; with ``include="uncommittedblobs"`` also of what is only begun."""
        found, marker = dict[str, int](), {"x": ""}
        while marker:
            page = self.call("GET", restype="container", comp="list", **query, **(marker if "marker" in marker else {}))
            root = ET.fromstring(page.decode("utf-8-sig"))
            for blob in root.iter("Blob"):
                found[blob.findtext("Name", "")] = int(blob.findtext("Properties/Content-Length") or 0)
            next_ = root.findtext("NextMarker")
            marker = {"marker": next_} if next_ else {}
        return found

    def names(self) -> list[str]:
        """Return the names of all blobs."""
        return sorted(self.sizes())

    def token(self, permissions: str = _EVERYTHING, hours: float = 1.0) -> str:
        """Return a SAS token for the container, whose end may have passed."""
        now = datetime.datetime.now(datetime.UTC)
        begin, end = ((now + datetime.timedelta(hours=each)).strftime("%Y-%m-%dT%H:%M:%SZ") for each in (-2, hours))
        allowed = "".join(each for each in _EVERYTHING if each in permissions)
        given = [allowed, begin, end, f"/blob/{ACCOUNT}/{self.name}", "", "", "", "2020-12-06", "c", *[""] * 7]
        query = {"sv": "2020-12-06", "st": begin, "se": end, "sr": "c", "sp": allowed, "sig": _signed("\n".join(given))}
        return urllib.parse.urlencode(query)


def _signed(text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()


# Fixtures: a conftest.py imports those that its folder needs.


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Yield the server that all tests of this session share: do not stop it."""
    if Azurite.missing():
        pytest.skip("no azurite-blob: npm install --global azurite")
    base = tmp_path_factory.getbasetemp()
    server, lock = share("azurite", base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    assert isinstance(server, Azurite)
    yield server
    lock.close()


@pytest.fixture
def container(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    """Yield an empty container, and let the environment say how to reach it, and nothing of another."""
    for name in [name for name in os.environ if re.match("AZURE_|MLCORE_AZURE_|REQUESTS_CA", name)]:
        monkeypatch.delenv(name)
    with azurite.container() as found:
        for name, value in found.settings().items():
            monkeypatch.setenv(name, value)
        yield found


if __name__ == "__main__":
    reap(sys.argv[1], Path(sys.argv[2]))
