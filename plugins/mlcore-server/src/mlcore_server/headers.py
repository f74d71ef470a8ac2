"""Headers: those that every answer has, and what those of a request say about where it comes from."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from functools import lru_cache

__all__ = ["DEFAULTS", "LOOPBACK", "Hosts", "comes_from_elsewhere", "comes_from_here", "is_loopback"]
__all__ += ["secured"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_POLICY = b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
DEFAULTS: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", _POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_NAMES = frozenset(name for name, _ in DEFAULTS)
_OWN = frozenset({b"cache-control", b"content-security-policy"})  # of these an answer may have its own


def secured(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers with those that every answer has."""
    headers = list(headers)
    said = _NAMES.intersection([name for name, _ in headers])
    if not said:
        return [*headers, *DEFAULTS]
    own = said & _OWN
    kept = (pair for pair in headers if pair[0] not in said or pair[0] in own)
    return [*kept, *(pair for pair in DEFAULTS if pair[0] not in own)]


@lru_cache(1_024)
def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Hosts:
    """Know the names under which this server may be asked: a page elsewhere could give its own name our address."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take names such as ``runs.example.org``, with any port, or ``runs.example.org:8443``; ``*`` is any name."""
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self.any = "*" in self._names
        self._fine: set[bytes] = set()

    @classmethod
    def of(cls, host: str, allowed: Iterable[str], *, local: bool) -> Hosts:
        """Return those that were told, else those that an address to listen on suggests."""
        if names := tuple(allowed):
            return cls(names)
        if local:
            return cls(LOOPBACK)
        here = f"[{host}]" if ":" in host else host
        own = () if host in ("", "0.0.0.0", "::") else (here,)  # noqa: S104 - compared, not listened on
        return cls((*LOOPBACK, *own, socket.gethostname(), socket.getfqdn()))

    def allows(self, host: bytes) -> bool:
        """Return whether a request may be for this ``Host``, as the client sent it."""
        if host in self._fine:
            return True
        fine = bool(host) and (self.any or self._knows(host.decode("latin-1").lower()))
        if fine and not self.any:
            self._fine.add(host)  # bounded: names are few, and a name with more than a port is none
        return fine

    def _knows(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host, ""
        elif not (port.isascii() and port.isdecimal() and len(port) <= 5):
            return False
        return host in self._names or name in self._names


def comes_from_elsewhere(seen: Mapping[bytes, bytes], method: str, scheme: str) -> bool:
    """Return whether a browser says that a page of another origin made this request.

    What is no browser says neither. A person who follows a link to us comes from elsewhere, too, and may: but only to
    look, and not into a frame.
    """
    origin = seen.get(b"origin")
    if origin is not None and not _same_origin(origin, seen.get(b"host", b""), scheme):
        return True
    if seen.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin"):
        return False
    follows = seen.get(b"sec-fetch-mode") == b"navigate" and seen.get(b"sec-fetch-dest") == b"document"
    return not (follows and method in ("GET", "HEAD"))


def comes_from_here(seen: Mapping[bytes, bytes], scheme: str) -> bool:
    """Return whether a browser says that a page of this server made this request; its word is sent with every POST."""
    if (origin := seen.get(b"origin")) is not None:
        return _same_origin(origin, seen.get(b"host", b""), scheme)
    return seen.get(b"sec-fetch-site") == b"same-origin"


def _same_origin(origin: bytes, host: bytes, scheme: str) -> bool:
    """Compare with the host that was asked; behind a proxy that ends TLS we see http where the page was https."""
    asked, found, name = origin.lower().partition(b"://")
    return bool(found) and name == host.lower() and asked in ((b"https",) if scheme == "https" else (b"http", b"https"))
