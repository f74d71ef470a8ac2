"""Seal an ended run: its metrics as columns, key by key, so that reading a key costs what the key costs.

A sealed file is disposable: it is made from the journals beside it and left alone once they say more. It is::

    magic, 8 bytes "mlcoresl"
    the columns of every key, one after the other: steps and times (int64, ms), values (float64)
    JSON, a line: what the journals were, what the run is shown as, and where each key's columns are
    JSON, a line: the records without rows, which are read only when something else is known of the run
    length of both lines (u64), CRC-32 of both (u32), magic

All little-endian. Columns carry a CRC-32 each, which `mlcore fsck` checks.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from mlcore.errors import JournalError, StoreError
from mlcore.folder import Folder
from mlcore.journal.format import SUFFIX
from mlcore.store import (
    Columns,
    Conflict,
    Entity,
    Event,
    Fold,
    Record,
    RowsLogged,
    Summary,
    Unknown,
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
VERSION = 2  # of the layout, and of the rule by which events make what is shown
_MAGIC = b"mlcoresl"
_TAIL = struct.Struct("<QI8s")
_TYPES = {"step": ("q", "<i8"), "time": ("q", "<i8"), "value": ("d", "<f8")}


class SealedSeries(NamedTuple):
    """Say where a metric's columns stand in the sealed file, and sum them up."""

    key: str
    context: str
    offset: int
    checksum: int
    summary: Summary


class Sealed:
    """Hold what a sealed file says, but for the columns, which `columns` reads.

    `journals` has the size and the last record number of each journal it was made from, by file name; `span` the stamps
    of the first and the last that they say of the run.
    """

    def __init__(self, path: str, about: dict[str, Any], records: bytes) -> None:
        self.path = path
        self.journals: dict[str, tuple[int, int]] = about["journals"]
        self.span: tuple[int, int] = about["span"]
        self._shown, self._others, self._series, self._records = (
            about["shown"], about["others"], about["series"], records,
        )  # fmt: skip

    @property
    def shows(self) -> bool:
        """Whether its records alone say what the run is shown as."""
        return self._shown is not None

    @property
    def ends(self) -> bool:
        """Whether its records say, too, that the run has ended."""
        return self._shown is not None and self._shown[1].get("status", "RUNNING") != "RUNNING"

    def entity(self, id: str) -> Entity:
        """Return what the run is shown as if nobody else wrote of it, but for its metrics."""
        parent, fields, attributes, conflicts = self._shown
        return Entity(
            "run", id, parent, fields, attributes, {}, tuple(Conflict(*each) for each in conflicts), *self.span
        )

    @property
    def others(self) -> list[tuple[str, Record]]:
        """What the records say of other things than the run, by source."""
        return _decoded(self._others)

    @property
    def records(self) -> list[tuple[str, Record]]:
        """All but the rows, by source."""
        return _decoded(from_json(self._records))

    @cached_property
    def series(self) -> dict[tuple[str, str], SealedSeries]:
        """Where the columns are, by key and context."""
        return {(a, b): SealedSeries(a, b, c, d, self.summaries[a, b]) for a, b, c, d, _ in self._series}

    @cached_property
    def summaries(self) -> dict[tuple[str, str], Summary]:
        """The summaries of the metrics, by key and context."""
        return {(key, context): Summary(*summary) for key, context, _, _, summary in self._series}

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
    records, span = list[tuple[str, Record]](), list[int]()
    for path in sorted(folder.glob("*" + SUFFIX)):
        journal = Journal()
        for record in _records(path, journal, rows, span, run_id):
            events = []
            if any((each.kind, each.id) == ("run", run_id) and not isinstance(each, Unknown) for each in record.events):
                _widen(span, (record.stamp,))
            for index, event in enumerate(record.events):
                if not isinstance(event, RowsLogged):
                    events.append(event)
                elif event.kind == "run" and event.id == run_id and set(event.columns) == set(_TYPES):
                    one = rows.setdefault((event.key, event.context), Rows())
                    one.add(journal.source, record.number, record.stamp, event.columns, index)
                else:
                    return False
            if events:
                records.append((journal.source, attrs.evolve(record, events=tuple(events))))
                fold.add_record(*records[-1])
        sources[path.name] = (journal.offset + (journal.tail.length if journal.tail else 0), journal.last)
    columns = {key: rows[key].columns(fold.rewinds("run", run_id)) for key in sorted(rows)}
    if not span or not all(map(_is_metric, columns.values())):
        return False
    about: dict[str, Any] = {"journals": sources, "span": span}
    about |= {"shown": _shown(fold, records, run_id), "others": _encoded(records, but=run_id)}
    _write(folder / NAME, about, columns, _encoded(records))
    return True


def _shown(fold: Fold, records: list[tuple[str, Record]], run_id: str) -> list[Any] | None:
    """Return what a run is shown as, None where whoever reads the seal may know better, or where it is erased."""
    entity = fold.entity("run", run_id)
    if entity is None or any(isinstance(event, Unknown) for _, record in records for event in record.events):
        return None
    conflicts = [list(attrs.astuple(each, recurse=False)) for each in entity.conflicts]
    return [entity.parent, entity.fields, entity.attributes, conflicts]


def _encoded(records: list[tuple[str, Record]], but: str | None = None) -> list[list[Any]]:
    """Return records as a seal has them, without the events of the run `but`, if that is given."""
    found = []
    for source, record in records:
        lines = [encode_event(each).decode() for each in record.events if (each.kind, each.id) != ("run", but)]
        if lines:
            found.append([source, record.number, record.stamp, lines])
    return found


def _is_metric(columns: Columns) -> bool:
    """Tell whether there are rows, steps and times whole and values not: others are read as they were logged."""
    return len(columns) > 0 and all(
        getattr(columns[name], "typecode", "") == code for name, (code, _) in _TYPES.items()
    )


def _widen(span: list[int], stamps: Iterable[int]) -> None:
    known = [*span, *stamps]
    span[:] = min(known), max(known)


def _records(
    path: Path, journal: Journal, rows: dict[tuple[str, str], Rows], span: list[int], run_id: str
) -> Iterator[Record]:
    def take(journal: Journal, points: Points) -> None:
        kind, id, name, context = journal.named(points.key)
        if (kind, id) == ("run", run_id):
            _widen(span, points.span())
            rows.setdefault((name, context), Rows()).add_points(journal.source, points)

    yield from read(path, journal, points=take)


def _write(path: Path, about: dict[str, Any], columns: dict[tuple[str, str], Columns], records: list[Any]) -> None:
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
            text = to_json({"version": VERSION, **about, "series": series}) + b"\n" + to_json(records)
            file.write(text + _TAIL.pack(len(text), zlib.crc32(text), _MAGIC))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


_SMALL = 16_384  # bytes, more than most runs' seals have: they are read in one go


def _decoded(records: list[list[Any]]) -> list[tuple[str, Record]]:
    return [(source, Record(number, stamp, tuple(map(_event, lines)))) for source, number, stamp, lines in records]


@lru_cache(maxsize=64)
def _event(line: str) -> Event:
    """Return the event in a line, of which every run brings its experiment's along."""
    return decode_event(line.encode())


def open_sealed(folder: Path | str) -> Sealed | None:
    """Read a run's sealed file; None if there is none, or one that cannot be relied on."""
    path = f"{folder}/{NAME}"
    try:
        text = _text(path)
        about, separator, records = text.partition(b"\n")
        found = from_json(about)
        return Sealed(path, found, records) if separator and found["version"] == VERSION else None
    except (OSError, ValueError, struct.error):
        return None


def _text(path: str) -> bytes:
    """Return the JSON of a sealed file. Raises `OSError`, `ValueError` or `struct.error`."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        end = os.read(file, _SMALL)
        if len(end) == _SMALL:
            start = max(0, os.fstat(file).st_size - _SMALL)
            end = _read_from(file, start)
            length = _TAIL.unpack(end[-_TAIL.size :])[0] + _TAIL.size
            if length > len(end) and length <= start + len(end):
                end = _read_from(file, start + len(end) - length)
    finally:
        os.close(file)
    length, checksum, magic = _TAIL.unpack(end[-_TAIL.size :])
    text = end[len(end) - _TAIL.size - length : -_TAIL.size] if length <= len(end) - _TAIL.size else b""
    if magic != _MAGIC or zlib.crc32(text) != checksum:
        raise ValueError(f"{path} is no seal, or a damaged one")
    return text


def _read_from(file: int, start: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    parts = []
    while part := os.read(file, 1 << 24):
        parts.append(part)
    return b"".join(parts)


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
