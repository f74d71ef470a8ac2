"""The bucket that a server keeps files in, reached by the links that the server hands out, without the server.

Nothing of the server goes there: no token, no cookie, no header but what a link asks for. Nothing else is followed: a
link is one of HTTP, encrypted if the server is, and leads no nearer to this machine than the server itself is. A server
on the internet cannot send anybody to an address of their own network, nor one of that network to a service of their
machine; what counts is the address that is connected to, not the name. Where the bucket cannot be reached, files go
through the server.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs

from mlcore.errors import ConfigError, StoreError
from mlcore_remote.addresses import Address

if TYPE_CHECKING:
    import urllib3

    from mlcore_remote.pools import Pool

__all__ = ["FAR", "HERE", "NEAR", "NOWHERE", "Bucket", "Link", "Unreached", "distance", "said"]

FAR, NEAR, HERE, NOWHERE = range(4)  # on the internet, in a network of one's own, on this machine, for nobody
_SECONDS = 600  # after which a bucket that could not be reached is tried again
_CONNECT, _READ = 5.0, 60.0
_EARLY = 0.8  # of the time that a link is good, after which a new one is asked for
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\]")
_TARGET = re.compile(r"[!-~]{1,8000}")
_HEADER, _VALUE = re.compile(r"x-[a-z0-9-]{1,60}"), re.compile(r"[ -~]{0,500}")  # no name that HTTP gives a meaning
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,60})</Code>")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_log = logging.getLogger("mlcore")


class _WithoutSignatures(logging.Filter):
    """Cut off what follows the path of a URL, which urllib3 tells whoever debugs it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                each.partition("?")[0] + "?..." if isinstance(each, str) and "ignature=" in each else each
                for each in record.args
            )
        return True


_FILTER = _WithoutSignatures()


class Unreached(StoreError):
    """Say why the bucket is of no use from here."""


@attrs.frozen
class Link:
    """Hold where a link leads, the path there, which is as good as a password, and until when it is asked."""

    address: Address
    target: str = attrs.field(repr=False)
    headers: dict[str, str]
    until: float

    @classmethod
    def read(cls, told: Any) -> Link:
        """Return the link that a server told. Raises `Unreached` for what is none."""
        try:
            url, headers, seconds = told["url"], dict(told["headers"]), float(told["seconds"])
            parts = urlsplit(url)
            scheme, host, port = parts.scheme, (parts.hostname or "").lower(), parts.port
            named = all(_HEADER.fullmatch(name.lower()) and _VALUE.fullmatch(headers[name]) for name in headers)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Unreached("the server told a link that is none") from None
        host = f"[{host}]" if ":" in host else host
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fine = scheme in _PORTS and _HOST.fullmatch(host) and port != 0 and parts.username is None and named
        if not fine or not _TARGET.fullmatch(target):
            raise Unreached("the server told a link that no client follows: it is no plain URL of http or https")
        return cls(Address(scheme, host, port or _PORTS[scheme]), target, headers, time.monotonic() + seconds * _EARLY)


def distance(address: str) -> int:
    """Return how near an IP address is: `FAR`, `NEAR`, `HERE`, or `NOWHERE` for one that no bucket can have."""
    found: Any = ipaddress.ip_address(address.partition("%")[0])
    if found.version == 6:
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = ipaddress.ip_address(found.packed[-4:])
        found = inner or found
    if found.is_loopback or found.is_unspecified:
        return HERE
    if found.is_link_local or found.is_multicast or (found.version == 4 and found.is_reserved):
        return NOWHERE
    return FAR if found.is_global else NEAR


class Bucket:
    """Speak to the bucket of one server; threads may share it, and the child of a fork has connections of its own."""

    def __init__(self, server: Address, peer: Callable[[], str]) -> None:
        """`peer` returns the IP address that the server was last reached at, empty if only a proxy knows."""
        self._server, self._peer = server, peer
        self._pools: dict[tuple[int, Address], tuple[Pool, str]] = {}
        self._lock, self._until, self._warned = threading.Lock(), 0.0, False

    @property
    def usable(self) -> bool:
        """Whether it may be reached, as far as is known."""
        return time.monotonic() >= self._until

    def give_up(self, error: Exception) -> None:
        """Let files go through the server for a while, and say so once."""
        with self._lock:
            self._until, first, self._warned = time.monotonic() + _SECONDS, not self._warned, True
        if first:
            _log.warning("large files go through the server at %s, which is slower: %s", self._server.base, error)

    def send(
        self, method: str, link: Link, headers: Mapping[str, str], body: Callable[[], Iterable[bytes]] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and return the answer, whatever its status, unread.

        Raises `Unreached` if no connection came about, and what `urllib3` raises for one that broke.
        """
        import urllib3
        from urllib3 import exceptions as faults

        from mlcore_remote.mishaps import explain_failure

        if self._server.scheme == "https" and link.address.scheme != "https" and not self._server.local:
            raise Unreached(f"its link to {link.address.base} is not encrypted, and the server is")
        try:
            pool, prefix = self._pool(link.address)
            sent: dict[str, str] = {"User-Agent": "mlcore", "Accept-Encoding": "identity", **link.headers, **headers}
            return pool.urlopen(
                method, prefix + link.target, body=None if body is None else body(), headers=sent, retries=False,
                redirect=False, preload_content=False, decode_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
            )  # fmt: skip
        except (faults.NewConnectionError, faults.ConnectTimeoutError, faults.SSLError, faults.ProxyError) as error:
            raise Unreached(_without(explain_failure(link.address, error)[0], link)) from None
        except (ConfigError, faults.LocationValueError) as error:
            raise Unreached(_without(error, link)) from None

    def _pool(self, address: Address) -> tuple[Pool, str]:
        from mlcore_remote.pools import make_pool

        key = os.getpid(), address
        logging.getLogger("urllib3.connectionpool").addFilter(_FILTER)  # which is there once, however often
        with self._lock:
            if key not in self._pools:
                self._pools[key] = make_pool(address, may=self._may)
            return self._pools[key]

    def _may(self, address: str) -> bool:
        """Tell whether a link may lead to an IP address: not if that is nearer than the server's own."""
        peer = self._peer()
        own = HERE if self._server.socket else distance(peer) if peer else FAR
        return distance(address) <= min(own, HERE)

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for (pid, _), (pool, _) in pools.items():
            if pid == os.getpid():
                pool.clear() if hasattr(pool, "clear") else pool.close()


def said(response: urllib3.BaseHTTPResponse, link: Link) -> str:
    """Return in words what a bucket refused, without anything of the link, and let go of the answer."""
    import urllib3

    code = None
    try:
        code = _CODE.search(response.read(1 << 14) or b"")
    except (urllib3.exceptions.HTTPError, OSError):
        pass
    finally:
        response.close()
    return f"{link.address.base} answers {response.status}" + (f" {code[1].decode()}" if code else "")


def _without(error: Exception, link: Link) -> str:
    """Return what an error says without the path of a link."""
    return str(error).replace(link.target, "/...")
