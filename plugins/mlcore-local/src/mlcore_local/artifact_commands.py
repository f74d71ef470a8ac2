"""``mlcore artifacts``: the files of a run, from the shell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click

from mlcore import Artifact, Client, Listing, Run
from mlcore_local import columns as c, completing, terminal
from mlcore_local.arguments import JSON, RUN, STORE

__all__ = ["artifacts"]


@click.group()
def artifacts() -> None:
    """List, get, put and verify the files of runs.

    RUN is a run's id, the beginning or end of one, a name that only one run has, or @last, the run that started last.
    """


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


@_command("verify 1f2e3d4c")
@RUN
def verify(run: str, uri: str | None, as_json: bool) -> None:
    """Read all files of RUN: exit code 1 if one is missing or not what was stored."""
    kept = _run(run, uri).artifacts
    wrong, count = kept.verify(), len(kept.list())
    if as_json:
        _show(wrong, as_json)
    else:
        lines = [f"{terminal.printable(each.path)}: {each.problem}" for each in wrong]
        terminal.show([*lines, f"{terminal.counted(count, 'file')}, {terminal.counted(len(wrong), 'problem')}"])
    sys.exit(1 if wrong else 0)


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
