"""Bodies of requests and answers: bounded, and compressed where the other side knows how."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from mlcore_server.routing import Declined

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["answered", "body_of", "gunzip"]

_WORTH = 1_024  # bytes, from which on it is worth to compress
_LEVEL = 1


async def body_of(request: Request, limit: int) -> bytes:
    """Return the whole body of a request, unpacked if it is gzip. Raises `Declined`, 413 if it is over `limit`."""
    headers = {name: value for name, value in request.scope["headers"] if name.startswith(b"content-")}
    length, encoding = headers.get(b"content-length", b""), headers.get(b"content-encoding", b"identity").lower()
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    message = await request.receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await request.receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        from starlette.requests import ClientDisconnect

        raise ClientDisconnect
    if encoding == b"gzip":
        return gunzip(body, limit)
    if encoding != b"identity":
        raise Declined(415, "the body's encoding is neither gzip nor identity", {"accept-encoding": "gzip"})
    return body


def gunzip(data: bytes, limit: int) -> bytes:
    """Return what gzip packed, no more than `limit` bytes of it in memory."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise Declined(400, f"the body is not gzip: {error}") from None
    if len(found) > limit:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise Declined(400, "the body is not one whole member of gzip")
    return found


def answered(request: Request, content: bytes, media_type: str) -> Response:
    """Return an answer, as gzip if that is asked for and worth it."""
    from starlette.responses import Response

    headers = {"vary": "accept, accept-encoding"}
    if len(content) >= _WORTH and "gzip" in request.headers.get("accept-encoding", ""):
        packer = zlib.compressobj(_LEVEL, wbits=16 + zlib.MAX_WBITS)
        content = packer.compress(content) + packer.flush()
        headers["content-encoding"] = "gzip"
    return Response(content, media_type=media_type, headers=headers)


def _too_large(limit: int) -> Declined:
    return Declined(413, f"the body is over the limit of {limit:,} bytes: send less at once")
