"""The command ``mlcore lineage``."""

from __future__ import annotations

from typing import Any

import attrs
import click

from mlcore import Client
from mlcore_local import columns, completing, terminal
from mlcore_local.arguments import JSON, STORE
from mlcore_local.registry import drawing
from mlcore_local.registry.graphs import Graph
from mlcore_local.registry.lineage import LIMIT, lineage as trace

__all__ = ["lineage"]

_DRAWN = 500  # https://mermaid.js.org/config/schema-docs/config.html#maxedges


@click.command(epilog="Example: mlcore lineage models:/digits@champion")
@click.argument("thing", metavar="URI", shell_complete=completing.registered)
@click.option("--up", "only", flag_value="up", help="Only what it came of.")
@click.option("--down", "only", flag_value="down", help="Only what came of it.")
@click.option("--depth", type=click.IntRange(min=0), metavar="N", help="No further than so many steps.")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=LIMIT, metavar="N", show_default=True,
    help="No more than so many things, the nearest first.",
)  # fmt: skip
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a flowchart that Mermaid draws on a page.")
@STORE
@JSON
def lineage(
    *, thing: str, only: str | None, depth: int | None, limit: int, as_mermaid: bool, uri: str | None, as_json: bool
) -> None:
    """Show what a model was made of, and who used it.

    URI is models:/NAME/3, models:/NAME@alias, runs:/RUN/NAME, any RUN that `mlcore runs` takes, the digest of data, or
    a commit; of digests and commits the first digits are enough.
    """
    if as_json and as_mermaid:
        raise click.UsageError("give --json or --mermaid, not both")
    up, down = only != "down", only != "up"
    client = Client(uri)
    with columns.one_look(client):
        found = trace(client, thing, up=up, down=down, depth=depth, limit=limit)
    if as_json:
        terminal.show(terminal.as_json(_content(found)))
    else:
        terminal.show(drawing.mermaid(found) if as_mermaid else drawing.lines(found, up=up, down=down))
    if as_mermaid and len(found.edges) > _DRAWN:
        click.echo(f"mlcore: Mermaid draws {_DRAWN} arrows unless maxEdges says more: --limit shows less", err=True)
    if not found.complete:
        click.echo(f"mlcore: there is more than {limit:,} things: --limit shows more, --depth less", err=True)


def _content(found: Graph) -> dict[str, Any]:
    edges = [attrs.asdict(each) for each in found.edges]
    nodes = [attrs.asdict(each) for each in found.nodes.values()]
    return {"start": list(found.start), "complete": found.complete, "nodes": nodes, "edges": edges}
