"""Sessions of browsers: a signed cookie that every server with the same tokens understands, and no server keeps.

The cookie says which token let its owner in and until when, signed with a key derived from that token. A session
therefore ends with its token, on all servers at once, and several servers need nothing in common but their tokens.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from mlcore_server.tokens import Token, Tokens

__all__ = ["clear_cookie", "cookie_name", "open_session", "session_of", "set_cookie"]

_PURPOSE = b"session 1"
_SIZE = 16  # bytes of a signature and of what tells tokens apart: 128 bits


def open_session(token: Token, *, lasts: int, now: float | None = None) -> str:
    """Return the value of a cookie that lets the owner of a token in for `lasts` seconds."""
    until = int((time.time() if now is None else now) + lasts)
    body = f"1.{_mark(token)}.{until}"
    return f"{body}.{_signature(token, body)}"


def session_of(cookie: str, tokens: Tokens, *, now: float | None = None) -> Token | None:
    """Return the token that a cookie stands for; None if it is forged, too old, or its token is no more."""
    body, _, signature = cookie.rpartition(".")
    parts = body.split(".")
    if len(parts) != 3 or parts[0] != "1" or not (parts[2].isascii() and parts[2].isdecimal() and len(parts[2]) < 16):
        return None
    for token in tokens.now().values():
        if hmac.compare_digest(_mark(token).encode(), parts[1].encode("utf-8", "replace")):
            fits = hmac.compare_digest(_signature(token, body).encode(), signature.encode("utf-8", "replace"))
            return token if fits and int(parts[2]) > (time.time() if now is None else now) else None
    return None


def _mark(token: Token) -> str:
    return _text(hashlib.sha256(token.key(b"mark")).digest())


def _signature(token: Token, body: str) -> str:
    return _text(hmac.digest(token.key(_PURPOSE), body.encode(), "sha256"))


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest[:_SIZE]).rstrip(b"=").decode()


def cookie_name(*, secure: bool, port: int | None) -> str:
    """Return the cookie's name.

    With TLS it begins with ``__Host-``: browsers take such a one only from this very host. Without, its name has the
    port, as browsers send a cookie to all ports of a host, so that servers beside each other do not log each other out.
    """
    return "__Host-mlcore" if secure else f"mlcore-{port or 0}"


def set_cookie(value: str, *, secure: bool, port: int | None, lasts: int) -> str:
    """Return the header ``Set-Cookie`` for a session: for this server only, and for no script."""
    flags = "; Secure" if secure else ""
    name = cookie_name(secure=secure, port=port)
    return f"{name}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{flags}"


def clear_cookie(*, secure: bool, port: int | None) -> str:
    """Return the header ``Set-Cookie`` that ends a session in this browser."""
    return set_cookie("", secure=secure, port=port, lasts=0)
