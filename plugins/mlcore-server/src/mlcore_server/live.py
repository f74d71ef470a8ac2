"""What is stored, told while it happens: Server-Sent Events to whoever listens.

However many listen, one task of a process asks the store what is new: at once when a batch was stored here, and every
half second, as other processes and servers write to the same store. What waits for a listener is bounded: one that
reads too slowly is told so and left, and goes on from the last position that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from starlette.responses import Response

from mlcore.errors import Malformed, MlcoreError, PositionLost, StoreNotFound
from mlcore.store import START, Store, Stored, selected, to_json
from mlcore_remote.protocol import API, stored_to_json
from mlcore_server.routing import Declined, Route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from mlcore_server.service import Service

__all__ = ["EVENT_STREAM", "Filter", "Live", "routes"]

EVENT_STREAM = "text/event-stream"
_LOOK_SECONDS = 0.5  # between two looks at what others stored
_GATHER_SECONDS, _EACH_SECONDS = 0.02, 0.0002  # between two looks while much is stored, and more for each listener
_FAILED_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0  # of who catches up, which may hear something twice then
_LINGER_SECONDS = 30.0  # that it goes on when the last listener left, who may be back
_BEAT_SECONDS = 15.0
_LONGEST_SECONDS = 3_600.0  # until a listener must ask again, and show that it still may
_STUCK_SECONDS = 30.0  # that a connection may take no byte
_CUT_SECONDS = 0.05
_QUEUE_BYTES = 4 << 20
_SLICE = 64  # batches that are read in one go
_FEW = 100  # batches, which nobody minds to keep in mind
_MOST = 4_096  # listeners of a process
_END = b": ask again\nretry: 1000\n\n"
_log = logging.getLogger("mlcore.server")

_T = TypeVar("_T")
Write = Callable[[bytes], Awaitable[None]]


@attrs.frozen
class Filter:
    """Say what a listener asks for, as `mlcore.store.Store.events` takes it."""

    of: str | None = None
    kinds: frozenset[str] | None = None
    rows: bool = True

    def events(self, store: Store, after: str) -> Iterator[Stored]:
        """Return what is stored after a position. Raises `PositionLost` at once."""
        found = store.events(after, of=self.of, kinds=self.kinds, rows=self.rows)
        try:
            return chain(list(islice(found, 1)), found)
        except StoreNotFound:
            if after == START:
                return iter(())  # the first run makes it
            raise PositionLost("there is no store any more") from None

    def text(self, stored: Stored) -> bytes:
        """Return a stored batch as an event, nothing if nothing of it is asked for."""
        chosen = selected(stored, self.of, self.kinds, self.rows)
        return b"" if chosen is None else _event("", stored.position, stored_to_json(chosen))


@attrs.define(eq=False)
class _News:
    """Hold one batch, and the event that it is for each filter."""

    stored: Stored
    texts: dict[Filter, bytes]

    @property
    def source(self) -> str:
        """The source of its records."""
        return self.stored.batch.source

    @property
    def last(self) -> int:
        """The number of its last record."""
        return self.stored.batch.records[-1].number if self.stored.batch.records else 0

    def text(self, asks: Filter) -> bytes:
        """Return the event, made by now or not: somebody may have come since it was read."""
        if asks not in self.texts:
            self.texts[asks] = asks.text(self.stored)
        return self.texts[asks]


@attrs.define(eq=False)
class _Listener:
    """Hold what one connection is still to be sent.

    `held` is what was stored while it catches up, `known` what it was told then: the last record of each source.
    `still` tells whether it may listen on: its token may be taken away.
    """

    asks: Filter
    still: Callable[[], bool] = lambda: True
    queue: deque[bytes] = attrs.field(factory=deque)
    size: int = 0
    held: list[_News] | None = None
    known: dict[str, int] | None = None
    over: bool = False
    ready: asyncio.Event = attrs.field(factory=asyncio.Event)

    def tell(self, news: Iterable[_News]) -> None:
        """Send what is new to it when there is time."""
        for each in news:
            text = each.text(self.asks)
            if text and (self.known is None or self.known.get(each.source, 0) < each.last):
                if self.held is None:
                    self.put(text)
                else:
                    self.held.append(each)
                    self._grow(text)

    def caught_up(self, known: dict[str, int]) -> None:
        """Send what was held back, but for what it was told meanwhile."""
        held, self.held, self.known = self.held, None, known
        if not self.over:
            self.size = 0
            self.tell(held or ())

    def put(self, text: bytes) -> None:
        """Send an event when there is time."""
        if not self.over:
            self.queue.append(text)
            self._grow(text)
            self.ready.set()

    def end(self, text: bytes = b"") -> None:
        """Send nothing else than what waits, and `text`."""
        self.put(text)
        self.over = True
        self.ready.set()

    def take(self) -> bytes:
        """Return all that waits."""
        text = b"".join(self.queue)
        self.queue.clear()
        self.size = 0
        self.ready.clear()
        return text

    def _grow(self, text: bytes) -> None:
        self.size += len(text)
        if self.size > _QUEUE_BYTES + len(text):  # one that waits may be large
            self.queue.clear()
            self.size, self.held = 0, None
            self.end(_event("slow", None, {"message": "you read more slowly than it comes: ask again"}) + _END)


class Live:
    """Tell listeners what is stored, from one task for all of them, which runs while there are any."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._listeners: set[_Listener] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._position = START
        self._looks = self._looked = 0  # how many looks were begun, and the last that ended
        self._turn = asyncio.Event()  # set when the one that goes on has ended
        service.watch(self._wake.set)

    async def listen(self, request: Request) -> Response:
        """Answer with a stream of events that has no end of its own."""
        asked = request.query_params
        if asked.get("rows", "1") not in ("0", "1"):
            raise Malformed("rows is 0 or 1")
        kinds = asked.get("kinds")
        some = None if kinds is None else frozenset(each for each in kinds.split(",") if each)
        asks = Filter(asked.get("of"), some, asked.get("rows", "1") == "1")
        if request.method == "HEAD":
            return Response(media_type=EVENT_STREAM)
        await self.begin()
        return _Stream(self, asks, request.headers.get("last-event-id") or asked.get("after"))

    async def begin(self) -> None:
        """Begin to look, from now on, unless that is done already. Raises what the store raises."""
        if len(self._listeners) >= _MOST:
            raise Declined(503, "too many listen: try again later", {"retry-after": "30"})
        if self._task is None or self._task.done():
            self._started = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._look(self._started))
        assert self._started is not None
        await asyncio.shield(self._started)

    def may_listen(self, scope: Scope) -> bool:
        """Return whether who began to listen would be let in now, too."""
        return self._service.gate.still(scope)

    async def serve(self, listener: _Listener, after: str | None, write: Write) -> None:
        """Write what is stored after a position, or from now on, as it comes, until the listener is over.

        A position that is lost is told, and then comes what is new. The first event says from where on.
        """
        try:
            try:
                await self._join(listener, after, write)
            except PositionLost as error:
                await self._enter(listener)
                listener.held = None
                listener.put(_event("lost", self._position, {"message": str(error), "position": self._position}))
            await self._tell(listener, write)
        except MlcoreError as error:
            await write(_event("failed", None, {"message": str(error)}) + _END)
        finally:
            self._listeners.discard(listener)

    async def _tell(self, listener: _Listener, write: Write) -> None:
        clock = asyncio.get_running_loop().time
        until, again, gone = clock() + _LONGEST_SECONDS, clock() + _BEAT_SECONDS, False
        while not listener.over or listener.queue:
            try:
                async with asyncio.timeout(_BEAT_SECONDS):
                    await listener.ready.wait()
            except TimeoutError:
                # with the position, as nothing that is asked for may have come for long
                await write(b": beat\n" + _id(self._position) + b"\n")
            else:
                await write(listener.take())
            if (now := clock()) > again:
                again, gone = now + _BEAT_SECONDS, not listener.still()
            if now > until or gone:
                listener.end(_END)

    async def _enter(self, listener: _Listener) -> None:
        await self.begin()
        self._listeners.add(listener)  # nothing comes between: what is told from here on is after the position

    async def _look_once(self) -> None:
        """Wait for the end of a look that begins from now on, if the store answers."""
        await self.begin()
        wanted = self._looks + 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._looked < wanted:
                    self._wake.set()
                    await self._turn.wait()

    async def _join(self, listener: _Listener, after: str | None, write: Write) -> None:
        """Let a listener be told; first comes what is there after a position, round by round until that is little."""
        if after is None:
            await self._enter(listener)
            listener.put(_event("ready", self._position, {"position": self._position}))
            return
        opened = await self._read(partial(listener.asks.events, after=after))
        await write(_event("ready", after, {"position": after}))
        count = _FEW + 1
        while count > _FEW and not listener.over:
            count = 0
            async for news in self._news(opened, listener):
                count, after = count + len(news), news[-1].stored.position
                await write(b"".join(each.text(listener.asks) for each in news))
            if count > _FEW:
                opened = await self._read(partial(listener.asks.events, after=after))
        await self._look_once()  # that it does not come again with the next look
        listener.held = []
        await self._enter(listener)
        opened, known = await self._read(partial(listener.asks.events, after=after)), dict[str, int]()
        async for news in self._news(opened, listener):
            known |= {each.source: each.last for each in news}
            await write(b"".join(each.text(listener.asks) for each in news))
        listener.caught_up(known)

    async def _news(self, opened: Iterator[Stored], listener: _Listener) -> AsyncIterator[list[_News]]:
        while not listener.over and (news := await self._service.run(partial(_slice, opened, [listener.asks]))):
            yield news

    async def _read(self, call: Callable[[Store], _T]) -> _T:
        return await self._service.read(call)

    # The one task

    async def _look(self, started: asyncio.Future[None]) -> None:
        clock = asyncio.get_running_loop().time
        try:
            self._position = await self._read(_latest)
        except Exception as error:  # noqa: BLE001 - it is the answer to those that wait
            started.set_exception(error)
            started.exception()  # who waited may have gone
            return
        started.set_result(None)
        seen = clock()
        while self._listeners or clock() - seen < _LINGER_SECONDS:
            seen = clock() if self._listeners else seen
            self._wake.clear()
            wait = _GATHER_SECONDS + _EACH_SECONDS * len(self._listeners)
            try:
                await self._poll()
            except PositionLost:
                await self._start_over()
            except Exception as error:  # noqa: BLE001 - the store may be back soon
                level = logging.WARNING if isinstance(error, MlcoreError) else logging.ERROR
                _log.log(level, "live events wait: %s", error, exc_info=level == logging.ERROR)
                wait = _FAILED_SECONDS
            await asyncio.sleep(wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wake.wait()

    async def _poll(self) -> None:
        self._looks += 1
        joined = [each for each in self._listeners if each.known is not None]
        asks = Filter(rows=any(each.asks.rows for each in self._listeners))
        # a position beyond what is left out, or that would be read again and again
        latest = "" if asks.rows else await self._read(_latest)
        opened, count = await self._read(partial(asks.events, after=self._position)), 0
        while news := await self._service.run(partial(_slice, opened, {each.asks for each in self._listeners})):
            count, self._position = count + len(news), news[-1].stored.position
            whole: dict[Filter, bytes] = {}
            for listener in list(self._listeners):
                if listener.held is not None or listener.known is not None:
                    listener.tell(news)
                    continue
                if listener.asks not in whole:
                    whole[listener.asks] = b"".join(each.text(listener.asks) for each in news)
                if text := whole[listener.asks]:
                    listener.put(text)
        if latest and not count:
            self._position = latest
        for listener in joined:
            listener.known = None  # all that it was told before it came is passed
        self._looked, turn, self._turn = self._looks, self._turn, asyncio.Event()
        turn.set()

    async def _start_over(self) -> None:
        self._position = await self._read(_latest)
        for listener in self._listeners:
            listener.put(
                _event("lost", self._position, {"message": "the store is another", "position": self._position})
            )


class _Stream(Response):
    """Answer with events until the listener goes or the server stops."""

    media_type = EVENT_STREAM

    def __init__(self, live: Live, asks: Filter, after: str | None) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})  # nginx would wait for more
        del self.headers["content-length"]
        self._live, self._asks, self._after = live, asks, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        listener = _Listener(self._asks, partial(self._live.may_listen, scope))
        state: dict[str, Any] = scope["state"]

        async def write(text: bytes) -> None:
            async with asyncio.timeout(_STUCK_SECONDS):
                await send({"type": "http.response.body", "body": text, "more_body": True})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            listener.end()

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        state["ending"] = partial(listener.end, _END)
        watching = asyncio.create_task(gone())
        try:
            await self._live.serve(listener, self._after, write)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            state.get("cut", int)()
            await asyncio.sleep(_CUT_SECONDS)  # until the server knows, or it would wonder about half an answer
        finally:
            watching.cancel()


def routes(service: Service) -> Iterable[Route]:
    """Return the route of live events: the provider ``live`` of the hook `mlcore_routes`."""
    live = Live(service)

    async def listen(request: Request, _: Service) -> Response:
        return await live.listen(request)

    return [
        Route(
            "GET", f"{API}/events/live", listen, needs="read", summary="Tell what is stored as it comes.",
            answer={EVENT_STREAM: {"schema": {"type": "string"}}}, parameters=_PARAMETERS,
        ),
    ]  # fmt: skip


def _slice(opened: Iterator[Stored], filters: Collection[Filter]) -> list[_News]:
    return [_News(stored, {asks: asks.text(stored) for asks in filters}) for stored in islice(opened, _SLICE)]


def _latest(store: Store) -> str:
    """Return the position after all that is stored: what a store does not say itself is the last that it lists."""
    with contextlib.suppress(StoreNotFound):
        if (latest := getattr(store, "latest", None)) is not None:
            return str(latest())
        position = START
        for stored in store.events(rows=False):
            position = stored.position
        return position
    return START


def _event(name: str, position: str | None, content: Any) -> bytes:
    head = b"event: %s\n" % name.encode() if name else b""
    return b"%s%sdata: %s\n\n" % (head, b"" if position is None else _id(position), to_json(content))


def _id(position: str) -> bytes:
    return b"id: %s\n" % position.encode() if position.isprintable() else b""


def _parameter(name: str, description: str, place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "required": False, "description": description, "schema": {"type": "string"}}


_PARAMETERS = (
    _parameter("after", "The position to go on after; empty: everything there is; not given: what comes from now on."),
    _parameter("Last-Event-ID", "The same, as browsers send it when they come back; it counts more.", "header"),
    _parameter("of", "Only what is of this run."),
    _parameter("kinds", "Only events of these kinds of entity, with commas."),
    _parameter("rows", "0: nothing that was logged over time."),
)
