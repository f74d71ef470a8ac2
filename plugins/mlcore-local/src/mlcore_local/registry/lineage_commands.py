"""The command ``mlcore lineage``."""

from __future__ import annotations

import click

__all__ = ["lineage"]


@click.command()
def lineage() -> None:
    """Show what a model was made of, and who used it."""
