"""Where a server is: the URI of a store as a base URL, a Unix socket perhaps, and a name that may be shown."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

import attrs

from mlcore.errors import ConfigError

__all__ = ["Address", "address_of"]

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\]")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/%-]*")
_SOCKET = re.compile(r"/(?:[^/]+/)*?[^/]+\.sock")
_SOCKET_THEN_PATH = re.compile(rf"({_SOCKET.pattern})((?:/.*)?)", re.DOTALL)


@attrs.frozen
class Address:
    """Hold where a server is.

    `base` is its URL, with the path that a proxy put before it and without a slash at the end; it is what tokens are
    kept by. `socket` is the path of a Unix socket, else empty.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    socket: str = ""

    @property
    def base(self) -> str:
        """The one form of the URL, with the port only where it is not the usual one."""
        if self.socket:
            plain = _SOCKET.fullmatch(self.socket) is not None  # where it ends can be seen
            return f"http+unix://{quote(self.socket, safe='/' if plain else '')}{self.path}"
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"

    @property
    def local(self) -> bool:
        """Whether it is on this machine: what goes there passes no network, and no proxy."""
        return bool(self.socket) or self.host in ("localhost", "[::1]") or self.host.startswith("127.")


def address_of(uri: str) -> Address:
    """Return where the server of a URI is: ``http://``, ``https://`` or ``http+unix:///path/of.sock``.

    Raises `ConfigError` that says what is wrong with it, and shows no password.
    """
    try:
        parts = urlsplit(uri.strip())
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"not the URI of a server: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"the URI of the server at {parts.hostname} has a user or a password in it, where others may read it: "
            "leave it out and run `mlcore login`, or set MLCORE_TOKEN_FILE"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"the URI of a server has no ? and no #: {parts.scheme}://{parts.netloc}{parts.path}")
    if parts.scheme == "http+unix":
        if parts.netloc:
            return _at_socket(unquote(parts.netloc), parts.path)
        match = _SOCKET_THEN_PATH.fullmatch(parts.path)
        return _at_socket(*(map(unquote, match.groups()) if match else (unquote(parts.path), "")))
    if parts.scheme not in _PORTS:
        raise ConfigError(f"not the URI of a server: {uri!r:.200}; it begins with http:// or https://")
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    if not _HOST.fullmatch(host) or port == 0:
        raise ConfigError(f"not the URI of a server, as it names no host or a wrong one: {uri!r:.200}")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or ".." in unquote(path).split("/"):
        raise ConfigError(f"the path in the URI of a server may have no spaces, no .. and be ASCII: {uri!r:.200}")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], path)


def _at_socket(socket: str, path: str) -> Address:
    if not socket.startswith("/") or "\0" in socket or len(socket.encode()) > 107:
        raise ConfigError(f"not the path of a Unix socket: {socket!r:.200}; it begins with / and has at most 107 bytes")
    if not _PATH.fullmatch(path):
        raise ConfigError(f"not the path of a server behind the socket {socket}: {path!r:.200}")
    return Address("http", "localhost", 80, path.rstrip("/"), socket)
