"""``mlcore db``: look after the database of a team store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import click

from mlcore import config
from mlcore.errors import StoreError, StoreNotFound
from mlcore_sql import migrations
from mlcore_sql.backup import backup, renew
from mlcore_sql.checking import Finding, check
from mlcore_sql.engine import Database
from mlcore_sql.rebuilding import Progress, rebuild

__all__ = ["group"]

_SCHEMES = ("postgresql", "mysql", "mariadb", "sqlite")
_store = click.option("--store", "uri", help="A store other than the one `mlcore where` tells.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("db")
def group() -> None:
    """Look after a store in a database: upgrade, check, rebuild and back it up."""


@group.command("upgrade", epilog="Example: mlcore db upgrade --store postgresql://team@db.example.com/mlcore")
@_store
@click.option("--restored", is_flag=True, help="Say that it was put back from a dump: whoever reads on starts over.")
@_as_json
def upgrade(uri: str | None, restored: bool, as_json: bool) -> None:
    """Bring the tables of a store to what this version needs; an empty database gets them.

    Back it up first, and stop what writes to it. It can be interrupted and run again, and does nothing if nothing is to
    be done.
    """
    with _database(uri, new=True) as database:
        before, after = migrations.upgrade(database)
        if restored:
            renew(database)
    if as_json:
        click.echo(json.dumps({"store": database.name, "before": before, "after": after}))
    elif before == after:
        click.echo(f"{database.name} has version {after}: nothing to do")
    else:
        click.echo(f"{database.name} {'was empty' if before is None else f'had version {before}'}, now {after}")


@group.command("check", epilog="Example: mlcore db check --all --json")
@_store
@click.option("--sample", default=100, show_default=True, type=click.IntRange(min=0), help="Entities to compare.")
@click.option("--all", "everything", is_flag=True, help="Compare all of them.")
@_as_json
def check_command(uri: str | None, sample: int, everything: bool, as_json: bool) -> None:
    """Read all of a store's history and tell what is wrong: exit code 1 if anything is. Nothing is changed.

    Every record is followed by its digest, every row is counted, and the tables from which questions are answered are
    compared with the history: of some entities, or all. Others may go on writing.
    """
    with _database(uri) as database, _bar("checking") as progress:
        report = check(database, sample=None if everything else sample, progress=progress)
    if as_json:
        click.echo(json.dumps({"store": database.name, **attrs.asdict(report)}, indent=2))
    else:
        for each in report.findings:
            click.echo(_line(each))
        found = f"{len(report.findings)} findings" if report.findings else "all is well"
        counts = [f"{getattr(report, name):,} {name}" for name in ("batches", "records", "rows", "sources")]
        click.echo(f"version {report.version}: {', '.join(counts)}, {report.entities:,} entities compared: {found}")
    sys.exit(1 if report.findings else 0)


def _line(finding: Finding) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in f"{finding.of}: {finding.what}")


@group.command("rebuild", epilog="Example: mlcore db rebuild")
@_store
@_as_json
def rebuild_command(uri: str | None, as_json: bool) -> None:
    """Make the tables from which questions are answered anew, from the history.

    That is never needed, unless `mlcore db check` says so. Who asks sees the old ones until the new are whole; who
    appends waits meanwhile, which in a large store is too long for them: stop them first.
    """
    with _database(uri) as database, _bar("rebuilding") as progress:
        rebuild(database, progress)
    click.echo(json.dumps({"store": database.name, "rebuilt": True}) if as_json else f"{database.name} is rebuilt")


@group.command("backup", epilog="Example: mlcore db backup runs-2026-11-23.db")
@click.argument("target", metavar="DST")
@_store
@_as_json
def backup_command(target: str, uri: str | None, as_json: bool) -> None:
    """Copy a store, as it is at one moment, to DST while it is used.

    DST is the path of a new file of SQLite, or the URI of an empty database. The copy is a store like any other: it
    can be opened by its URI, and be copied back into an empty database.
    """
    with _database(uri) as database, _bar("copying") as progress:
        copied = backup(database, target, progress)
    if as_json:
        click.echo(json.dumps({"store": database.name, "to": config.shown(target), **attrs.asdict(copied)}))
    else:
        click.echo(f"copied {copied.batches:,} batches of {database.name} to {config.shown(target)}")


@contextmanager
def _database(uri: str | None, *, new: bool = False) -> Iterator[Database]:
    setting = config.store_setting(uri)
    if setting.value.partition("://")[0] not in _SCHEMES:
        raise click.UsageError(
            f"{config.shown(setting.value)} is no database ({setting.reason}): name one with --store, such as sqlite:///team.db"
        )
    database = Database(setting.value)
    try:
        if database.exists():
            database.check()
        elif not new:
            raise StoreNotFound(f"there is no store at {database.name}: the first run makes it")
        if not new:
            _must_have_tables(database)
        yield database
    finally:
        database.close()


def _must_have_tables(database: Database) -> None:
    with database.reading() as connection:
        if not migrations.check(migrations.version_of(connection), database.name):
            raise StoreError(f"{database.name} is an empty database: the first run makes the store")


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    """Show progress on a terminal."""
    with click.progressbar(length=0, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int | None) -> None:
            bar.length = done if total is None else total
            bar.update(done - bar.pos)

        yield show
