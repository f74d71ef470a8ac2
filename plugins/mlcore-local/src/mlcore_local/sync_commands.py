"""``mlcore sync``: bring one store what another has, or what waits in a spool."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import click

from mlcore import Client, config
from mlcore_local import spool_commands, terminal
from mlcore_local.remembered import place_of
from mlcore_local.sync import Difference, Progress, Report, missing, sync, verify

__all__ = ["command"]


@click.command("sync", epilog="Example: mlcore sync .mlcore postgresql://team@db.example.com/mlcore")
@click.argument("source", required=False, metavar="[SRC]")
@click.argument("target", required=False, metavar="[DST]")
@click.option("--verify", "verifying", is_flag=True, help="Read both stores afterwards and compare their digests.")
@click.option("--all", "everything", is_flag=True, help="Send all, not only what is new; DST keeps it once.")
@click.option("--dry-run", is_flag=True, help="Only tell what DST has not yet; reads both stores.")
@click.option("--watch", is_flag=True, help="Go on sending what waits in the spool, until Ctrl-C or SIGTERM.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    source: str | None,
    target: str | None,
    verifying: bool,
    everything: bool,
    dry_run: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """Send what waits for the configured store, or bring the store DST what the store SRC has.

    Without arguments it sends the runs, and their files, that were logged for the configured store while it could not
    be reached, and tells what waits for other stores. If nothing was, SRC is the folder store that is found from here.

    SRC and DST are paths or URIs, DST by default the configured store; SRC stays as it is, and the files of its runs
    where they are. All can be interrupted and repeated: nothing is kept twice. What the store refuses is set aside, the
    rest goes on, and the exit code is 1.
    """
    if source is None and not (verifying or everything or dry_run):
        shipped = spool_commands.run(watch=watch, as_json=as_json, bar=_bar)
        if shipped is not None:
            sys.exit(shipped)
    if watch:
        raise click.UsageError("--watch is for what waits for the configured store, which here is a folder")
    source = source or str(config.project_root()[0] / config.STORE_FOLDER)
    target = _target(source, target)
    if dry_run:
        with closing(Client(source)) as one, closing(Client(target)) as other:
            report, differences = missing(one.store, other.store), list[Difference]()
    else:
        report, differences = _bring(source, target, everything=everything, verifying=verifying)
    if as_json:
        content = attrs.asdict(report, recurse=True) | {"runs_with_files": sorted(report.runs_with_files)}
        content |= {"from": config.shown(source), "to": config.shown(target), "dry_run": dry_run}
        content["verified"] = verifying and not differences
        content["differences"] = [attrs.asdict(each) for each in differences]
        terminal.show(terminal.as_json(content))
    else:
        terminal.show(_lines(report, differences, source, target, dry_run=dry_run, verifying=verifying))
    sys.exit(1 if report.refused or differences else 0)


def _bring(source: str, target: str, *, everything: bool, verifying: bool) -> tuple[Report, list[Difference]]:
    """Bring what is new, or all; return what was done, and in what both differ then, but for what was refused."""
    started, memory = time.time_ns(), place_of(_absolute(source), _absolute(target))
    with closing(Client(source)) as one, closing(Client(target)) as other:
        if everything:
            memory.unlink(missing_ok=True)
        with _bar("syncing") as progress:
            report = sync(one.store, other.store, memory=memory, progress=progress)
        refused = {each.source for each in report.refused}
        found = verify(one.store, other.store, since=started) if verifying else []
    return report, [each for each in found if each.source not in refused]


def _target(source: str, target: str | None) -> str:
    setting = config.store_setting(target)
    found = setting.reason == config.project_root()[1]  # nobody said it: it is the folder that SRC is by default
    if found or setting.value == config.OFF:
        wait = "".join(f"\n{line}" for line in spool_commands.others())
        raise click.UsageError(
            f"which store is it to go to? Name it after SRC, or configure it, as in MLCORE_STORE{wait}"
        )
    if _absolute(setting.value) == _absolute(source):
        raise click.UsageError(
            f"{source} is both SRC and DST: name another store, or configure one, as in MLCORE_STORE"
        )
    return setting.value


def _absolute(uri: str) -> str:
    path = uri.removeprefix("file://")
    return uri if "://" in path else str(Path(path).expanduser().resolve())


def _lines(
    report: Report, differences: list[Difference], source: str, target: str, *, dry_run: bool, verifying: bool
) -> Iterator[str]:
    text = terminal.printable
    source, target = (text(config.shown(uri)) for uri in (source, target))
    said = "would be sent" if dry_run else "sent"
    what = (
        f"{report.records:,} records of {report.sources:,} journals" if report.records else "nothing is new: 0 records"
    )
    yield f"{what} {said} from {source} to {target}"
    if report.runs_with_files:
        yield f"{len(report.runs_with_files):,} of these runs have files, which stay in {source}"
    for met in report.met:
        yield f"met: {text(met.what)}"
    for each in report.refused:
        yield f"set aside: {each.records:,} records of {_named(each.home)}, journal {each.source}: {text(each.reason)}"
    for different in differences:
        yield f"differs: {_named(different.home)}, journal {different.source}: {different.what}"
    if verifying and not differences and not dry_run:
        yield "verified: the digests are the same"


def _named(home: str) -> str:
    return f"run {home}" if home else "the store"


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """Show progress on a terminal: how much of what is known, or how much so far."""
    with click.progressbar(length=0, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int | None) -> None:
            bar.length = done if total is None else total
            bar.update(done - bar.pos)

        yield show
