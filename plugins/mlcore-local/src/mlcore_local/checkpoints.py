"""Checkpoints in a journal that a store writes for others: where to go on after a restart without reading all of it.

A checkpoint repeats the frames of the keys and ends with a frame of the writer whose ``mark`` says which record was the
last before it and what the digest after that one is. To readers it says nothing new.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlcore.errors import JournalError
from mlcore.journal import format as f
from mlcore.store import from_json, to_json
from mlcore_local.reader import Journal, read_header

__all__ = ["checkpoint", "resumed"]

_PATTERN = f.MARK.to_bytes(2, "little") + bytes([f.WRITER, 0])
_WINDOWS = (64 << 10, 1 << 20, 16 << 20)  # from the end of a journal, in which a checkpoint is looked for


def checkpoint(
    header: f.Header, writer: Mapping[str, Any], keys: Mapping[int, Mapping[str, Any]], last: int, digest: str
) -> bytes:
    """Return the frames of a checkpoint after record `last`; `writer` is what the journal says about its own."""
    frames = b"".join(f.pack_frame(header.seed, f.KEY, 0, 0, 0, to_json(about)) for about in keys.values())
    mark = {"last": last, "digest": digest, "size": len(frames)}
    return frames + f.pack_frame(header.seed, f.WRITER, 0, 0, 0, to_json({**writer, "mark": mark}))


def resumed(path: Path) -> tuple[Journal, int, str] | None:
    """Return a journal to be read on from its last checkpoint, the last record before it and the digest after that.

    None if it has none that can be used.
    """
    with open(path, "rb") as file:
        try:
            header = read_header(file.read(2 * f.HEADER_SIZE))
        except JournalError:
            return None
        size = os.fstat(file.fileno()).st_size
        for window in _WINDOWS:
            start = max(2 * f.HEADER_SIZE, size - window)
            file.seek(start)
            if (found := _last(file.read(), start, header)) is not None:
                journal = Journal()
                journal.header = header
                journal.offset, journal.last, digest = found
                return journal, journal.last, digest
            if start == 2 * f.HEADER_SIZE:
                return None
    return None


def _last(data: bytes, start: int, header: f.Header) -> tuple[int, int, str] | None:
    """Return where the last checkpoint in the bytes from an offset on begins, and what it says.

    What looks like one may be in the numbers that somebody logged: so nothing of it is taken for granted.
    """
    at = len(data)
    while (at := data.rfind(_PATTERN, 0, at)) >= 0:
        end = at + f.FRAME.size + int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at:end]
        if data[end : end + f.CHECKSUM.size] != f.CHECKSUM.pack(zlib.crc32(body, header.seed)):
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            mark = from_json(body[f.FRAME.size :])["mark"]
            last, digest, begin = mark["last"], mark["digest"], start + at - mark["size"]
            fits = type(last) is int and 0 < last < 1 << 63 and 2 * f.HEADER_SIZE <= begin <= start + at
            if fits and re.fullmatch("[0-9a-f]{64}", digest):
                return begin, last, digest
    return None
