"""Logging in and out with a browser: a link that can be used once, or a token, becomes a session cookie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcore.errors import Malformed
from mlcore_remote.protocol import document
from mlcore_server import sessions
from mlcore_server.bodies import body_of
from mlcore_server.guard import address_of, is_secure
from mlcore_server.routing import Declined, Route
from mlcore_server.tokens import Token, use_once

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mlcore_server.service import Service

__all__ = ["follow_link", "log_in", "log_out", "routes"]

_LARGEST = 4_096
_TOKEN = {
    "type": "object",
    "properties": {"token": {"type": "string", "maxLength": 1_024}},
    "required": ["token"],
    "additionalProperties": False,
}
_DONE = {"application/json": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}


def routes(_: Service) -> Iterable[Route]:
    """Return the routes by which a browser logs in and out: the provider ``login`` of the hook `mlcore_routes`."""
    link = {"name": "token", "in": "query", "required": True, "schema": {"type": "string", "maxLength": 1_024}}
    return [
        Route("GET", "/login", follow_link, needs="nothing", summary="Log in by a link, once.", parameters=(link,)),
        Route(
            "POST", "/login", log_in, needs="nothing", summary="Log in with a token.",
            body={"application/json": _TOKEN}, answer=_DONE,
        ),
        Route("POST", "/logout", log_out, needs="nothing", summary="Log out of this browser."),
    ]  # fmt: skip


async def follow_link(request: Request, service: Service) -> Response:
    """Take the link that the server printed, which works once in all its processes, and lead on to the first page."""
    from starlette.responses import RedirectResponse

    if request.method != "GET":
        raise Declined(405, "a link is followed by GET", {"allow": "GET, POST"})  # what only looks must not use it up
    note = Path(service.settings.token_file)
    token = _owner(service) if note.suffix == ".json" else None
    if token is None or not use_once(note, request.query_params.get("token", "")):
        raise service.gate.failed(request.scope)
    answer = RedirectResponse("version", 303)  # relative: below whatever path a proxy shows us
    return _with_session(request, service, token, answer)


async def log_in(request: Request, service: Service) -> Response:
    """Take a token, and answer with a session for the browser that has it."""
    from starlette.responses import JSONResponse

    content = document(await body_of(request, _LARGEST))
    if not isinstance(content, dict) or not isinstance(shown := content.get("token"), str) or len(content) > 1:
        raise Malformed('the body must be {"token": "..."}')
    if wait := service.gate.failures.wait(address_of(request.scope)):
        raise Declined(429, "too many wrong tokens came from this address: wait", {"retry-after": str(wait)})
    token = service.gate.tokens.find(shown)
    if token is None:
        raise service.gate.failed(request.scope)
    return _with_session(request, service, token, JSONResponse({"name": token.name}))


async def log_out(request: Request, _: Service) -> Response:
    """Take the session out of the browser that asks."""
    from starlette.responses import Response

    request.scope["state"]["audited"] = True
    headers = {"set-cookie": sessions.clear_cookie(**_where(request.scope))}
    return Response(status_code=204, headers=headers)


def _with_session(request: Request, service: Service, token: Token, answer: Any) -> Response:
    from mlcore_server.routing import Actor

    lasts = service.settings.session_hours * 3600
    value = sessions.open_session(token, lasts=lasts)
    answer.headers["set-cookie"] = sessions.set_cookie(value, lasts=lasts, **_where(request.scope))
    request.scope["state"]["actor"] = Actor(token.name, token.permissions, "login")
    request.scope["state"]["audited"] = True
    found: Response = answer
    return found


def _where(scope: Any) -> dict[str, Any]:
    return {"secure": is_secure(scope), "port": (scope.get("server") or ("", None))[1]}


def _owner(service: Service) -> Token | None:
    found = [token for token in service.gate.tokens.now().values() if token.name == "owner"]
    return found[0] if found else None
