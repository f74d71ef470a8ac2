"""The ASGI application: what every request passes, from the outside in.

1. `App`: a request id, the headers of every answer, metrics, a line in the log; errors become JSON.
2. `guard.Gate.enter`: where it comes from, and who asks.
3. `_dispatch`: the route, `guard.Gate.admit`, which asks `guard.authorize`, the endpoint.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import mlcore
from mlcore import config, plugins
from mlcore.errors import ConfigError
from mlcore.store import Store
from mlcore_server.failing import told
from mlcore_server.headers import secured
from mlcore_server.logs import RequestLog, set_up
from mlcore_server.routing import Route, Router
from mlcore_server.service import Service
from mlcore_server.settings import Settings

__all__ = ["App", "application", "open_store"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_PATIENCE = 5.0  # seconds for which a database that went away is waited for
_GONE = 499  # the client went away: what nginx logs


def application(settings: Settings) -> App:
    """Return the application that serves what `settings` say, ready for any ASGI server with lifespan.

    Raises `ConfigError` or `StoreError`.
    """
    set_up(settings.log_format, settings.log_level)
    return App(settings, *open_store(settings))


def open_store(settings: Settings) -> tuple[Store, str]:
    """Open the store to be served; return its kind as well, the scheme of its URI.

    Raises `ConfigError` if it is nothing to serve or promises less than is asked for, and `StoreError`.
    """
    uri, power = settings.store or config.store_setting().value, settings.durability == "power"
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if uri == config.OFF or scheme.startswith("http"):
        raise ConfigError(f"{config.shown(uri)} is nothing to serve: name a folder or a database with --store")
    if scheme == "sqlite" and settings.durability:
        if "durability=" in uri and f"durability={settings.durability}" not in uri:
            raise ConfigError(f"{config.shown(uri)} names another durability than --durability: say one of them")
        uri += "" if "durability=" in uri else f"{'&' if '?' in uri else '?'}durability={settings.durability}"
    if scheme == "file":
        from mlcore_local.store import FolderStore

        path = Path(uri.removeprefix("file://")).expanduser().absolute()
        return FolderStore(path, indexed=True, power=power), scheme
    store: Store = plugins.load("stores", scheme)(uri)
    if power and store.capabilities.durability != "power":
        store.close()
        raise ConfigError(f"{config.shown(uri)} does not promise to survive a loss of power: its settings say so")
    if hasattr(store, "patience"):
        store.patience = _PATIENCE  # whoever asks will ask again, and is told how things are until then
    return store, scheme


class App:
    """Answer requests to one store; `service` is what routes are given."""

    def __init__(self, settings: Settings, store: Store, kind: str = "file") -> None:
        self.service = Service(settings, store, kind)
        provided = sorted(plugins.provided("routes"))
        routes = [route for name in provided for route in plugins.load("routes", name)(self.service)]
        self._router = Router(routes)
        self.service.routes = self._router.routes
        self._gate = self.service.gate
        self._inner: Any = self._guarded
        if settings.trusted_proxies:
            from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

            self._inner = ProxyHeadersMiddleware(self._guarded, list(settings.trusted_proxies))  # type: ignore[arg-type]
        self._log = RequestLog(settings.log_format, settings.log_level)
        self._root = settings.root_path
        self._version = (b"mlcore-version", mlcore.__version__.encode())
        self._ids, self._count = os.urandom(6).hex(), 0
        root = getattr(store, "root", None)  # of a folder, which some errors name: where it is, is nobody's business
        self._place = json.dumps(str(root or "/the/store"))[1:-1].encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 0
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = self._request_id(scope)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._gate.record(scope, status)
                message["headers"] = secured(message.get("headers", ()))
                message["headers"] += [self._version, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self._strip(scope)
            await self._inner(scope, receive, answer)
        except ClientDisconnect:
            status = _GONE
        except Exception as error:
            if status:
                raise  # half an answer: the connection is cut, so that nobody takes it for a whole one
            code, content, headers = told(error, request_id)
            body = json.dumps(content).encode().replace(self._place, b"the store")
            await Response(body, code, headers, "application/json")(scope, receive, answer)
        finally:
            self._tell(scope, state, status, time.perf_counter() - began)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate.enter(scope)
        await self._dispatch(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, parameters, allowed = self._router.match(scope["method"], scope["path"])
        if route is None:
            raise self._gate.nothing_here(scope, allowed)
        receive = self._gate.admit(scope, receive, route)
        scope["path_params"] = parameters
        response = await route.endpoint(Request(scope, receive), self.service)
        await response(scope, receive, send)

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _ID.fullmatch(value):
                return str(value, "ascii")
        self._count += 1
        return f"{self._ids}-{self._count:x}"

    def _strip(self, scope: Scope) -> None:
        """Take the path of the proxy away, whether it did so itself or not."""
        if self._root:
            scope["root_path"] = self._root
            if scope["path"].startswith(self._root + "/"):
                scope["path"] = scope["path"][len(self._root) :]

    def _tell(self, scope: Scope, state: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route: Route | None = state.get("route")
        method = scope["method"] if route is not None else "-"
        self.service.metrics.answered(method, "-" if route is None else route.path, status, seconds)
        if self._log.wanted:
            actor = state.get("actor")
            # never the query: it may have a one-use token
            name = "" if actor is None else actor.name
            self._log.add(status, scope["method"], scope["path"], round(seconds * 1000, 2), name, state["request_id"])

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.service.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.service.close()
        self._log.close()
        await send({"type": "lifespan.shutdown.complete"})
