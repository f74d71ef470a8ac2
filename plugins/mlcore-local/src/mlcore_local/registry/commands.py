"""The command ``mlcore registry``."""

from __future__ import annotations

import click

from mlcore.cli import Group

__all__ = ["registry"]


@click.group(cls=Group)
def registry() -> None:
    """Register models: versions, aliases, stages."""
