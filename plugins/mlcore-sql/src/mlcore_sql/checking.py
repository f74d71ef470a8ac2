"""Check a team store: that its history is whole, that its rows are there, and that its tables say what it says."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import attrs
from sqlalchemy import Connection, func, inspect, select

from mlcore.errors import MlcoreError
from mlcore.store import Batch, Entity, Fold, Record, RowsLogged, digest, from_json, to_json
from mlcore_sql import migrations
from mlcore_sql.contents import Projected, differing, projected_entities
from mlcore_sql.dialects import parts, runner
from mlcore_sql.engine import Database
from mlcore_sql.listing import Listing
from mlcore_sql.reading import Reading
from mlcore_sql.rebuilding import Progress, replay, silent
from mlcore_sql.schema import documents, entities, projected, terms
from mlcore_sql.tables import batches, chunks, claims, metadata, sources

__all__ = ["Finding", "Report", "check"]

_Name = tuple[str, str]  # kind and id


@attrs.frozen
class Finding:
    """Say what is wrong, and of what: ``tables``, a source, a claim, an entity."""

    of: str
    what: str


@attrs.define
class Report:
    """Hold what was looked at, and what was found."""

    version: str | None = None
    batches: int = 0
    records: int = 0
    rows: int = 0
    sources: int = 0
    entities: int = 0
    findings: list[Finding] = attrs.field(factory=list)

    def add(self, of: str, what: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(of, what))


@attrs.define
class _Expected:
    """Hold what the tables of a store say, all of one moment."""

    last: int
    marks: dict[str, tuple[int, str]]
    claims: dict[str, str]
    rows: dict[str, int]
    sample: dict[_Name, Entity]


def check(database: Database, *, sample: int | None = 100, progress: Progress = silent) -> Report:
    """Read the whole history of a store and compare it with what the store keeps beside it; nothing is written.

    Of `sample` entities, chosen at random, what is projected is compared with what core's fold makes of the history; if
    it is None, all tables are compared with those that a rebuild would make. Others may append meanwhile.
    """
    report = Report()
    with database.reading() as connection:
        report.version = migrations.version_of(connection)
        if not migrations.check(report.version, database.name):
            return report
        for what in _drift(connection):
            report.add("tables", what)
        expected = _expected(connection, sample or 0)
    fold = _History(report, expected, database).read(progress)
    for (kind, id), entity in expected.sample.items():
        if _plain(fold.entity(kind, id)) != _plain(entity):
            report.add(f"{kind} {id}", "the tables and the history differ: run `mlcore db rebuild`")
    report.entities = len(expected.sample)
    if sample is None:
        try:
            _compare(database, report, progress)
        except (MlcoreError, ValueError) as error:
            report.add("tables", f"they cannot be compared with the history: {error}")
    return report


def _drift(connection: Connection) -> Iterator[str]:
    """Yield how the tables differ from those that are declared: in columns and indexes, by name."""
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    for table in (*metadata.sorted_tables, *projected.sorted_tables):
        if table.name not in there:
            yield f"table {table.name} is missing"
            continue
        for kind, found, wanted in (
            ("column", inspector.get_columns(table.name), {each.name for each in table.columns}),
            ("index", inspector.get_indexes(table.name), {str(each.name) for each in table.indexes}),
        ):
            names = {str(each["name"]) for each in found if not each.get("unique")}
            yield from (f"{kind} {table.name}.{name} is missing" for name in sorted(wanted - names))
            if kind == "column":
                yield from (f"column {table.name}.{name} is none of ours" for name in sorted(names - wanted))


def _expected(connection: Connection, sample: int) -> _Expected:
    last = connection.execute(select(func.coalesce(func.max(batches.c.position), 0))).scalar_one()
    marks = {row.source.hex(): (row.last, row.digest.hex()) for row in connection.execute(select(sources))}
    held = {row.claim.decode(): row.source.hex() for row in connection.execute(select(claims))}
    summed = select(chunks.c.source, func.sum(chunks.c.size)).group_by(chunks.c.source)
    rows = {source.hex(): int(size) for source, size in connection.execute(summed)}
    chosen: defaultdict[str, list[str]] = defaultdict(list)
    for kind, id in _sampled(connection, sample):
        chosen[kind].append(id)
    reading = Reading(lambda: nullcontext(runner(connection)))
    found = [each for kind, ids in chosen.items() for each in reading.get(kind, ids)]
    return _Expected(last, marks, held, rows, {(each.kind, each.id): each for each in found if each is not None})


def _sampled(connection: Connection, size: int) -> Iterator[_Name]:
    if not size:
        return
    numbers = [number for (number,) in connection.execute(select(entities.c.entity).where(entities.c.hidden < 2))]
    asked = select(terms.c.kind, documents.c.shown).join_from(
        entities, documents, documents.c.entity == entities.c.entity
    )
    asked = asked.join(terms, terms.c.id == entities.c.kind)
    for some in parts(sorted(random.sample(numbers, min(size, len(numbers))))):
        for kind, shown in connection.execute(asked.where(entities.c.entity.in_(some))):
            if shown:
                yield bytes(kind).decode(), from_json(bytes(shown))[0]


class _History:
    """Follow every source through the history."""

    def __init__(self, report: Report, expected: _Expected, database: Database) -> None:
        self._report, self._expected, self._database = report, expected, database
        self._marks: dict[str, tuple[int, str]] = {}
        self._rows: defaultdict[str, int] = defaultdict(int)
        self._claims: dict[str, str] = {}
        self._fold = Fold()

    def read(self, progress: Progress) -> Fold:
        """Read all; return what became of the sampled entities."""
        for at, batch in self._batches():
            self._take(batch)
            progress(at, self._expected.last)
        self._report.sources = len(self._marks)
        for source, mark in self._expected.marks.items():
            if self._marks.get(source, (0, "")) != mark:
                self._report.add(f"source {source}", f"the store counts {mark[0]} records, which are not its history's")
        for source in self._marks.keys() - self._expected.marks.keys():
            self._report.add(f"source {source}", "the store has records of it, and does not know it")
        for source in self._rows.keys() | self._expected.rows.keys():
            there, logged = self._expected.rows.get(source, 0), self._rows[source]
            if there != logged:
                self._report.add(f"source {source}", f"{logged} rows were logged, and {there} are kept")
        for claim in self._claims.items() ^ self._expected.claims.items():
            self._report.add(
                f"claim {claim[0]}", f"source {claim[1]} holds it in the history or the table, not in both"
            )
        return self._fold

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        listing, at, last = Listing(self._database, None, None, True), 0, self._expected.last
        while at < last:
            try:
                stop, page = listing.page(at, last)
            except (MlcoreError, ValueError):  # something is wrong in one of them: which one?
                stop, page = self._next(at), []
                try:
                    page = listing.page(stop - 1, stop)[1]
                except (MlcoreError, ValueError) as error:
                    self._report.add(f"batch {stop}", str(error))
            yield from ((at, stored.batch) for stored in page)
            at = stop

    def _next(self, at: int) -> int:
        with self._database.reading() as connection:
            asked = select(func.min(batches.c.position)).where(batches.c.position > at)
            return int(connection.execute(asked).scalar_one())

    def _take(self, batch: Batch) -> None:
        last, state = self._marks.get(batch.source, (0, ""))
        if batch.first != last + 1:
            self._report.add(f"source {batch.source}", f"record {batch.first} follows record {last}")
        elif batch.previous != state:
            self._report.add(f"source {batch.source}", f"the digest before record {batch.first} is another")
        self._marks[batch.source] = batch.last, digest(batch.records, batch.previous)
        if batch.claim is not None:
            self._claims[batch.claim] = batch.source
        self._report.batches += 1
        self._report.records += len(batch.records)
        for record in batch.records:
            rows = sum(len(event) for event in record.events if isinstance(event, RowsLogged))
            self._rows[batch.source] += rows
            self._report.rows += rows
            self._fold_in(batch.source, record)

    def _fold_in(self, source: str, record: Record) -> None:
        if any((event.kind, event.id) in self._expected.sample for event in record.events):
            self._fold.add_record(source, record)


def _plain(entity: Entity | None) -> bytes:
    """Return an entity so that NaN is itself; signs of life and the order of names do not count."""
    if entity is None:
        return b""
    shown = attrs.evolve(entity, seen=None, alive=None)
    metrics = sorted((*name, attrs.astuple(summary)) for name, summary in shown.metrics.items())
    conflicts = [attrs.astuple(each) for each in shown.conflicts]
    attributes = {family: sorted(values.items()) for family, values in sorted(shown.attributes.items())}
    stamps = (shown.created, shown.changed)
    return to_json([shown.parent, sorted(shown.fields.items()), attributes, metrics, conflicts, stamps])


def _compare(database: Database, report: Report, progress: Progress) -> None:
    """Compare all tables with those that a rebuild makes, in a file that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="mlcore-") as folder, contextlib.ExitStack() as stack:
        scratch = Database(f"sqlite:///{Path(folder) / 'scratch.db'}")
        stack.callback(scratch.close)
        with database.reading() as connection:
            with scratch.writing() as target:
                projected.create_all(target)
                replay(connection, target, progress)
            with scratch.reading() as target:
                ours, made = (projected_entities(runner(each)) for each in (connection, target))
                for each, where in differing(_counted(ours, report), made):
                    tables = f"({', '.join(where)})" if where else "(only one of them has it)"
                    name = f"{each.kind.decode()} {each.id[1:].decode(errors='replace')}"
                    report.add(name, f"the tables and the history differ {tables}: run `mlcore db rebuild`")


def _counted(found: Iterator[Projected], report: Report) -> Iterator[Projected]:
    for each in found:
        report.entities += 1
        yield each
