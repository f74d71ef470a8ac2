"""What is said of a model of the registry and of its versions: as JSON, and as a page for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mlcore import Client, Listing, Run
from mlcore.errors import MlcoreError
from mlcore.registry import ModelVersion, RegisteredModel
from mlcore_local import columns as c, terminal
from mlcore_local.registry.naming import shown

__all__ = [
    "COLUMNS", "comments", "first_line", "model_json", "model_page", "models_json", "pairs", "run_of", "tags_of",
    "version_json", "version_page", "version_row", "worth",
]  # fmt: skip

_NUMBERS = ("metrics", "params")
_ALIAS = "aliases."
_OF_MODEL = ("description", "user", "created", "changed", "deleted")
_OF_VERSION = (
    "name", "version", "uri", "id", "number", "stage", "status", "status_message", "aliases", "tags", "source",
    "digest", "flavor", "run_id", "model_id", "parent_version", "description", "user", "created", "changed", "deleted",
)  # fmt: skip
COLUMNS = ("version", "aliases", "stage", "status", "created", "flavor")


def models_json(models: Listing[RegisteredModel]) -> list[dict[str, Any]]:
    """Return models as ``--json`` prints them; what their aliases stand for is read for all of them at once."""
    found = []
    for model, view in zip(models, models.to_dicts(), strict=True):
        aliases = {name.removeprefix(_ALIAS): each for name, each in view.items() if name.startswith(_ALIAS) and each}
        fields = {name: getattr(model, name) for name in _OF_MODEL}
        found.append(
            {"name": model.name, "id": model.id, "latest": view["latest"], "aliases": aliases, "tags": model.tags}
            | fields
        )
    return found


def model_json(model: RegisteredModel, *, whole: bool = False) -> dict[str, Any]:
    """Return a model as ``--json`` prints it; the `whole` of it has its versions and comments, too."""
    (found,) = models_json(Listing([model]))
    return found | (
        {"comments": model.comments, "versions": [version_json(each) for each in model.versions]} if whole else {}
    )


def version_json(version: ModelVersion, run: Run | None = None, *, whole: bool = False) -> dict[str, Any]:
    """Return a version as ``--json`` prints it; the `whole` of it has its comments, and what its `run` measured."""
    found = {name: getattr(version, name) for name in _OF_VERSION}
    about = run and {"id": run.id, "name": run.name, **{family: getattr(run, family) for family in _NUMBERS}}
    return found | ({"comments": version.comments, "run": about} if whole else {})


def version_row(version: ModelVersion) -> dict[str, Any]:
    """Return what a table can show of a version, by its name; nothing stands for what most versions have."""
    found = {name: getattr(version, name) for name in ("name", "version", "created", "flavor", "source", "description")}
    found |= {"aliases": ", ".join(f"@{alias}" for alias in version.aliases), "deleted": version.deleted or None}
    found |= {"stage": None if version.stage == "None" else version.stage}
    found |= {"status": None if version.status == "READY" else version.status}
    return found | {f"tags.{key}": value for key, value in version.tags.items()}


def tags_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the columns of tags."""
    return sorted({name for row in rows for name in row if name.startswith("tags.")})


def worth(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Return those names of columns in which some row says something."""
    return [name for name in names if any(row.get(name) not in (None, "") for row in rows)]


def run_of(client: Client, version: ModelVersion) -> Run | None:
    """Return the run that a version came from, if its store still has it."""
    with suppress(MlcoreError):
        return client.get_run(version.run_id) if version.run_id else None
    return None


def model_page(model: RegisteredModel) -> Iterator[str]:
    """Yield the lines that tell a person of a model: what it is, what stands for which version, and all versions."""
    yield terminal.styled(terminal.printable(model.name), bold=True)
    yield from _about(model, {})
    if aliases := {f"@{alias}": each.version for alias, each in model.aliases.items()}:
        yield from _titled("aliases", pairs(aliases))
    if rows := [version_row(each) | _short(each) for each in model.versions]:
        names = worth(rows, [*COLUMNS, *tags_of(rows), "description", "source"])
        table = terminal.Table(names, ([row.get(name) for name in names] for row in rows))
        yield ""
        yield from table.lines()
    if lines := comments(model):
        yield from _titled("comments", lines)


def _short(version: ModelVersion) -> dict[str, Any]:
    return {"created": c.moment(version.created), "description": first_line(version.description)}


def first_line(text: str) -> str:
    """Return the first line of a text, with … if there are more."""
    first, *more = text.splitlines() or [""]
    return f"{first} …" if more else first


def version_page(version: ModelVersion, run: Run | None = None) -> Iterator[str]:
    """Yield the lines that tell a person of a version, and what the run measured that it came from."""
    text = terminal.printable
    why = f": {version.status_message}" if version.status_message else ""
    yield f"{terminal.styled(text(shown(version)), bold=True)}  {terminal.status(text(version.status))}{text(why)}"
    told: dict[str, Any] = {"uri": version.uri, "aliases": ", ".join(f"@{each}" for each in version.aliases)}
    told |= {"stage": "" if version.stage == "None" else version.stage, "flavor": version.flavor}
    told |= {"source": version.source, "run": version.run_id if run is None else f"{run.name} ({run.id[-8:]})"}
    yield from _about(version, told | {"digest": version.digest})
    for family in _NUMBERS if run is not None else ():
        if values := getattr(run, family):
            yield from _titled(f"{family} of its run", pairs(values))
    if lines := comments(version):
        yield from _titled("comments", lines)


def _about(thing: RegisteredModel | ModelVersion, told: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is said of models and versions alike, after what is told of one of them."""
    made = f"{c.moment(thing.created, seconds=True)}{f' by {thing.user}' if thing.user else ''}"
    changed = None if thing.changed == thing.created else c.moment(thing.changed, seconds=True)
    told = {**told, "made": made, "changed": changed, "deleted": "yes" if thing.deleted else None}
    yield from pairs({name: each for name, each in told.items() if each}, "")
    if thing.description:
        yield from _titled("description", (f"  {terminal.printable(line)}" for line in thing.description.splitlines()))
    if thing.tags:
        yield from _titled("tags", pairs(thing.tags))


def comments(thing: RegisteredModel | ModelVersion, indent: str = "  ") -> list[str]:
    """Return the lines of the comments: when, by whom, which, and what they say."""
    lines = list[str]()
    for each in thing.comments:
        lines.append(terminal.printable(f"{indent}{c.moment(each['time'])}  {each['user']}  ({each['id'][-8:]})"))
        lines += [f"{indent}  {terminal.printable(line)}" for line in each["text"].splitlines()]
    return lines


def _titled(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield ""
    yield terminal.styled(title, bold=True)
    yield from lines


def pairs(values: Mapping[str, Any], indent: str = "  ") -> list[str]:
    """Return a line for each value, all of them in one column."""
    told = {terminal.printable(key): terminal.printable(value) for key, value in values.items()}
    most = min(40, max(map(terminal.width, told), default=0))
    return [f"{indent}{key}{' ' * max(0, most - terminal.width(key))}  {value}" for key, value in told.items()]
