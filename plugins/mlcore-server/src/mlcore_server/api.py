"""The store over HTTP: append, get, find, series and events; `mlcore_remote.protocol` says what is in the bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mlcore.errors import Malformed, NotFound, Refused
from mlcore.store import START, Batch, Compare, Entity, Not, Or, Query, Store, Stored, Term, to_json
from mlcore_remote import protocol
from mlcore_remote.protocol import API, BATCHES, JSON, LINES, SERIES
from mlcore_server import schemas
from mlcore_server.bodies import asks_gzip, body_of, gzipped, packed
from mlcore_server.routing import Declined, Route

if TYPE_CHECKING:
    from mlcore_server.service import Service

__all__ = ["routes"]

_T = TypeVar("_T")
_STORED = Response(to_json({"results": [None]}), media_type=JSON)  # what nearly all are answered
_LARGE = 64 << 10  # bytes, which take longer to understand than a hop to another thread


def routes(service: Service) -> Iterable[Route]:
    """Return the routes of the store itself: the provider ``api`` of the hook `mlcore_routes`."""
    read: dict[str, Any] = {"needs": "read"}
    return [
        Route(
            "POST", f"{API}/batches", _append, needs="write", summary="Store batches.",
            body=schemas.BATCHES, answer=schemas.RESULTS,
        ),
        Route("POST", f"{API}/get", _get, summary="Get entities by id.", body=schemas.GET, answer=schemas.GOT, **read),
        Route("POST", f"{API}/find", _find, summary="Find entities.", body=schemas.FIND, answer=schemas.PAGE, **read),
        Route(
            "POST", f"{API}/series", _series, summary="Return what was logged over time.", body=schemas.SERIES_ASKED,
            answer=schemas.SERIES, **read,
        ),
        Route(
            "POST", f"{API}/keys", _keys, summary="Return the names in a family.", body=schemas.KEYS_ASKED,
            answer=schemas.KEYS, **read,
        ),
        Route("GET", f"{API}/entities/{{kind}}/{{id}}", _one, summary="Get one entity.", answer=schemas.ENTITY, **read),
        Route(
            "GET", f"{API}/events", _events, summary="Return what is stored after a position, as a stream.",
            answer=schemas.EVENTS, parameters=schemas.EVENTS_ASKED, **read,
        ),
    ]  # fmt: skip


async def _append(request: Request, service: Service) -> Response:
    """Store batches; answer one result for each, null or why it was refused."""
    body = await body_of(request, service.settings.max_body)
    kind = _content_type(request)
    if kind == BATCHES:
        unpack: Callable[[bytes], list[Batch]] = protocol.unpack_batches
    elif kind == JSON:
        unpack = _batches
    else:
        raise Declined(415, f"the content type must be {BATCHES} or {JSON}")
    batches = unpack(body) if len(body) < _LARGE else await service.run(lambda: unpack(body))
    if not batches:
        return Response(to_json({"results": []}), media_type=JSON)
    request.scope["state"]["objects"] = [f"run/{each.home}" if each.home else "store" for each in batches]  # for audit
    results = await service.append(batches, request.scope["state"]["actor"].name, len(body))
    wrong = [each for each in results if each is not None]
    service.metrics.appended(len(results) - len(wrong), len(wrong))
    for error in wrong:
        if not isinstance(error, Refused):
            raise error  # the store's, not the batch's: the client is to send all of them again
    if not wrong and len(results) == 1:
        return _STORED
    return Response(to_json(protocol.results_to_json(results)), media_type=JSON)


async def _get(request: Request, service: Service) -> Response:
    """Answer entities in the order of their ids, null where there is none."""
    kind, ids = await _asked(request, service, protocol.get_from_json)

    def answer(store: Store) -> Any:
        return {"entities": [each and protocol.entity_to_json(each) for each in store.get(kind, ids)]}

    return await _answer(request, service, answer)


async def _one(request: Request, service: Service) -> Response:
    """Answer one entity, 404 if there is none."""
    kind, id = request.path_params["kind"], request.path_params["id"]

    def answer(store: Store) -> Any:
        found = store.get(kind, [id])[0]
        if found is None:
            raise NotFound(f"there is no {kind[:80]!r} of id {id[:80]!r}")
        return protocol.entity_to_json(found)

    return await _answer(request, service, answer)


async def _find(request: Request, service: Service) -> Response:
    """Answer a page of entities."""
    kind, query = await _asked(request, service, protocol.find_from_json)
    return await _answer(request, service, lambda store: protocol.page_to_json(store.find(kind, query)))


async def _keys(request: Request, service: Service) -> Response:
    """Answer the names of params, tags, metrics and so on that there are, for whoever types one."""
    kind, family, prefix, limit = await _asked(request, service, protocol.keys_asked)

    def answer(store: Store) -> Any:
        if hasattr(store, "keys"):
            return {"keys": store.keys(kind, family, prefix, limit)}
        kept = Compare(Term("fields", "deleted"), "is null")  # and what is deleted, as it is named
        found = store.find(kind, Query(Or((kept, Not(kept))), select=(Term(family, ""),))).items
        names = {name for each in found for name in _names(each, family) if name.startswith(prefix)}
        return {"keys": sorted(names)[:limit]}

    return await _answer(request, service, answer)


def _names(entity: Entity, family: str) -> Iterable[str]:
    if family == "metrics":
        return (key for key, _ in entity.metrics)
    return entity.fields if family == "fields" else entity.attributes.get(family, ())


async def _series(request: Request, service: Service) -> Response:
    """Answer rows as columns: binary, or JSON for who accepts no other."""
    asked = await _asked(request, service, protocol.series_asked)
    binary, gzip = _prefers(request, SERIES, JSON), asks_gzip(request)

    def answer(store: Store) -> Response:
        found = store.series(asked.pop("kind"), asked.pop("ids"), **asked)
        content = protocol.pack_series(found) if binary else to_json(protocol.series_to_json(found))
        return packed(content, SERIES if binary else JSON, gzip)

    return await service.read(answer)


async def _events(request: Request, service: Service) -> Response:
    """Answer what is stored after a position as a stream, which ends with a word about its end."""
    asked = request.query_params
    rows, limit = asked.get("rows", "1"), asked.get("limit")
    if rows not in ("0", "1") or not (limit is None or (limit.isascii() and limit.isdecimal() and len(limit) < 19)):
        raise Malformed("rows is 0 or 1, and limit a number")
    kinds = None if asked.get("kinds") is None else [each for each in asked["kinds"].split(",") if each]
    after, of = asked.get("after", START), asked.get("of")
    binary, gzip = _prefers(request, BATCHES, LINES), asks_gzip(request)

    def begin(store: Store) -> Iterator[bytes]:
        found = store.events(after, of=of, kinds=kinds, rows=rows == "1")
        first = list(islice(found, 1))  # so that an unknown position is told by the status
        stored: Iterator[Stored] = islice(chain(first, found), None if limit is None else int(limit))
        return gzipped(protocol.pack_stored(stored) if binary else protocol.stored_lines(stored), gzip=gzip)

    chunks = service.stream(await service.read(begin))
    headers = {"vary": "accept, accept-encoding", **({"content-encoding": "gzip"} if gzip else {})}
    return StreamingResponse(chunks, media_type=BATCHES if binary else LINES, headers=headers)


def _content_type(request: Request) -> str:
    given: bytes = request.scope["state"]["seen"].get(b"content-type", b"")
    return str(given, "latin-1").partition(";")[0].strip().lower()


def _batches(body: bytes) -> list[Batch]:
    return protocol.batches_from_json(protocol.document(body))


async def _asked(request: Request, service: Service, parse: Callable[[Any], _T]) -> _T:
    """Return what a question in JSON asks for."""
    if _content_type(request) != JSON:
        raise Declined(415, f"the content type must be {JSON}")
    body = await body_of(request, service.settings.max_body)
    if len(body) < _LARGE:
        return parse(protocol.document(body))
    return await service.run(lambda: parse(protocol.document(body)))


async def _answer(request: Request, service: Service, answer: Callable[[Store], Any]) -> Response:
    """Ask the store and write JSON of its answer, both in a thread."""
    gzip = asks_gzip(request)
    return await service.read(lambda store: packed(to_json(answer(store)), JSON, gzip))


def _prefers(request: Request, binary: str, text: str) -> bool:
    """Tell whether to answer in the binary form: to whoever names it, and to whoever does not name the other."""
    accepted = request.headers.get("accept", "")
    return binary in accepted or text not in accepted
