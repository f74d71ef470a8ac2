"""``mlcore trust``: what models of others may run when this user loads them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click

import mlcore
from mlcore.models import SAVED
from mlcore_local import terminal

__all__ = ["add", "list", "remove", "trust"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_entries = click.argument("entries", nargs=-1, required=True, metavar="NAME|DIGEST|MODEL...")


@click.group()
def trust() -> None:
    """Decide what models may run when you load them.

    A NAME, such as mypkg.*, covers what is installed here under it, for every model. A DIGEST, or the folder or URI of
    a MODEL, covers all that this one model asks for, its own code too, as long as not one of its bytes changes.
    """


@trust.command(epilog="Example: mlcore trust add 'mypkg.*' models/from-a-colleague")
@_entries
@click.option("--note", default="", help="Why, or who made it; shown by `mlcore trust list`.")
@_as_json
def add(entries: tuple[str, ...], note: str, as_json: bool) -> None:
    """Trust names or models from now on."""
    found = {}
    for given in entries:
        entry = _entry(given)
        found[entry] = note or ("" if entry == given else given)
    for entry, why in found.items():
        mlcore.trust(entry, note=why)
    _tell("trusting", found, as_json)


@trust.command(epilog="Example: mlcore trust list --all")
@click.option("--all", "everything", is_flag=True, help="Also the models that you saved yourself, one by one.")
@_as_json
def list(everything: bool, as_json: bool) -> None:  # noqa: A001 - the command's word
    """List what you trust."""
    found = mlcore.trusted()
    own = {} if everything else {entry: note for entry, note in found.items() if note.startswith(SAVED)}
    shown = {entry: note for entry, note in found.items() if entry not in own}
    if as_json:
        terminal.show(terminal.as_json(shown))
        return
    terminal.show(_lines(shown))
    if own:
        click.echo(f"models that you saved yourself: {len(own)}; --all lists them", err=True)
    elif not shown:
        click.echo("you trust nothing yet", err=True)


@trust.command(epilog="Example: mlcore trust remove 'mypkg.*'")
@_entries
@_as_json
def remove(entries: tuple[str, ...], as_json: bool) -> None:
    """Trust names or models no longer."""
    found = {_entry(each): "" for each in entries}
    mlcore.distrust(*found)
    _tell("no longer trusting", found, as_json)


def _entry(text: str) -> str:
    """Return a name as it is, and the digest of a model that `text` leads to."""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return text.lower()
    if "/" in text or os.sep in text or Path(text, "MLmodel").exists():
        return mlcore.Client().get_model(text).verify()
    return text


def _tell(what: str, entries: dict[str, str], as_json: bool) -> None:
    terminal.show(terminal.as_json([*entries]) if as_json else (f"{what} {line}" for line in _lines(entries)))


def _lines(entries: dict[str, str]) -> Iterator[str]:
    for entry, note in entries.items():
        yield f"{terminal.printable(entry)}  {terminal.printable(note)}".rstrip()
