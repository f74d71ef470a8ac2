"""The one place that every request passes: who asks, and whether that is allowed."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from mlcore_server.routing import Actor, Declined, Route

if TYPE_CHECKING:
    from mlcore_server.service import Service

__all__ = ["authorize", "guarded"]

_ANYBODY = Actor("anonymous", frozenset({"nothing"}), "nothing")
_ALL = frozenset({"nothing", "read", "write", "admin"})


def authorize(actor: Actor, route: Route, service: Service) -> None:
    """Return if `actor` may use `route` of this server now, else raise."""
    if route.needs not in actor.permissions:
        raise Declined(401, "show a token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
    if service.settings.read_only and route.needs not in ("nothing", "read"):
        raise Declined(403, "this server is read-only")


def guarded(app: Any, service: Service) -> Any:
    """Wrap the app in what a request passes before its route is looked for; sets ``scope["state"]["actor"]``."""
    everybody = Actor("local", _ALL, "no token")
    wanted = service.settings.token.encode()

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        actor = everybody
        if not service.settings.no_token:
            shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            fits = wanted and hmac.compare_digest(shown, b"Bearer " + wanted)
            actor = Actor("token", _ALL, "token") if fits else _ANYBODY
        scope["state"]["actor"] = actor
        await app(scope, receive, send)

    return guard
