"""``mlcore registry``: models under names, their versions, and what stands for which of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from mlcore import Client
from mlcore.cli import Group
from mlcore.errors import AliasMoved, InvalidValue, NotFound
from mlcore.registry import STAGES, ModelVersion, RegisteredModel, Registry
from mlcore_local import columns as c, completing, terminal
from mlcore_local.arguments import CLOCK, JSON, LIMIT, STORE, moment
from mlcore_local.registry import describing, naming
from mlcore_local.registry.facts import Clock

__all__ = ["registry"]


@click.group(cls=Group, no_args_is_help=True)
def registry() -> None:
    """Register models: versions, aliases, stages.

    WHICH is a model's NAME, or one of its versions: NAME/3, NAME@champion, NAME/Production or NAME/latest, each with or
    without models:/ in front of it.
    """


def _command(example: str) -> Callable[[Callable[..., Any]], click.Command]:
    def make(function: Callable[..., Any]) -> click.Command:
        name, epilog = example.split(maxsplit=1)[0], f"Example: mlcore registry {example}"
        return registry.command(name, epilog=epilog)(STORE(JSON(function)))

    return make


_WHICH = click.argument("which", shell_complete=completing.registered)
_VERSION = click.argument("version", metavar="WHICH", shell_complete=completing.registered)
_MODEL = click.argument("name", shell_complete=completing.model)
_MANY = click.argument("which", nargs=-1, required=True, shell_complete=completing.registered)
_SORT = click.option("--sort", "-s", multiple=True, metavar="NAME [desc]", help="Order by this; repeatable.")
_DELETED = click.option("--deleted", is_flag=True, help="Deleted ones, too.")
_CSV = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
_TAGS = click.option("--tag", "-t", "tags", multiple=True, metavar="KEY=VALUE", help="A tag, its value as text.")
_ABOUT = click.option("--description", "-d", default="", help="What it is, as Markdown.")
_EDIT = click.option("--edit", is_flag=True, help="Write it in your editor.")
_YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def _at(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command look at the registry as it was."""
    return click.option(
        "--at", "time", metavar="TIME", callback=moment,
        help="As it was then: 2026-03-01, 2026-03-01T12:00Z or, for a week ago, -7d.",
    )(CLOCK(function))  # fmt: skip


def _registry(uri: str | None) -> Registry:
    return Client(uri).registry


def _look(client: Client, time: int | None, clock: Clock, *, as_json: bool) -> Registry:
    """Return the registry of a store, as it is or as it was; tell a person whose word that is."""
    if time is None:
        return client.registry
    from mlcore_local.registry import past

    found = past.look(client, time, clock=clock)
    if not as_json:
        click.echo(found.told(), err=True)
    return found.registry


@_command("list --filter \"tags.team = 'vision'\"")
@click.option("--filter", "-f", "query", metavar="QUERY", help="Only models that fit, such as: name like 'digits%'.")
@_SORT
@LIMIT
@_DELETED
@_CSV
@_at
def list_models(
    *, query: str | None, sort: tuple[str, ...], limit: int | None, deleted: bool, as_csv: bool, time: int | None,
    clock: Clock, uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """List models, the newest first.

    Of each it tells the latest version, and which versions its aliases stand for.
    """
    known = _look(Client(uri), time, clock, as_json=as_json)
    found = known.search(query, order_by=sort, limit=limit, include_deleted=deleted)
    content = describing.models_json(found)
    if as_json:
        return terminal.show(terminal.as_json(content))
    rows = [_model_row(each) for each in content]
    names = ["name", "latest", "aliases", "changed", *(["deleted"] if deleted else [])]
    return _table(rows, names, "there are no models", query, as_csv)


def _model_row(about: Mapping[str, Any]) -> dict[str, Any]:
    aliases = ", ".join(f"@{alias} {version}" for alias, version in about["aliases"].items())
    return {**about, "aliases": aliases, **{f"tags.{key}": value for key, value in about["tags"].items()}}


@_command("search \"alias = 'champion' and metrics.accuracy > 0.9\"")
@click.argument("query", metavar="[QUERY]", default="")
@_SORT
@LIMIT
@_DELETED
@_CSV
@_at
def search(
    *, query: str, sort: tuple[str, ...], limit: int | None, deleted: bool, as_csv: bool, time: int | None,
    clock: Clock, uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """List the versions of all models that fit.

    The newest comes first; without QUERY all there are.
    """
    known = _look(Client(uri), time, clock, as_json=as_json)
    found = known.search_versions(query, order_by=sort, limit=limit, include_deleted=deleted)
    if as_json:
        return terminal.show(terminal.as_json(describing.version_json(each) for each in found))
    rows = [describing.version_row(each) for each in found]
    names = ["name", *describing.COLUMNS, *(["deleted"] if deleted else [])]
    return _table(rows, names, "there are no versions", query, as_csv, "source")


def _table(
    rows: Sequence[Mapping[str, Any]], names: Iterable[str], none: str, query: str | None, as_csv: bool, *last: str
) -> None:
    """Print rows: as CSV whole, else the columns in which one of them says something."""
    names = [*names, *describing.tags_of(rows), *last, "description"]
    if as_csv:
        return terminal.show(terminal.as_csv(names, ([row.get(name) for name in names] for row in rows)))
    if not rows:
        return click.echo(f"{none}{' that fit' if query else ''}", err=True)
    told = describing.worth(rows, names)
    return terminal.show_table(told, ([_cell(name, row.get(name)) for name in told] for row in rows))


def _cell(name: str, value: Any) -> Any:
    if name == "description":
        return describing.first_line(value)
    if name not in ("created", "changed") or value is None:
        return value
    return c.ago(value) if terminal.interactive() else c.moment(value)


@_command("show digits@champion --at 2026-03-01")
@_WHICH
@_at
def show(which: str, time: int | None, clock: Clock, uri: str | None, as_json: bool) -> None:
    """Show all of a model, or of one version.

    Of a model it tells the versions, too, and of a version what the run measured that it came from.
    """
    client = Client(uri)
    found = naming.find(_look(client, time, clock, as_json=as_json), which)
    if isinstance(found, RegisteredModel):
        content, page = describing.model_json(found, whole=True), describing.model_page(found)
    else:
        run = describing.run_of(client, found)
        content, page = describing.version_json(found, run, whole=True), describing.version_page(found, run)
    terminal.show(terminal.as_json(content) if as_json else page)


@_command("register runs:/@last/model digits --alias challenger")
@click.argument("model", metavar="URI", shell_complete=completing.model_uri)
@_MODEL
@_ABOUT
@_TAGS
@click.option("--alias", "-a", "aliases", multiple=True, metavar="ALIAS", help="What stands for it from now on.")
def register(
    *, model: str, name: str, description: str, tags: tuple[str, ...], aliases: tuple[str, ...], uri: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a version of a model, and print its URI.

    The version is the model at URI; the model NAME is made if there is none. URI is runs:/RUN/NAME with any RUN
    that `mlcore runs` takes, a folder, any URI of a folder that an artifact backend reads, or another version, as
    models:/NAME/3. Nothing is copied: the version is loaded as long as the files are the same.
    """
    client = Client(uri)
    given = dict(map(c.pair, tags))
    made = client.registry.register(
        c.whole_uri(client, model), name, description=description, tags=given, aliases=aliases
    )
    _tell(made, as_json, [made.uri])


@_command("create digits --tag team=vision --description 'Which digit is it?'")
@_MODEL
@_ABOUT
@_TAGS
def create(name: str, description: str, tags: tuple[str, ...], uri: str | None, as_json: bool) -> None:
    """Make a model without versions.

    The first version of one makes it, too.
    """
    made = _registry(uri).create(name, description=description, tags=dict(map(c.pair, tags)))
    _tell(made, as_json, [f"created {made.name}"])


@_command("rename digits 'handwritten digits'")
@_MODEL
@click.argument("new")
def rename(name: str, new: str, uri: str | None, as_json: bool) -> None:
    """Give a model another name, which must be free."""
    if naming.names_version(name):
        raise InvalidValue(f"{name!r} is a version: give the name of its model")
    found = naming.find_model(_registry(uri), name)
    before = found.name
    found.rename(new)
    _tell(found, as_json, [f"renamed {before} to {found.name}"])


@_command("alias digits/3 champion --from digits/2")
@_WHICH
@click.argument("aliases", nargs=-1, metavar="[ALIAS]...", shell_complete=completing.alias)
@click.option("--from", "before", metavar="VERSION", help="Only if it stands for this one now; none is for nothing.")
@click.option(
    "--remove", "gone", multiple=True, metavar="ALIAS", help="Let it stand for nothing; can be repeated.",
    shell_complete=completing.alias,
)  # fmt: skip
def alias(
    *, which: str, aliases: tuple[str, ...], gone: tuple[str, ...], before: str | None, uri: str | None, as_json: bool
) -> None:
    """Let an alias stand for a version, and no longer for another.

    Without any it prints the aliases. With --from it moves only what stands for that version now: whoever decided by
    what he saw is told if somebody else was faster.
    """
    known = _registry(uri)
    model = naming.find_model(known, which)
    target = naming.find_version(known, which).version if aliases else ""
    for each in (*gone, *aliases):  # all of them, before the first moves
        _check_from(model, each, before)
    for each in gone:
        _check_from(model, each, before)  # a move reads the model anew, and is refused if it is not as it was read
        model.remove_alias(each)
    for each in aliases:
        _check_from(model, each, before)
        model.set_alias(each, target)
    model.refresh()
    found = {name: each.version for name, each in model.aliases.items()}
    terminal.show(terminal.as_json(found) if as_json else describing.pairs(found, ""))


def _check_from(model: RegisteredModel, alias: str, before: str | None) -> None:
    """Raise `AliasMoved` unless an alias stands for what was given with --from, if something was."""
    if before is None:
        return
    found = model.aliases.get(alias)
    now, seen = found.version if found else "none", before.rpartition("/")[2]
    if now != seen:
        raise AliasMoved(
            f"{model.name}@{alias} stands for {now}, not for {seen}: look again, and move it if that is right"
        )


@_command("stage digits/3 Production --archive")
@_VERSION
@click.argument("stage", required=False, type=click.Choice(STAGES, case_sensitive=False))
@click.option("--archive", is_flag=True, help="Move what was in that stage to Archived.")
def stage(version: str, stage: str | None, archive: bool, uri: str | None, as_json: bool) -> None:
    """Move a version to a stage.

    That is None, Staging, Production or Archived; without one it prints the stage. Stages are for those who know
    them from MLflow; an alias says more, and moves in one step.
    """
    found = naming.find_version(_registry(uri), version)
    if stage is not None:
        found.transition(stage, archive_existing=archive)
    _tell(found, as_json, [found.stage])


@_command("tag digits/3 reviewed=yes --remove draft")
@_WHICH
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", "gone", multiple=True, metavar="KEY", help="Remove a tag; can be repeated.")
def tag(which: str, tags: tuple[str, ...], gone: tuple[str, ...], uri: str | None, as_json: bool) -> None:
    """Set and remove tags of a model or a version; values are text. Without any it prints the tags."""
    given = dict(map(c.pair, tags))
    found = naming.find(_registry(uri), which)
    for key in gone:
        found.remove_tag(key)
    if given:
        found.set_tags(given)
    _tell(found, as_json, describing.pairs(found.tags, ""))


@_command("describe digits/3 'Trained on **all** digits.'")
@_WHICH
@click.argument("text", required=False)
@_EDIT
def describe(which: str, text: str | None, edit: bool, uri: str | None, as_json: bool) -> None:
    """Say what a model or a version is, as Markdown.

    - reads it from standard input. Without TEXT it prints what was said.
    """
    found = naming.find(_registry(uri), which)
    given = _written(text, edit, found.description)
    if given is not None:
        found.describe(given)
    _tell(found, as_json, [terminal.printable(line) for line in found.description.splitlines()])


@_command("comment digits/3 'It takes fours for nines.'")
@_WHICH
@click.argument("text", required=False)
@_EDIT
@click.option("--remove", "gone", multiple=True, metavar="ID", help="Take out the comment of this id, or its end.")
def comment(which: str, text: str | None, edit: bool, gone: tuple[str, ...], uri: str | None, as_json: bool) -> None:
    """Add a comment to a model or a version, as Markdown.

    - reads it from standard input. Prints the comments; the history keeps those that are taken out.
    """
    found = naming.find(_registry(uri), which)
    taken = [_comment(found, each) for each in gone]
    given = _written(text, edit, "")
    for each in taken:
        found.remove_comment(each)
    if given is not None:
        found.comment(given)
    terminal.show(terminal.as_json(found.comments) if as_json else describing.comments(found, ""))


def _comment(found: RegisteredModel | ModelVersion, text: str) -> str:
    """Return the id of the comment that has this one, or ends in it."""
    fit = [each["id"] for each in found.comments if each["id"].endswith(text)]
    if len(fit) != 1:
        ids = ", ".join(each["id"][-8:] for each in found.comments) or "none"
        raise NotFound(
            f"{naming.shown(found)} has {len(fit)} comments whose id is {text!r} or ends so; there are {ids}"
        )
    return str(fit[0])


def _written(text: str | None, edit: bool, before: str) -> str | None:
    """Return what was given as a text, on standard input or in the editor; None if nothing was."""
    if edit:
        text = click.edit(before, extension=".md")
    elif text == "-":
        text = sys.stdin.read()
    return None if text is None else text.rstrip("\n")


@_command("status digits/3 FAILED --message 'It does not load on the robots.'")
@_VERSION
@click.argument("status", required=False, type=click.Choice(["PENDING", "READY", "FAILED"], case_sensitive=False))
@click.option("--message", "-m", default="", help="Why.")
def status(version: str, status: str | None, message: str, uri: str | None, as_json: bool) -> None:
    """Say that a version is PENDING, READY or FAILED. Without a status it prints the status."""
    found = naming.find_version(_registry(uri), version)
    if status is not None:
        found.set_status(status, message)
    _tell(found, as_json, [found.status])


@_command("delete digits/2 digits/1")
@_MANY
@_YES
def delete(which: tuple[str, ...], yes: bool, uri: str | None, as_json: bool) -> None:
    """Hide models or versions until they are restored.

    Nothing of them is lost. A version for which an alias stands is not hidden. A model with aliases is after you were
    asked, as it is not loaded by them until it is restored.
    """
    found = _each(uri, which)
    for each in found:
        aliases = ", ".join(f"@{alias}" for alias in each.aliases)
        if aliases and isinstance(each, ModelVersion):  # before the first is hidden
            raise InvalidValue(f"{naming.shown(each)} is {aliases}: move or remove that first")
        if aliases and not yes:
            _ask(f"{each.name} has {aliases}: hide it?")
    _hide(found, as_json, "deleted")


@_command("restore digits/2")
@_MANY
def restore(which: tuple[str, ...], uri: str | None, as_json: bool) -> None:
    """Show deleted models or versions again."""
    _hide(_each(uri, which), as_json, "restored")


def _each(uri: str | None, which: Iterable[str]) -> list[RegisteredModel | ModelVersion]:
    """Return all that is named, before the first is changed."""
    known = _registry(uri)
    return [naming.find(known, each) for each in which]


def _ask(question: str) -> None:
    """Ask whoever sits there. Raises `InvalidValue` if nobody does."""
    if not sys.stdin.isatty():
        raise InvalidValue(f"{question} Nobody is here to say so: give --yes")
    click.confirm(terminal.printable(question), abort=True, err=True)


def _hide(found: Sequence[RegisteredModel | ModelVersion], as_json: bool, done: str) -> None:
    for each in found:
        each.delete() if done == "deleted" else each.restore()
    lines = [f"{done} {terminal.printable(naming.shown(each))}" for each in found]
    content = [_content(each) for each in found]
    terminal.show(terminal.as_json(content if len(content) > 1 else content[0]) if as_json else lines)


def _content(found: RegisteredModel | ModelVersion) -> dict[str, Any]:
    return describing.model_json(found) if isinstance(found, RegisteredModel) else describing.version_json(found)


def _tell(found: RegisteredModel | ModelVersion, as_json: bool, lines: Iterable[str]) -> None:
    """Print what was changed, as JSON or in the given lines."""
    terminal.show(terminal.as_json(_content(found)) if as_json else map(terminal.printable, lines))
