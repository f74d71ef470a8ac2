"""Pools of connections: over TCP, TLS, a proxy or a Unix socket. Loaded with the first request, as urllib3 is."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from mlcore.errors import ConfigError
from mlcore_remote.addresses import Address

__all__ = ["make_pool"]

_SIZE = 64  # connections that are kept; more threads open more, for a moment, of which urllib3 warns
_HELD = 1 << 16
CERTIFICATES = ("MLCORE_CA", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class _OneSend:
    """Send the head and a short body of a request at once.

    In two, a system that holds back small writes waits for the other side, which waits before it says that the first
    arrived: 40 ms for nothing.
    """

    _held: list[bytes] | None = None

    def request(self, *args: Any, **options: Any) -> None:
        self._held = []
        try:
            super().request(*args, **options)  # type: ignore[misc]
            self._let_go()
        finally:
            self._held = None

    def send(self, data: Any) -> None:
        if self._held is None or not isinstance(data, bytes):
            self._let_go()
            super().send(data)  # type: ignore[misc]
            return
        self._held.append(data)
        if sum(map(len, self._held)) > _HELD:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, [] if self._held is not None else None
        if held:
            super().send(b"".join(held))  # type: ignore[misc]


class _Http(_OneSend, HTTPConnection):
    pass


class _Https(_OneSend, HTTPSConnection):
    pass


class _Noting:
    """Tell which address was connected to."""

    note: Callable[[str], object]

    def _new_conn(self) -> socket.socket:
        found: socket.socket = super()._new_conn()  # type: ignore[misc]
        with suppress(OSError):  # the other side closed it already
            self.note(str(found.getpeername()[0]))
        return found


class _Choosing:
    """Connect to no address but those that may be, whatever name they have."""

    may: Callable[[str], bool]

    def _new_conn(self: Any) -> socket.socket:
        try:
            known = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, f"the name is not known: {error}") from error
        addresses = [str(each[4][0]) for each in known if self.may(str(each[4][0]))]
        failed: OSError = PermissionError(errno.EACCES, "no server may send its clients to such an address")
        for address in addresses:
            try:
                return urllib3.util.connection.create_connection(
                    (address, self.port), self.timeout, socket_options=self.socket_options
                )
            except OSError as error:
                failed = error
        if isinstance(failed, TimeoutError):
            raise urllib3.exceptions.ConnectTimeoutError(self, "no connection in time") from failed
        raise urllib3.exceptions.NewConnectionError(self, str(failed.strerror or failed)) from failed


class _Unix(_OneSend, HTTPConnection):
    socket_path = ""

    def _new_conn(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)
            found.connect(self.socket_path)
        except OSError as error:
            found.close()
            raise urllib3.exceptions.NewConnectionError(self, f"{error.strerror or error}") from error
        return found


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


Pool = urllib3.HTTPConnectionPool | urllib3.PoolManager


def make_pool(
    address: Address, *, note: Callable[[str], object] | None = None, may: Callable[[str], bool] | None = None
) -> tuple[Pool, str]:
    """Return a pool for a server, as the environment wants it now, and what stands before every path there.

    `note` is told every IP address that was connected to, and `may` says of one whether it may be; unless a proxy
    connects: of that it is only known whether the URL itself has an IP address. Raises `ConfigError` where a variable
    names a proxy or certificates that cannot be.
    """
    if address.socket:
        kind = type("_UnixConnection", (_Unix,), {"socket_path": address.socket})
        unix = type("_UnixPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": kind})
        return unix("localhost", maxsize=_SIZE), address.path
    options: dict[str, Any] = {"ssl_context": _context(address)} if address.scheme == "https" else {}
    proxy = _proxy(address)
    if proxy is None:
        made: Any = _watching(_HttpsPool if options else _HttpPool, note, may)
        return made(address.host, address.port, maxsize=_SIZE, **options), address.path
    if may is not None and _is_address(address.host) and not may(address.host.strip("[]")):
        raise ConfigError(f"{address.base} is an address that no server may send its clients to")
    proxied = urllib3.ProxyManager(proxy, proxy_headers=_credentials(proxy), maxsize=_SIZE, **options)
    proxied.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return proxied, address.base  # a proxy that forwards is told the whole URL


def _watching(
    pool: type[urllib3.HTTPConnectionPool], note: Callable[[str], object] | None, may: Callable[[str], bool] | None
) -> type[urllib3.HTTPConnectionPool]:
    watch: list[tuple[type, dict[str, Any]]] = []
    if note is not None:
        watch.append((_Noting, {"note": staticmethod(note)}))
    if may is not None:
        watch.append((_Choosing, {"may": staticmethod(may)}))
    kind: Any = pool.ConnectionCls
    for mixin, named in watch:
        kind = type(f"{mixin.__name__}{kind.__name__}", (mixin, kind), named)
    return type(pool.__name__, (pool,), {"ConnectionCls": kind})


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host.strip("[]")))
    return False


def _context(address: Address) -> ssl.SSLContext:
    """Return what checks a certificate: against the first of the variables that is set, else against the system's."""
    context = ssl.create_default_context()
    for name in CERTIFICATES:
        if given := os.environ.get(name):
            file = Path(given).expanduser()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(**{"capath" if file.is_dir() else "cafile": str(file)})
            except OSError as error:  # an SSLError is one
                reason = getattr(error, "strerror", None) or error
                raise ConfigError(f"{name} names no certificates for {address.base}: {file}: {reason}") from error
            break
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _proxy(address: Address) -> str | None:
    """Return the proxy that HTTP_PROXY or HTTPS_PROXY names for a server; this machine is asked without one."""
    proxies = getproxies_environment()
    host = address.host.strip("[]")
    if address.local or proxy_bypass_environment(f"{host}:{address.port}", proxies) or proxy_bypass_environment(host):
        return None
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigError(
            f"the proxy for {address.base} is one of {urlsplit(proxy).scheme}, and mlcore speaks to those of http and "
            "https: name another in HTTPS_PROXY, or the server in NO_PROXY"
        )
    return proxy


def _credentials(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=secret))
