"""The OpenAPI 3.1 document, made of the routes: what is not declared there is not in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import mlcore
from mlcore_server import schemas
from mlcore_server.routing import Route

__all__ = ["document"]

_ERRORS = {
    "400": "what was sent is malformed",
    "401": "no token was shown, or a wrong one",
    "403": "it is not allowed",
    "404": "there is no such thing",
    "405": "the path does not take this method",
    "406": "there is no answer of an accepted type",
    "409": "it does not fit what is stored",
    "410": "the position is unknown: start over",
    "413": "the body is too large",
    "415": "the body is of another type",
    "416": "there is nothing at this range",
    "429": "too many requests: try again later",
    "500": "the server failed; its log tells more",
    "501": "the store or the server cannot do this",
    "503": "the store cannot be reached now: try again later",
    "424": "the place where files are kept, a bucket say, does not do what the server asks of it",
    "507": "the disk is full",
}
_SECURITY = {
    "token": {"type": "http", "scheme": "bearer"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "mlcore"},
}


def document(routes: Iterable[Route], server: str = "") -> dict[str, Any]:
    """Return the document that describes `routes`; `server` is the path of the proxy, if there is one."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "mlcore", "version": mlcore.__version__, "description": "The tracking server of mlcore."},
        "paths": paths,
        "components": {"schemas": schemas.SHARED, "securitySchemes": _SECURITY},
    }
    return {**found, "servers": [{"url": server}]} if server else found


def _operation(route: Route) -> dict[str, Any]:
    """Return one route as OpenAPI calls it."""
    error = {"content": schemas.ERROR}
    statuses = {status: {"description": text, **error} for status, text in _ERRORS.items()}
    success: dict[str, Any] = {"description": route.summary}
    if route.answer is not None:
        success["content"] = _plain(route.answer)
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}".rstrip("_"),
        "summary": route.summary,
        "responses": {"2XX": success, **statuses},
        "security": [] if route.needs == "nothing" else [{name: []} for name in _SECURITY],
        "x-mlcore-needs": route.needs,
    }
    if parameters := [*_of_path(route), *route.parameters]:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _plain(route.body)}
    return operation


def _of_path(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)(?::\w+)?\}", route.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(each) for name, each in value.items()}
