"""``mlcore reproduce``: make a run again, and print what differs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from mlcore import Client, Run
from mlcore.errors import InvalidValue, MlcoreError
from mlcore_local import columns, terminal
from mlcore_local.arguments import JSON, RUN, STORE
from mlcore_local.diff_commands import shown
from mlcore_local.differences import PARTS
from mlcore_projects.checks import Check, CheckResult, parse_check
from mlcore_projects.progress import Steps
from mlcore_projects.reproducing import RESULTS, Prepared, Reproduced, prepare, reproduce
from mlcore_projects.run_commands import INTERRUPTED, pairs, sigterm, to_stderr

__all__ = ["command"]

_DIFFERS, _NOT_MADE = 1, 3
_SINGULAR = ("code", "command", "environment")


def _checks(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[Check, ...]:
    try:
        return tuple(map(parse_check, given))
    except InvalidValue as error:
        raise click.BadParameter(str(error).removeprefix("--check "), ctx, param) from error


def _versions(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found = {name.strip(): version.strip() for name, _, version in (each.partition("==") for each in given)}
    if not all(name and version for name, version in found.items()):
        raise click.BadParameter("a package is given as NAME==VERSION", ctx, param)
    return found


@click.command(epilog='Example: mlcore reproduce @last --check "accuracy +- 0.001" --check "loss +- 5%"')
@RUN
@click.option(
    "--check", "-c", "checks", multiple=True, metavar="CHECK", callback=_checks,
    help="What a metric must be: 'accuracy +- 0.001', 'loss +- 5%', 'accuracy >= 0.9'; can be repeated.",
)  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder, or one that --prepare made.")
@click.option("--env", "environment", metavar="KIND", help="venv, uv, or system, the Python that runs this.")
@click.option(
    "--param", "-P", "params", multiple=True, metavar="NAME=VALUE", callback=pairs,
    help="A parameter with another value; can be repeated.",
)  # fmt: skip
@click.option(
    "--with", "versions", multiple=True, metavar="NAME==VERSION", callback=_versions,
    help="A package in another version; can be repeated.",
)  # fmt: skip
@click.option("--runner", metavar="RUNNER", help="Where it runs; by default local, on this machine.")
@click.option("--prepare", "only_prepare", is_flag=True, help="Make the folder and the environment, and run nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Do not tell what is being made.")
@STORE
@JSON
@click.pass_context
def command(
    ctx: click.Context, *, run: str, checks: tuple[Check, ...], folder: Path | None, environment: str | None,
    params: dict[str, str], versions: dict[str, str], runner: str | None, only_prepare: bool, quiet: bool,
    uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make a run again, in a new folder and environment, and print what differs.

    The code comes from its repository and from what the run kept, the environment from its lock or the packages that it
    saw. All that went in and came out must be the same; with --check, of what came out only the metrics that are named.

    Exit codes: 0 nothing that is checked differs, 1 something does, 2 wrong usage, 3 it could not be made again.
    What the run prints goes to stderr.
    """
    tell = None if quiet else Steps()
    about: dict[str, Any] = {"folder": folder, "environment": environment, "versions": versions}
    about |= {"store": uri, "tell": tell}
    try:
        original = columns.find_run(Client(uri), run)
        with sigterm(), to_stderr(True):
            if only_prepare:
                found: Prepared | Reproduced = prepare(original, **about)
            else:
                found = reproduce(original, check=checks, parameters=params, runner=runner, **about)
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    except (MlcoreError, OSError) as error:
        click.echo("mlcore: " + "\n".join(map(terminal.printable, str(error).splitlines())), err=True)
        ctx.exit(_NOT_MADE)
    for each in found.notes:
        click.echo(f"mlcore: {terminal.printable(each)}", err=True)
    if isinstance(found, Prepared):
        terminal.show(terminal.as_json(_prepared(found)) if as_json else _next(found, uri))
        ctx.exit()
    terminal.show(terminal.as_json(_content(found)) if as_json else _report(found))
    for each in found.differences.unknown:
        click.echo(f"mlcore: not compared: {terminal.printable(each)}", err=True)
    ctx.exit(0 if found.same else _DIFFERS)


def _prepared(found: Prepared) -> dict[str, Any]:
    return {
        "run": found.original.id, "folder": str(found.folder), "tree": found.tree,
        "environment": found.environment.kind, "python": str(found.environment.python), "notes": list(found.notes),
    }  # fmt: skip


def _next(found: Prepared, uri: str | None) -> Iterator[str]:
    where = [] if uri is None else ["--store", uri]
    again = ["mlcore", "reproduce", found.original.id[-8:], "--folder", os.path.relpath(found.folder), *where]
    yield from _pairs({
        "folder": os.path.relpath(found.folder), "tree": found.tree or "none", "python": str(found.environment.python),
        "go on": shlex.join(again),
    })  # fmt: skip


def _pairs(told: dict[str, str]) -> Iterator[str]:
    width = max(map(len, told))
    for name, value in told.items():
        yield f"{terminal.styled(name, bold=True)}{' ' * (width - len(name))}  {terminal.printable(value)}"


def _named(run: Run) -> str:
    return f"{run.name} ({run.id[-8:]})"


def _content(found: Reproduced) -> dict[str, Any]:
    return {
        "run": found.run.id, "reproduces": found.original.id, "same": found.same, "status": found.run.status,
        "differing": list(found.differing), "folder": str(found.folder) if found.folder.exists() else None,
        "tree": [found.original.context.get("git.tree"), found.run.context.get("git.tree")],
        "differences": {part: [attrs.asdict(each) for each in getattr(found.differences, part)] for part in PARTS},
        "checks": [{**attrs.asdict(each), "check": str(each.check)} for each in found.checks],
        "unknown": list(found.differences.unknown), "notes": list(found.notes),
    }  # fmt: skip


def _report(found: Reproduced) -> Iterator[str]:
    yield from _pairs({"run": _named(found.run), "reproduces": _named(found.original)})
    if found.run.status != found.original.status:
        yield f"it is {found.run.status}, and was {found.original.status}: mlcore runs show {found.run.id[-8:]}"
    for part in PARTS:
        differs, counts = getattr(found.differences, part), part in found.differing
        if differs:
            remark = "" if counts else ", not checked" if part in RESULTS and found.checks else ", which does not count"
            word = "differs" if part in _SINGULAR else "differ"
            yield f"{terminal.styled(part, bold=True)} {_verdict(word, good=not counts)}{remark}"
            yield from shown(found.differences, part)
    for each in found.checks:
        yield f"{each.check}  {_verdict('passed' if each.passed else 'failed', good=each.passed)}: {_values(each)}"
    alike = [part for part in PARTS if not getattr(found.differences, part)]
    yield f"the same: {', '.join(alike)}"
    if found.folder.exists():
        yield f"its folder is {terminal.printable(found.folder)}"


def _verdict(word: str, *, good: bool) -> str:
    return terminal.styled(word, fg="green" if good else "red")


def _values(result: CheckResult) -> str:
    return " -> ".join("none" if each is None else repr(each) for each in (result.before, result.after))
