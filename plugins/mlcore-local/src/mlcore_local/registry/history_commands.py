"""The command ``mlcore registry history``."""

from __future__ import annotations

import click

__all__ = ["history"]


@click.command()
def history() -> None:
    """Show what was changed, by whom."""
