"""``mlcore artifacts cache``: what was got from elsewhere and is kept on this machine, and how it goes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mlcore.config import user_cache
from mlcore_local import cache as downloads, terminal
from mlcore_local.arguments import JSON
from mlcore_local.spools import size_of

__all__ = ["cache"]

_SHORT = 8


@click.group()
def cache() -> None:
    """List and remove the files that were got from elsewhere.

    They are kept in your cache, each content once, and got again if somebody asks for one that is gone. No more are
    kept than the setting cache_limit says; what was used longest ago goes first, and what is in use stays.
    """


@cache.command("list", epilog="Example: mlcore artifacts cache list --json")
@JSON
def list_kept(as_json: bool) -> None:
    """List what is kept, the last used first."""
    found, size, limit = downloads.kept(_root()), downloads.size(_root()), downloads.limit()
    if as_json:
        told = {"folder": str(_root()), "limit": limit, "size": size, "sets": [_told(each) for each in found]}
        return terminal.show(terminal.as_json(told))
    rows = (
        [each.digest[:_SHORT], _size(each.size), len(each.files), _date(each.used), _state(each), each.source or None]
        for each in found
    )
    terminal.show_table(["set", "size", "files", "used", "state", "got from"], rows, most=1000)
    return terminal.remark(f"{_size(size)} of {_size(limit)} in {terminal.printable(_root())}")


@cache.command(epilog="Example: mlcore artifacts cache prune --size 5GB")
@click.option("--size", "text", metavar="SIZE", help="How much may stay, as 500MB; by default what cache_limit says.")
@JSON
def prune(text: str | None, as_json: bool) -> None:
    """Remove what was used longest ago, until no more than a size is left.

    What a process uses stays; what was left half got by one that was killed goes in any case.
    """
    _remove(downloads.limit() if text is None else size_of("--size", text), as_json)


@cache.command(epilog="Example: mlcore artifacts cache clear")
@JSON
def clear(as_json: bool) -> None:
    """Remove all that no process uses."""
    _remove(-1, as_json)


def _remove(most: int, as_json: bool) -> None:
    before = downloads.size(_root())
    gone = downloads.prune(_root(), most)
    left, stay = downloads.size(_root()), [each for each in downloads.kept(_root()) if each.busy]
    if as_json:
        told = {"removed": [_told(each) for each in gone], "in_use": [_told(each) for each in stay]}
        return terminal.show(terminal.as_json({**told, "freed": before - left, "size": left}))
    lines = [f"removed {each.digest[:_SHORT]}  {terminal.printable(each.source)}" for each in gone]
    terminal.show([*lines, f"freed {_size(before - left)}, {_size(left)} are left"])
    if stay and left > most:
        click.echo(f"{terminal.counted(len(stay), 'set')} in use, which cannot go now", err=True)
    return None


def _root() -> Path:
    return user_cache() / "artifacts"


def _told(each: downloads.Kept) -> dict[str, Any]:
    about = {"set": each.digest, "source": each.source, "files": dict(each.files), "size": each.size}
    return {**about, "used": _date(each.used), "in_use": each.busy}


def _state(each: downloads.Kept) -> str | None:
    return "in use" if each.busy else None


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size:,} bytes"
