"""A bucket that hands out links: a filesystem in memory whose objects can be had over HTTP by URLs that it signed.

It does what S3 does with such URLs, in this process, and can be told to do worse. What Ceph really does is tested with
`ceph`; this one is here for what no test can bring a real one to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from bucket import Bucket
from mlcore import plugins
from mlcore.hookspecs import Provider

_KEY = b"of this bucket"


class Signing(Bucket):
    """Keep files, tell their MD5 as S3 does, and sign URLs; `requests` are those that came over HTTP.

    `answers` are statuses for the next requests, which then are not done; `moved` is where a request is sent on to.
    `wrong` makes the next stored object another one, `tags` says whether ETags are MD5s.
    """

    signs = True

    def __init__(self) -> None:
        super().__init__()
        self.requests = list[tuple[str, str, Mapping[str, str]]]()
        self.answers, self.moved, self.wrong, self.tags, self.delay = list[int](), "", 0, True, 0.0
        self.url = self.made = ""  # `made` is in links instead of `url`
        self.joined = list[int]()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        about = super().info(path)
        return {**about, "ETag": f'"{self.tag(path)}"'} if about["type"] == "file" else about

    def tag(self, path: str) -> str:
        data = self.files[path] if self.tags else self.files[path] + b"encrypted"
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self.files[path2] = self.files[path1]

    def join(self, paths: list[str], path: str) -> None:
        self.joined.append(len(paths))
        self.files[path] = b"".join(self.files[each] for each in paths)

    def sign(self, path: str, expiration: int = 100, *, method: str = "GET", endpoint: str = "", **_: Any) -> str:
        until = str(int(time.time() + expiration))
        server, proof = endpoint or self.made or self.url, signature(method, path, until)
        return f"{server}/{quote(path)}?until={until}&signature={proof}"

    def asked(self, method: str) -> list[str]:
        """Return the paths of all requests of a method."""
        return [path for each, path, _ in self.requests if each == method]


def signature(method: str, path: str, until: str) -> str:
    """Return what proves that a URL was made by the bucket."""
    return hmac.new(_KEY, f"{method} {path} {until}".encode(), "sha256").hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Signing

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if (path := self._let_in()) is None:
            return None
        if path not in self.bucket.files:
            return self._say(404, b"<Error><Code>NoSuchKey</Code></Error>")
        data, tag = self.bucket.files[path], f'"{self.bucket.tag(path)}"'
        if self.headers.get("If-Match", tag) != tag:
            return self._say(412)
        fit = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if fit is None:
            return self._say(200, data, ETag=tag)
        start, end = int(fit[1]), min(int(fit[2]) + 1, len(data))
        return self._say(206, data[start:end], **{"ETag": tag, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if (path := self._let_in()) is None:
            return None
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        if base64.b64encode(digest).decode() != self.headers.get("Content-MD5", base64.b64encode(digest).decode()):
            return self._say(400, b"<Error><Code>BadDigest</Code></Error>")
        if self.bucket.wrong:
            self.bucket.wrong, body = self.bucket.wrong - 1, body[:-1] + bytes([body[-1] ^ 1])
        self.bucket.publish(path, body)
        return self._say(200, ETag=f'"{self.bucket.tag(path)}"')

    def _let_in(self) -> str | None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path).lstrip("/"), parse_qs(parts.query)
        self.bucket.requests.append((self.command, path, dict(self.headers.items())))
        time.sleep(self.bucket.delay)
        if self.bucket.answers:
            self._say(self.bucket.answers.pop(0), b"<Error><Code>SlowDown</Code></Error>")
        elif self.bucket.moved:
            self._say(307, Location=self.bucket.moved)
        else:
            until, given = (query.get(name, [""])[0] for name in ("until", "signature"))
            if given == signature(self.command, path, until) and int(until) > time.time():
                return path
            self._say(403, b"<Error><Code>AccessDenied</Code></Error>")
        return None

    def _say(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def signing_bucket(scheme: str = "linking") -> Iterator[Signing]:
    """Yield a bucket that can be had under ``linking://``."""
    bucket = Signing()
    kind = type("Handler", (_Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    bucket.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()

    def opened(uri: str) -> tuple[Any, str]:
        return bucket, uri.partition("://")[2]

    plugin = SimpleNamespace(mlcore_artifact_backends=lambda: [Provider(scheme, opened)])
    plugins.register(plugin, f"{scheme}-bucket")
    try:
        yield bucket
    finally:
        plugins.unregister(f"{scheme}-bucket")
        server.shutdown()
        thread.join()
        server.server_close()
