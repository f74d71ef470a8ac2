"""What mlcore-sql brings, by name; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from mlcore.hookspecs import Provider


def mlcore_indexes() -> Iterable[Provider]:
    """Provide an index in a SQLite file."""
    return [Provider("sqlite", "mlcore_sql.index:open_index", "what a folder store holds, in a SQLite file")]
