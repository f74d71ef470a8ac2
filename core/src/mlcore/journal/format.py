"""The bytes of a journal, as ``docs/reference/journal.md`` describes them. Everything is little-endian."""

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

import attrs

from mlcore._value import Value
from mlcore.errors import JournalError

__all__ = ["Header", "pack_block", "pack_frame", "pack_header", "sealed", "word"]

VERSION = 1
MAGIC = b"mlcorejl"
SUFFIX = ".journal"
MARK = 0xA74C

# Kinds of frame
WRITER, KEY, EVENTS, POINT, POINT_AT, BLOCK = range(1, 7)
NAMES = {WRITER: "writer", KEY: "key", EVENTS: "events", POINT: "point", POINT_AT: "point", BLOCK: "block"}
# Flags of a frame
CONTINUES = 1  # more frames of the same record follow
STAMPED = 2  # a block without a time column: every row has the time of the stamp
CONTINUED = 4  # not the first frame of its record

HEADER = struct.Struct("<8sHHI16s64s28s")  # magic, version, size, flags, source, home, zeros; then the checksum
HEADER_SIZE = HEADER.size + 4
FRAME = struct.Struct("<HBBIQQ")  # mark, kind, flags, word (payload length or key), number, stamp
PLACE = struct.Struct("<QQQ")  # how every frame starts: the first eight bytes as one word, number, stamp
POINT_FRAME = struct.Struct("<QQQqd")  # word, number, stamp, step, value
POINT_AT_FRAME = struct.Struct("<QQQqqd")  # ..., step, time, value
CHECKSUM = struct.Struct("<I")
BLOCK_HEAD = struct.Struct("<II")  # key, rows
FRAME_LIMIT = 64 << 20
BLOCK_ROWS = 2_048  # rows of one event, so that it stays under 64 kB
CALL_ROWS = 1 << 20  # rows of one record; a longer call makes several


@attrs.frozen(eq=False, repr=False)
class Header(Value):
    """Name the writer's `source` and the `home` of what it writes."""

    source: str
    home: str

    @property
    def seed(self) -> int:
        """Where every checksum of this journal starts, so that frames of other journals never fit."""
        return zlib.crc32(bytes.fromhex(self.source))


def pack_header(header: Header) -> bytes:
    """Return the first bytes of a journal: the header, twice."""
    source = bytes.fromhex(header.source)
    return sealed(HEADER.pack(MAGIC, VERSION, HEADER_SIZE, 0, source, header.home.encode(), b"")) * 2


def sealed(body: bytes, seed: int = 0) -> bytes:
    """Return bytes with their checksum after them."""
    return body + CHECKSUM.pack(zlib.crc32(body, seed))


def word(kind: int, value: int, flags: int = 0) -> int:
    """Return the first eight bytes of a frame as one integer."""
    return MARK | kind << 16 | flags << 24 | value << 32


def pack_frame(seed: int, kind: int, flags: int, number: int, stamp: int, payload: bytes) -> bytes:
    """Return one frame with its checksum."""
    if len(payload) > FRAME_LIMIT:
        raise JournalError(f"a frame of {len(payload):,} bytes is over the limit of {FRAME_LIMIT:,}")
    return sealed(FRAME.pack(MARK, kind, flags, len(payload), number, stamp) + payload, seed)


def pack_block(key: int, steps: Sequence[int], times: Sequence[int] | None, values: Sequence[float]) -> bytes:
    """Return the payload of a block: columns of steps, times (ms) and values."""
    columns: list[array[Any]] = [array("q", steps), array("q", () if times is None else times), array("d", values)]
    if sys.byteorder == "big":
        for column in columns:
            column.byteswap()
    return b"".join([BLOCK_HEAD.pack(key, len(steps)), *columns])
