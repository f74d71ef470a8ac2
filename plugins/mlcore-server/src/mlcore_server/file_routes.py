"""Files of runs over HTTP: read with ranges, listed, put whole, removed. Large ones come in parts, see `uploads`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from mlcore.artifacts import safe_path
from mlcore.errors import ArtifactNotFound, DigestMismatch, InvalidValue, UnsafePath
from mlcore_server.kept import CHUNK, Found, Link, Reader, Replaced, Unkept, Writing
from mlcore_server.places import Places
from mlcore_server.routing import Declined, Route
from mlcore_server.schemas import json_of

if TYPE_CHECKING:
    from mlcore_server.service import Service

__all__ = [
    "BYTES",
    "CHECKED",
    "LINK",
    "STORED",
    "Promise",
    "check_room",
    "checked",
    "name_of",
    "note",
    "promised",
    "receive",
    "routes",
    "shown",
]

_PATH = "/api/v1/runs/{run}/files"
_SILENT_SECONDS = 60
_LISTED = 10_000
_TRIES = 5  # to read the beginning of a file before it is replaced
_HEX = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*(,.*)?")
# whatever a file claims to be, a browser is to keep it, and to run nothing of it
_NEUTRAL = {
    "accept-ranges": "bytes",
    "cache-control": "private, no-cache",
    "content-security-policy": "sandbox; default-src 'none'",
    "content-type": "application/octet-stream",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


_TEXT = {"type": "string"}
_FILE = {"type": "object", "properties": {"path": _TEXT, "size": {"type": "integer"}}, "required": ["path", "size"]}
_LIST = json_of({
    "type": "object",
    "properties": {"files": {"type": "array", "items": _FILE}, "next": {"type": ["string", "null"]}},
    "required": ["files", "next"],
})  # fmt: skip
LINK = {"url": _TEXT, "headers": {"type": "object", "additionalProperties": _TEXT}, "seconds": {"type": "integer"}}
_ABOUT = {"etag": _TEXT, "size": {"type": "integer"}, "tag": _TEXT}
_LINKED = json_of({"type": "object", "properties": {**LINK, **_ABOUT}, "required": [*LINK, *_ABOUT]})
BYTES = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
STORED = json_of({**_FILE, "properties": {**_FILE["properties"], "sha256": _TEXT}})  # type: ignore[dict-item]
CHECKED = [
    {"name": "Mlcore-Sha256", "in": "header", "schema": _TEXT, "description": "the sha256 in hexadecimal digits"},
    {"name": "Content-Digest", "in": "header", "schema": _TEXT, "description": "the same as RFC 9530 has it"},
]
_ASKED = [
    {"name": "prefix", "in": "query", "schema": _TEXT, "description": "a file, or a folder of which to list all"},
    {"name": "after", "in": "query", "schema": _TEXT, "description": "what `next` said before"},
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": _LISTED}},
]
_PART = [{"name": "Range", "in": "header", "schema": _TEXT, "description": "one range of bytes, as RFC 9110 has it"}]


def routes(service: Service) -> Iterable[Route]:
    """Return the routes of files and of uploads."""
    from mlcore_server.uploads import Uploads

    places = Places(service.store, service.settings)
    files = _Files(places)
    path = f"{_PATH}/{{path:path}}"
    return [
        Route("GET", _PATH, files.list, needs="read", summary="List files of a run.", answer=_LIST, parameters=_ASKED),
        Route("GET", path, files.get, needs="read", summary="Read a file, or a range.", answer=BYTES, parameters=_PART),
        Route(
            "PUT", path, files.put, needs="write", summary="Store a file, whole or not at all.", body=BYTES,
            answer=STORED, parameters=CHECKED,
        ),
        Route("DELETE", path, files.delete, needs="write", summary="Remove a file."),
        Route(
            "GET", "/api/v1/runs/{run}/links/{path:path}", files.link, needs="read", answer=_LINKED,
            summary="Tell where a file can be read without this server, for some minutes.",
        ),
        *Uploads(places).routes(),
    ]  # fmt: skip


class _Files:
    def __init__(self, places: Places) -> None:
        self._places = places

    async def get(self, request: Request, service: Service) -> Response:
        """Answer GET and HEAD."""
        name = name_of(request)
        for left in reversed(range(_TRIES)):
            reader = await self._places.run(lambda: self._places.of(request.path_params["run"]).open(name))
            try:
                return await self._answer(request, name, reader)
            except BaseException as error:
                reader.close()
                if not isinstance(error, Replaced) or not left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _answer(self, request: Request, name: str, reader: Reader) -> Response:
        headers = _about(reader.found, name)
        if _wants_digest(request) and request.method == "HEAD" and not reader.found.sha256:
            headers |= _digests(await self._places.run(lambda: _hashed(reader)))
        if _known(request, reader.found):
            return _closed(reader, Response(status_code=304, headers=headers))
        start, end, status = _range(request, reader.found)
        if status == 206:
            headers["content-range"] = f"bytes {start}-{end - 1}/{reader.found.size}"
        headers["content-length"] = str(end - start)
        if request.method == "HEAD":
            return _closed(reader, Response(status_code=status, headers=headers))
        first = await self._places.run(partial(reader.read, start, min(CHUNK, end - start))) if start < end else b""
        return _Sent(reader, self._places, first, start, end, status, headers)

    async def list(self, request: Request, service: Service) -> Response:
        """Answer which files there are, in order of their names, some at a time."""
        given, run = request.query_params, request.path_params["run"]
        prefix = given.get("prefix", "").removesuffix("/")
        prefix = checked(prefix) if prefix else ""
        after, limit = given.get("after", ""), given.get("limit", str(_LISTED))
        if not limit.isdecimal() or not 0 < int(limit[:10]) <= _LISTED:
            raise InvalidValue(f"limit is a number from 1 to {_LISTED}")
        found = await self._places.run(lambda: self._places.of(run).files(prefix))
        names = sorted(name for name in found if name > after)
        listed = [{"path": name, "size": found[name]} for name in names[: int(limit)]]
        return JSONResponse({"files": listed, "next": listed[-1]["path"] if len(names) > len(listed) else None})

    async def put(self, request: Request, service: Service) -> Response:
        """Store a file."""
        name, run, promise = name_of(request), request.path_params["run"], promised(request)

        def begin() -> Writing:
            place = self._places.of(run, writing=True)
            check_room(place.free(), promise.size)
            return place.write(name)

        note(request, run)
        writing = await self._places.run(begin)
        try:
            size, sha256 = await receive(request, writing, self._places)
            promise.check(size, sha256)
            await self._places.run(lambda: writing.commit(sha256))
        finally:
            await self._places.run(writing.discard)
        return JSONResponse({"path": name, "size": size, "sha256": sha256}, 201, _digests(sha256))

    async def link(self, request: Request, service: Service) -> Response:
        """Answer by what a file can be read from the bucket itself; no log has it, as it is as good as a password."""
        name, run = name_of(request), request.path_params["run"]
        linked = await self._places.run(lambda: self._places.of(run).link(name))
        if linked is None:
            raise ArtifactNotFound("there is no link to this file, if there is one: read it from the server")
        told = {"etag": linked.found.etag, "size": linked.found.size, "tag": linked.tag}
        return JSONResponse({**shown(linked.link), **told}, headers={"cache-control": "no-store"})

    async def delete(self, request: Request, service: Service) -> Response:
        """Remove a file."""
        name, run = name_of(request), request.path_params["run"]
        note(request, run)
        await self._places.run(lambda: self._places.of(run, writing=True).remove(name))
        return Response(status_code=204)


class _Sent(StreamingResponse):
    """Send a range of a file. A file that is shorter than it was breaks the connection: half is never taken for all."""

    def __init__(
        self, reader: Reader, places: Places, first: bytes, start: int, end: int, status: int, headers: dict[str, str]
    ) -> None:
        self._reader, self._places, self._end = reader, places, end
        super().__init__(self._chunks(first, start), status, headers)

    async def _chunks(self, chunk: bytes, offset: int) -> AsyncIterator[bytes]:
        while offset < self._end:
            if not chunk:
                raise Replaced("the file became shorter while it was sent")
            yield chunk
            offset += len(chunk)
            if count := min(CHUNK, self._end - offset):
                chunk = await self._places.run(partial(self._reader.read, offset, count))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reader.close()


def shown(link: Link) -> dict[str, Any]:
    """Return a link as it is answered."""
    return {"url": link.url, "headers": link.headers, "seconds": link.seconds}


def _closed(reader: Reader, response: Response) -> Response:
    reader.close()
    return response


def note(request: Request, run: str) -> None:
    """Say for the audit log of which run a file is written."""
    request.scope["state"]["objects"] = [f"run/{run}"]


def name_of(request: Request) -> str:
    """Return the name of the file that a request is about. Raises `UnsafePath`."""
    name = request.path_params["path"]
    # what is no UTF-8 was replaced when the path was decoded, and two names must not become one
    if "\N{REPLACEMENT CHARACTER}" in name and b"%EF%BF%BD" not in request.scope.get("raw_path", b"").upper():
        raise UnsafePath("the name of the file is not UTF-8")
    return checked(name)


def checked(name: str) -> str:
    """Return a name that stays below any root, also if something on the way decodes it again. Raises `UnsafePath`."""
    decoded = safe_path(name)
    while (once_more := unquote(decoded)) != decoded:
        decoded = safe_path(once_more)
    return name


class Promise(NamedTuple):
    """Say what a sender told of a file beforehand: None and an empty text if nothing."""

    size: int | None
    sha256: str

    def check(self, size: int, sha256: str) -> None:
        """Compare it with what came. Raises `DigestMismatch`."""
        if self.size not in (None, size):
            raise DigestMismatch(f"{size} bytes came, of {self.size} that were announced")
        if self.sha256 not in ("", sha256):
            raise DigestMismatch(f"what came has the sha256 {sha256}, not {self.sha256}")


def promised(request: Request) -> Promise:
    """Return what the headers say of the body. Raises `InvalidValue` or `Unkept`."""
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity" or "content-range" in headers:
        raise Unkept(415, "a file is sent as it is: no Content-Encoding, no Content-Range")
    length, sha256 = headers.get("content-length"), headers.get("mlcore-sha256", "").lower()
    for part in headers.get("content-digest", "").split(","):
        algorithm, _, value = part.strip().partition("=")
        if algorithm.lower() == "sha-256" and not sha256:
            try:
                sha256 = base64.b64decode(value.strip(":"), validate=True).hex()
            except ValueError:
                raise InvalidValue("Content-Digest is sha-256=:<base64>:, see RFC 9530") from None
    if sha256 and not _HEX.fullmatch(sha256):
        raise InvalidValue("a sha256 has 64 hexadecimal digits")
    return Promise(int(length) if length is not None and length.isdecimal() else None, sha256)


def check_room(free: int | None, size: int | None) -> None:
    """Refuse, before it comes, what there is no room for. Raises `Unkept`."""
    if free is not None and size is not None and size > free:
        raise Unkept(507, f"there is no room for {size:,} bytes, but for {free:,}")


async def receive(request: Request, writing: Writing, places: Places, limit: int | None = None) -> tuple[int, str]:
    """Write the body as it comes, and return its size and sha256; the next bytes come while some are written."""
    digest, size, waiting = hashlib.sha256(), 0, bytearray()
    task: asyncio.Future[None] | None = None
    chunks = request.stream()

    def take(data: bytes) -> None:
        writing.write(data)
        digest.update(data)

    try:
        while True:
            try:
                async with asyncio.timeout(_SILENT_SECONDS):
                    chunk = await anext(chunks, b"")
            except TimeoutError:
                raise Declined(408, f"nothing came for {_SILENT_SECONDS} s", {"connection": "close"}) from None
            size += len(chunk)
            if limit is not None and size > limit:
                raise Unkept(413, f"over {limit:,} bytes came, and not as many were to come")
            waiting += chunk
            if len(waiting) >= CHUNK or not chunk:
                if task is not None:
                    await task
                data, waiting = bytes(waiting), bytearray()
                task = asyncio.ensure_future(places.run(partial(take, data)))
                if not chunk:
                    await task
                    return size, digest.hexdigest()
    finally:
        if task is not None:
            await asyncio.wait([task])  # nobody lets go of a file that a thread still writes to


def _about(found: Found, name: str) -> dict[str, str]:
    last = name.rpartition("/")[2]
    headers = {
        **_NEUTRAL,
        "content-disposition": f"attachment; filename*=UTF-8''{quote(last, safe='')}",
        "etag": f'"{found.etag}"',
    }
    if found.modified is not None:
        headers["last-modified"] = formatdate(found.modified, usegmt=True)
    if found.direct:
        headers["mlcore-direct"] = "1"
    return headers | (_digests(found.sha256) if found.sha256 else {})


def _digests(sha256: str) -> dict[str, str]:
    encoded = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {"etag": f'"{sha256}"', "mlcore-sha256": sha256, "repr-digest": f"sha-256=:{encoded}:"}


def _wants_digest(request: Request) -> bool:
    return "sha-256" in request.headers.get("want-repr-digest", "")


def _hashed(reader: Reader) -> str:
    digest, offset = hashlib.sha256(), 0
    while chunk := reader.read(offset, CHUNK):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def _known(request: Request, found: Found) -> bool:
    """Tell whether who asks has the file already. Raises `Declined` for another one; see RFC 9110, section 13."""
    match, none = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and not _among(match, found.etag):
        raise Declined(412, "the file is another one by now", {"etag": f'"{found.etag}"'})
    return none is not None and _among(none.replace("W/", ""), found.etag)


def _among(tags: str, etag: str) -> bool:
    return tags.strip() == "*" or f'"{etag}"' in (tag.strip() for tag in tags.split(","))


def _range(request: Request, found: Found) -> tuple[int, int, int]:
    """Return the first byte, the one after the last, and the status; see RFC 9110, section 14. Raises `Declined`."""
    given, only_if = request.headers.get("range", ""), request.headers.get("if-range")
    fit = _RANGE.fullmatch(given.strip())
    if fit is None or fit[1] + fit[2] == "" or (only_if is not None and only_if != f'"{found.etag}"'):
        return 0, found.size, 200  # what is no range, or of another file, is as if it were not there
    if fit[3]:
        raise _no_range(found, "one range a request")
    first, last = fit[1], fit[2]
    if not first:
        start, end = max(found.size - int(last), 0), found.size
    else:
        start, end = int(first), min(int(last) + 1, found.size) if last else found.size
        if last and int(last) < start:
            return 0, found.size, 200
    if start >= end:
        raise _no_range(found, "the range is not in the file")
    return start, end, 206


def _no_range(found: Found, told: str) -> Declined:
    return Declined(416, f"{told}: it has {found.size:,} bytes", {"content-range": f"bytes */{found.size}"})
