"""Bodies of requests and answers: bounded, and compressed where the other side knows how."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mlcore_server.limits import too_large
from mlcore_server.routing import Declined

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["asks_gzip", "body_of", "gunzip", "gzipped", "packed"]

_WORTH = 1_024  # bytes, from which on it is worth to compress
_LEVEL = 1
_CHUNK = 256 << 10


async def body_of(request: Request, limit: int) -> bytes:
    """Return the whole body of a request, unpacked if it is gzip. Raises `TooLarge` if it is over `limit`."""
    seen = request.scope["state"]["seen"]
    length, encoding = seen.get(b"content-length", b""), seen.get(b"content-encoding", b"").lower()
    if length.isdigit() and int(length) > limit:
        raise too_large(limit)
    message = await request.receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await request.receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise too_large(limit)
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        from starlette.requests import ClientDisconnect

        raise ClientDisconnect
    if encoding == b"gzip":
        return gunzip(body, limit)
    if encoding not in (b"", b"identity"):
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
        raise too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise Declined(400, "the body is not one whole member of gzip")
    return found


def asks_gzip(request: Request) -> bool:
    """Tell whether a client takes gzip."""
    given = request.headers.get("accept-encoding", "").lower().replace(" ", "")
    return any(part == "gzip" or (part.startswith("gzip;q=") and _quality(part[7:])) for part in given.split(","))


def _quality(text: str) -> float:
    """Return a quality, 0 if it is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def packed(content: bytes, media_type: str, gzip: bool) -> Response:
    """Return an answer, as gzip if that is asked for and worth it. It takes time: to be called in a thread."""
    from starlette.responses import Response

    headers = {"vary": "accept, accept-encoding"}
    if gzip and len(content) >= _WORTH:
        content = b"".join(gzipped([content]))
        headers["content-encoding"] = "gzip"
    return Response(content, media_type=media_type, headers=headers)


def gzipped(chunks: Iterable[bytes], *, gzip: bool = True, size: int = _CHUNK) -> Iterator[bytes]:
    """Yield the same bytes in chunks of some size, as gzip unless that is not wanted."""
    packer = zlib.compressobj(_LEVEL, wbits=16 + zlib.MAX_WBITS) if gzip else None
    parts, held = list[bytes](), 0
    for chunk in chunks:
        part = chunk if packer is None else packer.compress(chunk)
        if part:
            parts.append(part)
            held += len(part)
        if held >= size:
            yield b"".join(parts)
            parts, held = [], 0
    if packer is not None:
        parts.append(packer.flush())
    if parts:
        yield b"".join(parts)
