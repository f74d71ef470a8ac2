"""Pools of connections: over TCP, TLS, a proxy or a Unix socket. Loaded with the first request, as urllib3 is."""

from __future__ import annotations

import os
import socket
import ssl
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


def make_pool(address: Address) -> tuple[Pool, str]:
    """Return a pool for a server, as the environment wants it now, and what stands before every path there.

    Raises `ConfigError` where a variable names a proxy or certificates that cannot be.
    """
    if address.socket:
        kind = type("_UnixConnection", (_Unix,), {"socket_path": address.socket})
        unix = type("_UnixPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": kind})
        return unix("localhost", maxsize=_SIZE), address.path
    options: dict[str, Any] = {"ssl_context": _context(address)} if address.scheme == "https" else {}
    proxy = _proxy(address)
    if proxy is None:
        made: Any = _HttpsPool if options else _HttpPool
        return made(address.host, address.port, maxsize=_SIZE, **options), address.path
    proxied = urllib3.ProxyManager(proxy, proxy_headers=_credentials(proxy), maxsize=_SIZE, **options)
    proxied.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return proxied, address.base  # a proxy that forwards is told the whole URL


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
