"""The store of a server: everything is asked of it, nothing is kept here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import attrs

from mlcore.errors import Malformed, MlcoreError, NewerFormat, StoreError
from mlcore.store import (
    START,
    Batch,
    Capabilities,
    Columns,
    Entity,
    Page,
    Query,
    SeriesKey,
    SimpleStore,
    Stored,
    digest,
)
from mlcore_local.pausing import pause
from mlcore_remote.connection import Answer, Connection
from mlcore_remote.explaining import explain_answer, who_answers
from mlcore_remote.framing import frame, message
from mlcore_remote.protocol import (
    API,
    BATCHES,
    JSON,
    MESSAGE_BYTES,
    MESSAGE_EVENTS,
    SERIES,
    about_from_json,
    document,
    entities_from_json,
    keys_from_json,
    page_from_json,
    query_to_json,
    results_from_json,
    unpack_series,
    unpack_stored,
)

__all__ = ["PROTOCOL", "RemoteStore", "open_store"]

PROTOCOL = 1
_PART_BYTES = 4 << 20  # of a message; a proxy may take no more than some MB, and a longer one is longer to send again
_PART_EVENTS = 20_000
_SECONDS, _LONGEST_SECONDS = 0.3, 30.0  # until what was cut off is asked for again
_Answer = TypeVar("_Answer")


class RemoteStore(SimpleStore):
    """Append to and read from the store of a server; threads may share a handle, and so may the child of a fork."""

    trusted_paths = False  # what others wrote there must not name files of this machine

    def __init__(self, uri: str, **options: Any) -> None:
        """Look at the URI, ``http://``, ``https://`` or ``http+unix:///path.sock``; `options` are `Connection`'s.

        Nothing is connected to before the first question. Raises `ConfigError`.
        """
        super().__init__()
        self.connection = Connection(uri, **options)
        self._capabilities: Capabilities | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.connection.base!r})"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # SimpleStore has an attribute
        """What the server's store can do; the first to ask waits for the answer."""
        if self._capabilities is None:
            self._capabilities = self._about()
        return self._capabilities

    def place(self, run_id: str) -> str:
        """Return the URI of the place where the server keeps the files of a run."""
        return f"mlcore+{self.connection.base}/runs/{run_id}/files"

    def append(self, batch: Batch) -> None:
        """See `mlcore.store.Store.append`."""
        (error,) = self.append_all([batch])
        if error is not None:
            raise error

    def append_all(self, batches: Sequence[Batch], actors: Sequence[str] = ()) -> list[MlcoreError | None]:  # noqa: ARG002
        """See `mlcore.store.Store.append_all`; who appends is known to the server by the token."""
        results: list[MlcoreError | None] = [None] * len(batches)
        failed: MlcoreError | None = None
        for pieces in _together(_pieces(batches, results)):
            try:
                if failed is None:
                    self._send(pieces, results)
            except MlcoreError as error:
                failed = error
            if failed is not None:
                for each in pieces:
                    results[each.at] = results[each.at] or failed
        return results

    def _send(self, pieces: list[_Piece], results: list[MlcoreError | None]) -> None:
        answer = self.connection.request(
            "POST", f"{API}/batches", body=message(each.frame for each in pieces),
            headers={"Content-Type": BATCHES, "Accept": JSON}, expected=(404, 413),
        )  # fmt: skip
        if answer.status == 413:
            halves = _halves(pieces)
            if not halves:
                raise explain_answer(self.connection.address, answer.status, answer.headers, answer.data)
            for half in halves:
                self._send(half, results)
            return
        found = self._read(self._found(answer), lambda: results_from_json(document(answer.data), len(pieces)))
        for each, error in zip(pieces, found, strict=True):
            results[each.at] = results[each.at] or error

    def events(
        self, after: str = START, *, of: str | None = None, kinds: Iterable[str] | None = None, rows: bool = True
    ) -> Iterator[Stored]:
        """See `mlcore.store.Store.events`; a stream that is cut off goes on where it was."""
        asked = {"after": after, "rows": "1" if rows else "0"}
        if of is not None:
            asked["of"] = of
        if kinds is not None:
            asked["kinds"] = ",".join(kinds)
        cut, last = 0, ""
        while True:
            stream = self._stream(asked)
            try:
                for stored in unpack_stored(stream.chunks):
                    yield stored
                    asked["after"] = stored.position
                next(stream.chunks, None)  # the end of the body, after which the connection serves others
                return
            except Malformed as error:
                raise self._garbage(stream, error) from error
            except MlcoreError as error:
                if type(error) is not StoreError:
                    raise
                cut = cut + 1 if asked["after"] == last else 0  # what got further is not counted
                last = asked["after"]
                if cut >= self.connection.attempts:
                    raise StoreError(f"{self.connection.base}: {error}") from error
                time.sleep(pause(cut + 1, _SECONDS, _LONGEST_SECONDS))
            finally:
                stream.close()

    def _stream(self, query: dict[str, str]) -> Answer:
        path = f"{API}/events?{urlencode(query)}"
        asked = {"Accept": BATCHES}
        return self._found(self.connection.request("GET", path, headers=asked, stream=True, expected=[404]))

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """See `mlcore.store.Store.get`."""
        ids = list(ids)
        return self._ask("get", {"kind": kind, "ids": ids}, lambda body: entities_from_json(body, len(ids)))

    def find(self, kind: str, query: Query) -> Page:
        """See `mlcore.store.Store.find`."""
        return self._ask("find", {"kind": kind, "query": query_to_json(query)}, page_from_json)

    def series(
        self,
        kind: str,
        ids: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        context: str | None = None,
        columns: Sequence[str] | None = None,
        max_points: int | None = None,
    ) -> dict[SeriesKey, Columns]:
        """See `mlcore.store.Store.series`."""
        asked: dict[str, Any] = {"kind": kind, "ids": list(ids), "context": context, "max_points": max_points}
        asked |= {"keys": None if keys is None else list(keys), "columns": None if columns is None else list(columns)}
        answer = self._found(self.connection.ask(f"{API}/series", asked, headers={"Accept": SERIES}, expected=[404]))
        return self._read(answer, lambda: unpack_series(answer.data))

    def keys(self, kind: str, family: str, prefix: str = "", limit: int | None = None) -> list[str]:
        """Return the distinct names in a family of all entities of a kind that begin with `prefix`, in order."""
        return self._ask("keys", {"kind": kind, "family": family, "prefix": prefix, "limit": limit}, keys_from_json)

    def close(self) -> None:
        """See `mlcore.store.Store.close`."""
        self.connection.close()

    def _ask(self, path: str, question: dict[str, Any], parse: Callable[[Any], _Answer]) -> _Answer:
        answer = self._found(self.connection.ask(f"{API}/{path}", question, expected=[404]))
        return self._read(answer, lambda: parse(document(answer.data, len(answer.data))))

    def _read(self, answer: Answer, parse: Callable[[], _Answer]) -> _Answer:
        """Return what an answer says. What cannot be read is the server's fault, not that of what it was sent."""
        try:
            return parse()
        except Malformed as error:
            raise self._garbage(answer, error) from error

    def _garbage(self, answer: Answer, error: Malformed) -> StoreError:
        who = who_answers(answer.headers, answer.data)
        return StoreError(f"{self.connection.base} gives no answer of an mlcore server, it is {who}: {error}")

    def _found(self, answer: Answer) -> Answer:
        if answer.status == 404:
            if not answer.data:
                answer.data = b"".join(answer.chunks)
            raise self._missing(answer)
        return answer

    def _missing(self, answer: Answer) -> MlcoreError:
        """Return why a route is not there: another protocol is spoken, or no mlcore at all, or the path is wrong."""
        said = explain_answer(self.connection.address, answer.status, answer.headers, answer.data)
        if type(said) is StoreError:
            self._about()
        return said

    def _about(self) -> Capabilities:
        """Ask what the server is. Raises `NewerFormat` if it does not speak our protocol any more."""
        answer = self.connection.request("GET", "/version")
        version, (oldest, newest), found = self._read(answer, lambda: about_from_json(document(answer.data)))
        server = f"the server at {self.connection.base}, mlcore {version},"
        if oldest > PROTOCOL:
            raise NewerFormat(f"{server} speaks protocol {oldest}, newer than {PROTOCOL}: upgrade mlcore-remote here")
        if newest < PROTOCOL:
            raise StoreError(f"{server} speaks protocol {newest}, older than {PROTOCOL}: upgrade mlcore-server there")
        return found


@attrs.frozen
class _Piece:
    """Hold a batch, or some records of one, as it goes over the wire; `at` is the place of the batch it is of."""

    at: int
    batch: Batch
    frame: bytes
    events: int

    def cut(self) -> list[_Piece]:
        """Return two halves, or itself if it has no two records."""
        records = self.batch.records
        if len(records) < 2:
            return [self]
        half = len(records) // 2
        first = attrs.evolve(self.batch, records=records[:half])
        previous = digest(first.records, first.previous)
        return [_piece(self.at, first), _piece(self.at, Batch(first.source, first.home, records[half:], previous))]


def _piece(at: int, batch: Batch) -> _Piece:
    return _Piece(at, batch, frame(batch), max(1, sum(max(1, len(each.events)) for each in batch.records)))


def _pieces(batches: Sequence[Batch], results: list[MlcoreError | None]) -> Iterator[_Piece]:
    """Yield batches, cut into pieces that fit into a message; of one that cannot be sent the reason is its result."""
    for at, batch in enumerate(batches):
        try:
            waiting = [_piece(at, batch)]
            while waiting:
                piece, *waiting = waiting
                halves = [piece]
                if len(piece.frame) > _PART_BYTES or piece.events > _PART_EVENTS:
                    halves = piece.cut()
                if len(halves) == 2:
                    waiting = halves + waiting
                elif len(piece.frame) > MESSAGE_BYTES - 8 or piece.events > MESSAGE_EVENTS:
                    raise Malformed(
                        f"source {batch.source}: record {piece.batch.first} has {len(piece.frame):,} bytes in "
                        f"{piece.events:,} events, and no record may be that large: log less in one call"
                    )
                else:
                    yield piece
        except Malformed as error:
            results[at] = results[at] or error


def _together(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Yield as many pieces as one request should have."""
    found: list[_Piece] = []
    size = events = 0
    for piece in pieces:
        if found and (size + len(piece.frame) > _PART_BYTES or events + piece.events > _PART_EVENTS):
            yield found
            found, size, events = [], 0, 0
        found.append(piece)
        size, events = size + len(piece.frame), events + piece.events
    if found:
        yield found


def _halves(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Return what to send in two requests as it was too much for one; nothing if it cannot be cut."""
    if len(pieces) == 1:
        pieces = pieces[0].cut()
    half = len(pieces) // 2
    return [pieces[:half], pieces[half:]] if half else []


def open_store(uri: str) -> RemoteStore:
    """Open the store of a server; nothing is connected to yet. Raises `ConfigError` if it is no URI of a server."""
    return RemoteStore(uri)
