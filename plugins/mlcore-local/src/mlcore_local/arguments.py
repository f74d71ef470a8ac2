"""Arguments that several commands take."""

from __future__ import annotations

import click

from mlcore_local import completing

__all__ = ["CLOCK", "EXPERIMENT", "JSON", "LIMIT", "METRIC", "RUN", "STORE", "moment"]


def _number(ctx: click.Context, param: click.Parameter, text: str) -> int | None:
    """Return how many at most; 0 and ``all`` are no limit."""
    if text != "all" and not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a number of things nor 'all'", ctx, param)
    return None if text == "all" else int(text) or None


def moment(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Return the time of the past that is meant, in ms since 1970."""
    from mlcore.errors import InvalidValue
    from mlcore_local.registry import past

    try:
        return None if text is None else past.moment(text)
    except InvalidValue as error:
        raise click.BadParameter(str(error), ctx, param) from None


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
CLOCK = click.option(
    "--clock", type=click.Choice(["store", "writer"]), default="store",
    help="Whose times count: the store's, by default, or the writers'.",
)  # fmt: skip
