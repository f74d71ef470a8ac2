"""Bring one store what another has: batches through `events` and `append`, so between any two, as often as you like.

A store keeps a record once, whoever sends it and how often, and checks by its digest that it follows those before. So a
sync can be interrupted anywhere, run twice at once and repeated; it ends with the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from mlcore.errors import (
    AlreadyExists,
    NotSupported,
    OutOfOrder,
    PositionLost,
    Refused,
    SourceReused,
    StoreError,
    StoreNotFound,
)
from mlcore.folder import STORE_HOME, Folder
from mlcore.store import AttributesSet, Batch, Record, Store, Updated, digest
from mlcore_local.outgoing import Mark, Outgoing, joined, outgoing
from mlcore_local.registry.merging import CLAIMS, Meeting, Merging
from mlcore_local.remembered import Remembered
from mlcore_local.seal import seal
from mlcore_local.store import FolderStore

__all__ = ["Difference", "Refusal", "Report", "missing", "sync", "verify"]

_SAVE_SECONDS = 10
_AT_ONCE = 16  # sources
Progress = Callable[[int, int | None], None]


@attrs.define
class Refusal:
    """Say what could not be brought over: `records` of a source, those that follow included, and why."""

    source: str
    home: str
    reason: str
    records: int = 0


@attrs.frozen
class Difference:
    """Say that a store has not the same records of a source as another, and how."""

    source: str
    home: str
    what: str


@attrs.define
class Report:
    """Tell what a sync did: what it handed over, of which a store leaves out what it has, and what was refused.

    `runs_with_files` are the ids of runs among them whose files lie in the store that they came from. `met` tells what
    was registered in both stores, each for itself, and what became of it in the one that was written to.
    """

    sources: int = 0
    batches: int = 0
    records: int = 0
    refused: list[Refusal] = attrs.field(factory=list)
    runs_with_files: set[str] = attrs.field(factory=set)
    met: list[Meeting] = attrs.field(factory=list)


class _StaleError(StoreError):
    """Say that the target has not what was remembered."""


def _silent(done: int, total: int | None) -> None:
    """Show no progress."""


def sync(source: Store, target: Store, *, memory: Path | None = None, progress: Progress = _silent) -> Report:
    """Append to `target` what `source` has.

    With `memory`, a file, only what is new since the last time is read and sent, as long as `target` still has what was
    sent last. A batch that `target` refuses is set aside with those that follow in its source; the others go on.
    `progress` is called with what is done and what there is to do, if that is known. Files of runs stay where they are.
    Raises `NotSupported` if `source` keeps no history, and what the stores raise when they cannot be reached.
    """
    if not source.capabilities.history:
        raise NotSupported(type(source).__name__, "history", "sync from the store where these runs were logged")
    remembered = Remembered.load(memory)
    if not remembered.holds(target):
        remembered = Remembered()
    try:
        return _Sync(target, remembered, memory, progress).run(source)
    except _StaleError:
        return _Sync(target, Remembered(), memory, progress).run(source)


class _Sync:
    """Send batch after batch, and remember what arrived."""

    def __init__(self, target: Store, remembered: Remembered, memory: Path | None, progress: Progress) -> None:
        self._target, self._remembered, self._memory, self._progress = target, remembered, memory, progress
        self._lock = threading.Lock()
        self._saved = time.monotonic()
        self._refused: dict[str, Refusal] = {}
        self._counted: dict[str, int] = {}
        self._sent: dict[str, str] = {}
        self._with_files, self._elsewhere = set[str](), set[str]()
        self._merging = Merging(target)
        self.report = Report()

    def run(self, source: Store) -> Report:
        """Send all that is new."""
        try:
            if isinstance(source, FolderStore):
                self._journals(source)
            else:
                self._events(source)
        finally:
            self._remembered.settle(self._target)
            self._save()
            if isinstance(self._target, FolderStore):
                _seal(self._target, set(self._sent.values()) - {STORE_HOME})
        self.report.sources, self.report.refused = len(self._sent), list(self._refused.values())
        self.report.runs_with_files = self._with_files - self._elsewhere
        self.report.met = self._merging.meetings()
        return self.report

    def _journals(self, source: FolderStore) -> None:
        """Send the sources that changed, some at once: a store may commit together what arrives together."""
        known = self._remembered.journals
        found = outgoing(source.root, self._remembered.claims)
        new = [each for each in found.values() if known.get(each.source, ("", 0))[0] != each.state]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(new), 4 * _AT_ONCE):
                self._progress(start, len(new))
                for _ in pool.map(self._send_all, new[start : start + 4 * _AT_ONCE]):
                    self._save_now_and_then()
        self._progress(len(new), len(new))

    def _send_all(self, each: Outgoing) -> None:
        known = self._remembered.journals
        mark = known[each.source][1] if each.source in known else (0, "")
        trusting = mark[0] > 0
        for batch in each.batches(mark):
            if self._send(batch, trusting):
                mark = batch.last, digest(batch.records, batch.previous)
                with self._lock:
                    known[each.source] = "", mark  # not all of it, if this ends here
        with self._lock:
            if each.wrong:
                self._refuse(each.source, each.home, each.wrong, ())
            known[each.source] = each.state, mark
            if each.source in self._refused:
                del known[each.source]  # whoever mends it gets all of it

    def _events(self, source: Store) -> None:
        lasting = source.capabilities.shared_positions
        after = self._remembered.position if lasting else ""
        homes, self._remembered.again = self._remembered.again, []
        for home in homes:
            for batch, _ in joined((each.batch, "") for each in source.events(of=home)):
                self._send(batch, trusting=False)
        try:
            self._follow(source, after)
        except PositionLost:
            self._follow(source, "")
        if lasting:
            self._remembered.again = sorted({each.home for each in self._refused.values()})
        else:
            self._remembered.position = ""

    def _follow(self, source: Store, after: str) -> None:
        stored = ((each.batch, each.position) for each in source.events(after))
        for done, (batch, position) in enumerate(joined(stored), 1):
            self._send(batch, trusting=bool(after))
            self._remembered.position = position
            self._progress(done, None)
            self._save_now_and_then()

    def _send(self, batch: Batch, trusting: bool) -> bool:
        """Append a batch; `trusting` if it is only remembered that the target has what comes before."""
        if not batch.records:
            return False
        if batch.source in self._refused:
            self._refuse(batch.source, batch.home, "", batch.records)
            return False
        try:
            self._append(batch)
        except (Refused, NotSupported) as error:
            if trusting and isinstance(error, OutOfOrder | SourceReused):
                raise _StaleError from error
            with self._lock:
                self._refuse(batch.source, batch.home, _reason(error), batch.records)
            return False
        with self._lock:
            self._sent[batch.source] = batch.home
            self.report.batches += 1
            self.report.records += len(batch.records)
            self._remembered.note(batch)
            self._look_for_files(batch)
        return True

    def _append(self, batch: Batch) -> None:
        self._merging.look(batch)
        try:
            self._target.append(batch)
        except AlreadyExists as error:
            if error.holder == batch.source:
                self._target.append(batch)  # another sync just brought this very batch: now it is known
            elif error.claim.startswith(CLAIMS):  # what was registered is not lost by that: `labels` tells it apart
                self._merging.meet(batch)
                self._target.append(attrs.evolve(batch, claim=None))
            else:
                raise

    def _refuse(self, source: str, home: str, reason: str, records: Iterable[Record]) -> None:
        refusal = self._refused.setdefault(source, Refusal(source, home, reason))
        for number in (record.number for record in records):  # what was refused before may come once more
            refusal.records += number > self._counted.get(source, 0)
            self._counted[source] = max(number, self._counted.get(source, 0))

    def _look_for_files(self, batch: Batch) -> None:
        for event in (event for record in batch.records for event in record.events if event.kind == "run"):
            if isinstance(event, AttributesSet) and event.family == "artifacts":
                if any(isinstance(each, dict) and not each.get("uri") for each in event.values.values()):
                    self._with_files.add(event.id)
            elif isinstance(event, Updated) and event.fields.get("artifacts"):
                self._elsewhere.add(event.id)

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        if self._memory is not None:
            with self._lock:
                self._remembered.save(self._memory)
        self._saved = time.monotonic()


def _seal(store: FolderStore, run_ids: set[str]) -> None:
    """Seal the runs that ended, as their writers do, so that reading them costs what is read."""
    for entity in store.get("run", sorted(run_ids)) if run_ids else ():
        if entity is not None and entity.fields.get("status", "RUNNING") != "RUNNING":
            seal(Folder.open(store.root).run_folder(entity.id), entity.id)


def _reason(error: Exception) -> str:
    if isinstance(error, AlreadyExists):
        kind, _, name = error.claim.partition("/")
        if kind == "experiment-name":
            name = name.rpartition("/")[0] or name
            return f"the name {name!r} of an experiment was taken in both stores; the target keeps its own ({error})"
        return f"both stores decided it, each for itself, and the target keeps its own: {error}"
    if isinstance(error, SourceReused):
        return f"a copy of the same journal went on elsewhere with other content: {error}"
    if isinstance(error, OutOfOrder):
        return f"records are missing in the source, where a journal is damaged; see `mlcore fsck` ({error})"
    return str(error)


def missing(source: Store, target: Store) -> Report:
    """Tell what `sync` would bring over, in batches as they are now, without writing anything; reads both stores."""
    has: dict[str, int] = {}
    for batch in _batches(target):
        has[batch.source] = max(has.get(batch.source, 0), batch.last)
    report, sources = Report(), set[str]()
    for batch in _batches(source):
        new = sum(record.number > has.get(batch.source, 0) for record in batch.records)
        report.records += new
        report.batches += bool(new)
        sources |= {batch.source} if new else set()
    report.sources = len(sources)
    return report


def verify(source: Store, target: Store, *, since: int | None = None) -> list[Difference]:
    """Read both stores, and tell of which sources `target` has not what `source` has.

    What is missing at the end of a source is no difference if it was logged at `since` or later, in ns since 1970.
    """
    wanted, homes = dict[str, Mark](), dict[str, str]()
    for batch in _batches(source):
        if batch.records:
            wanted[batch.source] = batch.last, digest(batch.records, batch.previous)
            homes[batch.source] = batch.home
    found = _marks(target, {each: last for each, (last, _) in wanted.items()})
    if since is not None:  # what was logged while the sync went on
        behind = {each: found.get(each, (0, ""))[0] for each, mark in wanted.items() if found.get(each, mark) != mark}
        wanted |= _marks(source, behind, since)
    return [
        Difference(each, homes[each], _difference(mark, found.get(each, (0, ""))))
        for each, mark in wanted.items()
        if found.get(each, (0, "")) != mark
    ]


def _marks(store: Store, stops: Mapping[str, int], since: int | None = None) -> dict[str, Mark]:
    """Return what a store has of sources up to certain records, and up to what was logged `since` if that is later."""
    found: dict[str, Mark] = {}
    for batch in (batch for batch in _batches(store) if batch.source in stops):
        last, state = found.get(batch.source, (0, ""))
        stop = stops[batch.source]
        records = [
            each for each in batch.records
            if each.number > last and (each.number <= stop or (since is not None and each.stamp < since))
        ]  # fmt: skip
        if records:
            found[batch.source] = records[-1].number, digest(records, state)
    return found


def _difference(wanted: Mark, found: Mark) -> str:
    if found[0] == wanted[0]:
        return f"the digest of its {wanted[0]:,} records is another: some are not the same"
    return f"the target has {found[0]:,} of {wanted[0]:,} records"


def _batches(store: Store) -> Iterator[Batch]:
    """Yield all that a store has, from a folder without folding it; a store that is not there has nothing."""
    try:
        if isinstance(store, FolderStore):
            found: Iterable[Outgoing] = outgoing(store.root, {}).values()
            for each in found:
                yield from each.batches()
        else:
            yield from (stored.batch for stored in store.events())
    except StoreNotFound:
        return
