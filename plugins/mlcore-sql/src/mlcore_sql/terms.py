"""Terms: what values are called, by a number."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.store import to_json
from mlcore_sql.dialects import Binds, Runner, among, insert_missing, parts
from mlcore_sql.keys import distinct

__all__ = ["Name", "digest_of", "found", "make", "mark_cut"]

Name = tuple[str, str, str, str]  # kind, family, name and context; of a kind itself the others are empty
_COLUMNS = ("digest", "kind", "family", "name", "context", "cut")


def digest_of(name: Name) -> bytes:
    """Return by what a name is looked up, however long it is."""
    return distinct(to_json(name))


def found(runner: Runner, names: Iterable[Name]) -> dict[Name, tuple[int, bool]]:
    """Return the numbers of those names that have one, and whether a key of them was cut."""
    wanted = {digest_of(name): name for name in names}
    numbers: dict[Name, tuple[int, bool]] = {}
    for part in parts(sorted(wanted)):
        binds = Binds()
        sql = f"SELECT digest, id, cut FROM terms WHERE {among(runner.dialect, 'digest', part, binds)}"
        numbers |= {wanted[bytes(digest)]: (id, bool(cut)) for digest, id, cut in runner.rows(sql, binds)}
    return numbers


def make(runner: Runner, names: Iterable[Name]) -> dict[Name, tuple[int, bool]]:
    """Return the same, and give those a number that have none."""
    wanted = set(names)
    numbers = found(runner, wanted)
    if missing := wanted - numbers.keys():
        rows = sorted((digest_of(name), *(part.encode() for part in name), 0) for name in missing)
        runner.many(insert_missing(runner.dialect, "terms", _COLUMNS, ["digest"]), rows)
        numbers |= found(runner, missing)
    return numbers


def mark_cut(runner: Runner, numbers: Iterable[int]) -> None:
    """Remember that a key of these terms was cut: they cannot be ordered by their keys alone."""
    runner.many("UPDATE terms SET cut = 1 WHERE id = ?", [(number,) for number in sorted(numbers)])
