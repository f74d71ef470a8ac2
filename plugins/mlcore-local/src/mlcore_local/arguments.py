"""Arguments that several commands take."""

from __future__ import annotations

import click

from mlcore_local import completing

__all__ = ["EXPERIMENT", "JSON", "LIMIT", "METRIC", "RUN", "STORE"]


def _number(ctx: click.Context, param: click.Parameter, text: str) -> int | None:
    """Return how many at most; 0 and ``all`` are no limit."""
    if text != "all" and not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a number of things nor 'all'", ctx, param)
    return None if text == "all" else int(text) or None


STORE = click.option("--store", "uri", help="A store other than the one `mlcore where` tells.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
LIMIT = click.option(
    "--limit", "-n", default="all", metavar="N", callback=_number, help="At most so many; by default, or for 0, all."
)
METRIC = click.option(
    "--metric", "-m", "only", multiple=True, metavar="KEY", help="Only this metric; can be repeated.",
    shell_complete=completing.metric,
)  # fmt: skip
RUN = click.argument("run", shell_complete=completing.run)
EXPERIMENT = click.argument("experiment", shell_complete=completing.experiment)
