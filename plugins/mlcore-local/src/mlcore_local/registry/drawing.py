"""Show a lineage: as indented lines for a terminal, and as a flowchart of Mermaid for a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from mlcore_local import columns as c, terminal
from mlcore_local.registry.graphs import Edge, Graph, Node

__all__ = ["lines", "mermaid", "title"]

_UP = {
    "registered": "from", "copied": "copy of", "logged": "logged by", "used": "used", "data": "data", "code": "code",
    "environment": "with",
}  # fmt: skip
_DOWN = {"registered": "registered as", "copied": "copied to", "logged": "logged"}  # all else was used by
_DIGITS = 12
_ENDS = ("code", "dataset", "environment")  # which came of nothing that is known
_LONGEST = 80
# what Mermaid shows as it stands between quotes; it has words and marks of its own for nearly everything else
_PLAIN = re.compile(r"[^\w .,:+@/()=-]")
_READ = re.compile(r"[$\\]|:(?=fa-)")  # begin formulas, line ends and icons, by number as well: a joiner breaks them
_SHAPES = {
    "version": '(["{}"])', "model": '("{}")', "run": '["{}"]', "dataset": '[("{}")]', "code": '[/"{}"/]',
    "environment": '{{{{"{}"}}}}',
}  # fmt: skip


def title(node: Node) -> list[str]:
    """Return a node in a few words, each for a reader who knows the kind: its name first."""
    about = node.about
    if about.get("missing"):
        return [f"{node.kind} {node.name}", "which is not in this store"]
    found: list[Any] = [_NAMES[node.kind](node)]
    match node.kind:
        case "version":
            found += [*(f"@{alias}" for alias in about["aliases"]), *([about["stage"]] * (about["stage"] != "None"))]
            found += [about["status"]] * (about["status"] != "READY") + [about["flavor"], _made(node, "created")]
        case "model":
            found += [about.get("flavor"), str(about.get("digest") or "")[:_DIGITS]]
        case "run":
            found += [node.id[-8:], about["status"], _made(node, "start_time")]
        case "dataset":
            rows = about.get("rows")
            found += [str(about.get("digest"))[:_DIGITS], f"{rows:,} rows" if isinstance(rows, int) else ""]
        case "code":
            found += ["and changes" * bool(about.get("dirty")), about.get("branch")]
        case "environment":
            count = about.get("packages")
            found += [terminal.counted(count, "package") if isinstance(count, int) else "", about["digest"][:_DIGITS]]
    return [str(each) for each in [*found, "deleted" * bool(about.get("deleted"))] if each]


def _commit(node: Node) -> str:
    commit = node.about.get("commit")
    return f"commit {str(commit)[:_DIGITS]}" if commit else f"files {node.name[:_DIGITS]}"


_NAMES: dict[str, Callable[[Node], str]] = {
    **dict.fromkeys(("version", "model", "run", "dataset"), lambda node: node.name),
    "code": _commit,
    "environment": lambda node: f"Python {node.about.get('python') or '?'}",
}


def _made(node: Node, key: str) -> str:
    when, who = c.moment(node.about.get(key)), node.about.get("user")
    return f"{when} by {who}" if when and who else when or ""


def lines(graph: Graph, *, up: bool, down: bool) -> Iterator[str]:
    """Yield the things that it started from, and below what they came of, and what came of them."""
    for id in graph.start:
        first, *rest = (terminal.printable(each) for each in title(graph.nodes[id]))
        yield "  ".join([terminal.styled(first, bold=True), *rest])
    for upwards, heading, none in ((True, "came of", "nothing that is known"), (False, "led to", "nothing yet")):
        if not (up if upwards else down):
            continue
        yield terminal.styled(heading, bold=True)
        found = list(graph.walk(up=upwards))
        for depth, edge, id, new in found:
            node, word = graph.nodes[id], _word(edge, id, upwards)
            told = title(node)
            if not new and node.kind not in _ENDS:
                told = [*told[:1], *([told[1]] * (node.kind == "run")), "see above"]
            told += [f"({each})" for key, each in edge.about.items() if each and (key != "uri" or each != node.name)]
            yield "  " * depth + "  ".join([word, *(terminal.printable(each) for each in told)])
        if not found:
            yield f"  {none if graph.complete else 'not within the limit'}"


def _word(edge: Edge, id: str, up: bool) -> str:
    if edge.kind == "nested":
        return "inside" if id == edge.source else "nested"
    return _UP[edge.kind] if up else _DOWN.get(edge.kind, "used by")


def mermaid(graph: Graph) -> Iterator[str]:
    """Yield a flowchart, from what was first to what came last; see https://mermaid.js.org/syntax/flowchart.html."""
    numbers = {id: f"n{number}" for number, id in enumerate(graph.nodes)}
    yield "flowchart LR"
    for id, node in graph.nodes.items():
        first, *rest = (_escaped(each) for each in title(node))
        text = f"{first}<br/>{' '.join(rest)}" if rest else first
        yield f"    {numbers[id]}{_SHAPES[node.kind].format(text)}"
    for edge in graph.edges:
        word = "nested" if edge.kind == "nested" else edge.kind
        arrow = "-.->" if edge.kind == "nested" else "-->"
        yield f"    {numbers[edge.source]} {arrow}|{word}| {numbers[edge.target]}"
    if graph.start:
        yield f"    style {' '.join(numbers[id] for id in graph.start[:1])} stroke-width:4px"
        yield from (f"    style {numbers[id]} stroke-width:4px" for id in graph.start[1:])


def _escaped(text: str) -> str:
    """Return text as Mermaid shows it and never reads it: whatever could mean something by its number."""
    shown = _READ.sub("\\g<0>\u2060", terminal.cut(terminal.printable(text), _LONGEST))
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", shown)
