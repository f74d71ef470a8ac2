"""``mlcore runs``: look at runs, change what is said of them, and log from shell scripts."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mlcore import Client, Dataset, Run
from mlcore.cli import Group
from mlcore.errors import InvalidValue, RunStateError, StoreError
from mlcore_local import columns as c, completing, terminal
from mlcore_local.arguments import JSON, LIMIT, METRIC, RUN, STORE

if TYPE_CHECKING:
    from logging import LogRecord

    from mlcore_local.follow import Point

__all__ = ["runs"]

_LAST_DIGITS = 8
_TIMES = ("start_time", "end_time", "last_seen")
_OWN = ("id", "duration", *_TIMES)  # columns that are shown otherwise than their values are written


@click.group(cls=Group, no_args_is_help=True)
def runs() -> None:
    """List, compare, change, log and watch runs.

    RUN is a run's id, the beginning or end of one, a name that only one run has, or @last, the run that started last.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand != "list":  # which writes nothing, and is waited for most often
        ctx.with_resource(_told_once())


@contextmanager
def _told_once() -> Iterator[None]:
    """Leave out, of what cannot be written, the warning that is for a training: a command fails, and says so."""
    import logging

    log = logging.getLogger("mlcore")
    log.addFilter(_for_a_command)
    try:
        yield
    finally:
        log.removeFilter(_for_a_command)


def _for_a_command(record: LogRecord) -> bool:
    return "training goes on" not in str(record.msg)


def _command(example: str, *, as_json: bool = True) -> Callable[[Callable[..., Any]], click.Command]:
    def make(function: Callable[..., Any]) -> click.Command:
        if as_json:
            function = JSON(function)
        name, epilog = example.split(maxsplit=1)[0], f"Example: mlcore runs {example}"
        return runs.command(name, epilog=epilog)(STORE(function))

    return make


_many = click.argument("run", nargs=-1, required=True, shell_complete=completing.run)


@_command("list --filter 'metrics.accuracy.valid > 0.9' --sort 'duration desc' --columns name,accuracy.*")
@click.option(
    "--experiment", "-e", envvar="MLCORE_EXPERIMENT", default="*", shell_complete=completing.experiment,
    help="Only the runs of this one, by name or id; else that of MLCORE_EXPERIMENT, or all.",
)  # fmt: skip
@click.option("--filter", "-f", "query", metavar="QUERY", help="Only runs that fit, such as: params.lr < 0.1.")
@click.option(
    "--sort",
    "-s",
    multiple=True,
    metavar="NAME [desc]",
    help="Order by this; repeatable.",
    shell_complete=completing.order,
)
@click.option(
    "--columns",
    "-c",
    multiple=True,
    metavar="NAMES",
    help="What to show, such as name,loss,params.*; repeatable.",
    shell_complete=completing.columns,
)
@LIMIT
@click.option("--deleted", is_flag=True, help="Deleted runs, too.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def list_runs(
    *, experiment: str, query: str | None, sort: tuple[str, ...], columns: tuple[str, ...], limit: int | None,
    deleted: bool, as_csv: bool, uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """List the runs that fit, the newest first."""
    client = Client(uri)
    asked = list(_named(columns))
    families = (*c.FAMILIES, *(["context"] if any(name.startswith("context.") for name in asked) else []))
    with c.one_look(client):
        found = client.search_runs(
            query, experiment=experiment, order_by=sort, limit=limit, include_deleted=deleted, select=families
        )
        homes = c.experiments_by_id(client)
    if as_json:
        return terminal.show(terminal.as_json(c.described(run, homes) for run in found))
    rows = [c.values_of(run, homes, c.FIELDS if asked or as_csv else c.TOLD, families) for run in found[:]]
    if as_csv:
        names = c.chosen(rows, asked) if asked else [*c.FIELDS, *sorted(c.keys(rows))]
        return terminal.show(terminal.as_csv(names, ([row.get(name) for name in names] for row in rows)))
    if not rows:
        where = "" if experiment == "*" else f" in {terminal.printable(experiment)}"
        return click.echo(f"there are no runs{where}{' that fit' if query else ''}", err=True)
    return _table(rows, c.chosen(rows, asked)) if asked else _table(rows, *c.worth(rows))


def _named(columns: Iterable[str]) -> Iterator[str]:
    import csv  # who names no column does not wait for it

    for each in columns:
        names = next(csv.reader([each], skipinitialspace=True), [])
        yield from (name.strip() for name in names if name.strip())


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str], others: Iterable[str] = ()) -> None:
    short = terminal.interactive()
    columns = [_cells(name, [row.get(name) for row in rows], short=short) for name in names]
    table = terminal.Table([_title(name, names) for name in names], zip(*columns, strict=True))
    terminal.show(table.lines())
    if left_out := [*table.left_out, *map(terminal.printable, others)]:
        terminal.remark(f"and {len(left_out)} more for --columns: {', '.join(left_out)}")


def _title(name: str, names: Sequence[str]) -> str:
    short = name.removeprefix("metrics.") if name.startswith("metrics.") else name
    return {"start_time": "started", "end_time": "ended"}.get(short, short if short not in names else name)


def _cells(name: str, values: list[Any], *, short: bool) -> list[Any]:
    return [_cell(name, value, short=short) for value in values] if name in _OWN else values


def _cell(name: str, value: Any, *, short: bool) -> Any:
    if name == "id":
        return value[-_LAST_DIGITS:] if short else value
    if name in _TIMES:
        return c.ago(value) if short and value is not None else c.moment(value)
    return c.duration(value) if name == "duration" else value


@_command("show @last")
@RUN
def show(run: str, uri: str | None, as_json: bool) -> None:
    """Show all of a run: what it was given, what it measured, and what it keeps."""
    client = Client(uri)
    found = c.find_run(client, run)
    homes = c.experiments_by_id(client)
    summaries = _summaries(client, found)
    if as_json:
        content = c.described(found, homes) | {
            "context": found.context,
            "summaries": summaries,
            "models": [{"name": each.name, "flavor": each.flavor, "uri": each.uri} for each in found.models],
            "datasets": [
                {"name": each.name, "digest": each.digest, "context": each.context, "source": each.source}
                | {"about": each.about, "profile": each.profile}
                for each in found.datasets
            ],
            "files": [{"path": each.path, "size": each.size, "sha256": each.sha256} for each in found.artifacts.list()],
        }
        return terminal.show(terminal.as_json(content))
    return terminal.show(_page(found, c.values_of(found, homes), summaries))


def _summaries(client: Client, run: Run) -> dict[str, dict[str, Any]]:
    """Return the summary of each metric of a run."""
    try:
        entity = client.store.get("run", [run.id])[0]
    except StoreError:  # what waits to be sent there will do
        entity = None if client.spool is None else client.spool.get("run", run.id)
        if entity is None:
            raise
    names = {"last": "value", "min": "min", "max": "max", "count": "count", "step": "step", "time": "time"}
    return {
        key: {name: getattr(each, source) for name, source in names.items()}
        for (key, context), each in (entity.metrics.items() if entity else ())
        if not context
    }


def _page(run: Run, values: Mapping[str, Any], summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    text = terminal.printable
    lines = [f"{terminal.styled(text(run.name), bold=True)}  {terminal.status(text(run.status))}"]
    about = {"id": run.id, "experiment": values["experiment"], "user": run.user}
    about |= {"started": c.moment(run.start_time, seconds=True)}
    about |= {"ended": c.moment(run.end_time, seconds=True), "duration": c.duration(values["duration"])}
    if run.status in ("RUNNING", "LOST"):
        about["last seen"] = c.ago(run.last_seen)
    about |= {"inside": run.parent_run_id, "folder": run.folder, "deleted": True if run.deleted else None}
    lines += _pairs({key: value for key, value in about.items() if value is not None}, "")
    if run.note:
        lines += _titled("note", [f"  {text(line)}" for line in run.note.splitlines()])
    if summaries:
        shown = ("last", "min", "max", "count", "step")
        table = terminal.Table(
            ["metrics", *shown], ([key, *(each[name] for name in shown)] for key, each in summaries.items())
        )
        lines += ["", *table.lines()]
    for family in ("params", "tags"):
        if found := getattr(run, family):
            lines += _titled(family, _pairs(found))
    if data := run.datasets:
        lines += _titled("datasets", _datasets(data))
    if known := {key: _short(value) for key, value in run.context.items() if key != "captured"}:
        lines += _titled("context", (terminal.cut(line, terminal.room() or 200) for line in _pairs(known)))
    if run.models:
        lines += _titled("models", [f"  {text(each.uri)}  {text(each.flavor)}" for each in run.models])
    if files := run.artifacts.list():
        sizes = [f"{each.size:,}" for each in files]
        digits = max(map(len, sizes))
        lines += _titled(
            "files", [f"  {size:>{digits}}  {text(each.path)}" for size, each in zip(sizes, files, strict=True)]
        )
    for conflict in run.conflicts:
        lines.append(
            f"conflict: {text(conflict.family)}.{text(conflict.name)} was {text(repr(conflict.value))} elsewhere"
        )
    return lines


def _datasets(found: Iterable[Dataset]) -> Iterator[str]:
    """Yield a line for each data set: its name, digest, what it was used for, and how much it is."""
    text = terminal.printable
    for each in found:
        sizes = (f"{each.about[key]:,} {key}" for key in ("rows", "columns", "files") if key in each.about)
        told = (each.context, ", ".join(sizes), each.source)
        yield "  ".join(["", text(each.name), each.digest[:12], *(text(it) for it in told if it)])


def _short(value: Any) -> Any:
    """Return a list as one text, a long one as its length."""
    if not isinstance(value, list):
        return value
    import shlex

    texts = [each if isinstance(each, str) else json.dumps(each) for each in value]
    return shlex.join(texts) if len(texts) <= 20 and sum(map(len, texts)) <= 400 else f"{len(texts)} of them, in --json"


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    return ["", terminal.styled(title, bold=True), *lines]


def _pairs(values: Mapping[str, Any], indent: str = "  ") -> list[str]:
    shown = {terminal.printable(key): terminal.printable(value) for key, value in values.items()}
    most = min(40, max(map(terminal.width, shown), default=0))
    return [f"{indent}{key}{' ' * max(0, most - terminal.width(key))}  {value}" for key, value in shown.items()]


@_command("compare @last 5b0540c9")
@_many
@click.option("--all", "everything", is_flag=True, help="Also in what they are alike.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def compare(run: tuple[str, ...], everything: bool, as_csv: bool, uri: str | None, as_json: bool) -> None:
    """Compare runs: a column each, in the rows what they differ in."""
    client = Client(uri)
    found = [c.find_run(client, each) for each in run]
    if len(found) < 2:
        raise click.UsageError("comparing takes two runs or more")
    homes = c.experiments_by_id(client)
    rows = [c.values_of(each, homes) for each in found]
    names = ["name", "status", "experiment", "start_time", "duration", "parent_run_id", "note", *c.keys(rows)]
    alike = {name for name in names if len({repr(row.get(name)) for row in rows}) == 1}
    kept = [name for name in names if everything or name not in alike]
    if as_json:
        content = {name: [row.get(name) for row in rows] for name in kept}
        return terminal.show(terminal.as_json({"runs": [each.id for each in found], "values": content}))
    if as_csv:
        lines = ([name, *(row.get(name) for row in rows)] for name in kept)
        return terminal.show(terminal.as_csv(["", *(each.id for each in found)], lines))
    short = terminal.interactive()
    shares = _shares(kept, len(found))
    narrow = short and shares[-1] < 10  # where a number that is cut would be read as another one
    cells = [
        [
            _title(name, ()) if name in ("start_time", "end_time") else name,
            *(f"{it:.3g}" if narrow and isinstance(it, float) else it for it in values),
        ]
        for name, values in ((name, _cells(name, [row.get(name) for row in rows], short=short)) for name in kept)
    ]
    heads = [_cell("id", each.id, short=short) for each in found]
    table = terminal.Table(["", *heads], cells, most=shares)
    terminal.show(table.lines())
    if alike and not everything:
        terminal.remark(f"alike in {len(alike)} more: --all shows them")
    if table.left_out:
        terminal.remark(f"no room for {len(table.left_out)} more runs: --csv has all")
    return None


def _shares(names: Iterable[str], runs: int) -> list[int]:
    """Return how wide the columns of a comparison may be: the names whole if they leave some room for the runs."""
    whole = max(map(terminal.width, names), default=0)
    limit = terminal.room() or 200
    first = min(whole, max(limit // 3, limit - 14 * runs))
    return [first, *[max(8, (limit - first) // runs - 2)] * runs]


@_command("tag @last verdict=good --remove draft")
@RUN
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", "gone", multiple=True, metavar="KEY", help="Remove a tag; can be repeated.")
def tag(run: str, tags: tuple[str, ...], gone: tuple[str, ...], uri: str | None, as_json: bool) -> None:
    """Set and remove tags of a run; values are text. Without any it prints the tags."""
    client = Client(uri)
    found = c.find_run(client, run)
    given = dict(map(c.pair, tags))
    for key in gone:
        found.remove_tag(key)
    if given:
        found.set_tags(given)
    _tell(client, [found], as_json, _pairs(found.tags, ""))


@_command("note @last 'The loss still falls: *train longer*.'")
@RUN
@click.argument("text", required=False)
@click.option("--edit", is_flag=True, help="Write it in your editor.")
def note(run: str, text: str | None, edit: bool, uri: str | None, as_json: bool) -> None:
    """Set the note of a run, as Markdown; - reads it from standard input. Without a text it prints the note."""
    client = Client(uri)
    found = c.find_run(client, run)
    if edit:
        text = click.edit(found.note, extension=".md")
    elif text == "-":
        text = sys.stdin.read()
    if text is not None:
        found.set_note(text.rstrip("\n"))
    _tell(client, [found], as_json, (terminal.printable(line) for line in found.note.splitlines()))


@_command("delete 5b0540c9 7899486e")
@_many
def delete(run: tuple[str, ...], uri: str | None, as_json: bool) -> None:
    """Hide runs until they are restored; nothing of them is lost."""
    _hide(run, uri, as_json, Run.delete, "deleted")


@_command("restore 5b0540c9")
@_many
def restore(run: tuple[str, ...], uri: str | None, as_json: bool) -> None:
    """Show deleted runs again."""
    _hide(run, uri, as_json, Run.restore, "restored")


def _hide(given: Iterable[str], uri: str | None, as_json: bool, act: Callable[[Run], None], done: str) -> None:
    client = Client(uri)
    found = [c.find_run(client, each) for each in given]  # all of them, before the first is changed
    for run in found:
        act(run)
    _tell(client, found, as_json, (f"{done} {run.id} {terminal.printable(run.name)}" for run in found))


def _tell(client: Client, found: Sequence[Run], as_json: bool, lines: Iterable[str]) -> None:
    """Print runs after they were changed, as JSON or in the given lines."""
    if as_json:
        homes = c.experiments_by_id(client)
        content = [c.described(run, homes) for run in found]
        lines = terminal.as_json(content if len(content) > 1 else content[0])
    terminal.show(lines)


@_command("start --experiment digits --name 'from the shell' --param lr=0.1")
@click.option("--name", help="The name to show; by default one to remember.")
@click.option(
    "--experiment", "-e", help="By default MLCORE_EXPERIMENT, or Default.", shell_complete=completing.experiment
)
@click.option(
    "--param", "-p", "params", multiple=True, metavar="KEY=VALUE", help="A parameter, its value as JSON or text."
)
@click.option("--tag", "-t", "tags", multiple=True, metavar="KEY=VALUE", help="A tag, its value as text.")
@click.option("--inside", metavar="RUN", help="The run that this one is a part of.", shell_complete=completing.run)
@click.option("--key", help="Go on with the run of this key, if there is one.")
@click.option(
    "--process", type=click.IntRange(min=1), metavar="PID",
    help="Whose run it is: LOST if this process ends before it. By default whoever calls mlcore; 1 is the machine.",
)  # fmt: skip
def start(
    *, name: str | None, experiment: str | None, params: tuple[str, ...], tags: tuple[str, ...], inside: str | None,
    key: str | None, process: int | None, uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Start a run and print its id; it goes on until `mlcore runs end`, or is lost when its process ends."""
    client = Client(uri)
    parent = None if inside is None else c.find_run(client, inside)
    given, said = dict(map(_param, params)), dict(map(c.pair, tags))
    with _for_process(process or os.getppid()):
        from mlcore_local import context

        capture = context.allowed("python", "packages", "seeds")  # those are of whatever logs into it
        run = client.start_run(name=name, experiment=experiment, tags=said, parent=parent, key=key, capture=capture)
        run.log_params(given)
        run.leave()
    _tell(client, [run], as_json, [run.id])


@contextmanager
def _for_process(pid: int) -> Iterator[None]:
    before = os.environ.get("MLCORE_PROCESS")
    os.environ["MLCORE_PROCESS"] = str(pid)
    try:
        yield
    finally:
        os.environ.pop("MLCORE_PROCESS") if before is None else os.environ.update(MLCORE_PROCESS=before)


@_command("log @last loss=0.3 acc=0.9 --step 4")
@RUN
@click.argument("metrics", nargs=-1, metavar="[KEY=NUMBER]...")
@click.option("--step", "-s", type=int, help="By default the one after the last of each metric.")
@click.option(
    "--param", "-p", "params", multiple=True, metavar="KEY=VALUE", help="A parameter, its value as JSON or text."
)
def log(
    run: str, metrics: tuple[str, ...], step: int | None, params: tuple[str, ...], uri: str | None, as_json: bool
) -> None:
    """Log metrics and parameters to a run that has not ended; prints nothing."""
    if not metrics and not params:
        raise click.UsageError("nothing to log: give KEY=NUMBER or --param KEY=VALUE")
    client = Client(uri)
    found = c.find_run(client, run)
    numbers, given = dict(map(_number, metrics)), dict(map(_param, params))
    if found.status not in ("RUNNING", "LOST"):
        raise RunStateError(f"run {terminal.printable(found.name)} ({found.id}) has ended, as {found.status}")
    last = (
        {}
        if step is not None or not numbers
        else {key: each["step"] for key, each in _summaries(client, found).items()}
    )
    together: dict[int, dict[str, float]] = {}
    for key, value in numbers.items():
        together.setdefault(last.get(key, -1) + 1 if step is None else step, {})[key] = value
    found.log_params(given)
    for at, values in sorted(together.items()):
        found.log_metrics(values, step=at)
    found.leave()
    if as_json:
        found.refresh()
        _tell(client, [found], as_json, ())


@_command("end @last --status FAILED")
@_many
@click.option(
    "--status", default="FINISHED", show_default=True, help="How.",
    type=click.Choice(["FINISHED", "FAILED", "KILLED"], case_sensitive=False),
)  # fmt: skip
def end(run: tuple[str, ...], status: str, uri: str | None, as_json: bool) -> None:
    """End runs that go on or are lost, whichever process started them."""
    client = Client(uri)
    found = [c.find_run(client, each) for each in run]
    for each in found:
        if each.status not in ("RUNNING", "LOST"):
            raise RunStateError(f"run {terminal.printable(each.name)} ({each.id}) has ended already, as {each.status}")
    for each in found:
        each.end(status)
    _tell(client, found, as_json, (f"{each.status} {each.id} {terminal.printable(each.name)}" for each in found))


@_command("watch @last --interval 5")
@RUN
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between looks."
)
@METRIC
@click.option(
    "--tail", "-n", type=click.IntRange(min=0), default=10, show_default=True, help="Steps of before to show."
)
def watch(run: str, interval: float, only: tuple[str, ...], tail: int, uri: str | None, as_json: bool) -> None:
    """Print the points of a run as they come, until it ends or Ctrl-C; --json prints a line for each point."""
    from mlcore_local.follow import Points

    client = Client(uri)
    found = c.find_run(client, run)
    about = f"{terminal.printable(found.name)} ({found.id[-_LAST_DIGITS:]})"
    click.echo(f"watching {about}, {found.status}; Ctrl-C ends", err=True)
    points = Points(client, found, only)
    try:
        fresh = points.fresh()
        steps = sorted({point.step for point in fresh})
        first = steps[-tail] if 0 < tail <= len(steps) else None
        _print_points([each for each in fresh if tail and (first is None or each.step >= first)], as_json)
        going = found.status == "RUNNING"
        while going:
            time.sleep(interval)
            found.refresh()
            going = found.status == "RUNNING"  # before its points, so that the last ones are seen
            _print_points(points.fresh(), as_json)
        click.echo(f"{about} is {found.status}, after {c.duration(c.lasted(found))}", err=True)
    except KeyboardInterrupt:
        click.echo(err=True)


def _print_points(points: Sequence[Point], as_json: bool) -> None:
    if as_json:
        for each in points:
            click.echo(
                json.dumps({"key": each.key, "step": each.step, "time": each.time, "value": terminal.plain(each.value)})
            )
        return
    steps: dict[int, dict[str, Point]] = {}
    for each in points:
        steps.setdefault(each.step, {})[each.key] = each
    for step, found in sorted(steps.items()):
        told = "  ".join(f"{terminal.printable(each.key)}={each.value:.6g}" for each in found.values())
        click.echo(f"{c.clock(max(each.time for each in found.values()))}  step {step}  {told}")


def _param(text: str) -> tuple[str, Any]:
    key, value = c.pair(text)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _number(text: str) -> tuple[str, float]:
    key, value = c.pair(text)
    try:
        return key, float(value)
    except ValueError:
        raise InvalidValue(f"metric {key!r}: {value!r} is no number") from None
