"""The command ``mlcore registry history``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs
import click

from mlcore import Client
from mlcore_local import columns as c, completing, terminal
from mlcore_local.arguments import CLOCK, JSON, LIMIT, STORE, moment
from mlcore_local.registry.facts import Clock, vouched
from mlcore_local.registry.history import Edit, Entry, history as history_of

__all__ = ["history"]

_APART_MS = 60_000  # two clocks that differ by less are not worth a word
_MADE = {"create": ("description",), "register": ("source", "run_id", "description")}  # what is shown of what was new


@click.command(epilog="Example: mlcore registry history digits --since -7d -n 20")
@click.argument("name", shell_complete=completing.model)
@LIMIT
@click.option("--since", metavar="TIME", callback=moment, help="Only what changed then or later: 2026-03-01, -7d, ...")
@click.option("--until", metavar="TIME", callback=moment, help="Only what changed then or before.")
@CLOCK
@STORE
@JSON
def history(
    *, name: str, limit: int | None, since: int | None, until: int | None, clock: Clock, uri: str | None, as_json: bool
) -> None:
    """Show what was changed about a model and its versions, the newest first: when, by whom, and what it was before.

    NAME is a name that the model has or had, or its id. Times and names are the store's word where it has one; what the
    writer said stands beside it where that differs. A change is marked with ! where its writer had not seen another
    one of the same that came just before it.
    """
    client = Client(uri)
    entries = history_of(client, name, since=since, until=until, clock=clock)[:limit]
    if as_json:
        return terminal.show(terminal.as_json([attrs.asdict(each) for each in entries]))
    if not entries:
        return click.echo(f"nothing about {terminal.printable(name)} was changed at that time", err=True)
    rows = [_row(each) for each in entries]
    told = any(row[-1] for row in rows)
    names = ["time", "who", "version", "", "change", *(["the writer said"] if told else [])]
    terminal.show_table(names, [row if told else row[:-1] for row in rows], most=[19, 24, 12, 1, 200, 60])
    return click.echo(f"{_zone()}; {vouched(client.store, clock)}", err=True)


def _row(entry: Entry) -> list[str]:
    """Return what a table shows of a change."""
    renamed = entry.version_now not in ("", entry.version)
    version = f"{entry.version}, now {entry.version_now}" if renamed else entry.version
    when = c.moment(entry.time, seconds=True) or ""
    said = []
    if abs(entry.at - entry.time) > _APART_MS:
        said.append(c.moment(entry.at, seconds=True) or "")
    if entry.actor and entry.by != entry.actor:
        said.append(terminal.printable(entry.by))
    return [when, entry.actor or entry.by, version, "!" * bool(entry.unseen), _told(entry), " ".join(said)]


def _told(entry: Entry) -> str:
    """Return what was changed, in the words of the action and with the values before and after."""
    shown = [each for each in entry.edits if _worth(entry, each)]
    return "  ".join([entry.action.replace("_", " "), *(_edited(entry, each) for each in shown)])


def _worth(entry: Entry, edit: Edit) -> bool:
    tags = edit.name.partition(".")[0] == "tags"
    return entry.action not in _MADE or tags or (edit.name in _MADE[entry.action] and edit.after not in ("", None))


def _edited(entry: Entry, edit: Edit) -> str:
    family, _, name = edit.name.partition(".")
    if family == "comments":
        gone = edit.before if edit.after is None else edit.after
        text = str(gone.get("text", "")) if isinstance(gone, dict) else ""
        return repr(text) if len(text) <= 60 else repr(f"{text[:59]}…")
    if family == "deleted":
        return ""
    title = f"@{name}" if family == "aliases" else edit.name
    of = "" if edit.version in ("", entry.version, entry.version_now) else f"{edit.version} "
    if entry.action in _MADE:
        return f"{title} {_value(edit.after)}"
    return f"{of}{title}: {_value(edit.before)} -> {_value(edit.after)}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    text = repr(value) if isinstance(value, str) and (not value or set(value) & set(" \n")) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _zone() -> str:
    now = datetime.now().astimezone()
    return f"times in {now.tzname()} (UTC{now:%z})"
