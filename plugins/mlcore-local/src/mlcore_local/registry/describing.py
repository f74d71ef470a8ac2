"""What is said of a model of the registry and of its versions: as JSON, and as a page for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from mlcore import Client, Run
from mlcore.errors import MlcoreError
from mlcore.registry import ModelVersion, RegisteredModel
from mlcore_local import columns as c, terminal
from mlcore_local.registry.naming import shown

__all__ = ["comments", "model_json", "model_page", "pairs", "run_of", "version_json", "version_page", "version_row"]

_NUMBERS = ("metrics", "params")
_OF_VERSION = (
    "name", "version", "uri", "id", "number", "stage", "status", "aliases", "description", "tags", "source", "digest",
    "flavor", "run_id", "model_id", "parent_version", "user", "created", "changed", "deleted",
)  # fmt: skip


def model_json(model: RegisteredModel) -> dict[str, Any]:
    """Return a model as ``--json`` prints it."""
    versions = model.versions
    return {
        "name": model.name,
        "id": model.id,
        "description": model.description,
        "latest": versions[0].version if versions else None,
        "versions": len(versions),
        "aliases": {alias: each.version for alias, each in model.aliases.items()},
        "tags": model.tags,
        "user": model.user,
        "created": model.created,
        "changed": model.changed,
        "deleted": model.deleted,
    }


def version_json(version: ModelVersion) -> dict[str, Any]:
    """Return a version as ``--json`` prints it."""
    return {name: getattr(version, name) for name in _OF_VERSION}


def version_row(version: ModelVersion) -> dict[str, Any]:
    """Return what a table can show of a version, by its name; nothing stands for what most versions have."""
    found = {name: getattr(version, name) for name in ("name", "version", "created", "flavor", "source", "description")}
    found |= {"aliases": ", ".join(version.aliases), "deleted": version.deleted or None}
    found |= {"stage": None if version.stage == "None" else version.stage}
    found |= {"status": None if version.status == "READY" else version.status}
    return found | {f"tags.{key}": value for key, value in version.tags.items()}


def run_of(client: Client, version: ModelVersion) -> Run | None:
    """Return the run that a version came from, if its store still has it."""
    with suppress(MlcoreError):
        return client.get_run(version.run_id) if version.run_id else None
    return None


def model_page(model: RegisteredModel) -> Iterator[str]:
    """Yield the lines that tell a person of a model: what it is, what stands for which version, and all versions."""
    text = terminal.printable
    yield terminal.styled(text(model.name), bold=True)
    yield from _about(model)
    if aliases := {f"@{alias}": each.version for alias, each in model.aliases.items()}:
        yield from _titled("aliases", pairs(aliases))
    if versions := model.versions:
        rows = [version_row(each) | {"created": c.moment(each.created)} for each in versions]
        names = [name for name in _columns(rows) if name != "name"]
        table = terminal.Table(names, ([row.get(name) for name in names] for row in rows))
        yield ""
        yield from table.lines()
    if lines := comments(model):
        yield from _titled("comments", lines)


def version_page(version: ModelVersion, run: Run | None = None) -> Iterator[str]:
    """Yield the lines that tell a person of a version, and what the run measured that it came from."""
    text = terminal.printable
    yield f"{terminal.styled(text(shown(version)), bold=True)}  {terminal.status(text(version.status))}"
    told: dict[str, Any] = {"uri": version.uri, "aliases": ", ".join(f"@{each}" for each in version.aliases)}
    told |= {"stage": "" if version.stage == "None" else version.stage, "flavor": version.flavor}
    told |= {"source": version.source, "run": version.run_id if run is None else f"{run.name} ({run.id[-8:]})"}
    told |= {"digest": version.digest}
    yield from pairs({name: each for name, each in told.items() if each}, "")
    yield from _about(version)
    for family in _NUMBERS if run is not None else ():
        if values := getattr(run, family):
            yield from _titled(f"{family} of its run", pairs(values))
    if lines := comments(version):
        yield from _titled("comments", lines)


def _about(thing: RegisteredModel | ModelVersion) -> Iterator[str]:
    """Yield what is said of models and versions alike."""
    told = {"made": f"{c.moment(thing.created, seconds=True)}{f' by {thing.user}' if thing.user else ''}"}
    if thing.changed != thing.created:
        told["changed"] = str(c.moment(thing.changed, seconds=True))
    yield from pairs(told | ({"deleted": "yes"} if thing.deleted else {}), "")
    if thing.description:
        lines = (f"  {terminal.printable(line)}" for line in thing.description.splitlines())
        yield from _titled("description", lines)
    if thing.tags:
        yield from _titled("tags", pairs(thing.tags))


def comments(thing: RegisteredModel | ModelVersion, indent: str = "  ") -> list[str]:
    """Return the lines of the comments: when, by whom, which, and what they say."""
    lines = list[str]()
    for each in thing.comments:
        lines.append(terminal.printable(f"{indent}{c.moment(each['time'])}  {each['user']}  ({each['id'][-8:]})"))
        lines += [f"{indent}  {terminal.printable(line)}" for line in each["text"].splitlines()]
    return lines


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the columns in which some row says something; descriptions come last, as they are long."""
    found = dict.fromkeys(name for row in rows for name, value in row.items() if value not in (None, ""))
    last = ("source", "description")
    return [*(name for name in found if name not in last), *(name for name in last if name in found)]


def _titled(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield ""
    yield terminal.styled(title, bold=True)
    yield from lines


def pairs(values: Mapping[str, Any], indent: str = "  ") -> list[str]:
    """Return a line for each value, all of them in one column."""
    told = {terminal.printable(key): terminal.printable(value) for key, value in values.items()}
    most = min(40, max(map(terminal.width, told), default=0))
    return [f"{indent}{key}{' ' * max(0, most - terminal.width(key))}  {value}" for key, value in told.items()]
