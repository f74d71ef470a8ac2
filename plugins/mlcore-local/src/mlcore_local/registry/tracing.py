"""Find what hangs together in a store, level by level: of each kind of thing all of a level at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlcore import Client
from mlcore.registry import VERSION, ModelVersion
from mlcore.store import And, Compare, Entity, Not, Or, Query, Term, Where
from mlcore_local.registry.graphs import Edge, Node, Step, onward

__all__ = ["Trace", "inputs", "logged"]

_DELETED = Term("fields", "deleted")
_ALL = Or((Compare(_DELETED, "is null"), Not(Compare(_DELETED, "is null"))))  # naming the field asks for them, too
_AT_ONCE = 200  # things that a store is asked for by name
_TREES = ("git.tree", "script.tree")  # what tells code from other code: the first that is known
_CONTEXT = (
    *("git.commit", "git.branch", "git.dirty", "git.remote", "script.entry", "command.entry"),
    *("packages.digest", "packages.count", "python.version"),
)
_SELECT = (
    *(Term(family, "") for family in ("fields", "datasets", "models", "used")),
    *(Term("context", key) for key in (*_TREES, *_CONTEXT)),
)  # not parameters and metrics, of which a run may have thousands
Link = tuple[Edge, Node | None]  # with the node that it leads to, unless that has to be read


class Trace:
    """Collect things and how they came of each other, no more things than `limit`."""

    def __init__(self, client: Client, limit: int) -> None:
        self.client, self.complete = client, True
        self.nodes: dict[str, Node] = {}
        self.edges: dict[Edge, None] = {}
        self._limit = limit
        self._runs: dict[str, Entity] = {}
        self._versions: dict[str, ModelVersion] = {}

    def begin(self, found: Iterable[Node | str]) -> list[str]:
        """Take what to start from, as nodes, or as ids of runs and versions; return the ids."""
        nodes = {each if isinstance(each, str) else each.id: each for each in found}
        self._read(nodes, {id: each for id, each in nodes.items() if isinstance(each, Node)})
        return [id for id in nodes if id in self.nodes]

    def follow(self, start: Iterable[str], depth: int | None, ways: Iterable[bool]) -> None:
        """Collect what `start` came of and what came of it, `depth` steps far, the nearest things first.

        `ways` says which: True is up, False is down.
        """
        levels = {up: [(id, "") for id in start] for up in ways}
        seen = {up: set(level) for up, level in levels.items()}
        while any(levels.values()) and depth != 0:
            for up, level in levels.items():  # by turns, so that the limit leaves something of both
                levels[up] = [step for step in self._steps(level, up) if step not in seen[up]]
                seen[up].update(levels[up])
            depth = None if depth is None else depth - 1

    def _steps(self, level: Iterable[Step], up: bool) -> dict[Step, None]:
        """Collect what is next to a level; return the steps there."""
        ways, links = defaultdict[str, list[str]](list), dict[Edge, Node | None]()
        for id, way in level:
            ways[id].append(way)
        for edge, node in self._up(ways) if up else self._down(ways):
            links.setdefault(edge, node)
        ends = [end for edge in links for end in (edge.source, edge.target)]
        self._read(ends, {node.id: node for node in links.values() if node})
        found = dict[Step, None]()
        for edge in links:
            if edge.source in self.nodes and edge.target in self.nodes:
                self.edges[edge] = None
                steps = (onward(edge, (end, way), up) for end in (edge.source, edge.target) for way in ways[end])
                found |= {step: None for step in steps if step is not None}
        return found

    def runs(self, where: Where) -> list[Entity]:
        """Return runs for which something holds, newest first, deleted ones too, one more than the limit at most."""
        asked = Query(And((where, _ALL)), _SELECT, limit=self._limit + 1)
        found = list(self.client.store.find("run", asked).items)
        self._runs |= {each.id: each for each in found}
        self.complete = self.complete and len(found) <= self._limit
        return found

    def versions(self, filter: str, *params: Any) -> list[ModelVersion]:
        """Return versions that fit a filter, newest first, deleted ones too, one more than the limit at most."""
        asked = self.client.registry.search_versions(filter, *params, include_deleted=True, limit=self._limit + 1)
        self._versions |= {each.id: each for each in asked}
        self.complete = self.complete and len(asked) <= self._limit
        return list(asked)

    def _read(self, ids: Iterable[str], given: Mapping[str, Node]) -> None:
        """Make nodes of what has none yet, as far as the limit goes: as they are given, else of the store."""
        fresh = [id for id in dict.fromkeys(ids) if id not in self.nodes]
        room = max(0, self._limit - len(self.nodes))
        self.complete = self.complete and len(fresh) <= room
        fresh = fresh[:room]
        kinds = _by_kind(id for id in fresh if id not in given)
        for part in _parts([id for id in kinds["run"] if id not in self._runs]):
            self.runs(Compare(Term("", "id"), "in", tuple(part)))
        for part in _parts([id for id in kinds["version"] if id not in self._versions]):
            self.versions("id in ?", part)
        self.nodes |= {id: given.get(id) or self._node(*id.split(":", 1)) for id in fresh}

    def _node(self, kind: str, id: str) -> Node:
        if kind == "run" and (run := self._runs.get(id)):
            return _run_node(run, self._status(run))
        if kind == "version" and (version := self._versions.get(id)):
            return _version_node(version)
        return Node(f"{kind}:{id}", kind, id, {"missing": True})

    def _status(self, run: Entity) -> str:
        """Return a run's status: only the client knows which ones are lost."""
        status = str(run.fields.get("status", ""))
        return status if status in ("FINISHED", "FAILED", "KILLED") else self.client.get_run(run.id).status

    def _up(self, ways: Mapping[str, Sequence[str]]) -> Iterator[Link]:
        """Yield what things came of."""
        kinds = _by_kind(ways)
        for version in map(self._versions.get, kinds["version"]):
            if version is not None:
                yield from _sources(version)
        for id in kinds["model"]:
            if run_id := self.nodes[f"model:{id}"].about.get("run_id"):
                yield Edge(f"run:{run_id}", f"model:{id}", "logged"), None
        for run in map(self._runs.get, kinds["run"]):
            if run is not None:
                yield from inputs(run)
                yield from _used(run)
        yield from self._nested(kinds["run"], ways)

    def _down(self, ways: Mapping[str, Sequence[str]]) -> Iterator[Link]:
        """Yield what came of things."""
        kinds = _by_kind(ways)
        for run in map(self._runs.get, kinds["run"]):
            if run is not None:
                yield from logged(run)
        for part in _parts(kinds["model"]):
            sources = [source for id in part if (source := self.nodes[f"model:{id}"].name)]
            for version in self.versions("model_id in ? or source in ?", part, sources):
                yield from (link for link in _sources(version) if link[0].source in ways)
        for part in _parts(kinds["version"]):
            copied = Compare(Term("fields", "parent_version"), "in", tuple(part))
            found = self.client.store.find(VERSION, Query(And((copied, _ALL)), limit=self._limit + 1)).items
            for each in found:
                yield Edge(f"version:{each.fields['parent_version']}", f"version:{each.id}", "copied"), None
        for part in _parts([*kinds["model"], *kinds["version"]]):
            for run in self.runs(Or(tuple(Not(Compare(Term("used", id), "is null")) for id in part))):
                yield from ((edge, None) for edge, _ in _used(run) if edge.source in ways)
        for kind, terms in _READERS.items():
            for part in _parts(kinds[kind]):
                for run in self.runs(Or(tuple(Compare(term, "in", tuple(part)) for term in terms))):
                    yield from ((edge, None) for edge, _ in inputs(run) if edge.source in ways)
        yield from self._nested(kinds["run"], ways)

    def _nested(self, ids: Sequence[str], ways: Mapping[str, Sequence[str]]) -> Iterator[Link]:
        for id in ids:
            run = self._runs.get(id)
            if run is not None and (parent := run.fields.get("parent_run")):
                yield Edge(f"run:{parent}", f"run:{id}", "nested"), None
        for part in _parts([id for id in ids if {*ways[f"run:{id}"]} != {"parent"}]):
            for run in self.runs(Compare(Term("fields", "parent_run"), "in", tuple(part))):
                yield Edge(f"run:{run.fields['parent_run']}", f"run:{run.id}", "nested"), None


_READERS = {
    "dataset": (Term("datasets", "digest", "any"),),
    "code": tuple(Term("context", key) for key in _TREES),
    "environment": (Term("context", "packages.digest"),),
}


def inputs(run: Entity) -> Iterator[tuple[Edge, Node]]:
    """Yield the code, the data and the environment of a run."""
    context, id = run.attributes.get("context", {}), f"run:{run.id}"
    if tree := next((context[key] for key in _TREES if context.get(key)), None):
        known = {key.rpartition(".")[2]: context[key] for key in _CONTEXT if key.startswith("git.") and key in context}
        entry = context.get("command.entry") or context.get("script.entry")
        commit = str(known.get("commit") or "")
        yield (
            Edge(f"code:{tree}", id, "code", {"entry": entry} if entry else {}),
            Node(f"code:{tree}", "code", commit or str(tree), {**known, "tree": tree}),
        )
    for _, use in sorted(_records(run, "datasets")):
        node = Node(f"dataset:{use.get('digest')}", "dataset", str(use.get("name") or "data"), _about_data(use))
        yield Edge(node.id, id, "data", {"context": use["context"]} if use.get("context") else {}), node
    if digest := context.get("packages.digest"):
        known = {"packages": context.get("packages.count"), "python": context.get("python.version")}
        node = Node(f"environment:{digest}", "environment", str(digest), known | {"digest": digest})
        yield Edge(node.id, id, "environment"), node


def logged(run: Entity) -> Iterator[tuple[Edge, Node]]:
    """Yield the models that a run logged."""
    for name, each in sorted(_records(run, "models")):
        about = {key: each.get(key) for key in ("flavor", "digest", "time")} | {"run_id": run.id}
        node = Node(f"model:{each.get('id')}", "model", f"runs:/{run.id}/{name}", about)
        yield Edge(f"run:{run.id}", node.id, "logged"), node


def _used(run: Entity) -> Iterator[Link]:
    """Yield the versions and models that a run loaded."""
    for key, each in sorted(_records(run, "used")):
        uri, about = str(each.get("uri") or ""), {"digest": each.get("digest")}
        if _run_of(uri).get("run_id") == run.id:
            continue  # what it had just made
        if each.get("version"):
            yield Edge(f"version:{key}", f"run:{run.id}", "used", {"uri": uri}), None
        else:
            node = Node(f"model:{key}", "model", uri, about | _run_of(uri))
            yield Edge(node.id, f"run:{run.id}", "used", {"uri": uri}), node


def _sources(version: ModelVersion) -> Iterator[Link]:
    """Yield the model that a version is, and the version that it was copied from."""
    id = version.model_id or version.source
    about = {"flavor": version.flavor, "digest": version.digest, **_run_of(version.source)}
    about |= {"run_id": version.run_id} if version.run_id else {}
    node = Node(f"model:{id}", "model", version.source, about)
    yield Edge(node.id, f"version:{version.id}", "registered"), node
    if version.parent_version:
        yield Edge(f"version:{version.parent_version}", f"version:{version.id}", "copied"), None


def _run_of(uri: str) -> dict[str, str]:
    id, _, name = uri.removeprefix("runs:/").partition("/")
    return {"run_id": id} if name and uri.startswith("runs:/") else {}


def _run_node(run: Entity, status: str) -> Node:
    names = ("start_time", "end_time", "user")
    about = {"status": status} | {key: run.fields[key] for key in names if run.fields.get(key)}
    about |= {"deleted": True} if run.fields.get("deleted") else {}
    return Node(f"run:{run.id}", "run", str(run.fields.get("name") or run.id), about)


def _version_node(version: ModelVersion) -> Node:
    about: dict[str, Any] = {"aliases": version.aliases, "stage": version.stage, "status": version.status}
    about |= {"created": version.created, "user": version.user, "flavor": version.flavor, "digest": version.digest}
    about |= {"source": version.source} | ({"deleted": True} if version.deleted else {})
    return Node(f"version:{version.id}", "version", version.uri, about)


def _about_data(use: Mapping[str, Any]) -> dict[str, Any]:
    about = use.get("about")
    told = dict(about) if isinstance(about, Mapping) else {}
    return told | {"digest": use.get("digest"), "source": use.get("source")}


def _records(run: Entity, family: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what a family says, of what has the form for it: others may have written it."""
    return [(key, each) for key, each in run.attributes.get(family, {}).items() if isinstance(each, Mapping)]


def _by_kind(ids: Iterable[str]) -> defaultdict[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    for each in ids:
        kind, _, id = each.partition(":")
        found[kind].append(id)
    return found


def _parts(ids: Sequence[str]) -> Iterator[list[str]]:
    return (list(ids[at : at + _AT_ONCE]) for at in range(0, len(ids), _AT_ONCE))
