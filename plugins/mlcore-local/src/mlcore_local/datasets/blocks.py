"""Make of a block of a column what is hashed of it, the same for the same values wherever they come from."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from mlcore.errors import InvalidValue

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block", "is_missing", "numbers", "objects", "texts", "type_of"]

_PLAIN = "make numbers, text, times or lists of them out of it"


@attrs.frozen
class Block:
    """Hold some rows of one column: the `buffers` that are hashed, and the values that are there, for a profile.

    `values` are an array, or a list of text; None where a profile has nothing to tell of them.
    """

    buffers: tuple[Any, ...]
    missing: int = 0
    values: Any = None


def type_of(dtype: Any) -> str:
    """Return the name of a fixed-width type of numpy. Raises `InvalidValue` for one that machines have differently."""
    if dtype.kind in "biu" or (dtype.kind in "fc" and dtype.itemsize // (2 if dtype.kind == "c" else 1) <= 8):
        return str(dtype.newbyteorder("=").name)
    if dtype.kind in "mM":
        unit, count = np.datetime_data(dtype)
        return f"{'duration' if dtype.kind == 'm' else 'timestamp'}[{'' if count == 1 else count}{unit}]"
    raise InvalidValue(f"data of the type {dtype} have no digest that is the same everywhere: {_PLAIN}")


def numbers(values: NDArray[Any], valid: Any = None) -> Block:
    """Return a block of values of fixed width, of which those count that are `valid`; None for all.

    What is missing among floats is NaN, however it was marked, and all NaN are the same; elsewhere it is a bit less in
    front of the values, and a zero among them.
    """
    kind = values.dtype.kind
    if kind in "mM":
        there = ~np.isnat(values)
        valid = there if valid is None else valid & there
        values = values.view(np.int64)
    given = values
    if kind in "fc":
        odd = np.isnan(values) if valid is None else np.isnan(values) | ~valid
        valid = ~odd if (some := bool(odd.any())) else None
        if some:
            values = np.where(odd, values.dtype.type(np.nan), values)
        buffers: tuple[Any, ...] = (_bytes(values),)
    elif valid is None or bool(valid.all()):
        valid, buffers = None, (b"\0", _bytes(values))
    else:
        values = np.where(valid, values, values.dtype.type(0))
        buffers = (b"\1", np.packbits(valid, bitorder="little"), _bytes(values))
    if values.ndim > 1 and valid is not None:
        valid = valid.all(axis=tuple(range(1, values.ndim)))
    missing = 0 if valid is None else len(valid) - int(np.count_nonzero(valid))
    return Block(buffers, missing, given if valid is None else given[valid])


def _bytes(values: NDArray[Any]) -> Any:
    """Return the bytes of an array, row by row, the least significant first; without a copy where they lie so."""
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8)


def texts(values: Any) -> Block:
    """Return a block of text: of an array of arrow, or of a list with None for what is missing."""
    if hasattr(values, "type"):
        return _arrow_texts(values)
    whole = [b"" if each is None else each.encode("utf-8", "surrogatepass") for each in values]
    valid = np.fromiter((each is not None for each in values), np.bool_, len(whole))
    sizes = np.fromiter(map(len, whole), np.int64, len(whole))
    return _text_block(valid, sizes, b"".join(whole), [each for each in values if each is not None])


def _arrow_texts(values: Any) -> Block:
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = values.cast(pa.large_string())
    plain = plain.combine_chunks() if isinstance(plain, pa.ChunkedArray) else plain
    valid = pc.is_valid(plain).to_numpy(zero_copy_only=False)
    if plain.null_count:
        plain = pc.fill_null(plain, "")  # what a buffer has where nothing is valid may be anything
    _, offsets, data = plain.buffers()
    ends = np.frombuffer(offsets or b"\0" * 8, np.int64)[plain.offset : plain.offset + len(plain) + 1]
    content = memoryview(data or b"")[int(ends[0]) : int(ends[-1])] if len(plain) else b""
    return _text_block(valid, np.diff(ends), content, plain if valid.all() else plain.filter(pa.array(valid)))


def _text_block(valid: NDArray[np.bool_], sizes: NDArray[np.int64], content: Any, there: Any) -> Block:
    missing = len(valid) - int(np.count_nonzero(valid))
    marks = (b"\1", np.packbits(valid, bitorder="little")) if missing else (b"\0",)
    return Block((*marks, _bytes(sizes), content), missing, there)


def objects(values: Sequence[Any]) -> Block:
    """Return a block of anything that is made of plain values. Raises `InvalidValue` for what is not."""
    missing = [is_missing(each) for each in values]
    told = [b"" if gone else _encoded(each) for gone, each in zip(missing, values, strict=True)]
    valid, sizes = ~np.array(missing, np.bool_), np.fromiter(map(len, told), np.int64, len(told))
    return attrs.evolve(_text_block(valid, sizes, b"".join(told), None), values=None)


def is_missing(value: Any) -> bool:
    """Tell whether this is None, NaN, or what libraries have instead."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(value != value)  # noqa: PLR0124 - NaN alone


def _encoded(value: Any) -> bytes:
    """Return bytes that stand for a value and its type, with their number in front."""
    text = _tagged(value)
    return b"%d:%b" % (len(text), text)


def _tagged(value: Any) -> bytes:
    if isinstance(value, np.generic | np.ndarray) or (hasattr(value, "tolist") and not isinstance(value, Mapping)):
        value = value.tolist()
    if is_missing(value):
        return b"n"
    for kind, tag in _TAGS.items():
        if isinstance(value, kind):
            return tag(value)
    raise InvalidValue(f"a {type(value).__module__}.{type(value).__qualname__} has no digest: {_PLAIN}")


_MICROSECOND = datetime.timedelta(microseconds=1)
_TAGS: Mapping[Any, Callable[[Any], bytes]] = {  # the first that fits: True is an int as well, text a sequence
    bool: lambda it: b"b%d" % it,
    int: lambda it: b"i%d" % it,
    float: lambda it: b"f" + it.hex().encode(),
    str: lambda it: b"s" + it.encode("utf-8", "surrogatepass"),
    bytes | bytearray | memoryview: lambda it: b"y" + bytes(it),
    datetime.date | datetime.time: lambda it: b"t" + it.isoformat().encode(),
    datetime.timedelta: lambda it: b"p%d" % (it // _MICROSECOND),
    decimal.Decimal | uuid.UUID: lambda it: b"d" + str(it).encode(),
    Mapping: lambda it: b"m" + b"".join(sorted(_encoded(str(key)) + _encoded(each) for key, each in it.items())),
    AbstractSet: lambda it: b"e" + b"".join(sorted(map(_encoded, it))),
    Sequence: lambda it: b"l" + b"".join(map(_encoded, it)),
}
