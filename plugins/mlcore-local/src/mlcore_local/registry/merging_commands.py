"""The command ``mlcore registry renumber``."""

from __future__ import annotations

import click

__all__ = ["renumber"]


@click.command()
def renumber() -> None:
    """Give a version a free number."""
