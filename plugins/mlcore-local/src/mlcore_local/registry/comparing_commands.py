"""The command ``mlcore registry compare``."""

from __future__ import annotations

import click

from mlcore import Client
from mlcore_local import completing
from mlcore_local.arguments import JSON, STORE
from mlcore_local.diff_commands import OPTIONS, allowed, conclude
from mlcore_local.registry.comparing import compare_versions
from mlcore_local.registry.naming import find_version

__all__ = ["compare"]


@click.command(epilog="Example: mlcore registry compare digits/3 digits@champion")
@click.argument("first", metavar="A", shell_complete=completing.registered)
@click.argument("second", metavar="B", shell_complete=completing.registered)
@OPTIONS
@STORE
@JSON
def compare(
    *, first: str, second: str, tolerance: float, within: tuple[str, ...], ignore: tuple[str, ...], tell: bool,
    uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print what differs between two versions, and nothing else.

    A and B are versions of one model or of two: NAME/3, NAME@champion, NAME/Production or NAME/latest. Compared are
    flavors, signatures, requirements and files, and of the runs that they came from the code, packages, parameters,
    data and the latest values of metrics. What could not be compared is told on standard error.
    """
    client = Client(uri)
    one, other = (find_version(client.registry, each) for each in (first, second))
    found = compare_versions(client, one, other, tolerance=tolerance, within=allowed(within), ignore=ignore)
    conclude(found, {"versions": [found.first, found.second]}, as_json=as_json, tell=tell)
