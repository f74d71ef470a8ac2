"""Real tracking servers for tests: `mlcore server` as a process of its own, or the same app in a thread of this one.

::

    def test_it_answers(tmp_path):
        with serving(tmp_path / "store") as server:          # a process, as a user starts it
            assert server.get("/livez").status == 200
            server.kill()                                     # and start() again, on the same port

    def test_it_answers_cheaply(tmp_path):
        with serving_here(tmp_path / "store") as server:      # a thread: starts in milliseconds
            ...
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 60  # to start, on a machine that is busy with other tests


class Answer(NamedTuple):
    """Hold an answer: names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Serving:
    """Know where a server is and how to be let in, and ask it without any code of mlcore's client."""

    def __init__(self) -> None:
        self.url, self.token, self.link = "", "", ""

    @property
    def port(self) -> int:
        return int(self.url.partition("://")[2].partition("/")[0].rpartition(":")[2])

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, seconds: float = 30
    ) -> Answer:
        """Send one request with the token; a body that is no bytes is sent as JSON."""
        given = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None and not isinstance(body, bytes):
            body, given["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, {**given, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, headers)


class Process(Serving):
    """Run `mlcore server` as a user does; `errors` is the file of its stderr."""

    def __init__(self, store: str, errors: Path, environment: Mapping[str, str], *options: str) -> None:
        super().__init__()
        self._store, self._options, self._port = store, options, "0"
        self.errors = errors
        self._environment = {**os.environ, **environment}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, on the port it had, and wait until it answers."""
        variables = {**self._environment, "MLCORE_SERVER_STORE": self._store}
        command = [sys.executable, "-m", "mlcore", "server", "--log-format", "json", "--port", self._port]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, *self._options], stdout=subprocess.PIPE, stderr=errors, text=True, env=variables
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.process.stdout.close()
            raise RuntimeError(f"the server does not start:\n{self.errors.read_text()[-4000:]}")
        told = json.loads(line)
        self.url = told["url"]
        if told["token_file"]:
            self.token = json.loads(Path(told["token_file"]).read_text())["token"]
        self.link = told["link"]
        if "://[" not in self.url and not self.url.startswith("http+unix"):
            self._port = str(self.port)
            self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError):
                if self.ask("GET", "/livez", seconds=5).status == 200:
                    return
            time.sleep(0.01)
        raise RuntimeError(f"the server does not answer:\n{self.errors.read_text()[-4000:]}")

    def kill(self) -> None:
        """End the process as a crash would."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """End it in order; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        assert self.process is not None
        code = self.process.wait(SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextmanager
def serving(store: str | os.PathLike[str], *options: str, **environment: str) -> Iterator[Process]:
    """Yield a running `mlcore server` of a store; its token file and logs are beside the store, or in /tmp.

    `options` are those of the command line, `environment` names settings: ``durability="power"`` is
    ``MLCORE_SERVER_DURABILITY``.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ml-server-") as folder:
        variables = {f"MLCORE_SERVER_{name.upper()}": value for name, value in environment.items()}
        variables |= {"XDG_CACHE_HOME": f"{folder}/cache", "XDG_STATE_HOME": f"{folder}/state"}
        variables |= {"XDG_RUNTIME_DIR": f"{folder}/runtime"}
        server = Process(os.fspath(store), Path(folder) / "errors", variables, *options)
        server.start()
        try:
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()
            elif server.process is not None and server.process.stdout is not None:
                server.process.stdout.close()


class Thread(Serving):
    """Run the app in a thread, with uvicorn on a free port; `app.service` is there to look into."""

    def __init__(self, store: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        import uvicorn

        from mlcore_server.app import App, open_store
        from mlcore_server.connections import Patient
        from mlcore_server.settings import Settings

        self.token = str(
            settings.get("token", "" if settings.get("no_token") else "test-token-of-the-thread-0123456789")
        )
        told = Settings(**{"store": store, "token": self.token, "log_level": "warning", **settings})
        self.app = App(told, *open_store(told))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}{told.root_path}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app, lifespan="on", http=Patient, ws="none", log_config=None, access_log=False,
                timeout_graceful_shutdown=5, proxy_headers=False, server_header=False,
            )
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._server.serve([self._socket]))

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.001)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        self._socket.close()


@contextmanager
def serving_here(store: str | os.PathLike[str], **settings: Any) -> Iterator[Thread]:
    """Yield a server in a thread of this process; `settings` are fields of `mlcore_server.settings.Settings`."""
    server = Thread(os.fspath(store), settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
