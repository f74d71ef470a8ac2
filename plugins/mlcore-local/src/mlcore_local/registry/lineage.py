"""Trace what a model was made of, and what was made of it: code, data, environments, runs, models and versions.

All of it is in what runs and versions say of themselves; nothing is kept beside that.
"""

from __future__ import annotations

from mlcore import Client
from mlcore_local.registry.graphs import Edge, Graph, Node
from mlcore_local.registry.origins import starts
from mlcore_local.registry.tracing import Trace

__all__ = ["LIMIT", "Edge", "Graph", "Node", "lineage"]

LIMIT = 1_000


def lineage(
    client: Client, uri: str, *, up: bool = True, down: bool = True, depth: int | None = None, limit: int = LIMIT
) -> Graph:
    """Return what something came of, and what came of it, `depth` steps far, and no more than `limit` things.

    `uri` is ``models:/NAME/3``, ``models:/NAME@alias``, ``runs:/RUN/NAME``, a run as `mlcore runs` takes it, the digest
    of data or its beginning, a commit, or the id of a node. Raises `NotFound` or `Ambiguous`.
    """
    trace = Trace(client, limit)
    first = trace.begin(starts(trace, uri))
    trace.follow(first, depth, [True] * up + [False] * down)
    return Graph(tuple(first), trace.nodes, tuple(trace.edges), trace.complete)
