"""The command ``mlcore registry compare``."""

from __future__ import annotations

import click

__all__ = ["compare"]


@click.command()
def compare() -> None:
    """Compare two versions."""
