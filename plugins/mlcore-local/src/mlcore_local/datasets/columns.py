"""Read tables of several libraries as columns, block by block and without a copy where that can be."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import numpy as np

from mlcore.errors import InvalidValue
from mlcore_local.datasets.blocks import Block, is_missing, numbers, objects, texts, type_of

__all__ = ["Column", "columns_of", "rows_of"]

_STEP = 65_536  # values of a column that are looked at together
_TILE, _TURNED = 64, 1 << 26  # rows that fit into a cache with what they become; bytes that a thread may turn
_FIXED = "biufcmM"  # kinds of numpy's types whose values all have one width


@attrs.frozen
class Column:
    """Name a column and its `type`, and read its rows from one to before another."""

    name: str
    type: str
    rows: int
    block: Callable[[int, int], Block]


def rows_of(columns: Sequence[Column]) -> int:
    """Return how many rows columns have. Raises `InvalidValue` if they do not have as many each."""
    counts = {each.rows for each in columns}
    if len(counts) > 1:
        told = ", ".join(f"{each.name} {each.rows:,}" for each in columns[:5])
        raise InvalidValue(f"these columns have different numbers of rows: {told}")
    return counts.pop() if counts else 0


def columns_of(data: Any, name: str = "0") -> list[Column]:
    """Return the columns of a table, an array or a sequence; `name` is that of a single one that has none."""
    library = type(data).__module__.partition(".")[0]
    bases = {f"{each.__module__.partition('.')[0]}.{each.__name__}" for each in type(data).__mro__}
    if "polars.LazyFrame" in bases:
        raise InvalidValue("a LazyFrame has no rows yet: log what its collect() returns")
    if "sklearn.Bunch" in bases:
        return _bunch(data)
    for known, read in _READERS.items():
        if known in bases:
            return list(read(data, name))
    if hasattr(data, "tocsr"):
        return [_sparse(name, data)]
    if isinstance(data, Mapping):
        return [each for key, part in data.items() for each in _inside(str(key), columns_of(part, ""))]
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return [_listed(name, list(data))]
    raise InvalidValue(f"a {library}.{type(data).__name__} is no table, array or list")


def _inside(name: str, columns: Sequence[Column]) -> Iterator[Column]:
    for each in columns:
        yield attrs.evolve(each, name=name if not each.name and len(columns) == 1 else f"{name}.{each.name}")


def _arrays(data: Any, name: str) -> Iterator[Column]:
    """Yield the columns of an array of one or two dimensions, by their number, or the only one of others."""
    plain = np.asarray(data)
    hidden = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
    if plain.dtype.names:
        for field in plain.dtype.names:
            yield from _inside(field, list(_arrays(data[field], "")))
    elif plain.ndim == 2 and hidden is None and plain.dtype.kind in _FIXED and plain.strides[0] > plain.strides[1] > 0:
        yield from _turned(plain)
    elif plain.ndim == 2:
        for at in range(plain.shape[1]):
            yield _array(str(at), plain[:, at], None if hidden is None else hidden[:, at])
    else:
        yield _array(name, np.atleast_1d(plain), None if hidden is None else np.atleast_1d(hidden))


def _turned(plain: Any) -> Iterator[Column]:
    """Yield the columns of an array that lies row by row, of which each thread turns a block at a time."""
    kept = threading.local()

    def turned(start: int, stop: int) -> Any:
        if getattr(kept, "of", None) != (start, stop):
            kept.block = np.empty((plain.shape[1], stop - start), plain.dtype)
            for at in range(0, stop - start, _TILE):
                kept.block[:, at : at + _TILE] = plain[start + at : min(start + at + _TILE, stop)].T
            kept.of = (start, stop)
        return kept.block

    def block(at: int, start: int, stop: int) -> Block:
        small = (stop - start) * plain.shape[1] * plain.itemsize <= _TURNED
        return numbers(turned(start, stop)[at] if small else plain[start:stop, at])

    title = type_of(plain.dtype)
    for at in range(plain.shape[1]):
        yield Column(str(at), title, len(plain), partial(block, at))


def _array(name: str, values: Any, hidden: Any = None) -> Column:
    kind = values.dtype.kind
    if kind in "OSUTV":
        return _listed(name, values, hidden)
    if kind not in _FIXED:
        type_of(values.dtype)  # which says what is wrong

    def block(start: int, stop: int) -> Block:
        return numbers(values[start:stop], None if hidden is None else ~hidden[start:stop])

    shape = f"[{','.join(map(str, values.shape[1:]))}]" if values.ndim > 1 else ""
    return Column(name, type_of(values.dtype) + shape, len(values), block)


def _listed(name: str, values: Any, hidden: Any = None) -> Column:
    """Return a column of Python's own values: text, or numbers of one kind, if there is nothing else."""
    if isinstance(values, list) and (found := _counted(name, values)):
        return found

    def part(start: int, stop: int) -> Any:
        found = values[start:stop]
        gone = () if hidden is None else hidden[start:stop]
        return [None if each else value for value, each in zip(found, gone, strict=True)] if len(gone) else found

    make, starts = partial(Column, name, rows=len(values)), range(0, len(values), _STEP)
    if all(_text(part(start, start + _STEP)) is not None for start in starts):
        return make("text", block=lambda start, stop: texts(_text(part(start, stop))))
    if len(values) and all(type(each) is datetime.date or is_missing(each) for each in part(0, len(values))):
        days = [None if is_missing(each) else each for each in part(0, len(values))]
        return _days(name, np.array(days, "M8[D]"))
    return make("object", block=lambda start, stop: objects(list(part(start, stop))))


def _days(name: str, values: Any) -> Column:
    valid, days = ~np.isnat(values), values.astype(np.int64).astype(np.int32)
    return Column(name, "date", len(values), lambda start, stop: numbers(days[start:stop], valid[start:stop]))


def _counted(name: str, values: list[Any]) -> Column | None:
    """Return a column of a list of numbers, as numpy has them, None if it is something else."""
    valid = np.array([not is_missing(each) for each in values], np.bool_)
    kinds = {type(each) for each, there in zip(values, valid, strict=True) if there}
    if len(kinds) != 1 or not kinds <= {bool, int, float}:
        return None
    (kind,) = kinds
    plain = np.array([each if there else kind() for each, there in zip(values, valid, strict=True)])
    return _array(name, plain, None if valid.all() else ~valid) if plain.dtype.kind in _FIXED else None


def _text(values: Any) -> Any:
    """Return text as an array of arrow if that is installed, as it encodes faster, else as a list; None of no text."""
    with suppress(ImportError, UnicodeEncodeError):  # half a surrogate
        import pyarrow as pa

        try:
            found = pa.array(values, from_pandas=True)
        except (pa.ArrowException, OverflowError):
            return None
        return found if pa.types.is_string(found.type) or pa.types.is_null(found.type) else None
    plain = [None if is_missing(each) else each for each in values]
    return plain if all(isinstance(each, str | None) for each in plain) else None


def _sparse(name: str, data: Any) -> Column:
    rows = data.tocsr()
    if not rows.has_canonical_format or not np.all(rows.data):
        rows = rows.copy()
        rows.sum_duplicates()
        rows.eliminate_zeros()

    def block(start: int, stop: int) -> Block:
        ends = rows.indptr[start : stop + 1].astype(np.int64)
        inside = slice(int(ends[0]), int(ends[-1]))
        parts = [numbers(each) for each in (np.diff(ends), rows.indices[inside].astype(np.int64))]
        values = numbers(rows.data[inside])
        return Block(tuple(each for part in (*parts, values) for each in part.buffers), values.missing, values.values)

    return Column(name, f"sparse {type_of(rows.dtype)}[{rows.shape[1]}]", rows.shape[0], block)


def _bunch(data: Any) -> list[Column]:
    """Return the columns of what scikit-learn loads: of its frame, or of data and target, named as a frame has them."""
    if data.get("frame") is not None:
        return columns_of(data["frame"])
    if data.get("data") is None:
        raise InvalidValue("this Bunch has neither a frame nor data: log the array or table in it that you use")
    parts = list[Column]()
    for key, names in (("data", data.get("feature_names")), ("target", data.get("target_names"))):
        if data.get(key) is None:
            continue
        found = columns_of(data[key], key)
        several = len(found) > 1 or getattr(data[key], "ndim", 1) == 2
        if several and names is not None and len(names) == len(found):
            found = [attrs.evolve(each, name=str(name)) for each, name in zip(found, names, strict=True)]
        elif several and not hasattr(data[key], "columns"):
            found = [attrs.evolve(each, name=f"{key}_{each.name}") for each in found if each.name != key] or found
        parts += found
    return parts


def _pandas(data: Any, name: str) -> Iterator[Column]:
    """Yield the columns of a DataFrame or Series, after those of an index that is more than numbers of rows."""
    if hasattr(data, "to_frame") and not hasattr(data, "index"):  # an index itself
        data = data.to_series(index=range(len(data)))
    index = data.index
    for level in range(index.nlevels):
        values = index.get_level_values(level)
        if index.nlevels > 1 or values.name is not None or getattr(values.dtype, "kind", "O") not in "iu":
            yield _pandas_column(f"index_{level}" if values.name is None else str(values.name), values.array)
    if data.ndim == 1:
        yield _pandas_column(name if data.name is None else str(data.name), data.array)
        return
    for at, title in enumerate(data.columns):
        yield _pandas_column(str(title), data.iloc[:, at].array)


def _pandas_column(name: str, values: Any) -> Column:
    """Return a column of an extension array, or of a thin one around numpy's."""
    import pandas

    dtype = values.dtype
    make = partial(Column, name, rows=len(values))
    if _of_numpy(dtype):
        return _array(name, values.to_numpy())
    if isinstance(dtype, pandas.CategoricalDtype):
        return _category(name, values)
    if isinstance(dtype, pandas.DatetimeTZDtype):
        utc = values.tz_convert(None).to_numpy()
        return make(f"timestamp[{dtype.unit}, {dtype.tz}]", block=lambda start, stop: numbers(utc[start:stop]))
    if isinstance(dtype, pandas.SparseDtype):
        return _array(name, np.asarray(values))
    if isinstance(dtype, pandas.StringDtype):
        return _listed(name, values.to_numpy(object)) if dtype.storage == "python" else _arrow(name, values)
    if hasattr(dtype, "pyarrow_dtype"):
        return _arrow(name, values)
    if (plain := getattr(dtype, "numpy_dtype", None)) is not None:  # numbers with a mask

        def block(start: int, stop: int) -> Block:
            part = values[start:stop]
            return numbers(part.to_numpy(plain, na_value=plain.type(0)), ~np.asarray(part.isna()))

        return make(type_of(plain), block=block)
    return _listed(name, values.astype(object))


def _of_numpy(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) or type(dtype).__name__ == "NumpyEADtype"


def _category(name: str, values: Any) -> Column:
    """Return the values that categories stand for; which others there might have been is left out."""
    inner = _pandas_column(name, values.categories.array)
    if not len(values.categories):
        return Column(
            name, f"category of {inner.type}", len(values), lambda start, stop: texts([None] * (stop - start))
        )

    def block(start: int, stop: int) -> Block:
        codes = values.codes[start:stop]
        part = values.categories.array.take(np.where(codes < 0, 0, codes))
        if (codes >= 0).all():
            return _pandas_column(name, part).block(0, len(part))
        plain = part.to_numpy() if _of_numpy(part.dtype) else part.to_numpy(object)
        return _array(name, plain, codes < 0).block(0, len(part))

    return Column(name, f"category of {inner.type}", len(values), block)


def _arrow(name: str, values: Any) -> Column:
    import pyarrow as pa

    found = pa.array(values) if not isinstance(values, pa.Array | pa.ChunkedArray) else values
    return _arrow_column(name, found)


def _arrow_table(data: Any, name: str) -> Iterator[Column]:
    if not hasattr(data, "column_names"):
        yield _arrow_column(name, data)
        return
    for at, title in enumerate(data.column_names):
        yield _arrow_column(title, data.column(at))


def _arrow_column(name: str, values: Any) -> Column:
    """Return a column of an Array or ChunkedArray of arrow."""
    import pyarrow as pa

    kind, types = values.type, pa.types
    make = partial(Column, name, rows=len(values))

    def part(start: int, stop: int) -> Any:
        found = values.slice(start, stop - start)
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found

    if types.is_dictionary(kind):
        title = _arrow_column(name, pa.array([], kind.value_type)).type

        def decoded(start: int, stop: int) -> Block:
            return _arrow_column(name, part(start, stop).dictionary_decode()).block(0, stop - start)

        return make(f"category of {title}", block=decoded)
    if str(kind) in ("string", "large_string", "string_view", "null"):
        return make("text", block=lambda start, stop: texts(part(start, stop)))
    if types.is_boolean(kind):
        return make("bool", block=lambda start, stop: _masked(part(start, stop).cast(pa.uint8()), np.dtype("bool")))
    if types.is_integer(kind) or types.is_floating(kind):
        plain = np.dtype(kind.to_pandas_dtype())
        return make(plain.name, block=lambda start, stop: _masked(part(start, stop), plain))
    if types.is_timestamp(kind) or types.is_duration(kind):
        zone = f", {kind.tz}" if types.is_timestamp(kind) and kind.tz else ""
        title = f"{'timestamp' if types.is_timestamp(kind) else 'duration'}[{kind.unit}{zone}]"
        plain = np.dtype(f"{'M' if types.is_timestamp(kind) else 'm'}8[{kind.unit}]")
        return make(title, block=lambda start, stop: _masked(part(start, stop).cast(pa.int64()), plain))
    if types.is_date32(kind):
        return make("date", block=lambda start, stop: _masked(part(start, stop).cast(pa.int32()), np.dtype("int32")))
    return make("object", block=lambda start, stop: objects(part(start, stop).to_pylist()))


def _masked(values: Any, dtype: np.dtype[Any]) -> Block:
    """Return a block of an array of arrow, whose buffer has what numpy calls `dtype`, or can be made so."""
    valid = np.asarray(values.is_valid()) if values.null_count else None
    if values.null_count:
        values = values.fill_null(0)
    plain = values.to_numpy(zero_copy_only=False)
    return numbers(plain.view(dtype) if plain.dtype.itemsize == dtype.itemsize else plain.astype(dtype), valid)


def _polars(data: Any, name: str) -> Iterator[Column]:
    frame = data.to_frame() if not hasattr(data, "columns") else data
    for series in frame.get_columns():
        yield _polars_column(series.name or name, series)


def _polars_column(name: str, series: Any) -> Column:
    """Return a column of polars: numbers through numpy, which needs no arrow."""
    import polars as pl

    dtype, make = series.dtype, partial(Column, name, rows=len(series))
    if dtype in (pl.Categorical, pl.Enum):
        return make("category of text", block=lambda start, stop: _polars_texts(series, start, stop))
    if dtype in (pl.String, pl.Null):
        return make("text", block=lambda start, stop: _polars_texts(series, start, stop))
    stands: tuple[str, Any] | None = None
    if dtype == pl.Boolean:
        stands = "bool", (pl.UInt8, np.dtype("bool"))
    elif dtype.is_integer() or dtype.is_float():
        plain = np.dtype(str(dtype).lower()) if str(dtype).lower() in np.sctypeDict else None
        stands = None if plain is None else (plain.name, (dtype, plain))
    elif dtype == pl.Date:
        stands = "date", (pl.Int32, np.dtype("int32"))
    elif dtype in (pl.Datetime, pl.Duration):
        zone = f", {dtype.time_zone}" if dtype == pl.Datetime and dtype.time_zone else ""
        of = "timestamp" if dtype == pl.Datetime else "duration"
        title = f"{of}[{dtype.time_unit}{zone}]"
        stands = title, (pl.Int64, np.dtype(f"{'M' if of == 'timestamp' else 'm'}8[{dtype.time_unit}]"))
    if stands is None:
        return make("object", block=lambda start, stop: objects(series.slice(start, stop - start).to_list()))
    (title, (physical, plain)) = stands

    def block(start: int, stop: int) -> Block:
        part = series.slice(start, stop - start)
        valid = part.is_not_null().to_numpy() if part.null_count() else None
        values = part.to_physical().cast(physical).fill_null(0).to_numpy()
        return numbers(values.view(plain), valid)

    return make(title, block=block)


def _polars_texts(series: Any, start: int, stop: int) -> Block:
    import polars as pl

    part = series.slice(start, stop - start).cast(pl.String)
    try:
        return texts(part.to_arrow())
    except ImportError:
        return texts(part.to_list())


_READERS: Mapping[str, Callable[[Any, str], Iterable[Column]]] = {
    "pandas.DataFrame": _pandas, "pandas.Series": _pandas, "pandas.Index": _pandas,
    "polars.DataFrame": _polars, "polars.Series": _polars,
    "pyarrow.Table": _arrow_table, "pyarrow.RecordBatch": _arrow_table,
    "pyarrow.Array": _arrow_table, "pyarrow.ChunkedArray": _arrow_table,
    "numpy.ndarray": _arrays,
}  # fmt: skip
