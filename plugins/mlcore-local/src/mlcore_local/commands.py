"""The commands that look after a folder store."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from mlcore import config
from mlcore.errors import StoreError
from mlcore.folder import Folder
from mlcore.store import encode_event
from mlcore_local import terminal
from mlcore_local.check import check
from mlcore_local.index import described
from mlcore_local.reader import Journal, read
from mlcore_local.seal import drop, seal
from mlcore_local.store import FolderStore
from mlcore_local.waiting import as_dict, described as described_spool, spooled

__all__ = ["cat", "fsck", "init", "journal", "reindex", "where"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_store = click.option("--store", "uri", help="A store other than the one `mlcore where` tells.")


@click.command(epilog="Example: mlcore init ~/experiments/.mlcore")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@_as_json
def init(path: Path | None, as_json: bool) -> None:
    """Make a store at PATH, or as .mlcore in the current folder; one that is there is left as it is."""
    root = (path or Path(config.STORE_FOLDER)).absolute()
    folder, made = Folder.create(root)
    if as_json:
        click.echo(json.dumps({"store": str(root), "id": folder.id, "made": made}))
    else:
        click.echo(f"{'made' if made else 'there is already'} a store at {root}")


@click.command(epilog="Example: mlcore where --json")
@_store
@_as_json
def where(uri: str | None, as_json: bool) -> None:
    """Tell which store is used, and why, where its index is or would be, and what waits to be sent to it."""
    setting = config.store_setting(uri)
    folder = None if "://" in setting.value or setting.value == config.OFF else _opened(setting.value)
    exists = None if "://" in setting.value or setting.value == config.OFF else folder is not None
    index, why = (None, "") if folder is None else described(folder)
    shown, spool = config.shown(setting.value), spooled(uri)
    if as_json:
        told: dict[str, Any] = {"store": shown, "reason": setting.reason, "exists": exists}
        told |= {"index": None if index is None else str(index), "spool": spool and as_dict(*spool)}
        click.echo(json.dumps(told))
    else:
        click.echo(f"{shown}\n  because: {setting.reason}")
        if why:
            click.echo(f"  index: {why}" if index is None else f"  index: {index}, {why}")
        if exists is False and spool is None:
            click.echo("  not there yet: the first run makes it, or `mlcore init`")
        if spool is not None:
            click.echo(f"  spool: {spool[0].root}, {described_spool(spool[1])}")


@click.command(epilog="Example: mlcore fsck --repair")
@_store
@click.option(
    "--repair", is_flag=True, help="Cut torn ends, remove leftovers and bad seals; no whole record is touched."
)
@_as_json
def fsck(uri: str | None, repair: bool, as_json: bool) -> None:
    """Check every journal of a store, and that no change of its registry was altered: exit code 1 if anything is wrong.

    It tells as well of versions that share a number, as two stores were merged: that is no error.
    """
    folder = _folder(uri)
    findings = []
    with click.progressbar(length=0, label="checking", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        report = check(folder, repair=repair, progress=bar.update)
        findings = report.findings
    if as_json:
        content = [{"path": str(each.path), "what": each.what, "severity": each.severity} for each in findings]
        click.echo(json.dumps({"journals": report.journals, "records": report.records, "findings": content}, indent=2))
    else:
        lines = [terminal.printable(f"{each.severity}: {each.path}: {each.what}") for each in findings]
        counts = {"journal": report.journals, "record": report.records, "finding": len(findings)}
        terminal.show([*lines, ", ".join(terminal.counted(number, thing) for thing, number in counts.items())])
    if any(each.severity == "damaged" for each in findings):
        sys.exit(1)


@click.command(epilog="Example: mlcore reindex")
@_store
def reindex(uri: str | None) -> None:
    """Make the index and the sealed files of all ended runs anew; nothing is lost if they are wrong or missing."""
    folder = _folder(uri)
    store = FolderStore(folder.root)
    FolderStore(folder.root, indexed=True).reindex()
    runs = [path for path in sorted((folder.root / "runs").glob("*/*")) if path.is_dir()]
    made = 0
    with click.progressbar(runs, label="sealing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for path in bar:
            drop(folder, path.name)
            entity = store.get("run", [path.name])[0]
            ended = entity is not None and entity.fields.get("status") != "RUNNING"
            made += ended and seal(path, path.name)
    click.echo(f"sealed {made} of {len(runs)} runs")


@click.group()
def journal() -> None:
    """Look into journals."""


@journal.command(epilog="Example: mlcore journal cat .mlcore/runs/*/*/*.journal")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def cat(paths: tuple[Path, ...]) -> None:
    """Print journals as JSON lines, a record each; damage goes to stderr and makes exit code 1."""
    damaged = False
    for path in paths:
        found, wrong = Journal(), list[object]()
        try:
            for record in read(path, found):
                events = b",".join(map(encode_event, record.events)).decode()
                click.echo(f'{{"number":{record.number},"stamp":{record.stamp},"events":[{events}]}}')
        except StoreError as error:  # the other files are still printed
            wrong.append(error)
        for each in [*wrong, *found.damage, *([found.tail] if found.tail else [])]:
            damaged = True
            click.echo(f"{path}: {each}", err=True)
    sys.exit(1 if damaged else 0)


def _folder(uri: str | None) -> Folder:
    value = config.store_setting(uri).value
    if value == config.OFF or ("://" in value and not value.startswith("file://")):
        raise StoreError(f"{config.shown(value)} is no folder store; name one with --store")
    return Folder.open(Path(value.removeprefix("file://")))


def _opened(path: str) -> Folder | None:
    with contextlib.suppress(StoreError):
        return Folder.open(Path(path))
    return None
