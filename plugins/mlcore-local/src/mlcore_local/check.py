"""Check a folder store, and repair what can be without losing a whole record."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from mlcore.artifacts import is_temporary
from mlcore.errors import JournalError
from mlcore.folder import Folder
from mlcore.journal.format import SUFFIX
from mlcore_local.append import copy_claim
from mlcore_local.commit_log import recover
from mlcore_local.home import alive
from mlcore_local.reader import Journal, read
from mlcore_local.registry.checking import Chain
from mlcore_local.seal import NAME, open_sealed

__all__ = ["Finding", "Report", "check"]

_LEFTOVER_SECONDS = 3600
_SILENT_SECONDS = 300


@attrs.frozen
class Finding:
    """Say what is wrong with a file: ``damaged`` lost records, ``torn`` and ``leftover`` did not, ``repaired`` was.

    ``alone`` is a claim that is in no journal, which another store's would replace where that is copied over this one.
    ``merged`` and ``odd`` are of the registry, see `mlcore_local.registry.checking`.
    """

    path: Path
    what: str
    severity: str


@attrs.define
class Report:
    """Hold what a check found."""

    journals: int = 0
    records: int = 0
    findings: list[Finding] = attrs.field(factory=list)


def check(folder: Folder, *, repair: bool = False, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Read every journal and seal of a store. With `repair`, mend what can be.

    Then what commit logs hold is brought back, torn ends of dead writers are cut, leftovers are removed, and what is
    only claimed is written to a journal, too.
    """
    report, gathered = Report(), _Gathered()
    if repair:
        recover(folder.root)  # first: what is torn may be whole in a log
    for path in sorted(folder.root.rglob("*")):
        progress(1)
        if path.relative_to(folder.root).parts[3:4] == ("artifacts",):  # whatever their names, these are a user's
            if is_temporary(path.name):
                _leftover(path, report, repair)
        elif path.suffix == SUFFIX and path.is_file():
            gathered.take(path, _journal(path, report, repair, gathered.chain))
        elif path.name == NAME:
            _seal(path, report, repair)
        elif path.suffix == ".tmp":
            _leftover(path, report, repair)
    report.findings += gathered.missing()
    for path in gathered.alone():
        done = repair and copy_claim(folder, path)
        report.findings.append(Finding(path, "it is in no journal", "repaired" if done else "alone"))
    report.findings += [
        Finding(folder.root / each.where, each.what, each.severity) for each in gathered.chain.findings()
    ]
    return report


@attrs.define
class _Gathered:
    """Hold what is known of sources once all their files were read."""

    chain: Chain = attrs.field(factory=Chain)
    _gaps: dict[str, tuple[Path, list[tuple[int, int]]]] = attrs.field(factory=dict)
    _claimed: dict[str, set[int]] = attrs.field(factory=dict)
    _firsts: dict[str, Path] = attrs.field(factory=dict)  # claims of the store that are the first record of a source
    _written: set[str] = attrs.field(factory=set)

    def take(self, path: Path, journal: Journal) -> None:
        """Note what a journal, or the file of a claim, has."""
        if path.parts[-3] == "claims":
            self._claimed.setdefault(journal.source, set()).update(range(journal.last + 1))
            if journal.header is not None and not journal.header.home and journal.last == 1:
                self._firsts[journal.source] = path
        else:
            self._written.add(journal.source)
        if journal.gaps:
            self._gaps[journal.source] = path, journal.gaps

    def missing(self) -> Iterator[Finding]:
        """Tell of records that are in no file."""
        for source, (path, missing) in self._gaps.items():
            yield from _missing(path, missing, self._claimed.get(source, set()))

    def alone(self) -> list[Path]:
        """Return the claims that are in no journal."""
        return [path for source, path in sorted(self._firsts.items()) if source not in self._written]


def _missing(path: Path, gaps: Iterable[tuple[int, int]], claimed: set[int]) -> Iterator[Finding]:
    for first, last in gaps:
        if first > 1 and not claimed.issuperset(range(first, last + 1)):
            yield Finding(path, f"records {first} to {last} are missing", "damaged")


def _leftover(path: Path, report: Report, repair: bool) -> None:
    if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
        _remove(path, "left over by a process that died", "leftover", report, repair)


def _journal(path: Path, report: Report, repair: bool, chain: Chain) -> Journal:
    journal = Journal()
    report.journals += 1
    try:
        for record in read(path, journal):
            report.records += 1
            chain.take(journal.source, record, str(path))
    except (JournalError, OSError) as error:
        report.findings.append(Finding(path, str(error), "damaged"))
    report.findings += [Finding(path, str(each), "damaged") for each in journal.damage]
    known = alive(journal.writer)
    if journal.tail is not None and not known:
        # a writer elsewhere may be in the middle of it
        gone = known is False or time.time() - path.stat().st_mtime > _SILENT_SECONDS
        if repair and gone:
            os.truncate(path, journal.tail.offset)
        report.findings.append(Finding(path, str(journal.tail), "repaired" if repair and gone else "torn"))
    return journal


def _seal(path: Path, report: Report, repair: bool) -> None:
    sealed = open_sealed(path.parent)
    good = False
    with contextlib.suppress(OSError):
        good = sealed is not None and sealed.intact()
    if not good:
        what = "the seal is damaged or of another version: `mlcore reindex` makes it anew, and no journal is affected"
        _remove(path, what, "leftover", report, repair)


def _remove(path: Path, what: str, severity: str, report: Report, repair: bool) -> None:
    if repair:
        path.unlink(missing_ok=True)
    report.findings.append(Finding(path, what, "repaired" if repair else severity))
