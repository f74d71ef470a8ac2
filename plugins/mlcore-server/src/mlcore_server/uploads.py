"""Large files over HTTP: announced, sent in parts in any order, and completed when their sha256 fits.

What is uploaded has an id made of its run, name, size and sha256: who announces the same file again, after a crash too,
goes on where it stopped, with any server of the same place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlcore.errors import ArtifactNotFound, DigestMismatch, InvalidValue, Malformed, UnsafePath
from mlcore.store import from_json
from mlcore_server.bodies import body_of
from mlcore_server.file_routes import BYTES, CHECKED, LINK, STORED, check_room, checked, note, promised, receive, shown
from mlcore_server.kept import ID, STALE_SECONDS, Gone, Part, Place, Staged, Staging, Unkept, reached
from mlcore_server.places import Places
from mlcore_server.routing import Declined, Route
from mlcore_server.schemas import json_of

if TYPE_CHECKING:
    from mlcore_server.service import Service

__all__ = ["PART", "Uploads"]

PART = 16 << 20  # bytes of a part, by its number; PATCH takes any
_BODY = 64 << 10
_PATH = "/api/v1/uploads"
_PATIENCE_SECONDS = 20  # that a completion is waited for, before its sender is told to ask again

_T = TypeVar("_T")
_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0}
_NAMED = {"run": _TEXT, "path": _TEXT, "size": _NUMBER, "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
_ANNOUNCED = json_of({"type": "object", "properties": _NAMED, "required": [*_NAMED]})
_INTERVALS = {"type": "array", "items": {"type": "array", "items": _NUMBER}}
_MD5: Any = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_PART: Any = {"offset": _NUMBER, "size": _NUMBER, "md5": _MD5}
_PART = {"type": "object", "properties": _PART, "required": [*_PART]}
_PARTS = json_of({"type": "object", "properties": {"parts": {"type": "array", "items": _PART}}, "required": ["parts"]})
_LINK: Any = {"type": "object", "properties": {"offset": _NUMBER, **LINK}, "required": ["offset", *LINK]}
_LINKS = json_of({"type": "object", "properties": {"links": {"type": "array", "items": _LINK}}, "required": ["links"]})
_DIRECT = {"type": "object", "properties": {"part": _NUMBER, "received": {"type": "array", "items": _PART}}}
_UPLOAD = json_of({
    "type": "object",
    "properties": {
        **_NAMED, "id": _TEXT, "part": _NUMBER, "received": _INTERVALS, "kept_seconds": _NUMBER, "direct": _DIRECT,
    },
})  # fmt: skip


class Uploads:
    """Answer what is asked of uploads."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._completing: dict[str, asyncio.Future[None]] = {}

    def routes(self) -> list[Route]:
        """Return the routes."""
        one = f"{_PATH}/{{id}}"
        write: Any = {"needs": "write"}
        sent: Any = {"body": BYTES, "parameters": CHECKED, **write}
        offset = {"name": "Upload-Offset", "in": "header", "required": True, "schema": {"type": "integer"}}
        return [
            Route(
                "POST", _PATH, self.create, summary="Announce a large file, or go on with one.", body=_ANNOUNCED,
                answer=_UPLOAD, **write,
            ),
            Route("GET", one, self.show, needs="read", summary="Tell which parts of a file are there.", answer=_UPLOAD),
            Route(
                "PATCH", one, self.patch, summary="Send bytes from an offset on.",
                **{**sent, "parameters": [offset, *CHECKED]},
            ),
            Route("PUT", f"{one}/parts/{{number}}", self.part, summary="Send a part by its number.", **sent),
            Route("POST", f"{one}/complete", self.complete, summary="Let the file appear.", answer=STORED, **write),
            Route(
                "POST", f"{one}/links", self.links, summary="Tell where parts can be stored without this server.",
                body=_PARTS, answer=_LINKS, **write,
            ),
            Route("DELETE", one, self.abort, summary="Give an upload up.", **write),
        ]  # fmt: skip

    async def create(self, request: Request, service: Service) -> Response:
        """Note a file that is to come, or find what is there of it."""
        try:
            given = from_json(await body_of(request, _BODY))
            run, path, size, sha256 = given["run"], given["path"], given["size"], given["sha256"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Malformed('an upload is announced as {"run": ..., "path": ..., "size": ..., "sha256": ...}') from None
        path = checked(path)
        if type(size) is not int or not 0 <= size < 1 << 60:
            raise InvalidValue("size is a number of bytes")
        if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256) or not isinstance(run, str):
            raise InvalidValue("sha256 has 64 hexadecimal digits, and run is the id of one")
        which = hashlib.sha256(f"{path}\0{size}\0{sha256}".encode()).hexdigest()
        staged = Staged(f"{run}.{which[:32]}", run, path, size, sha256)

        def begin() -> dict[str, Any]:
            place = self._places.of(run, writing=True)
            staging = place.staging()
            try:
                staging.find(staged.id)
            except Gone:
                check_room(place.free(), size)
                staging.create(staged)
            return _shown(staged, staging)

        note(request, run)
        told = await self._places.run(begin)
        return JSONResponse(told, 201, {"location": f"{_PATH}/{staged.id}", **_offset(staged, told["received"])})

    async def show(self, request: Request, service: Service) -> Response:
        """Answer GET and HEAD."""
        staged, place = await self._found(request)
        told = await self._run(lambda: _shown(staged, place.staging()))
        return JSONResponse(told, headers=_offset(staged, told["received"]))

    async def patch(self, request: Request, service: Service) -> Response:
        """Take bytes in."""
        given = request.headers.get("upload-offset", "")
        if not given.isdecimal():
            raise InvalidValue("Upload-Offset says where the bytes belong")
        return await self._take(request, int(given[:20]), None)

    async def part(self, request: Request, service: Service) -> Response:
        """Take a part in."""
        number = request.path_params["number"]
        if not re.fullmatch("[1-9][0-9]{0,8}", number):
            raise InvalidValue("parts have numbers from 1 on")
        return await self._take(request, (int(number) - 1) * PART, PART)

    async def _take(self, request: Request, offset: int, length: int | None) -> Response:
        staged, place = await self._found(request)
        promise, staging = promised(request), place.staging()
        rest = staged.size - offset
        wanted = rest if length is None else min(length, rest)
        if rest < 0 or (promise.size is not None and promise.size > wanted):
            raise Unkept(413, f"{promise.size} bytes from {offset} on are more than the file has, or the part")
        try:
            writing = await self._run(lambda: staging.part(staged.id, offset, checked=bool(promise.sha256)))
            try:
                size, sha256 = await receive(request, writing, self._places, wanted)
                promise.check(size, sha256)
                await self._run(lambda: writing.commit(sha256))
            finally:
                await self._run(writing.discard)
        except Unkept as error:
            if error.status == 507:  # what is there of it would keep the disk full
                await self._run(lambda: staging.remove(staged.id))
            raise
        received = await self._run(lambda: staging.received(staged.id))
        return Response(status_code=204, headers=_offset(staged, received))

    async def complete(self, request: Request, service: Service) -> Response:
        """Let the file appear; a large one takes longer than proxies wait, so the sender is told to ask again."""
        staged, place = await self._found(request)
        if (task := self._completing.get(staged.id)) is None:
            work = self._places.run(partial(_complete, staged, place))
            task = self._completing[staged.id] = asyncio.ensure_future(work)
            task.add_done_callback(lambda task: self._completed(staged.id, task))
        done, _ = await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        with contextlib.suppress(BlockingIOError):  # another server does it, or a part still comes
            if done:
                task.result()
                return JSONResponse({"path": staged.path, "size": staged.size, "sha256": staged.sha256}, 201)
        return JSONResponse({"id": staged.id}, 202, {"retry-after": "1"})

    def _completed(self, id: str, task: asyncio.Future[None]) -> None:
        self._completing.pop(id, None)
        if not task.cancelled():
            task.exception()  # whoever asked is told, if they still wait

    async def links(self, request: Request, service: Service) -> Response:
        """Answer by what parts can be stored in the bucket itself; no log has that."""
        staged, place = await self._found(request)
        try:
            given = from_json(await body_of(request, _BODY))["parts"]
            parts = [Part(each["offset"], each["size"], each["md5"]) for each in given]
        except (ValueError, KeyError, TypeError):
            raise Malformed('parts are told as {"parts": [{"offset": ..., "size": ..., "md5": ...}]}') from None
        staging = place.staging()
        length = staging.direct_part(staged.size)
        if not length:
            raise ArtifactNotFound("there are no links to parts of this file: send them to the server")
        for part in parts:
            _check(part, staged, length)
        links = await self._run(lambda: [staging.link(staged.id, part) for part in parts])
        told = [{"offset": part.offset, **shown(link)} for part, link in zip(parts, links, strict=True)]
        return JSONResponse({"links": told}, headers={"cache-control": "no-store"})

    async def abort(self, request: Request, service: Service) -> Response:
        """Forget an upload."""
        staged, place = await self._found(request)
        await self._run(lambda: place.staging().remove(staged.id))
        return Response(status_code=204)

    async def _found(self, request: Request) -> tuple[Staged, Place]:
        id = request.path_params["id"]
        if not ID.fullmatch(id):
            raise UnsafePath(f"{id!r:.80} is no id of an upload")
        place = await self._run(lambda: self._places.of(id.partition(".")[0]))
        note(request, id.partition(".")[0])
        return await self._run(lambda: place.staging().find(id)), place

    async def _run(self, call: Callable[[], _T]) -> _T:
        try:
            return await self._places.run(call)
        except BlockingIOError:
            raise Declined(409, "the file is being completed", {"retry-after": "1"}) from None


def _check(part: Part, staged: Staged, length: int) -> None:
    """Refuse what is no part of the file, as whatever has a link may be stored. Raises `InvalidValue`."""
    offset, size, md5 = attrs.astuple(part)
    if (
        type(offset) is not int
        or type(size) is not int
        or not isinstance(md5, str)
        or not re.fullmatch("[0-9a-f]{32}", md5)
    ):
        raise InvalidValue("offset and size are numbers of bytes, and md5 has 32 hexadecimal digits")
    if offset not in range(0, staged.size, length) or size != min(length, staged.size - offset):
        raise InvalidValue(f"parts begin at multiples of {length:,} bytes and are as long, but for the last")


def _complete(staged: Staged, place: Place) -> None:
    try:
        place.staging().complete(staged, place)
    except DigestMismatch:
        place.staging().remove(staged.id)  # which part is wrong nobody knows
        raise


def _shown(staged: Staged, staging: Staging) -> dict[str, Any]:
    told = {"id": staged.id, "run": staged.run, "path": staged.path, "size": staged.size, "sha256": staged.sha256}
    told |= {"part": PART, "received": staging.received(staged.id), "kept_seconds": STALE_SECONDS}
    if length := staging.direct_part(staged.size):
        told["direct"] = {"part": length, "received": [attrs.asdict(part) for part in staging.direct(staged.id)]}
    return told


def _offset(staged: Staged, received: list[tuple[int, int]]) -> dict[str, str]:
    return {"upload-offset": str(reached(received)), "upload-length": str(staged.size), "cache-control": "no-store"}
