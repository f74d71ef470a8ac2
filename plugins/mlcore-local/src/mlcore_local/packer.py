"""Pack whole records into a journal, as a store does with batches that others wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlcore.journal import format as f
from mlcore.store import Event, Record, RowsLogged, encode_event, to_json

__all__ = ["Packer"]

_CODES = {"step": "q", "time": "q", "value": "d"}


class Packer:
    """Turn records into frames; `keys` are those that the journal defines, as its reader found them; new ones join."""

    def __init__(self, header: f.Header, keys: dict[int, dict[str, Any]] | None = None) -> None:
        self._header = header
        self._defined = {} if keys is None else keys
        self._keys = {_key(about, header.home): number for number, about in self._defined.items()}

    def pack(self, record: Record) -> bytes:
        """Return the frames of one record, those of new keys before them."""
        before, parts = b"", list[tuple[int, bytes]]()
        for event in record.events:
            if _is_block(event):
                assert isinstance(event, RowsLogged)
                number, new = self._number(event)
                before += new
                columns = event.columns
                parts.append((f.BLOCK, f.pack_block(number, columns["step"], columns["time"], columns["value"])))
            elif parts and parts[-1][0] == f.EVENTS and len(parts[-1][1]) < f.FRAME_LIMIT >> 1:
                parts[-1] = (f.EVENTS, parts[-1][1] + b"\n" + encode_event(event))
            else:
                parts.append((f.EVENTS, encode_event(event)))
        frames = []
        for index, (kind, payload) in enumerate(parts):
            flags = (f.CONTINUES if index + 1 < len(parts) else 0) | (f.CONTINUED if index else 0)
            frames.append(f.pack_frame(self._header.seed, kind, flags, record.number, record.stamp, payload))
        return before + b"".join(frames)

    def _number(self, event: RowsLogged) -> tuple[int, bytes]:
        key = (event.kind, event.id, event.key, event.context)
        if key in self._keys:
            return self._keys[key], b""
        number = self._keys[key] = max(self._keys.values(), default=0) + 1
        about = {"number": number, "key": event.key, "context": event.context, "kind": event.kind, "id": event.id}
        self._defined[number] = about
        return number, f.pack_frame(self._header.seed, f.KEY, 0, 0, 0, to_json(about)) * 2


def _is_block(event: Event) -> bool:
    return (
        isinstance(event, RowsLogged)
        and event.raw is None
        and 0 < len(event) <= f.BLOCK_ROWS
        and {name: getattr(values, "typecode", "") for name, values in event.columns.items()} == _CODES
    )


def _key(about: Mapping[str, str], home: str) -> tuple[str, str, str, str]:
    return about.get("kind", "run"), about.get("id", home), about["key"], about.get("context", "")
