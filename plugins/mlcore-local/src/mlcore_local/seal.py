"""Seal an ended run: its metrics as columns, key by key, so that reading a key costs what the key costs.

A sealed file is disposable: it is made from the journals beside it and left alone once they say more. It is::

    magic, 8 bytes "mlcoresl"
    the columns of every key, one after the other: steps and times (int64, ms), values (float64)
    JSON: what the journals were, the records without rows, and where each key's columns are
    length of the JSON (u64), CRC-32 of the JSON (u32), magic

All little-endian. Columns carry a CRC-32 each, which `mlcore fsck` checks.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mlcore.errors import JournalError, StoreError
from mlcore.folder import Folder
from mlcore.journal.format import SUFFIX
from mlcore.store import (
    Columns,
    Event,
    Fold,
    Record,
    RowsLogged,
    Summary,
    decode_event,
    encode_event,
    from_json,
    to_json,
)
from mlcore_local.points import Points
from mlcore_local.reader import Journal, read, unpacked
from mlcore_local.rows import Rows, summary_of

if TYPE_CHECKING:
    from mlcore import Run

__all__ = ["NAME", "VERSION", "Sealed", "SealedSeries", "drop", "open_sealed", "seal", "seal_ended"]

NAME = "sealed"
VERSION = 1
_MAGIC = b"mlcoresl"
_TAIL = struct.Struct("<QI8s")
_TYPES = {"step": ("q", "<i8"), "time": ("q", "<i8"), "value": ("d", "<f8")}


@attrs.frozen
class SealedSeries:
    """Say where a metric's columns stand in the sealed file, and sum them up."""

    key: str
    context: str
    offset: int
    checksum: int
    summary: Summary


@attrs.frozen
class Sealed:
    """Hold what a sealed file says, but for the columns, which `columns` reads.

    `journals` has the size and the last record number of each journal it was made from, by file name; `span` the first
    and the last stamp of them all; `records` what else they hold, by source.
    """

    path: Path
    journals: dict[str, tuple[int, int]]
    span: tuple[int, int]
    records: list[tuple[str, Record]]
    series: dict[tuple[str, str], SealedSeries]

    def columns(self, key: tuple[str, str]) -> Columns:
        """Read the columns of one key. Raises `OSError`, also where the file has become shorter."""
        series = self.series[key]
        rows = series.summary.count
        if os.stat(self.path).st_size < series.offset + 24 * rows:
            raise OSError(f"{self.path} is too short")
        try:
            import numpy
        except ImportError:
            with open(self.path, "rb") as file:
                file.seek(series.offset)
                return Columns({name: unpacked(code, file.read(8 * rows)) for name, (code, _) in _TYPES.items()})
        data = numpy.fromfile(self.path, "<i8", 3 * rows, offset=series.offset)
        parts = (data[:rows], data[rows : 2 * rows], data[2 * rows :].view("<f8"))
        return Columns(dict(zip(_TYPES, parts, strict=True)))  # type: ignore[arg-type]

    def intact(self) -> bool:
        """Tell whether every column is as it was written. Raises `OSError`."""
        with open(self.path, "rb") as file:
            for series in self.series.values():
                file.seek(series.offset)
                if zlib.crc32(file.read(24 * series.summary.count)) != series.checksum:
                    return False
        return True


def seal(folder: Path, run_id: str) -> bool:
    """Seal a run's folder, replacing what was sealed; False if there is nothing that a seal can hold.

    Raises `OSError`, and then leaves everything as it was.
    """
    fold, rows, sources = Fold(), dict[tuple[str, str], Rows](), dict[str, tuple[int, int]]()
    records, span = list[list[Any]](), list[int]()
    for path in sorted(folder.glob("*" + SUFFIX)):
        journal = Journal()
        for record in _records(path, journal, rows, run_id):
            events = []
            for index, event in enumerate(record.events):
                if not isinstance(event, RowsLogged):
                    events.append(event)
                elif event.kind == "run" and event.id == run_id and set(event.columns) == set(_TYPES):
                    one = rows.setdefault((event.key, event.context), Rows())
                    one.add(journal.source, record.number, record.stamp, event.columns, index)
                else:
                    return False
            if events:
                fold.add_record(journal.source, attrs.evolve(record, events=tuple(events)))
                lines = [encode_event(event).decode() for event in events]
                records.append([journal.source, record.number, record.stamp, lines])
        sources[path.name] = (journal.offset + (journal.tail.length if journal.tail else 0), journal.last)
        span += [journal.first, journal.stamp] if journal.last else []
    columns = {key: rows[key].columns(fold.rewinds("run", run_id)) for key in sorted(rows)}
    if not span or not all(map(_is_metric, columns.values())):
        return False
    about = {"journals": sources, "span": (min(span), max(span)), "records": records}
    _write(folder / NAME, about, columns)
    return True


def _is_metric(columns: Columns) -> bool:
    """Tell whether there are rows, steps and times whole and values not: others are read as they were logged."""
    return len(columns) > 0 and all(
        getattr(columns[name], "typecode", "") == code for name, (code, _) in _TYPES.items()
    )


def _records(path: Path, journal: Journal, rows: dict[tuple[str, str], Rows], run_id: str) -> Iterator[Record]:
    def take(journal: Journal, points: Points) -> None:
        kind, id, name, context = journal.named(points.key)
        if (kind, id) == ("run", run_id):
            rows.setdefault((name, context), Rows()).add_points(journal.source, points)

    yield from read(path, journal, points=take)


def _write(path: Path, about: dict[str, Any], columns: dict[tuple[str, str], Columns]) -> None:
    temporary = path.with_name(f"{NAME}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(_MAGIC)
            series = []
            for (key, context), each in columns.items():
                summary = summary_of(each)
                assert summary is not None
                data = b"".join(_bytes(each[name]) for name in _TYPES)
                series.append([key, context, file.tell(), zlib.crc32(data), list(attrs.astuple(summary))])
                file.write(data)
            text = to_json({"version": VERSION, **about, "series": series})
            file.write(text + _TAIL.pack(len(text), zlib.crc32(text), _MAGIC))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


_END = 8_192  # bytes; what most runs have behind their columns


@lru_cache(maxsize=64)
def _decoded(line: str) -> Event:
    """Return the event in a line, of which every run brings its experiment's along."""
    return decode_event(line.encode())


def open_sealed(folder: Path) -> Sealed | None:
    """Read a run's sealed file; None if there is none, or one that cannot be relied on."""
    path = folder / NAME
    try:
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            end = file.read()  # in one go for most runs
            length, checksum, magic = _TAIL.unpack(end[-_TAIL.size :])
            if length + _TAIL.size > len(end) and magic == _MAGIC:
                file.seek(size - _TAIL.size - length)
                end = file.read()
        text = end[len(end) - _TAIL.size - length : -_TAIL.size]
        if magic != _MAGIC or zlib.crc32(text) != checksum:
            return None
        about = from_json(text)
        if about["version"] != VERSION:
            return None
    except (OSError, ValueError, struct.error):
        return None
    records = [
        (source, Record(number, stamp, tuple(map(_decoded, lines))))
        for source, number, stamp, lines in about["records"]
    ]
    series = [SealedSeries(a, b, c, d, Summary(*e)) for a, b, c, d, e in about["series"]]
    journals = {name: (size, last) for name, (size, last) in about["journals"].items()}
    return Sealed(path, journals, tuple(about["span"]), records, {(each.key, each.context): each for each in series})


def seal_ended(run: Run) -> None:
    """Seal a run that ended just now, if it lies in a folder store; what hinders that is no harm."""
    if run.folder is not None:
        with contextlib.suppress(OSError, StoreError, JournalError):
            seal(run.folder, run.id)


def drop(folder: Folder, run_id: str) -> None:
    """Remove a run's sealed file."""
    (folder.run_folder(run_id) / NAME).unlink(missing_ok=True)


def _bytes(values: Any) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return bytes(values.tobytes())
