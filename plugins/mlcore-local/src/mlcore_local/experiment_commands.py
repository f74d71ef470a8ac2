"""``mlcore experiments``: look after the names under which runs belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from mlcore import Client, Experiment
from mlcore_local import columns as c, terminal
from mlcore_local.arguments import EXPERIMENT, JSON, LIMIT, STORE

__all__ = ["experiments"]


@click.group(no_args_is_help=True)
def experiments() -> None:
    """List, make, rename, delete and restore experiments.

    EXPERIMENT is a name or an id.
    """


def _command(example: str) -> Callable[[Callable[..., Any]], click.Command]:
    def make(function: Callable[..., Any]) -> click.Command:
        name, epilog = example.split(maxsplit=1)[0], f"Example: mlcore experiments {example}"
        return experiments.command(name, epilog=epilog)(STORE(JSON(function)))

    return make


@_command("list --filter \"name like 'digits%'\" --json")
@click.option("--filter", "-f", "query", metavar="QUERY", help="Only those that fit, such as: tags.team = 'vision'.")
@click.option("--sort", "-s", multiple=True, metavar="NAME [desc]", help="Order by this; repeatable.")
@LIMIT
@click.option("--deleted", is_flag=True, help="Deleted experiments, too.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def list_experiments(
    *, query: str | None, sort: tuple[str, ...], limit: int | None, deleted: bool, as_csv: bool, uri: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """List experiments, the newest first, with how many runs they have and when the last one started."""
    client = Client(uri)
    found = client.search_experiments(query, order_by=sort, limit=limit, include_deleted=deleted)
    runs = client.list_runs("*", include_deleted=deleted)
    counts = Counter(run.experiment_id for run in runs)
    last = {run.experiment_id: run.start_time for run in reversed(runs)}
    content = [_described(each) | {"runs": counts[each.id], "last_start_time": last.get(each.id)} for each in found]
    if as_json:
        return terminal.show(terminal.as_json(content))
    tags = dict.fromkeys(f"tags.{key}" for each in found for key in each.tags)
    names = ["id", "name", "runs", "last_start_time", *(["deleted"] if deleted else []), *tags, "note"]
    rows = [{**each, **{f"tags.{key}": value for key, value in each["tags"].items()}} for each in content]
    if as_csv:
        return terminal.show(terminal.as_csv(names, ([row.get(name) for name in names] for row in rows)))
    if not rows:
        return click.echo("there are no experiments", err=True)
    shown = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    cells = ([_when(row[name]) if name == "last_start_time" else row.get(name) for name in shown] for row in rows)
    titles = ["last run" if name == "last_start_time" else name for name in shown]
    return terminal.show_table(titles, cells)


def _when(stamp: int | None) -> str | None:
    return c.ago(stamp) if terminal.interactive() and stamp is not None else c.moment(stamp)


@_command("create digits --tag team=vision")
@click.argument("name")
@click.option("--tag", "-t", "tags", multiple=True, metavar="KEY=VALUE", help="A tag, its value as text.")
@click.option("--note", help="What it is about, as Markdown.")
def create(name: str, tags: tuple[str, ...], note: str | None, uri: str | None, as_json: bool) -> None:
    """Make an experiment; the first run of one makes it, too. Prints its id."""
    made = Client(uri).create_experiment(name, tags=dict(map(c.pair, tags)))
    if note is not None:
        made.set_note(note)
    terminal.show(terminal.as_json(_described(made)) if as_json else [made.id])


@_command("rename digits 'handwritten digits'")
@EXPERIMENT
@click.argument("name")
def rename(experiment: str, name: str, uri: str | None, as_json: bool) -> None:
    """Give an experiment another name, which must be free."""
    _change(experiment, uri, as_json, lambda found: found.rename(name), "renamed")


@_command("delete digits")
@EXPERIMENT
def delete(experiment: str, uri: str | None, as_json: bool) -> None:
    """Hide an experiment and its runs until it is restored; nothing of it is lost."""
    _change(experiment, uri, as_json, Experiment.delete, "deleted")


@_command("restore digits")
@EXPERIMENT
def restore(experiment: str, uri: str | None, as_json: bool) -> None:
    """Show a deleted experiment again, and its runs."""
    _change(experiment, uri, as_json, Experiment.restore, "restored")


def _change(given: str, uri: str | None, as_json: bool, act: Callable[[Experiment], None], done: str) -> None:
    found = Client(uri).get_experiment(given)
    act(found)
    text = f"{done} {found.id} {terminal.printable(found.name)}"
    terminal.show(terminal.as_json(_described(found)) if as_json else [text])


def _described(found: Experiment) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("id", "name", "deleted", "note", "tags")}
