"""Join small chunks, so that a series of points that came one by one is read as fast as one that came at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlcore_sql.chunks import Chunk, Logged
from mlcore_sql.dialects import runner
from mlcore_sql.rows import CHUNK_ROWS, insert_chunks, portions

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Compaction", "compact"]

_FAN = 32  # so many of one level become one of the next: every point is written log_32 of their number times
_LEVELS = (1, _FAN, _FAN**2, CHUNK_ROWS)
_KNOWN = 100_000


class Compaction:
    """Count the chunks that were written, and join those of a series and source when there are enough of them.

    What a handle has not written itself it does not count: `mlcore db` joins what is left.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[bytes, str, int]] = Counter()

    def after(self, connection: Connection, made: Sequence[tuple[bytes, str, int]]) -> None:
        """Count new chunks (series, source, rows), and join what is due. The caller holds the locks of the sources."""
        due = set()
        for id, source, size in made:
            level = _level(size)
            if level is not None:
                self._counts[id, source, level] += 1
                if self._counts[id, source, level] >= _FAN:
                    due.add((id, source, level))
        for id, source, level in sorted(due):
            self._join(connection, id, source, level)
        if len(self._counts) > _KNOWN:
            self._counts.clear()

    def _join(self, connection: Connection, id: bytes, source: str, level: int) -> None:
        for at in range(level + 1):
            self._counts.pop((id, source, at), None)
        for size in compact(connection, id, source, _LEVELS[level + 1]):
            made = _level(size)
            if made is not None and made > level:  # large events may leave chunks as they are
                self._counts[id, source, made] += 1
                if self._counts[id, source, made] >= _FAN:
                    self._join(connection, id, source, made)


def _level(size: int) -> int | None:
    return next((level for level in range(len(_LEVELS) - 1) if size < _LEVELS[level + 1]), None)


def compact(connection: Connection, id: bytes, source: str, below: int) -> list[int]:
    """Join the chunks of a series and source that have fewer rows than `below`; return how many each has now."""
    run, binds = runner(connection), {"series": id, "source": bytes.fromhex(source), "below": below}
    where = "series = :series AND source = :source AND size < :below"
    found = list(run.rows(f"SELECT id, data FROM chunks WHERE {where}", binds))
    events: list[Logged] = [event for _, data in found for event in Chunk(source, bytes(data)).events()]
    events.sort(key=lambda event: (event.number, event.index))
    joined = list(portions(events))
    if len(joined) < len(found):
        run.many("DELETE FROM chunks WHERE id = ?", [(key,) for key, _ in found])
        insert_chunks(connection, [(id, source, part) for part in joined])
    return [sum(map(len, part)) for part in joined]
