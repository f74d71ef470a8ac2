"""What a load balancer, a monitor and a client ask before anything else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import mlcore
from mlcore.errors import MlcoreError, StoreNotFound
from mlcore.store import Store
from mlcore_remote.protocol import about_to_json
from mlcore_server import openapi
from mlcore_server.metrics import CONTENT_TYPE
from mlcore_server.routing import Route

if TYPE_CHECKING:
    from mlcore_server.service import Service

__all__ = ["routes"]

_SECONDS = 5.0  # in which a store that is well answers


def routes(service: Service) -> Iterable[Route]:
    """Return the routes about the server itself: the provider ``health`` of the hook `mlcore_routes`."""
    return [
        Route("GET", "/livez", _livez, needs="nothing", summary="Tell that the process answers."),
        Route("GET", "/readyz", _readyz, needs="nothing", summary="Tell whether requests should be sent here."),
        Route("GET", "/health", _readyz, needs="nothing", summary="Tell the same as /readyz."),
        Route("GET", "/version", _version, needs="nothing", summary="Tell what this server is, and what it promises."),
        Route("GET", "/metrics", _metrics, needs="read", summary="Tell what was counted, for Prometheus."),
        Route("GET", "/openapi.json", _document, needs="nothing", summary="Describe every route, as OpenAPI 3.1."),
    ]


async def _livez(request: Request, service: Service) -> Response:
    """Answer at once."""
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request, service: Service) -> Response:
    """Ask the store, and tell whether it answers."""
    if service.draining:
        return _unready("the server is about to stop")
    try:
        await asyncio.wait_for(service.read(_answers), _SECONDS)
    except (MlcoreError, TimeoutError):
        return _unready("the store does not answer")
    return JSONResponse({"status": "ok"})


def _answers(store: Store) -> None:
    with contextlib.suppress(StoreNotFound):  # the first run makes it
        store.get("run", ["0" * 32])


def _unready(reason: str) -> Response:
    return JSONResponse({"status": "unavailable", "reason": reason}, 503, {"retry-after": "5"})


async def _version(request: Request, service: Service) -> Response:
    """Answer versions, durability and capabilities."""
    return JSONResponse(_about(service))


def _about(service: Service) -> dict[str, Any]:
    capabilities = service.store.capabilities
    return about_to_json(
        mlcore.__version__, capabilities, durability=capabilities.durability, store=service.kind,
        read_only=service.settings.read_only,
    )  # fmt: skip


async def _metrics(request: Request, service: Service) -> Response:
    """Answer in Prometheus' text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def _document(request: Request, service: Service) -> Response:
    """Answer the document."""
    return JSONResponse(openapi.document(service.routes, service.settings.root_path))
