"""``mlcore run``: run a project, and ``mlcore runs reconcile``: find out how jobs ended while nobody looked."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from mlcore import Client
from mlcore_local import completing, terminal
from mlcore_local.arguments import JSON, STORE
from mlcore_local.columns import find_run
from mlcore_projects import running
from mlcore_projects.reconciling import reconcile
from mlcore_projects.runners import Status

__all__ = ["INTERRUPTED", "command", "pairs", "reconcile_command", "sigterm", "to_stderr"]

INTERRUPTED, _TERMINATED = 130, 143


class _Run(click.Command):
    """Take what comes after ``--`` as a command, as it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the arguments."""
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = tuple(args[at + 1 :]) if at < len(args) else None
        return super().parse_args(ctx, args[:at])


def pairs(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Read options that are NAME=VALUE."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", ctx, param)
        found[name] = value
    return found


@click.command(cls=_Run, epilog="Example: mlcore run . -e train -P lr=0.1 --env uv", options_metavar="[OPTIONS]")
@click.argument("source", required=False, metavar="[SOURCE | -- COMMAND ARGS...]")
@click.option("--entry", "-e", metavar="ENTRY", help="The entry point; by default main, or the only one.")
@click.option(
    "--param", "-P", "params", multiple=True, metavar="NAME=VALUE", callback=pairs, help="A parameter; can be repeated."
)
@click.option("--version", "revision", metavar="REV", help="A branch, tag or commit of a git repository.")
@click.option("--env", "environment", metavar="KIND", help="venv, uv, system or another kind of environment.")
@click.option("--runner", metavar="RUNNER", help="Where it runs; by default local, on this machine.")
@click.option("--name", help="The name of the run to show; by default one to remember.")
@click.option("--experiment", help="By default MLCORE_EXPERIMENT, or Default.", shell_complete=completing.experiment)
@click.option("--tag", "-t", "tags", multiple=True, metavar="KEY=VALUE", callback=pairs, help="A tag; can be repeated.")
@click.option("--dry-run", is_flag=True, help="Print what would run; build, start and change nothing.")
@click.option("--detach", is_flag=True, help="Print the run's id and return; see `mlcore runs reconcile`.")
@click.option("--resume", metavar="RUN", help="Go on with a run that has ended.", shell_complete=completing.run)
@click.option("--key", metavar="KEY", help="Go on with the run of this key, or start it: for jobs that are requeued.")
@click.option(
    "--grace", metavar="SECONDS", type=click.FloatRange(min=0), default=10.0, show_default=True,
    help="What a job has to end in before it is killed.",
)  # fmt: skip
@click.option("--trust", is_flag=True, help="Let a shell expand commands that need one.")
@click.option("--quiet", "-q", is_flag=True, help="Print only what the job does.")
@STORE
@JSON
@click.pass_context
def command(
    ctx: click.Context, *, source: str | None, entry: str | None, params: dict[str, str], revision: str | None,
    environment: str | None, runner: str | None, name: str | None, experiment: str | None, tags: dict[str, str],
    dry_run: bool, detach: bool, resume: str | None, key: str | None, grace: float, trust: bool, quiet: bool,
    uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Run a project: a folder, a git URL (URL#FOLDER), a script, or any command after --.

    The run records what is run, its parameters, its output and how it ends. The exit code is that of the job, 130 after
    Ctrl-C, 143 after SIGTERM. With --json the run is printed when it has ended, and what it prints goes to stderr.
    """
    given: Any = ctx.obj if ctx.obj is not None else source
    if source is not None and ctx.obj is not None:
        raise click.UsageError("give SOURCE, or -- and a command, not both")
    if given is None and resume is None and key is None:
        raise click.UsageError("give a source: a folder (such as .), a git URL, a script, or -- and a command")
    about: dict[str, Any] = {"version": revision, "runner": runner, "environment": environment, "trust": trust}
    about |= {"store": uri, "resume": None if resume is None else find_run(Client(uri), resume).id}
    if dry_run:
        _show(running.preview(given, entry, params, **about), as_json)
        ctx.exit()
    tell = None if quiet else _tell
    about |= {"name": name, "experiment": experiment, "tags": tags, "detach": detach, "key": key, "grace": grace}
    began = time.monotonic()
    try:
        with sigterm(), to_stderr(as_json):
            submitted = running.run(given, entry, params, tell=tell, **about)
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    if detach:
        terminal.show(terminal.as_json({"run": submitted.run_id}) if as_json else [submitted.run_id])
        ctx.exit()
    ended = submitted.status()
    if tell:
        tell(f"{ended.state} after {time.monotonic() - began:.1f} s" + (f": {ended.reason}" if ended.reason else ""))
    if as_json:
        terminal.show(terminal.as_json({"run": submitted.run_id, "state": ended.state, "exit_code": ended.exit_code}))
    ctx.exit(_exit_code(ended))


def _tell(text: str) -> None:
    """Print what happens, to standard error."""
    if text:
        click.echo(f"mlcore: {terminal.printable(text)}", err=True)


def _exit_code(ended: Status) -> int:
    if ended.state == "finished":
        return 0
    if ended.state == "killed":
        return _TERMINATED
    return 1 if not ended.exit_code else ended.exit_code if ended.exit_code > 0 else 128 - ended.exit_code


@contextmanager
def sigterm() -> Iterator[None]:
    """Raise where SIGTERM comes, as Ctrl-C does: so that the job ends before this process."""

    def handler(*_: object) -> None:
        sys.exit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def to_stderr(needed: bool) -> Iterator[None]:
    """Let what a job prints go to stderr."""
    if not needed:
        yield
        return
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


def _show(found: running.Preview, as_json: bool) -> None:
    """Print what would be run."""
    told = found.told()
    if as_json:
        return terminal.show(terminal.as_json(told))
    told |= {"command": shlex.join(told["command"]), "built": "yes" if told["built"] else "no"}
    lines = []
    for name, value in told.items():
        texts = [f"{key} = {each!r}" for key, each in value.items()] if isinstance(value, dict) else [value]
        for title, text in zip([name.replace("_", " "), *[""] * len(texts)], texts, strict=False):
            lines.append(f"{title:<12}{terminal.printable(text)}")
    return terminal.show(lines)


@click.command("reconcile", epilog="Example: mlcore runs reconcile")
@STORE
@JSON
def reconcile_command(uri: str | None, as_json: bool) -> None:
    """Find out how jobs of `mlcore run` ended while nobody looked, and end their runs accordingly.

    A run whose job cannot be asked about from here is left as it is.
    """
    found = reconcile(uri)
    if as_json:
        return terminal.show(terminal.as_json([each.told() for each in found]))
    for each in found:
        tail = f": {each.reason}" if each.reason else ""
        click.echo(f"{each.status} {each.run.id} {terminal.printable(each.run.name)}{terminal.printable(tail)}")
    if not found:
        click.echo("every run that goes on has a job that does", err=True)
    return None
