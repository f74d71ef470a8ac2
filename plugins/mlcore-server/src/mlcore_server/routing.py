"""Routes: what a server answers, and which right that needs.

A route is declared once, with the right it needs; the app is made of such declarations and of nothing else::

    from starlette.responses import JSONResponse
    from mlcore_server import Route

    async def hello(request, service):
        count = await service.read(lambda store: len(store.find("run", Query()).items))
        return JSONResponse({"runs": count, "you": request.state.actor.name})

    def routes(service):
        return [Route("GET", "/api/v1/hello", hello, needs="read", summary="Count runs.")]

`endpoint` runs on the event loop: what blocks (the store, files) goes through ``await service.read(...)`` or
``await service.append(...)``. What it raises of `mlcore.errors` becomes the JSON answer that the client raises again;
`Declined` is for answers that are HTTP's alone. Parameters of a path are Starlette's: ``{id}``, ``{path:path}``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from mlcore.errors import StoreError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mlcore_server.service import Service

__all__ = ["NEEDS", "Actor", "Declined", "Endpoint", "Route", "Router"]

NEEDS = ("nothing", "read", "write", "admin")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
Endpoint = Callable[["Request", "Service"], Awaitable["Response"]]


class Declined(StoreError):
    """Answer a request with an HTTP status that has no error of its own in `mlcore.errors`."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


@attrs.frozen
class Actor:
    """Name who asks, what they may (`permissions`, of `NEEDS`), and `how` that is known: token, cookie, socket."""

    name: str
    permissions: frozenset[str] = frozenset()
    how: str = ""


def _known(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    allowed = {"method": METHODS, "needs": NEEDS}[attribute.name]
    if value not in allowed:
        raise ValueError(f"a route's {attribute.name} is one of {', '.join(allowed)}, not {value!r}")


@attrs.frozen
class Route:
    """Declare what the server answers.

    `needs` has no default: who declares a route says what right it takes, or `nothing`. `body` and `answer` are media
    types with their JSON schemas (see `mlcore_server.openapi`), `parameters` those of the query and headers, as OpenAPI
    writes them. A `GET` route answers `HEAD`, too.
    """

    method: str = attrs.field(validator=_known)
    path: str
    endpoint: Endpoint
    needs: str = attrs.field(validator=_known, kw_only=True)
    summary: str = attrs.field(kw_only=True)
    body: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    answer: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    parameters: Sequence[Mapping[str, Any]] = attrs.field(default=(), kw_only=True)


Match = tuple[Route | None, dict[str, Any], tuple[str, ...]]


class Router:
    """Find the route of a request: by a look-up where the path has no parameters, else by patterns in turn."""

    def __init__(self, routes: Sequence[Route]) -> None:
        from starlette.routing import compile_path

        self.routes = tuple(routes)
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], Any, dict[str, Route]]] = {}
        for route in routes:
            if not isinstance(route, Route):
                raise TypeError(f"{route!r} is no Route, which says what right it needs")
            if "{" in route.path:
                pattern, _, convertors = compile_path(route.path)
                methods = self._patterns.setdefault(route.path, (pattern, convertors, {}))[2]
            else:
                methods = self._exact.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"{route.method} {route.path} is declared twice")
            methods[route.method] = route

    def match(self, method: str, path: str) -> Match:
        """Return the route, the path's parameters, and the methods that the path takes (none: there is none)."""
        found = self._exact.get(path)
        if found is not None:
            return self._chosen(found, method), {}, tuple(found)
        allowed: list[str] = []
        for pattern, convertors, methods in self._patterns.values():
            if fit := pattern.match(path):
                route = self._chosen(methods, method)
                if route is not None:
                    given = {name: convertors[name].convert(text) for name, text in fit.groupdict().items()}
                    return route, given, tuple(methods)
                allowed += methods
        return None, {}, tuple(dict.fromkeys(allowed))

    def _chosen(self, methods: Mapping[str, Route], method: str) -> Route | None:
        return methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
