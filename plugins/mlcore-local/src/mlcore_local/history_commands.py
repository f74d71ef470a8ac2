"""``mlcore history``: an experiment as ``git log`` shows a repository: what each run changed, and what came out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import click

from mlcore import Client, Run
from mlcore_local import columns as c, completing, terminal
from mlcore_local.arguments import JSON, LIMIT, METRIC, STORE

__all__ = ["history"]

_MOST = 10  # lines of a run's page about parameters, and about metrics; `--all` shows the others


@attrs.frozen
class _Entry:
    """A run, the one that it is compared with, and what differs: values before and now, None if missing."""

    run: Run
    before: Run | None
    params: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[float | None, float]]


@click.command(epilog="Example: mlcore history digits --filter 'metrics.accuracy.valid > 0.9' -n 3")
@click.argument("experiment", required=False, shell_complete=completing.experiment)
@click.option("--filter", "-f", "query", metavar="QUERY", help="Only runs that fit, such as: params.lr < 0.1.")
@LIMIT
@METRIC
@click.option("--all", "everything", is_flag=True, help="All metrics, and the parameters that stayed as they were.")
@click.option("--oneline", is_flag=True, help="A line for each run.")
@STORE
@JSON
def history(
    *, experiment: str | None, query: str | None, limit: int | None, only: tuple[str, ...], everything: bool,
    oneline: bool, uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show the runs of an experiment, the newest first: what each changed, what came out, and what was noted.

    A run is compared with the one that started before it in the same EXPERIMENT and, of runs inside another, inside the
    same one. Without EXPERIMENT it is that of MLCORE_EXPERIMENT or else of the run that started last.
    """
    client = Client(uri)
    home = client.get_experiment(experiment if experiment is not None else _current(client))
    shown = client.search_runs(query, experiment=home.name, limit=limit)
    entries = [*_entries(shown, client.list_runs(home.name), only)]
    if as_json:
        return terminal.show(terminal.as_json([_content(client, each) for each in entries]))
    if not entries:
        return click.echo(
            f"there are no runs in {terminal.printable(home.name)}{' that fit' if query else ''}", err=True
        )
    if oneline:
        return terminal.show(map(_line, entries))
    lines = [line for each in entries for line in ("", *_page(each, everything))]
    return terminal.show(lines[1:])


def _current(client: Client) -> str:
    import os

    named = os.environ.get("MLCORE_EXPERIMENT")
    return named or c.find_run(client, c.LAST).experiment_id


def _entries(shown: Iterable[Run], every: Sequence[Run], only: tuple[str, ...]) -> Iterator[_Entry]:
    earlier: dict[str, Run] = {}
    latest: dict[str | None, Run] = {}
    for run in reversed(every):  # the oldest first
        if run.parent_run_id in latest:
            earlier[run.id] = latest[run.parent_run_id]
        latest[run.parent_run_id] = run
    for run in shown:
        before = earlier.get(run.id)
        old = before.params if before else {}
        keys = dict.fromkeys([*run.params, *old])
        params = {key: (old.get(key), run.params.get(key)) for key in keys if _said(old, key) != _said(run.params, key)}
        known = before.metrics if before else {}
        metrics = {key: (known.get(key), value) for key, value in run.metrics.items() if not only or key in only}
        yield _Entry(run, before, params, metrics)


def _said(values: Mapping[str, Any], key: str) -> str | None:
    return repr(values[key]) if key in values else None


def _content(client: Client, entry: _Entry) -> dict[str, Any]:
    def named(pairs: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
        return {key: {"before": before, "now": now} for key, (before, now) in pairs.items()}

    found = c.described(entry.run, c.experiments_by_id(client))
    compared = entry.before.id if entry.before else None
    return found | {
        "compared_with": compared,
        "changed_params": named(entry.params),
        "changed_metrics": named(entry.metrics),
    }


def _page(entry: _Entry, everything: bool) -> Iterator[str]:
    run, text = entry.run, terminal.printable
    yield f"{terminal.styled(f'run {run.id}', fg='yellow')}  {terminal.status(text(run.status))}"
    yield f"Name:     {text(run.name)}"
    if run.user:
        yield f"Author:   {text(run.user)}"
    yield f"Started:  {c.moment(run.start_time, seconds=True)}, took {c.duration(c.lasted(run))}"
    if run.parent_run_id:
        yield f"Inside:   {run.parent_run_id}"
    for label, value in run.tags.items() if everything else ():
        yield f"Tag:      {text(label)}={text(value)}"
    if run.note:
        yield ""
        yield from (f"    {text(line)}" for line in run.note.splitlines())
    changed = [_change(key, *pair, first=entry.before is None) for key, pair in entry.params.items()]
    if everything:
        changed += [f"{text(key)}={text(value)}" for key, value in run.params.items() if key not in entry.params]
    metrics = [_measured(key, *pair) for key, pair in entry.metrics.items()]
    for title, lines in (("params", changed), ("metrics", metrics)):
        if lines:
            yield ""
            yield f"  {title}{_against(entry) if entry.before else ''}"
            shown = lines if everything or len(lines) <= _MOST else lines[: _MOST - 1]
            yield from (f"    {terminal.cut(line, (terminal.room() or len(line) * 2 + 4) - 4)}" for line in shown)
            if len(shown) < len(lines):
                yield f"    and {len(lines) - len(shown)} more: --all shows them"


def _against(entry: _Entry) -> str:
    assert entry.before is not None
    return terminal.styled(f", against {entry.before.id[-8:]} {terminal.printable(entry.before.name)}", dim=True)


def _change(key: str, before: Any, now: Any, *, first: bool) -> str:
    text = terminal.printable
    if first:
        return f"{text(key)}={text(now)}"
    if before is None or now is None:
        return f"+ {text(key)}={text(now)}" if before is None else f"- {text(key)}={text(before)}"
    return f"~ {text(key)}: {text(before)} -> {text(now)}"


def _measured(key: str, before: float | None, now: float) -> str:
    change = "" if before is None or not math.isfinite(now - before) else f"  ({now - before:+.4g})"
    return f"{terminal.printable(key)}={terminal.printable(now)}{change}"


def _line(entry: _Entry) -> str:
    run, text = entry.run, terminal.printable
    id = run.id[-8:] if terminal.interactive() else run.id
    parts = [terminal.styled(id, fg="yellow"), terminal.status(text(run.status)), text(run.name)]
    parts += [f"{text(key)}={text(now)}" for key, (_, now) in entry.metrics.items()]
    changed = [] if entry.before is None else [_change(key, *pair, first=False) for key, pair in entry.params.items()]
    line, limit = "  ".join([*parts, *changed]), terminal.room()
    return line if limit is None else _fitting(parts, changed, limit)


def _fitting(parts: list[str], changed: list[str], limit: int) -> str:
    """Return a line with as many of the parts as there is room for; the first two may be in colour."""
    line, used = "  ".join(parts[:2]), 8 + 2 + terminal.width(click.unstyle(parts[1]))
    for part in (*parts[2:], *changed):
        if used + 2 + terminal.width(part) > limit:
            return f"{line} …" if used + 2 <= limit else line
        line, used = f"{line}  {part}", used + 2 + terminal.width(part)
    return line
