"""Join small chunks, so that a series of points that came one by one is read as fast as one that came at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mlcore_sql.chunks import Chunk, Logged
from mlcore_sql.dialects import Binds, among, parts, runner
from mlcore_sql.rows import CHUNK_ROWS, Made, insert_chunks, portions

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Compaction", "compact"]

_FAN = 32  # so many of one level become one of the next: every point is written log_32 of their number times
_KNOWN = 100_000


class Compaction:
    """Count the chunks of each series and source by level, and join those of one when there are enough of them.

    Levels are sizes: less than 32 rows, than 1,024, than half of what fits. Of a source that others wrote to before,
    the chunks that are there are counted first.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[bytes, str, int]] = Counter()
        self._seen: set[tuple[bytes, str]] = set()

    def after(self, connection: Connection, made: Sequence[Made], continued: Collection[str]) -> None:
        """Count new chunks, and join what is due. The caller holds the locks of the sources."""
        self._count_old(connection, sorted({each[:2] for each in made if each[1] in continued} - self._seen))
        self._seen |= {each[:2] for each in made}
        due = {key for each in made if (key := self._count(each)) is not None}
        for id, source, level in sorted(due):
            self._join(connection, id, source, level)
        if len(self._counts) > _KNOWN or len(self._seen) > _KNOWN:
            self._counts.clear()
            self._seen.clear()

    def _count(self, made: Made) -> tuple[bytes, str, int] | None:
        """Count one chunk; return its series, source and level if there are enough of them."""
        id, source, size, length = made
        level = next((at for at, limit in enumerate(_levels()) if size < limit[0] and length < limit[1]), None)
        if level is None:
            return None
        self._counts[id, source, level] += 1
        return (id, source, level) if self._counts[id, source, level] >= _FAN else None

    def _count_old(self, connection: Connection, names: Sequence[tuple[bytes, str]]) -> None:
        run = runner(connection)
        for some in parts(names):
            binds, wanted = Binds(), set(some)
            where = among(run.dialect, "series", sorted({id for id, _ in some}), binds)
            rows = run.rows(f"SELECT series, source, size, length(data) FROM chunks WHERE {where}", binds)
            for id, source, size, length in rows:
                if (bytes(id), source.hex()) in wanted:
                    self._count((bytes(id), source.hex(), size, length))

    def _join(self, connection: Connection, id: bytes, source: str, level: int) -> None:
        for at in range(level + 1):
            self._counts.pop((id, source, at), None)
        for each in compact(connection, id, source, *_levels()[level]):
            due = self._count(each)
            if due is not None and due[2] > level:  # events that are large by themselves stay where they are
                self._join(connection, *due)


def _levels() -> list[tuple[int, int]]:
    """Return of each level the rows and the bytes that a chunk of it stays below."""
    rows, found = _FAN, []
    while rows < CHUNK_ROWS // 2:
        found.append((rows, 1_024 + 64 * rows))
        rows *= _FAN
    return [*found, (CHUNK_ROWS // 2, 1_024 + 24 * (CHUNK_ROWS // 2))]


def compact(connection: Connection, id: bytes, source: str, rows: int, length: int) -> list[Made]:
    """Join the chunks of a series and source that have fewer rows and bytes than these; return those they are now."""
    run, binds = runner(connection), {"series": id, "source": bytes.fromhex(source), "rows": rows, "length": length}
    where = "series = :series AND source = :source AND size < :rows AND length(data) < :length"
    found = list(run.rows(f"SELECT id, data FROM chunks WHERE {where}", binds))
    events: list[Logged] = [event for _, data in found for event in Chunk(source, bytes(data)).events()]
    events.sort(key=lambda event: (event.number, event.index))
    joined = list(portions(events))
    if len(joined) >= len(found):
        return []
    run.many("DELETE FROM chunks WHERE id = ?", [(key,) for key, _ in found])
    return insert_chunks(connection, [(id, source, part) for part in joined])
