"""The one place that every request passes: where it comes from, who asks, and whether that is allowed.

Three steps, in this order and for all routes alike, those of plugins too:

1. `Gate.enter`, before a route is looked for: size of the head, ``Host``, ``Origin``, token or session, rate. It puts
   the actor into ``request.state.actor``.
2. `authorize`, once the route is known: a pure function of actor, route and state. What a route needs is part of its
   declaration, so nothing can be served that this function was not asked about.
3. `Gate.admit` goes on with what the route declared of its body: its type, and how large it may be.

What is refused is answered with an error like any other, and the answer never depends on what is behind the door: who
is not known learns nothing but that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from mlcore.errors import AccessDenied, ConfigError, MlcoreError
from mlcore_server import limits
from mlcore_server.audit import Audit, Entry
from mlcore_server.headers import Hosts, comes_from_elsewhere, comes_from_here, is_loopback
from mlcore_server.routing import Actor, Declined, Route
from mlcore_server.sessions import cookie_name, session_of
from mlcore_server.tokens import PERMISSIONS, Token, Tokens, failures_of, parse_tokens

if TYPE_CHECKING:
    from mlcore_server.settings import Settings

__all__ = ["ANYBODY", "Gate", "State", "address_of", "authorize", "check", "is_secure"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
ANYBODY = Actor("anonymous", frozenset(), "")
_LOCAL = Actor("local", PERMISSIONS["admin"], "no token")
_PROBES = frozenset({"/livez", "/readyz"})  # asked by address, with no name of ours, and tell nothing
_WRITES = frozenset({"write", "admin"})
_ONCE = frozenset({b"authorization", b"content-length", b"content-type", b"host", b"origin", b"transfer-encoding"})
_SHOWN = "show a token: Authorization: Bearer TOKEN (clients of mlcore: `mlcore login URL`, or MLCORE_TOKEN)"
_SAFE = frozenset({"GET", "HEAD"})
_STREAMED = frozenset({"application/octet-stream", "*/*"})  # files, which may be as large as they are
_log = logging.getLogger("mlcore.server")


class State(Protocol):
    """Describe what a decision may depend on beside actor and route."""

    @property
    def read_only(self) -> bool:
        """Tell whether nothing may be changed now."""


def authorize(actor: Actor, route: Route, state: State) -> None:
    """Return if an actor may use a route now. Raises `AccessDenied`: 401 if a token would help, else 403."""
    if route.needs != "nothing" and route.needs not in actor.permissions:
        if not actor.permissions:
            raise AccessDenied(_SHOWN, 401)
        raise AccessDenied(
            f"{actor.name} may {' and '.join(sorted(actor.permissions))} here; this needs {route.needs}", 403
        )
    if state.read_only and route.needs in _WRITES:
        raise AccessDenied("this server is read-only: it was started with --read-only", 403)


def check(settings: Settings, *, local: bool) -> None:
    """Raise `ConfigError` if a server with these settings would stand open; `local`: only this machine reaches it."""
    given = settings.token or settings.token_file
    if settings.no_token and given:
        raise ConfigError("--no-token lets everybody in, and there is a token: say one of them")
    if settings.no_token and not local:
        raise ConfigError(f"--no-token is for this machine only, and others reach {settings.host}: give a token")
    if settings.no_token and "*" in settings.allowed_hosts:
        raise ConfigError("--no-token and --allowed-hosts '*' together let any web page in: name the hosts")
    if not given and not local:
        raise ConfigError(
            f"others reach {settings.host}, so there must be a token: put lines such as alice=TOKEN into a file that "
            "only you can read and give --token-file FILE, or set MLCORE_SERVER_TOKEN; a good token is printed by "
            "`python -c \"import secrets; print('mlc_' + secrets.token_urlsafe(32))\"`"
        )


def address_of(scope: Scope) -> str:
    """Return who sent a request: an address, or ``unix`` for somebody on this machine."""
    client = scope.get("client")
    return str(client[0]) if client and client[0] else "unix"


def is_secure(scope: Scope) -> bool:
    """Return whether a request came over TLS, as far as we or a proxy that we trust can tell."""
    return scope.get("scheme") == "https"


@attrs.define(init=False)
class Gate:
    """Let requests in or refuse them; one a process, made of the server's settings."""

    settings: Settings
    read_only: bool
    tokens: Tokens
    failures: limits.Failures
    audit: Audit | None
    _hosts: Hosts
    _rate: limits.Rate
    _proven: set[tuple[bytes, str]]

    def __init__(self, settings: Settings) -> None:
        """Read tokens, open the audit log. Raises `ConfigError`."""
        file = Path(settings.token_file) if settings.token_file else None
        shared = failures_of(file) if file is not None and file.suffix == ".json" else None
        local = bool(settings.unix_socket) or is_loopback(settings.host)
        self.settings, self.read_only = settings, settings.read_only
        self.tokens = Tokens(parse_tokens(settings.token, "MLCORE_SERVER_TOKEN"), file)
        self.failures = limits.Failures(shared, settings.login_window)
        self.audit = _audit(settings.audit_log)
        self._hosts = Hosts.of(settings.host, settings.allowed_hosts, local=local)
        self._rate = limits.Rate(settings.rate_limit)
        self._proven = set()

    def enter(self, scope: Scope) -> None:
        """Find out who asks: sets ``scope["state"]["actor"]``. Raises `AccessDenied` or `Declined`."""
        if not limits.head_fits(scope["headers"], scope["raw_path"] + scope["query_string"]):
            raise Declined(431, "the headers or the address are too large")
        seen = _headers(scope)
        method, path = scope["method"], scope["path"]
        if not self._hosts.allows(seen.get(b"host", b"")) and path not in _PROBES:
            raise AccessDenied("this server has no such name: its operator lists names with --allowed-hosts", 403)
        if "\0" in path or ("\ufffd" in path and b"%EF%BF%BD" not in scope["raw_path"].upper()):
            raise Declined(400, "the address is no UTF-8")
        if comes_from_elsewhere(seen, method, scope["scheme"]):
            raise AccessDenied("a page of another origin asks: only this server's own pages may", 403)
        address = address_of(scope)
        probe = path in _PROBES and method in _SAFE
        actor = ANYBODY if probe else self._actor(scope, seen, address)
        if actor.how == "session" and method not in _SAFE and not comes_from_here(seen, scope["scheme"]):
            raise AccessDenied("nothing says that a page of this server asks; with a token none has to", 403)
        if not self._rate.allows(f"{actor.name} {address}"):
            raise Declined(429, f"more than {self.settings.rate_limit:,} requests a second", {"retry-after": "1"})
        scope["state"]["actor"], scope["state"]["seen"] = actor, seen

    def admit(self, scope: Scope, receive: Receive, route: Route) -> Receive:
        """Return the `receive` for a route's endpoint, if the request may go on to it. Raises what `authorize` does."""
        state = scope["state"]
        state["route"] = route
        authorize(state["actor"], route, self)
        seen: dict[bytes, bytes] = state["seen"]
        if scope["method"] in _SAFE:
            return receive
        sends = seen.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in seen
        if route.body:
            self._check_type(seen, route, sends=sends)
        if not _STREAMED.isdisjoint(route.body or ()):
            return receive  # a file: it is streamed, as large as it may be
        return limits.bounded(receive, seen, self.settings.max_body)

    def nothing_here(self, scope: Scope, allowed: tuple[str, ...]) -> MlcoreError:
        """Return the error for a path or method without a route: who is not known does not learn what there is."""
        if not scope["state"]["actor"].permissions:
            return AccessDenied(_SHOWN, 401)
        if allowed:
            return Declined(405, "not by this method", {"allow": ", ".join(allowed)})
        return Declined(404, "there is nothing at this path: /openapi.json has those that there are")

    def record(self, scope: Scope, status: int) -> None:
        """Write the line of the audit log for a request that changes something; called once, before it is answered."""
        state = scope["state"]
        route, actor = state.get("route"), state.get("actor", ANYBODY)
        if self.audit is None or route is None:
            return
        if (route.needs in _WRITES and actor.permissions) or state.get("audited"):
            self.audit.write(
                Entry(
                    actor=actor.name, how=actor.how, address=address_of(scope), request=state["request_id"],
                    method=scope["method"], route=route.path, path=scope["path"], objects=state.get("objects", ()),
                    status=status,
                )
            )  # fmt: skip

    def failed(self, scope: Scope) -> MlcoreError:
        """Return the error for a wrong token or link, and remember that this address showed it."""
        address = address_of(scope)
        if wait := self.failures.wait(address):
            return _wait(wait)
        if address != "unix":  # which is everybody there, and only its owner gets so far
            self.failures.add(address)
        _log.warning("a wrong token was shown from %s", address)
        return AccessDenied("this token is not known here, or no longer", 401)

    def still(self, scope: Scope) -> bool:
        """Return whether who was let in would be now, too: for answers that take hours."""
        return self.settings.no_token or self._token(scope, scope["state"]["seen"]) is not None

    def close(self) -> None:
        """Close the audit log."""
        if self.audit is not None:
            self.audit.close()

    def _actor(self, scope: Scope, seen: dict[bytes, bytes], address: str) -> Actor:
        if self.settings.no_token:
            if address == "unix" or is_loopback(address):
                return _LOCAL
            raise AccessDenied("this server has no tokens, so it answers to its own machine only", 403)
        token = self._token(scope, seen)
        if _bearer(seen) is None:
            return ANYBODY if token is None else Actor(token.name, token.permissions, "session")
        if token is None:
            raise self.failed(scope)
        return self._proved(token, address)

    def _token(self, scope: Scope, seen: dict[bytes, bytes]) -> Token | None:
        if (secret := _bearer(seen)) is not None:
            return self.tokens.find(secret)
        if cookie := seen.get(b"cookie"):
            port = (scope.get("server") or ("", None))[1]
            return session_of(_cookie(cookie, cookie_name(secure=is_secure(scope), port=port)), self.tokens)
        return None

    def _proved(self, token: Token, address: str) -> Actor:
        """Let a right token in, unless its address is guessing; tokens that came from there before are no guesses."""
        if (token.digest, address) not in self._proven:
            if wait := self.failures.wait(address):
                raise _wait(wait)
            if len(self._proven) > 100_000:
                self._proven.clear()
            self._proven.add((token.digest, address))
        return Actor(token.name, token.permissions, "token")

    def _check_type(self, seen: dict[bytes, bytes], route: Route, *, sends: bool) -> None:
        assert route.body is not None
        given = seen.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if given not in route.body and "*/*" not in route.body and (sends or given):
            raise Declined(415, f"the content type must be {' or '.join(route.body)}, not {given or 'missing'!r}")


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers by name; two of what must be one are two readings of one request."""
    scope["headers"] = headers = list(scope["headers"])  # what a body's trailer adds later is no header
    seen: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in seen and name in _ONCE:
            raise Declined(400, f"there are two headers {name.decode('latin-1')}")
        seen[name] = seen[name] + b"; " + value if name == b"cookie" and name in seen else value
    return seen


def _bearer(seen: dict[bytes, bytes]) -> str | None:
    """Return the token that is shown; what a proxy before us was shown, by another scheme, is none."""
    kind, _, secret = seen.get(b"authorization", b"").partition(b" ")
    return secret.strip().decode("latin-1") if kind.lower() == b"bearer" else None


def _cookie(header: bytes, name: str) -> str:
    for pair in header.decode("latin-1").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return ""


def _audit(path: str) -> Audit | None:
    try:
        return Audit(Path(path).expanduser().absolute()) if path else None
    except OSError as error:
        raise ConfigError(f"the audit log {path} cannot be written: {error.strerror}") from error


def _wait(seconds: int) -> Declined:
    return Declined(429, "too many wrong tokens came from this address: wait", {"retry-after": str(seconds)})
