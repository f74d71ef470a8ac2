"""The store over HTTP: append, get, find, series and events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from mlcore.errors import Malformed
from mlcore.store import Query, from_json, to_json
from mlcore_server.bodies import answered, body_of
from mlcore_server.interim import batches_from_json, entity_to_json, error_to_json
from mlcore_server.routing import Declined, Route

if TYPE_CHECKING:
    from mlcore_server.service import Service

__all__ = ["routes"]

JSON = "application/json"


def routes(service: Service) -> Iterable[Route]:
    """Return the routes of the store itself: the provider ``api`` of the hook `mlcore_routes`."""
    return [
        Route("POST", "/api/v1/batches", append, needs="write", summary="Store batches."),
        Route("POST", "/api/v1/get", get, needs="read", summary="Return entities by id."),
        Route("POST", "/api/v1/find", find, needs="read", summary="Return the entities that fit a query."),
    ]


async def append(request: Request, service: Service) -> Response:
    """Store batches; answer one result for each, null or an error."""
    body = await body_of(request, service.settings.max_body)
    batches = batches_from_json(_json(request, body))
    found = await service.append(batches, request.scope["state"]["actor"].name, len(body))
    refused = sum(error is not None for error in found)
    service.metrics.appended(len(found) - refused, refused)
    results = [None if error is None else error_to_json(error)[1] for error in found]
    return Response(json.dumps({"results": results}), media_type=JSON)


async def get(request: Request, service: Service) -> Response:
    """Answer entities."""
    asked = _json(request, await body_of(request, service.settings.max_body))
    found = await service.read(lambda store: store.get(asked["kind"], asked["ids"]))
    return answered(request, to_json({"entities": [each and entity_to_json(each) for each in found]}), JSON)


async def find(request: Request, service: Service) -> Response:
    """Answer a page."""
    asked = _json(request, await body_of(request, service.settings.max_body))
    page = await service.read(lambda store: store.find(asked["kind"], Query()))
    return answered(request, to_json({"items": [entity_to_json(each) for each in page.items]}), JSON)


def _json(request: Request, body: bytes) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise Declined(415, f"the content type must be {JSON}")
    try:
        return from_json(body)
    except ValueError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
