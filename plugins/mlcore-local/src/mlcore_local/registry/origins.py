"""Find what a lineage starts from: a version, a model of a run, a run, data, code or an environment."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from mlcore import Client
from mlcore.errors import Ambiguous, InvalidValue, NotFound
from mlcore.store import Compare, Or, Term, Where
from mlcore_local.columns import LAST, find_run
from mlcore_local.registry.graphs import Node
from mlcore_local.registry.tracing import Trace, inputs, logged

__all__ = ["starts"]

_HEX = re.compile(r"[0-9a-f]{6,64}")
_TERMS = {
    "dataset": (Term("datasets", "digest", "any"),),
    "code": (Term("context", "git.commit"), Term("context", "git.tree"), Term("context", "script.tree")),
    "environment": (Term("context", "packages.digest"),),
}


def starts(trace: Trace, uri: str) -> list[Node | str]:
    """Return the nodes, or ids of nodes, that a URI names. Raises `NotFound` or `Ambiguous`."""
    client, (kind, colon, rest) = trace.client, uri.partition(":")
    if uri.startswith("models:/"):
        return [f"version:{client.registry.version(uri).id}"]
    if uri.startswith("runs:/"):
        return [_of_run(client, uri)]
    if colon and kind in ("run", "version", "model", "commit", *_TERMS):
        found = _by_id(trace, "code" if kind == "commit" else kind, rest)
    else:
        found = _by_any_name(trace, uri)
    if not found:
        told = "give models:/NAME/3, models:/NAME@alias, runs:/RUN/NAME, a run, the digest of data, or a commit"
        raise NotFound(f"{client.setting.value} has nothing that is called {uri!r}: {told}")
    return found


def _of_run(client: Client, uri: str) -> Node | str:
    text, _, name = uri.removeprefix("runs:/").strip("/").partition("/")
    run = find_run(client, text)
    if not name:
        return f"run:{run.id}"
    for each in run.models:
        if each.name == name:
            about = {"flavor": each.flavor, "digest": each.digest, "time": each.time, "run_id": run.id}
            return Node(f"model:{each.id}", "model", each.uri, about)
    there = ", ".join(each.name for each in run.models) or "none"
    raise NotFound(f"run {run.id} logged no model {name!r}; it has {there}")


def _by_id(trace: Trace, kind: str, id: str) -> list[Node | str]:
    if kind == "run":
        return [f"run:{find_run(trace.client, id).id}"]
    if kind == "version":
        return [f"version:{trace.client.registry.version_by_id(id).id}"]
    if kind == "model":
        return _models(trace, id)
    return _prefixed(trace, kind, id.lower())


def _by_any_name(trace: Trace, text: str) -> list[Node | str]:
    """Return what is called that, first of all things a run, unless it looks like a version."""
    tries: list[Callable[[], list[Node | str]]] = [
        lambda: _by_id(trace, "run", text),
        lambda: [node for kind in _TERMS for node in _prefixed(trace, kind, text.lower())],
        lambda: _models(trace, text),
    ]
    version: Callable[[], list[Node | str]] = lambda: [f"version:{trace.client.registry.version(text).id}"]  # noqa: E731
    tries.insert(0 if text != LAST and {"/", "@"} & {*text} else len(tries), version)
    for each in tries:
        with suppress(NotFound, InvalidValue):
            if found := each():
                return found
    return []


def _models(trace: Trace, id: str) -> list[Node | str]:
    """Return a model that a run logged, by its id, or what versions were registered from."""
    for run in trace.runs(Compare(Term("models", "id", "any"), "=", id)):
        return [node for _, node in logged(run) if node.id == f"model:{id}"]
    found = trace.versions("source = ?", id)
    return [Node(f"model:{id}", "model", id, {"digest": found[0].digest, "flavor": found[0].flavor})] if found else []


def _prefixed(trace: Trace, kind: str, digits: str) -> list[Node | str]:
    """Return the things of a kind whose digest, or commit, begins so: of a commit all code that ran on top of it."""
    if not _HEX.fullmatch(digits):
        return []
    where: Where = Or(tuple(Compare(term, "like", f"{digits}%") for term in _TERMS[kind]))
    found = dict[str, Node]()
    for run in trace.runs(where):
        for edge, node in inputs(run):
            names = (node.id.partition(":")[2], str(node.about.get("commit", "")))
            if edge.kind == {"dataset": "data"}.get(kind, kind) and any(each.startswith(digits) for each in names):
                found[node.id] = node
    if kind != "code" and len(found) > 1:
        raise Ambiguous(f"{digits!r} fits several: {', '.join(each.about['digest'] for each in found.values())}")
    return list(found.values())
