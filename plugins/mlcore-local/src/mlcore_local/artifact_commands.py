"""``mlcore artifacts``: the files of a run, from the shell."""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableSequence, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from mlcore import Artifact, Client, Listing, Run
from mlcore.errors import MlcoreError
from mlcore_local import columns as c, completing, terminal
from mlcore_local.arguments import JSON, RUN, STORE
from mlcore_local.cache_commands import cache

__all__ = ["artifacts"]


@click.group()
def artifacts() -> None:
    """List, get, put, copy and verify the files of runs.

    RUN is a run's id, the beginning or end of one, a name that only one run has, or @last, the run that started last.
    """


artifacts.add_command(cache)


def _command(example: str) -> Callable[[Callable[..., Any]], click.Command]:
    def make(function: Callable[..., Any]) -> click.Command:
        return artifacts.command(epilog=f"Example: mlcore artifacts {example}")(STORE(JSON(function)))

    return make


@_command("list @last plots")
@RUN
@click.argument("prefix", default="", shell_complete=completing.files)
def list(run: str, prefix: str, uri: str | None, as_json: bool) -> None:  # noqa: A001 - the command's word
    """List the files of RUN, or of the folder PREFIX in them."""
    _show(_run(run, uri).artifacts.list(prefix), as_json)


@_command("get @last model best-model")
@RUN
@click.argument("name", shell_complete=completing.files)
@click.argument("dst", required=False, type=click.Path(path_type=Path))
def get(run: str, name: str, dst: Path | None, uri: str | None, as_json: bool) -> None:
    """Copy the file or folder NAME of RUN to DST, or here under its own name; its sha256 is checked."""
    path = _run(run, uri).artifacts.get(name, Path(Path(name).name) if dst is None else dst)
    terminal.show(terminal.as_json({"path": str(path)}) if as_json else [terminal.printable(path)])


@_command("put @last report.pdf reports/final.pdf")
@RUN
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.argument("name", required=False)
def put(run: str, path: Path, name: str | None, uri: str | None, as_json: bool) -> None:
    """Keep the file or folder PATH with RUN, as NAME or under its own name."""
    kept = _run(run, uri)
    kept.log_artifact(path, name)
    _show(kept.artifacts.list(path.resolve().name if name is None else name), as_json)


@_command("sync runs:/@last/model s3://bucket/models/digits --dry-run")
@click.argument("src")
@click.argument("dst")
@click.option("--delete", is_flag=True, help="Remove from DST what SRC does not have; not from a run.")
@click.option("--size-only", is_flag=True, help="Take files of one name and size for the same, and read neither.")
@click.option("--dry-run", "-n", is_flag=True, help="Only tell what would be done.")
def sync(src: str, dst: str, *, delete: bool, size_only: bool, dry_run: bool, uri: str | None, as_json: bool) -> None:
    """Copy to DST the files of SRC that it lacks, or has others of, by their sha256.

    A place is a path, a URI such as s3://bucket/folder, runs:/RUN/folder, or, as SRC, models:/NAME/3. Each file appears
    whole or not at all. What was copied before it was stopped is not copied again.
    """
    from mlcore_local import copying

    if dst.startswith("models:/"):
        raise click.UsageError("a version of a model does not change: `mlcore registry register` makes another")
    client = Client(uri)
    source, target = copying.find_place(client, src), copying.find_place(client, dst)
    planned = copying.plan(source, target, delete=delete, size_only=size_only)
    if not dry_run:
        with click.progressbar(
            length=planned.size, label="copying", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            for size in copying.copy(planned, target):
                bar.update(size)
    if as_json:
        told = {"copied": [*planned.copied], "bytes": planned.size, "same": planned.same, "removed": planned.removed}
        return terminal.show(terminal.as_json(told))
    would = "would be " if dry_run else ""
    lines = [f"{would}copied: {terminal.printable(name)}" for name in planned.copied]
    lines += [f"{would}removed: {terminal.printable(name)}" for name in planned.removed]
    count = terminal.counted(len(planned.copied), "file")
    return terminal.show([*lines, f"{count}, {planned.size:,} bytes {would}copied; {planned.same:,} the same"])


@_command("verify --filter 'metrics.accuracy.valid > 0.9'")
@click.argument("run", nargs=-1, shell_complete=completing.run)
@click.option("--all", "everything", is_flag=True, help="All runs that are not deleted.")
@click.option("--filter", "-f", "query", metavar="QUERY", help="Runs that fit, such as: params.lr < 0.1.")
@click.option("--experiment", "-e", help="Runs of this one, by name or id.", shell_complete=completing.experiment)
def verify(
    run: tuple[str, ...], *, everything: bool, query: str | None, experiment: str | None, uri: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Read all files of RUN, which may also be a model as models:/NAME/3, or of many runs.

    Exit code 1 if one is missing or not what was stored.
    """
    many = everything or query is not None or experiment is not None
    if not many and not run:
        raise click.UsageError("say what to verify: a RUN, models:/NAME/3, --filter, --experiment or --all")
    client = Client(uri)
    found = client.search_runs(query, experiment=experiment or "*", select="name") if many else ()
    named = (each if each.startswith("models:/") else c.find_run(client, each).id for each in run)
    wanted = dict.fromkeys([*(each.id for each in found), *named])  # ids alone: there may be many
    wrong: MutableSequence[tuple[str, Artifact]] = []
    count = 0
    with click.progressbar(
        wanted, label="verifying", file=sys.stderr, hidden=len(wanted) < 2 or not sys.stderr.isatty()
    ) as bar:
        for of in bar:
            read, problems = _verified(client, of)
            count += read
            wrong.extend((of, each) for each in problems)
    if as_json:
        terminal.show(terminal.as_json([{"of": of, **attrs.asdict(each)} for of, each in wrong]))
    else:
        heads = {of: f"{of}: " if len(wanted) > 1 else "" for of in wanted}
        lines = [f"{heads[of]}{terminal.printable(each.path)}: {each.problem}" for of, each in wrong]
        told = f"{terminal.counted(count, 'file')}, {terminal.counted(len(wrong), 'problem')}"
        terminal.show([*lines, f"{len(wanted):,} verified: {told}" if len(wanted) > 1 else told])
    sys.exit(1 if wrong else 0)


def _verified(client: Client, of: str) -> tuple[int, Sequence[Artifact]]:
    """Return how many files a run or a model has, and those that are wrong."""
    if not of.startswith("models:/"):
        kept = client.get_run(of).artifacts
        wrong = kept.verify()
        return len(kept.list()), wrong
    try:
        info = client.get_model(of)
        info.verify()
    except MlcoreError as error:
        return 0, [Artifact(of, 0, "", problem=str(error))]
    return sum(each.is_file() for each in info.folder.rglob("*")), []


def _run(id: str, uri: str | None) -> Run:
    return c.find_run(Client(uri), id)


def _show(found: Listing[Artifact], as_json: bool) -> None:
    if as_json:
        return terminal.show(terminal.as_json([attrs.asdict(each) for each in found]))
    if not found:
        return click.echo("there are no files", err=True)
    names = ["size", "sha256", "path", *(["kept at"] if any(each.uri for each in found) else [])]
    rows = ([each.size, each.sha256[:12], each.path, each.uri or None][: len(names)] for each in found)
    return terminal.show_table(names, rows, most=1000)
