"""Follow the store of a server: what is stored, as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from mlcore.errors import AccessDenied, PositionLost, Refused, StoreError
from mlcore.store import START, Stored
from mlcore_local.pausing import pause
from mlcore_remote.protocol import API, document, stored_from_json
from mlcore_remote.store import RemoteStore

__all__ = ["follow"]

_SILENT_SECONDS = 45.0  # three beats that did not come: the connection is gone
_SECONDS, _LONGEST_SECONDS = 0.1, 30.0  # between two attempts


def follow(
    store: RemoteStore,
    after: str | None = START,
    *,
    of: str | None = None,
    kinds: Iterable[str] | None = None,
    rows: bool = True,
) -> Iterator[Stored]:
    """Yield what is stored after a position, or from now on if it is None, without end; wait for a server that is away.

    The rest is as in `mlcore.store.Store.events`, but that a batch may come twice. Raises `PositionLost`, also later,
    as when the server of a folder store was started anew: then start over.
    """
    asked = {"rows": "1" if rows else "0"} | ({} if of is None else {"of": of})
    asked |= {} if kinds is None else {"kinds": ",".join(kinds)}
    failed = 0
    while True:
        try:
            query = asked if after is None else {**asked, "after": after}
            for name, position, content in _events(store, query):
                after, failed = after if position is None else position, 0
                if name == "lost":
                    raise PositionLost(str(content.get("message", "")))
                if not name and content is not None:
                    yield stored_from_json(content)
        except (AccessDenied, PositionLost, Refused):
            raise
        except StoreError:
            failed += 1
        # who was cut off is not to come back at once, nor all together
        time.sleep(pause(failed + 1, _SECONDS, _LONGEST_SECONDS))


def _events(store: RemoteStore, query: dict[str, str]) -> Iterator[tuple[str, str | None, Any]]:
    """Yield name, id and content of each event of one answer; a beat has no content."""
    answer = store.connection.request(
        "GET", f"{API}/events/live?{urlencode(query)}", headers={"Accept": "text/event-stream"}, stream=True,
        read=_SILENT_SECONDS, attempts=1,
    )  # fmt: skip
    rest = b""
    try:
        for chunk in answer.chunks:
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                fields = {name: value for name, _, value in (line.partition(b": ") for line in block.split(b"\n"))}
                position = fields[b"id"].decode() if b"id" in fields else None
                content = document(fields[b"data"]) if b"data" in fields else None
                yield fields.get(b"event", b"").decode(), position, content
    finally:
        answer.close()
