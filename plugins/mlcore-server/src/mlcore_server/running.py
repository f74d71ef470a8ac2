"""Run a server: take a socket, say where it is, answer until a signal comes, end what has begun."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlcore.errors import ConfigError
from mlcore_server.settings import AUTO, PORT, Settings

if TYPE_CHECKING:
    from mlcore_server.app import App

__all__ = ["listen", "run", "serve", "url_of"]

_TRIES = 100
_BACKLOG = 2_048


def listen(settings: Settings) -> socket.socket:
    """Return a socket that is bound as `settings` say, before anything slow is done. Raises `ConfigError`."""
    if settings.unix_socket:
        return _listen_at(Path(settings.unix_socket).expanduser().absolute())
    first = PORT if settings.port == AUTO else int(settings.port)
    for port in range(first, first + (_TRIES if settings.port == AUTO else 1)):
        try:
            return _bound(settings.host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                where = f"{settings.host} port {port}"
                raise ConfigError(f"cannot listen on {where}: {error.strerror or error}") from None
    raise ConfigError(
        f"port {first} of {settings.host} is taken by another program: choose one with --port, "
        f"or let --port {AUTO} find the next free one"
    )


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
    except OSError:
        found.close()
        raise
    found.set_inheritable(True)
    return found


def _listen_at(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
                    asked.connect(str(path))
                raise ConfigError(f"{path} is taken by another server: choose another path with --unix-socket")
            except ConnectionRefusedError:
                path.unlink()  # who made it has ended
        before = os.umask(0o177)
        try:
            found.bind(str(path))
        finally:
            os.umask(before)
        found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from None
    except ConfigError:
        found.close()
        raise
    found.set_inheritable(True)
    return found


def url_of(settings: Settings, listening: socket.socket) -> str:
    """Return where the server is, as a client is told it."""
    if listening.family == socket.AF_UNIX:
        return f"http+unix://{listening.getsockname()}{settings.root_path}"
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is shown as what one can reach
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}"


def run(settings: Settings, listening: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Answer requests on a socket until SIGTERM or SIGINT; what has begun is finished within `settings.drain`.

    `ready` is called when the store was opened and requests are about to be answered. Raises `ConfigError` or
    `StoreError`.
    """
    for each in (signal.SIGTERM, signal.SIGINT):  # until a server or a supervisor handles them, and after it
        signal.signal(each, lambda *_: sys.exit(0))
    from mlcore_server.app import application, open_store

    if settings.workers == 1:
        app = application(settings)
        ready()
        serve(app, listening)
        return
    from mlcore_server.supervising import supervise

    open_store(settings)[0].close()  # what is wrong is told once, and not by every worker
    supervise(settings, listening, ready)


def serve(app: App, listening: socket.socket) -> None:
    """Answer requests on a socket with an app until a signal comes."""
    import uvicorn

    from mlcore_server.connections import Patient

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.service.stop()
            await super().shutdown(sockets)

    gc.collect()
    gc.freeze()  # what was imported stays, and is not to be looked through again and again
    gc.set_threshold(50_000, 20, 20)
    settings = app.service.settings
    config = uvicorn.Config(
        app, lifespan="on", http=Patient, loop="auto", ws="none", log_config=None, access_log=False,
        server_header=False, timeout_graceful_shutdown=settings.drain, proxy_headers=False,
    )  # fmt: skip
    Server(config).run([listening])
