"""``mlcore artifacts``: the files of a run, from the shell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click

from mlcore import Artifact, Client, Listing, Run

__all__ = ["artifacts"]


@click.group()
def artifacts() -> None:
    """List, get, put and verify the files of runs.

    RUN is a run's id, or the beginning or end of one.
    """


def _command(example: str) -> Callable[[Callable[..., Any]], click.Command]:
    def make(function: Callable[..., Any]) -> click.Command:
        store = click.option("--store", "uri", help="A store other than the one `mlcore where` tells.")
        as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        return artifacts.command(epilog=f"Example: mlcore artifacts {example}")(store(as_json(function)))

    return make


@_command("list 1f2e3d4c plots")
@click.argument("run")
@click.argument("prefix", default="")
def list(run: str, prefix: str, uri: str | None, as_json: bool) -> None:  # noqa: A001 - the command's word
    """List the files of RUN, or of the folder PREFIX in them."""
    _show(_run(run, uri).artifacts.list(prefix), as_json)


@_command("get 1f2e3d4c model best-model")
@click.argument("run")
@click.argument("name")
@click.argument("dst", required=False, type=click.Path(path_type=Path))
def get(run: str, name: str, dst: Path | None, uri: str | None, as_json: bool) -> None:
    """Copy the file or folder NAME of RUN to DST, or here under its own name; its sha256 is checked."""
    path = _run(run, uri).artifacts.get(name, Path(Path(name).name) if dst is None else dst)
    click.echo(json.dumps({"path": str(path)}) if as_json else path)


@_command("put 1f2e3d4c report.pdf reports/final.pdf")
@click.argument("run")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.argument("name", required=False)
def put(run: str, path: Path, name: str | None, uri: str | None, as_json: bool) -> None:
    """Keep the file or folder PATH with RUN, as NAME or under its own name."""
    kept = _run(run, uri)
    kept.log_artifact(path, name)
    _show(kept.artifacts.list(path.resolve().name if name is None else name), as_json)


@_command("verify 1f2e3d4c")
@click.argument("run")
def verify(run: str, uri: str | None, as_json: bool) -> None:
    """Read all files of RUN: exit code 1 if one is missing or not what was stored."""
    kept = _run(run, uri).artifacts
    wrong, count = kept.verify(), len(kept.list())
    if as_json:
        _show(wrong, as_json)
    else:
        for each in wrong:
            click.echo(f"{_printable(each.path)}: {each.problem}")
        click.echo(f"{count} files, {len(wrong)} problems")
    sys.exit(1 if wrong else 0)


def _run(id: str, uri: str | None) -> Run:
    return Client(uri).get_run(id)


def _show(found: Listing[Artifact], as_json: bool) -> None:
    if as_json:
        return click.echo(json.dumps([attrs.asdict(each) for each in found], indent=2))
    for each in found:
        reference = f"  -> {_printable(each.uri)}" if each.uri else ""
        click.echo(f"{each.size:>14,}  {each.sha256[:12]}  {_printable(each.path)}{reference}")
    return None


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
