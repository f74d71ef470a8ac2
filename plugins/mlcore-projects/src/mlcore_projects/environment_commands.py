"""``mlcore envs``: what environments were made on this machine, what is in them, and which can go."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from mlcore.cli import Group
from mlcore.errors import NotFound
from mlcore_local import terminal
from mlcore_projects import shelf

__all__ = ["envs", "list_kept", "prune", "show"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SHORT = 8


@click.group(cls=Group, no_args_is_help=True)
def envs() -> None:
    """List, show and remove the environments that projects ran in.

    They are kept in your cache, one for each lock, and made again if a run wants one that is gone.
    """


@envs.command("list", epilog="Example: mlcore envs list --json")
@_as_json
def list_kept(as_json: bool) -> None:
    """List environments, the last used first."""
    found = shelf.kept()
    if as_json:
        terminal.show(terminal.as_json([_told(each) for each in found]))
        return
    rows = [
        (
            each.key[:_SHORT],
            each.kind or None,
            each.lock.python if each.lock else None,
            len(each.lock.packages) if each.lock else None,
            _size(each.size),
            _ago(each.used),
            _state(each),
        )
        for each in found
    ]
    terminal.show(terminal.Table(["key", "kind", "python", "packages", "size", "used", "state"], rows).lines())
    terminal.remark(f"{terminal.counted(len(found), 'environment')}, {_size(sum(each.size for each in found))}")


@envs.command(epilog="Example: mlcore envs show 3f2a91c0")
@click.argument("key")
@_as_json
def show(key: str, as_json: bool) -> None:
    """Show an environment: what is installed in it, as a file of requirements.

    KEY is its key or the beginning of it.
    """
    each = _named(key)
    if as_json:
        terminal.show(terminal.as_json({**_told(each), "lock": each.lock.as_dict() if each.lock else None}))
        return
    terminal.show(_page(each))


@envs.command(epilog="Example: mlcore envs prune --unused 7d")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--unused", metavar="TIME", help="Those that nobody asked for in this time: 12h, 7d; by default 30d.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@_as_json
def prune(keys: tuple[str, ...], unused: str | None, everything: bool, as_json: bool) -> None:
    """Remove environments, but none that is in use.

    By default those that nobody asked for in 30 days, and what builds left that were killed.
    """
    if sum(map(bool, (keys, unused, everything))) > 1:
        raise click.UsageError("choose one: a KEY, --unused or --all")
    if keys:
        chosen = [_named(key).key for key in keys]
    else:
        before = time.time() + 1 if everything else time.time() - _seconds(unused or "30d")
        chosen = [each.key for each in shelf.kept() if not each.complete or each.used < before]
    gone, stay = shelf.prune(chosen, tools=everything)
    if as_json:
        told = {"removed": [_told(each) for each in gone], "in_use": [_told(each) for each in stay]}
        terminal.show(terminal.as_json(told))
        return
    freed = _size(sum(each.size for each in gone))
    terminal.show([*(f"removed {each.key[:_SHORT]}  {_size(each.size)}" for each in gone), f"freed {freed}"])
    for each in stay:
        click.echo(f"{each.key[:_SHORT]} is in use, and stays", err=True)


def _named(key: str) -> shelf.Kept:
    found = [each for each in shelf.kept() if each.key.startswith(key)]
    if len(found) != 1:
        many = "several environments have keys that begin" if found else "no environment has a key that begins"
        raise NotFound(f"{many} with {key!r:.60}: `mlcore envs list` shows all")
    return found[0]


def _told(each: shelf.Kept) -> dict[str, Any]:
    return {
        "key": each.key,
        "kind": each.kind,
        "python": each.lock.python if each.lock else None,
        "platform": each.lock.platform if each.lock else None,
        "packages": each.lock.packages if each.lock else {},
        "folder": str(each.folder),
        "size": each.size,
        "made": _date(each.made),
        "used": _date(each.used),
        "in_use": each.busy,
        "complete": each.complete,
    }


def _page(each: shelf.Kept) -> Iterator[str]:
    about = _told(each)
    for name in ("key", "kind", "folder", "made", "used"):
        yield f"{name:<10}{terminal.printable(about[name])}"
    yield f"{'size':<10}{_size(each.size)}"
    yield f"{'state':<10}{_state(each) or 'ready'}"
    if each.lock is not None:
        yield ""
        yield from map(terminal.printable, each.lock.text.splitlines())


def _state(each: shelf.Kept) -> str | None:
    if not each.complete:
        return "being made" if each.busy else "left half-made"
    return "in use" if each.busy else None


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _ago(seconds: float) -> str:
    passed = max(0, int(time.time() - seconds))
    unit = next((each for each in ("w", "d", "h", "m") if passed >= 2 * _UNITS[each]), "s")
    return f"{passed // _UNITS[unit]}{unit} ago"


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if found is None:
        raise click.UsageError(f"--unused takes a time such as 12h, 7d or 4w, not {text!r:.40}")
    return float(found[1]) * _UNITS[found[2]]
