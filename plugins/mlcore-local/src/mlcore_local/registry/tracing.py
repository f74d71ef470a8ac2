"""Find what hangs together in a store, level by level: of each kind of thing all of a level at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import batched
from typing import Any

import attrs

from mlcore import Client
from mlcore.registry import ModelVersion
from mlcore.store import And, Compare, Entity, Not, Or, Query, Term, Where
from mlcore_local.registry.graphs import Edge, Node, Step, onward

__all__ = ["Trace", "named"]

_DELETED = Term("fields", "deleted")
_ALL = Or((Compare(_DELETED, "is null"), Not(Compare(_DELETED, "is null"))))  # naming the field asks for them, too
_AT_ONCE = 500  # ids that a store is asked for
_CONTEXT = (
    *("git.commit", "git.tree", "git.dirty", "git.branch", "git.remote", "script.tree", "script.entry"),
    *("command.entry", "packages.digest", "packages.count", "python.version"),
)
_RUN = (
    *(Term(family, "") for family in ("fields", "datasets", "models", "used")),
    *(Term("context", key) for key in _CONTEXT),
)  # parameters and metrics, of which there may be many, are not read
_CODE = ("git.tree", "script.tree", "git.commit")  # the first that is known names the code


class Trace:
    """Collect nodes and edges, no more nodes than `limit`."""

    def __init__(self, client: Client, limit: int) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[Edge, None] = {}
        self.complete = True
        self._client, self._limit = client, limit
        self._runs: dict[str, Entity | None] = {}
        self._versions: dict[str, ModelVersion | None] = {}
