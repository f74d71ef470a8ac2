"""The commands that look after registries that met: ``mlcore registry renumber`` and ``mlcore registry check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from mlcore import Client
from mlcore.errors import InvalidValue
from mlcore.registry import ModelVersion, RegisteredModel, parse
from mlcore_local import terminal
from mlcore_local.arguments import JSON, STORE
from mlcore_local.registry.checking import read

__all__ = ["check", "renumber"]


@click.command(epilog="Example: mlcore registry renumber digits 3~ab12")
@click.argument("name")
@click.argument("version", required=False)
@click.option("--all", "everything", is_flag=True, help="All versions of NAME that have no number to themselves.")
@STORE
@JSON
def renumber(name: str, version: str | None, everything: bool, uri: str | None, as_json: bool) -> None:
    """Give a version the next free number, where two were made in different stores with the same.

    The first that was made keeps the number, the other is shown as 3~ab12. Either can be renumbered: once the first
    is, the other has the number to itself. Aliases go on standing for the same versions.
    """
    given = name if version is None else f"{name}/{version}"
    registry = Client(uri).registry
    model = registry.get(parse(given).name)
    if everything == ("/" in given or "@" in given):
        raise click.UsageError("which version? Name it, such as 3~ab12, or give --all")
    found = _later(model) if everything else [registry.version(given)]
    done = [_renumbered(each) for each in found]
    if as_json:
        return terminal.show(terminal.as_json(done))
    if not done:
        return terminal.show([f"each version of {terminal.printable(model.name)} has its number to itself"])
    lines = [f"version {each['before']} of {each['model']} is {each['version']} now" for each in done]
    return terminal.show(map(terminal.printable, lines))


def _later(model: RegisteredModel) -> list[ModelVersion]:
    """Return the versions that have no number to themselves, those first that were made first."""
    found = sorted(model.versions, key=lambda each: (each.created, each.id))
    return [each for each in found if "~" in each.version]


def _renumbered(version: ModelVersion) -> dict[str, Any]:
    before = version.version
    version.renumber()
    version.refresh()
    return {"model": version.name, "before": before, "version": version.version, "id": version.id}


@click.command(epilog="Example: mlcore registry check --told /var/log/registry.jsonl")
@click.option(
    "--told", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="JSON lines of changes that were kept elsewhere, as the setting registry_log does; all must be there.",
)  # fmt: skip
@STORE
@JSON
def check(told: Path | None, uri: str | None, as_json: bool) -> None:
    """Check that no change of the registry was altered, removed or reordered: exit code 1 if one was.

    Each change holds a digest of itself and of the one before it. Versions that share a number and models that share a
    name, as stores were merged, and clocks that were wrong are told, too, and are no error. For a folder `mlcore fsck`
    checks the same.
    """
    client = Client(uri)
    chain = read(client.store)
    findings = chain.findings(_told(told) if told else ())
    if as_json:
        terminal.show(terminal.as_json({"changes": chain.changes, "findings": [attrs.asdict(it) for it in findings]}))
    else:
        lines = [terminal.printable(f"{each.severity}: {each.what}") for each in findings]
        counts = {"change": chain.changes, "finding": len(findings)}
        terminal.show([*lines, ", ".join(terminal.counted(number, thing) for thing, number in counts.items())])
    sys.exit(1 if any(each.severity == "damaged" for each in findings) else 0)


def _told(path: Path) -> Iterator[Mapping[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                told = json.loads(line)
            except ValueError as error:
                raise InvalidValue(f"line {number} of {path} is no JSON: {error}") from error
            if not isinstance(told, dict) or not isinstance(told.get("digest"), str):
                raise InvalidValue(f"line {number} of {path} tells no change: it has no digest")
            yield told
