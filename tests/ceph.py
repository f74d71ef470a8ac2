"""A real S3 server for tests: Ceph's gateway with its own monitor and object store, thrown away, on this machine only.

It is one of the servers of `servers`, so it is started once for a whole test session, and stopped whatever happens.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from servers import KINDS, SECONDS, Server, as_nobody, find_program, free_port, reap, run, share

KEY, SECRET = "MLKEYOFTESTS", "mlSecret/of+tests0123"
OTHER_KEY, OTHER_SECRET = "OTHERKEYOFTESTS", "otherSecret/of+tests4567"  # a user who owns no bucket
REGION = "us-east-1"
_TRIES = 3
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv4 = true
ms bind retry count = 1
ms bind retry delay = 0
# No daemon asks another who it is; then "crc" must be said, or the gateway waits for a secure connection for ever.
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
# One copy of everything, in memory.
osd objectstore = memstore
memstore device bytes = 6442450944
osd memory target = 939524096
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd class load list = *
osd class default list = *
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
# A monitor alone has nobody to wait for, and this start would wait for it twenty times.
paxos propose interval = 0.01
paxos min wait = 0.01
# What is removed gives its memory back within seconds.
rgw gc obj min wait = 1
rgw gc processor period = 2
rgw gc processor max time = 2
# Better an error than to wait for ever.
rados osd op timeout = 60
rados mon op timeout = 60
rgw dns name = localhost
rgw crypt require ssl = false
rgw enable usage log = false
rgw enable ops log = false
run dir = {folder}
pid file = {folder}/$name.pid
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
mgr data = {folder}/mgr
rgw data = {folder}/rgw
"""


class Ceph(Server):
    """Run a monitor, an object store and the gateway that speaks S3; a bucket is what a database is elsewhere."""

    name, schemes, user = "Ceph", ("s3",), "ceph"
    package, program = "radosgw ceph-mon ceph-osd ceph-common", "radosgw"
    end = crash = signal.SIGKILL  # nothing that it has is kept

    @classmethod
    def missing(cls) -> str:
        wanted = ("radosgw", "ceph-mon", "ceph-osd", "ceph", "radosgw-admin", "monmaptool")
        return next((program for program in wanted if not find_program(program)), "")

    @property
    def url(self) -> str:
        """Return where it is, without a bucket."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "CEPH_CONF": str(self.folder / "ceph.conf")}

    def create(self) -> None:
        """Start what the gateway stands on, and make two users."""
        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                self._monitor()
                break
            except RuntimeError:  # somebody took the port between our look and its start
                if last:
                    raise
        id = str(uuid.uuid4())
        self._ceph("osd", "create", id)
        with suppress(RuntimeError):  # it asks for a keyring, which nothing here needs, after all else is done
            self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", id)
        self._ceph("osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
        self._daemon("osd.0", 0, "ceph-osd", "-i", "0")
        for name, key, secret in (("test", KEY, SECRET), ("other", OTHER_KEY, OTHER_SECRET)):
            self._run(
                "radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}",
                f"--access-key={key}", f"--secret={secret}",
            )  # fmt: skip

    def _monitor(self) -> None:
        monitor, fsid = free_port(), str(uuid.uuid4())
        text = _CONFIGURATION.format(folder=self.folder, fsid=fsid, monitor=monitor)
        (self.folder / "ceph.conf").write_text(text)
        address = f"[v2:127.0.0.1:{monitor}]"
        self._run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, "monmap")
        run(["rm", "-rf", "mon", "osd"], self)
        run(["mkdir", "osd"], self)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap")
        self._daemon("mon.a", monitor, "ceph-mon", "-i", "a")

    def _ceph(self, *arguments: str) -> str:
        return self._run("ceph", f"--connect-timeout={SECONDS}", *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        return run([find_program(program), *arguments], self)

    def _daemon(self, name: str, port: int, program: str, *arguments: str) -> None:
        """Start a daemon in the foreground, note its process, and wait for its port if it has a known one."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(find_program(program)), "-f", *arguments], cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, env=self.environment(), **as_nobody(self.user),
            )  # fmt: skip
        (self.folder / f"{name}.process").write_text(str(process.pid))
        deadline = time.monotonic() + SECONDS
        while port and not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program} does not start:\n{(self.folder / 'log').read_text()[-4000:]}")
            time.sleep(0.02)
        process.returncode = 0  # or Python warns that it still runs, as it is to

    def command(self, port: int) -> list[str | Path]:
        program = find_program("radosgw")
        assert program
        return [program, "-f", "-n", "client.rgw.a", f"--rgw-frontends=beast endpoint=127.0.0.1:{port} tcp_nodelay=1"]

    def connect(self, port: int) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200  # of nobody's buckets
        return connection

    def stop(self, immediate: bool = False) -> None:
        for name in ("osd.0", "mon.a") if immediate else ():
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.process").read_text()), signal.SIGKILL)
        super().stop(immediate)

    @contextmanager
    def bucket(self) -> Iterator[Bucket]:
        """Make an empty bucket, yield it, and remove it with all that it then has."""
        self._count += 1
        bucket = Bucket(self.port, f"t{os.getpid()}-{self._count}-{os.urandom(3).hex()}")
        bucket.call("PUT")
        try:
            yield bucket
        finally:
            if self.running():
                bucket.remove()


KINDS["ceph"] = Ceph


class Bucket:
    """Look into a bucket and set it up by plain signed requests, with none of the code that is tested."""

    def __init__(self, port: int, name: str, key: str = KEY, secret: str = SECRET) -> None:
        self.port, self.name, self.key, self.secret = port, name, key, secret

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    @property
    def url(self) -> str:
        """Return where the server is, without the bucket."""
        return f"http://127.0.0.1:{self.port}"

    def settings(self, url: str = "", **others: str) -> dict[str, str]:
        """Return what the environment must say for clients to reach it, at another URL if a proxy is before it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": url or self.url,
        } | others  # fmt: skip

    def call(self, method: str, name: str = "", body: bytes = b"", **query: str) -> bytes:
        """Send one signed request; return the body of the answer. Raises `RuntimeError` with what an error says."""
        path = urllib.parse.quote(f"/{self.name}/{name}" if name else f"/{self.name}")
        return send(self.port, method, path, body, query, (self.key, self.secret))

    def names(self) -> list[str]:
        """Return the names of all objects."""
        return sorted(each["Key"] for each in self._listed("Contents", **{"list-type": "2"}))

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all objects by name."""
        return {each["Key"]: int(each["Size"]) for each in self._listed("Contents", **{"list-type": "2"})}

    def uploads(self) -> list[tuple[str, str]]:
        """Return the name and the id of every upload by parts that was begun and neither ended nor given up."""
        return [(each["Key"], each["UploadId"]) for each in self._listed("Upload", uploads="")]

    def parts(self, name: str, upload: str) -> list[int]:
        """Return the numbers of the parts that have arrived of an upload."""
        return [int(each["PartNumber"]) for each in _records(self.call("GET", name, uploadId=upload), "Part")]

    def remove(self) -> None:
        """Remove the bucket and all that it has."""
        for name, upload in self.uploads():
            self.call("DELETE", name, uploadId=upload)
        names = self.names()
        for start in range(0, len(names), 1000):
            each = "".join(f"<Object><Key>{_escaped(name)}</Key></Object>" for name in names[start : start + 1000])
            self.call("POST", body=f"<Delete><Quiet>true</Quiet>{each}</Delete>".encode(), delete="")
        self.call("DELETE")

    def _listed(self, tag: str, **query: str) -> Iterator[dict[str, str]]:
        more: dict[str, str] = {}
        while True:
            page = self.call("GET", **query, **more)
            yield from _records(page, tag)
            text = re.sub(r"\sxmlns=\"[^\"]*\"", "", page.decode())
            root = ET.fromstring(text)
            if root.findtext("IsTruncated") != "true":
                return
            keys = {"continuation-token": "NextContinuationToken", "key-marker": "NextKeyMarker",
                    "upload-id-marker": "NextUploadIdMarker"}  # fmt: skip
            more = {key: found for key, name in keys.items() if (found := root.findtext(name))}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def _records(page: bytes, tag: str) -> list[dict[str, str]]:
    root = ET.fromstring(re.sub(r"\sxmlns=\"[^\"]*\"", "", page.decode()))
    return [{part.tag: part.text or "" for part in each} for each in root.iter(tag)]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\r", "&#13;")


def send(port: int, method: str, path: str, body: bytes, query: Mapping[str, str], keys: tuple[str, str]) -> bytes:
    """Send one request that is signed by AWS's Signature Version 4."""
    key, secret = keys
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    given = urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote)
    headers = {"host": f"127.0.0.1:{port}", "x-amz-content-sha256": digest, "x-amz-date": now}
    names, lines = ";".join(sorted(headers)), "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    request = hashlib.sha256(f"{method}\n{path}\n{given}\n{lines}\n{names}\n{digest}".encode()).hexdigest()
    signing = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{request}"
    signature = hmac.digest(signing, text.encode(), "sha256").hex()
    who = f"AWS4-HMAC-SHA256 Credential={key}/{scope}"
    headers["authorization"] = f"{who}, SignedHeaders={names}, Signature={signature}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request(method, f"{path}?{given}" if given else path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {content.decode(errors='replace')}")
    return content


# Fixtures: a conftest.py imports those that its folder needs.


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """Yield the S3 server that all tests of this session share: do not stop it."""
    if program := Ceph.missing():
        pytest.skip(f"no {program}: apt-get install --no-install-recommends {Ceph.package}")
    base = tmp_path_factory.getbasetemp()
    server, lock = share("ceph", base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    assert isinstance(server, Ceph)
    yield server
    lock.close()


@pytest.fixture
def bucket(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Yield an empty bucket, and let the environment say how to reach it, and nothing of another."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with ceph.bucket() as found:
        for name, value in found.settings().items():
            monkeypatch.setenv(name, value)
        yield found


if __name__ == "__main__":
    reap(sys.argv[1], Path(sys.argv[2]))
