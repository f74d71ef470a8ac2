"""Answer `get` and `find` from the tables, as `mlcore.store` would from the entities themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from mlcore.store import Entity, Page, Query
from mlcore_sql.dialects import Runner

__all__ = ["Reading"]


class Reading:
    """Answer questions by SQL, and keep decoded entities for the next question. Thread-safe.

    `connect` gives for the time of one answer what runs statements, all on one snapshot.
    """

    def __init__(self, connect: Callable[[], AbstractContextManager[Runner]]) -> None:
        raise NotImplementedError

    def get(self, kind: str, ids: Sequence[str]) -> list[Entity | None]:
        """Return the entities of these ids, deleted ones included, None where there is none."""
        raise NotImplementedError

    def find(self, kind: str, query: Query) -> Page:
        """Return the entities that fit a query, as `mlcore.store.find` would; the token stays right under additions."""
        raise NotImplementedError

    def keys(self, kind: str, family: str, prefix: str = "", limit: int | None = None) -> list[str]:
        """Return the distinct names in a family of all entities of a kind that begin so, by code point."""
        raise NotImplementedError
