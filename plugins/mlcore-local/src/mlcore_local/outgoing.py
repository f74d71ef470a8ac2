"""Read a folder store as batches to send elsewhere: source by source, and only what changed since it was last read.

Nothing is folded here, so that a store of any size is read in the memory that a batch takes.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import attrs

from mlcore.errors import JournalError
from mlcore.folder import STORE_HOME, Folder
from mlcore.journal.format import SUFFIX
from mlcore.store import Batch, Event, Record, RowsLogged, digest
from mlcore_local.reader import Journal, read

__all__ = ["Mark", "Outgoing", "joined", "outgoing", "sized"]

Mark = tuple[int, str]  # the number of a record of a source, and the digest after it
_RECORDS, _BYTES = 5_000, 1 << 20  # of one batch, so that a store can take it in one transaction


@attrs.define
class Outgoing:
    """Hold the files of one source: what it claimed, a file each, and its journal, if it has one.

    `state` is another whenever a file is. `wrong` tells, after reading, what could not be read.
    """

    source: str
    home: str
    state: str = ""
    journal: Path | None = None
    claims: list[Path] = attrs.field(factory=list)
    wrong: str = ""

    def batches(self, after: Mark = (0, "")) -> Iterator[Batch]:
        """Yield the records after a mark; what was claimed comes as it was."""
        self.wrong, journal = "", Journal()
        try:
            claims = [found for path in self.claims if (found := self._claimed(path))[0]]
            records = read(self.journal, journal) if self.journal else iter(())
            first = next(records, None)
            if first is not None:
                records = chain([first], records)
                copied = journal.writer.get("claim")
                if copied and not any(each[0].number == first.number for each, _ in claims):
                    claims.append(((first,), str(copied)))  # its file is another's, who was copied over it
            yield from _chained(self.source, self.home, after, records, claims)
            if journal.damage:
                self.wrong = f"{self.journal} is damaged, see `mlcore fsck`: {journal.damage[0]}"
        except FileNotFoundError:
            pass  # the run was removed meanwhile
        except (JournalError, OSError) as error:
            self.wrong = f"{self.journal or self.claims[0]} cannot be read: {error}"

    def _claimed(self, path: Path) -> tuple[tuple[Record, ...], str]:
        journal = Journal()
        records = tuple(read(path, journal))  # which are another's, if a store was copied over this one
        return records if journal.source == self.source else (), str(journal.writer.get("claim"))

    def look_at(self, path: Path) -> None:
        """Note what a file of this source is like now."""
        status = path.stat()
        self.state += f"{status.st_size} {status.st_mtime_ns} "


def outgoing(root: Path, claims: dict[str, tuple[str, str]]) -> dict[str, Outgoing]:
    """Return what there is to send of a store, by source.

    `claims` remembers source and home of every claim's file, by its name, and is brought up to date.
    """
    folder, found = Folder.open(root), dict[str, Outgoing]()
    for path in sorted(folder.root.glob(f"claims/*/*{SUFFIX}")):
        if path.stem not in claims:
            journal = Journal()
            with contextlib.suppress(JournalError, OSError):  # `mlcore fsck` tells
                for _ in read(path, journal):
                    break
            if journal.header is None:
                continue
            claims[path.stem] = journal.header.source, journal.header.home
        each = found.setdefault(claims[path.stem][0], Outgoing(*claims[path.stem]))
        each.claims.append(path)
        each.look_at(path)
    for home, path in _journals(folder):
        each = found.setdefault(path.stem, Outgoing(path.stem, home))
        with contextlib.suppress(FileNotFoundError):
            each.journal = path
            each.look_at(path)
    return found


def _journals(folder: Folder) -> Iterator[tuple[str, Path]]:
    """Yield home and path of every journal."""
    places = [(STORE_HOME, folder.root / "store")]
    for shard in _listed(folder.root / "runs"):
        places += [(run, folder.root / "runs" / shard / run) for run in _listed(folder.root / "runs" / shard)]
    for home, place in places:
        yield from ((home, place / name) for name in _listed(place) if name.endswith(SUFFIX))


def _listed(path: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(path))
    return []


def joined(batches: Iterable[tuple[Batch, str]]) -> Iterator[tuple[Batch, str]]:
    """Yield fewer, larger batches, each with the last of the positions of those that it was made of."""
    waiting, size = list[tuple[Batch, str]](), 0
    for batch, position in batches:
        more = sized(batch.records)
        if waiting and not (_follows(waiting[-1][0], batch) and size + more <= _BYTES):
            yield _one(waiting)
            waiting, size = [], 0
        waiting.append((batch, position))
        size += more
    if waiting:
        yield _one(waiting)


def _follows(before: Batch, batch: Batch) -> bool:
    """Tell whether two batches may be one."""
    same = (before.source, before.home) == (batch.source, batch.home) and bool(before.records)
    return same and before.claim is None and batch.claim is None and before.last + 1 == batch.first


def _one(parts: list[tuple[Batch, str]]) -> tuple[Batch, str]:
    records = tuple(record for batch, _ in parts for record in batch.records)
    return attrs.evolve(parts[0][0], records=records), parts[-1][1]


def sized(records: Iterable[Record]) -> int:
    """Return about how many bytes records take."""
    return sum(_size(event) for record in records for event in record.events)


def _size(event: Event) -> int:
    if isinstance(event, RowsLogged):
        return 100 + 8 * sum(map(len, event.columns.values()))
    return len(event.raw or b"") or 200


def _chained(
    source: str, home: str, mark: Mark, records: Iterable[Record], claims: Iterable[tuple[tuple[Record, ...], str]]
) -> Iterator[Batch]:
    """Yield batches of what comes after a mark: claims alone, where their numbers are."""
    singles: Iterable[tuple[tuple[Record, ...], str | None]] = (((record,), None) for record in records)
    claimed = sorted((each for each in claims if each[0]), key=lambda each: each[0][0].number)
    in_order = heapq.merge(claimed, singles, key=lambda each: each[0][0].number)
    (last, previous), part, size = mark, list[Record](), 0

    def cut(claim: str | None = None) -> Batch:
        nonlocal previous, part, size
        batch = Batch(source, home, tuple(part), previous, claim)
        previous, part, size = digest(part, previous), [], 0
        return batch

    for found, claim in in_order:
        fresh = tuple(record for record in found if record.number > last)
        if not fresh:
            continue
        more = sized(fresh)
        gap = fresh[0].number > last + 1
        if part and (claim is not None or gap or size + more > _BYTES or len(part) >= _RECORDS):
            yield cut()
        last = fresh[-1].number
        part += fresh
        size += more
        if claim is not None:
            yield cut(claim)
    if part:
        yield cut()
