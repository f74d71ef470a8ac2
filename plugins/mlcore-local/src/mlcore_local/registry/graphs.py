"""Hold what hangs together: things, how one was made of another, and the ways through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

__all__ = ["Edge", "Graph", "Node", "Step", "onward"]

Step = tuple[str, str]  # the id of a node, and of a run that a nested one led to, what it is to it: parent or child


@attrs.frozen
class Node:
    """Tell of one thing: its `kind`, what it is called, and what is known of it.

    The kinds are ``version``, ``model`` (one that a run logged, or files that a version was registered from), ``run``,
    ``dataset``, ``code`` and ``environment``. `id` is the kind, a colon, and what only this thing has.
    """

    id: str
    kind: str
    name: str
    about: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Edge:
    """Tell that `target` came of `source`, by their ids, and how.

    The kinds are ``registered`` (a model as a version), ``copied`` (a version to another), ``logged`` (a model by a
    run), ``used`` (a version or model was loaded by a run), ``data``, ``code`` and ``environment`` (of a run), and
    ``nested`` (the second run was started in the first). `about` tells more.
    """

    source: str
    target: str
    kind: str
    about: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


@attrs.frozen
class Graph:
    """Hold what was found from `start` on, the nearest first; `complete` unless there was more than the limit."""

    start: tuple[str, ...]
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    complete: bool = True

    def walk(self, *, up: bool) -> Iterator[tuple[int, Edge, str, bool]]:
        """Yield what the things of `start` came of, or what came of them: how far, by which edge, its id, and if anew.

        What comes next is one step further from the last one that was nearer. What is reached again is not followed.
        """
        leading = defaultdict[str, list[Edge]](list)
        for edge in self.edges:
            for end in (edge.source, edge.target):
                leading[end].append(edge)
        seen = {(id, "") for id in self.start}
        waiting = [(1, (id, ""), edge) for id in self.start[::-1] for edge in leading[id][::-1]]
        while waiting:
            depth, at, edge = waiting.pop()
            if (step := onward(edge, at, up)) is None:
                continue
            new = step not in seen
            seen.add(step)
            yield depth, edge, step[0], new
            waiting += [(depth + 1, step, each) for each in leading[step[0]][::-1] if new and each is not edge]


def onward(edge: Edge, at: Step, up: bool) -> Step | None:
    """Return where an edge leads from a step, up or down stream; None if it leads nowhere.

    A nested run has part in what its parent made, and its parent in what it made, so either way both come next. But
    from a run to its parent, and down again to others, would be to all runs of a search, which have no part in it.
    """
    id, way = at
    if edge.kind == "nested":
        if id == edge.target and way != "child":
            return edge.source, "parent"
        return (edge.target, "child") if id == edge.source and way != "parent" else None
    if id == (edge.target if up else edge.source):
        return edge.source if up else edge.target, ""
    return None
