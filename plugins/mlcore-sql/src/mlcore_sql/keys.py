"""Keys: a value as bytes whose order, byte by byte, is the order of `mlcore.store.find`.

A key begins with its rank: numbers, then text, then NaN. A number goes on with its IEEE double, the largest one that is
not above it, so that bytes compare as numbers do; an integer that no double hits goes on with what is missing, a length
before it. Text goes on in UTF-8, whose bytes are in order of code points. So the same bytes sort alike in every
database, and a float comes back from its key where the database has no NaN.

A key of `LIMIT` bytes was cut: it says that much of the order, and the value is to be looked at.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from mlcore.store import to_json

__all__ = [
    "BOOL",
    "LIMIT",
    "MISSING",
    "NAN",
    "NUMBER",
    "OTHER",
    "TEXT",
    "after",
    "distinct",
    "encode",
    "full",
    "id_key",
    "is_text",
    "number",
]
__all__ += ["float_of", "floats_of", "kind_of", "text"]

LIMIT = 480  # MySQL holds at most 3,072 bytes in an index
MISSING, NUMBER, BOOL, TEXT, OTHER = range(5)  # types: 1 is not True, though they sort alike
_NUMBER, _TEXT, NAN = b"\x10", b"\xf8", b"\xff"  # no byte of UTF-8 is above F4: what is looked for in a text is no rank
_LARGEST = int(math.nextafter(math.inf, 0))
_SIGN, _ALL = 1 << 63, (1 << 64) - 1
_TOP = 0x80  # the bit of the sign in the first byte: set above zero
_FLIPPED, _INVERTED = bytes(byte ^ _TOP for byte in range(256)), bytes(range(255, -1, -1))


def kind_of(value: Any) -> int:
    """Return the type of a value: what is of another type is unequal."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int | float):
        return NUMBER
    return TEXT if isinstance(value, str) else OTHER


def full(value: Any) -> bytes:
    """Return the key of a value that is not None, however long."""
    if isinstance(value, int | float):
        return _number(value)
    return _TEXT + (value.encode(errors="surrogatepass") if isinstance(value, str) else to_json(value))


def encode(value: Any) -> tuple[int, bytes | None]:
    """Return the type of a value and its key, cut to `LIMIT`; what is missing has none."""
    return kind_of(value), None if value is None else full(value)[:LIMIT]


def text(value: str) -> bytes:
    """Return the key of a text, cut to `LIMIT`."""
    return full(value)[:LIMIT]


def number(value: float) -> bytes:
    """Return the key of a number, cut to `LIMIT`."""
    return _number(value)[:LIMIT]


def is_text(key: bytes) -> bool:
    """Tell whether a key is in the rank of texts."""
    return key[:1] == _TEXT


def id_key(id: str) -> bytes:
    """Return the key of an id: no two are the same."""
    return distinct(full(id))


def distinct(key: bytes) -> bytes:
    """Return bytes that an index holds, and no other key has: of one too long its digest is a part."""
    if len(key) < LIMIT:
        return key
    from hashlib import sha256  # loads OpenSSL, which takes longer than a question

    return key[: LIMIT - 32] + sha256(key).digest()


def after(prefix: bytes) -> bytes:
    """Return the least bytes that are above all that begin with `prefix`, the key of a text."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def float_of(key: bytes) -> float:
    """Return the float whose key this is."""
    if key[:1] == NAN:
        return math.nan
    (bits,) = struct.unpack_from(">Q", key, 1)
    return float(struct.unpack(">d", struct.pack(">Q", bits ^ _SIGN if bits & _SIGN else bits ^ _ALL))[0])


def floats_of(keys: Sequence[bytes]) -> Sequence[float]:
    """Return the floats whose keys these are: many cost less than each by itself."""
    joined = bytearray().join(keys)
    if len(joined) != 9 * len(keys) or joined[::9] != _NUMBER * len(keys):
        return [float_of(key) for key in keys]  # NaN is among them
    del joined[::9]
    signs, inverted = joined[::8], joined.translate(_INVERTED)
    joined[::8] = signs.translate(_FLIPPED)
    for place in [8 * place for place, sign in enumerate(signs) if sign < _TOP]:
        joined[place : place + 8] = inverted[place : place + 8]
    return struct.unpack(f">{len(keys)}d", joined)


def _double(value: float) -> bytes:
    (bits,) = struct.unpack(">Q", struct.pack(">d", value))
    return _NUMBER + struct.pack(">Q", bits ^ _ALL if bits & _SIGN else bits | _SIGN)


def _number(value: float) -> bytes:
    if isinstance(value, float):
        return _double(value + 0.0) if value == value else NAN  # noqa: PLR0124 - and -0.0 + 0.0 is 0.0
    if -(1 << 53) <= value <= 1 << 53:
        return _double(float(value))
    if value < -_LARGEST:  # below all doubles but one, the more digits the lower
        size, digits = _digits(-value)
        return _double(-math.inf) + bytes(byte ^ 0xFF for byte in size + digits)
    below = float(min(value, _LARGEST))
    if int(below) > value:
        below = math.nextafter(below, -math.inf)
    rest = value - int(below)
    return _double(below) + (b"".join(_digits(rest)) if rest else b"")


def _digits(value: int) -> tuple[bytes, bytes]:
    size = (value.bit_length() + 7) // 8
    return size.to_bytes(4, "big"), value.to_bytes(size, "big")
