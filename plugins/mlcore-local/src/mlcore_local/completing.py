"""What a shell offers for a run, an experiment or a column: soon in a store of any size, and never an error.

Only the newest runs are looked at, and what no shell can take as one plain word is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlcore import Client, Listing, Run
from mlcore_local import columns as c

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from mlcore.registry import RegisteredModel

__all__ = [
    "alias", "columns", "experiment", "files", "metric", "model", "model_uri", "order", "registered", "run",
]  # fmt: skip

_NEWEST = 200  # runs that are looked at
_MOST = 60  # words that are offered
_LONGEST = 80
_MODELS = "models:/"
_PLAIN = re.compile(r"[\w@%+=:,./ -]*")
_WORTH = {"restore": "deleted = true", "end": "status in ('RUNNING', 'LOST')"}  # by the command
Words = Iterable[tuple[str, str]]  # each with what it means


def _offered(find: Callable[[Client, click.Context, str], Words]) -> Callable[..., list[CompletionItem[str]]]:
    """Turn a function that yields words into one that click asks for those that go on with what was typed."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        from mlcore_local.store import FolderStore

        found = list[CompletionItem[str]]()
        with suppress(Exception):  # whatever is wrong with the store, whoever types must not read of it in his line
            client = Client(ctx.params.get("uri"))
            if isinstance(client.store, FolderStore):
                client.store.newest = _NEWEST
            words = dict(find(client, ctx, incomplete))
            fit = ((word, about) for word, about in words.items() if word.startswith(incomplete) and _speakable(word))
            found += (CompletionItem(_escaped(word), help=about or None) for word, about in islice(fit, _MOST))
        return found

    return complete


def _speakable(word: str) -> bool:
    able = word.isprintable() and not word.startswith("-") and 0 < len(word) <= _LONGEST
    return able and (not _in_quotes() or _PLAIN.fullmatch(word) is not None)


def _escaped(word: str) -> str:
    """Return a word as bash takes it; the other shells do that by themselves, and bash within quotes."""
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", word) if _in_bash() and not _in_quotes() else word


def _in_bash() -> bool:
    return os.environ.get("_MLCORE_COMPLETE", "").startswith("bash")


def _in_quotes() -> bool:
    typed, at = os.environ.get("COMP_WORDS", "").split("\n"), os.environ.get("COMP_CWORD", "")
    return _in_bash() and at.isdigit() and int(at) < len(typed) and typed[int(at)].startswith(("'", '"'))


def _newest(client: Client, ctx: click.Context) -> Iterable[Run]:
    name = ctx.command.name or ""
    return client.search_runs(_WORTH.get(name), experiment="*", limit=_NEWEST, include_deleted=name == "restore")


@_offered
def run(client: Client, ctx: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer ``@last``, the last digits of ids, and names; whole ids to whoever types the beginning of one."""
    if ctx.command.name != "restore":
        yield c.LAST, "the run that started last"
    for each in _newest(client, ctx):
        digits = each.id[-8:]
        when = "" if each.start_time is None else f", {c.ago(each.start_time)}"
        about = f"{each.status}{when}"
        yield digits, f"{each.name if each.name.isprintable() else '...'}, {about}"
        yield each.name, f"{digits}, {about}"
        if len(incomplete) > 1 and not digits.startswith(incomplete):
            yield each.id, f"{each.name if each.name.isprintable() else '...'}, {about}"


@_offered
def experiment(client: Client, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer the names of experiments; to restore, of deleted ones."""
    for each in client.search_experiments("deleted = true" if ctx.command.name == "restore" else None):
        yield each.name, ""


@_offered
def columns(client: Client, ctx: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer names of columns after the last comma, with their family and, where nothing else fits, without."""
    before, comma, typed = incomplete.rpartition(",")
    names = [*c.FIELDS, *_keys(client, ctx)]
    fit = [name for name in names if name.startswith(typed)] or [name.partition(".")[2] for name in names]
    return ((f"{before}{comma}{name}", "") for name in fit if name and "," not in name and '"' not in name)


@_offered
def order(client: Client, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer what runs can be ordered by, as a query names it."""
    from mlcore import query

    known = (name for name, each in query.RUN.items() if each.terms and name.isidentifier())
    for name in (*known, "status", *_keys(client, ctx)):
        family, dot, key = name.partition(".")
        bare = not dot or re.fullmatch(r"[\w/:-]+(\.[\w/:-]+)*", key)
        yield name if bare else f"{family}.`{key.replace('`', '``')}`", ""


@_offered
def metric(client: Client, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer the keys of metrics: of the run that was named, else of all."""
    named = ctx.params.get("run")
    runs = [c.find_run(client, named)] if isinstance(named, str) else _newest(client, ctx)
    return ((key, f"{value:.6g}") for each in runs for key, value in each.metrics.items())


@_offered
def files(client: Client, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer the files of the run that was named, and the folders they are in."""
    for each in c.find_run(client, str(ctx.params["run"])).artifacts.list():
        parts = each.path.split("/")
        yield from (("/".join(parts[:end]), "a folder") for end in range(1, len(parts)))
        yield each.path, f"{each.size:,} bytes"


def _restores(ctx: click.Context) -> bool:
    return ctx.command.name == "restore"


def _models(client: Client, ctx: click.Context) -> Iterable[RegisteredModel]:
    return client.registry.search("deleted = true" if _restores(ctx) else None, limit=_NEWEST)


@_offered
def model(client: Client, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer the names of registered models."""
    for each in _models(client, ctx):
        yield each.name, ""


@_offered
def registered(client: Client, ctx: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer models, and whoever has typed the name of one its versions; to restore, what is deleted."""
    return _registered(client, ctx, incomplete)


@_offered
def model_uri(client: Client, ctx: click.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the URIs of what aliases stand for, and whoever has typed the name of a model its versions."""
    return _registered(client, ctx, incomplete, _MODELS)


@_offered
def alias(client: Client, ctx: click.Context, _: str) -> Iterator[tuple[str, str]]:
    """Offer the aliases of the model that was named."""
    from mlcore.registry import parse  # not before: every command imports this, and few are asked

    named = ctx.params.get("which") or next(iter(ctx.args), "")  # click has it there after an option without its value
    name = parse(str(named)).name
    return ((alias, f"version {each.version}") for alias, each in client.registry.get(name).aliases.items())


def _registered(client: Client, ctx: click.Context, typed: str, scheme: str = "") -> Iterator[tuple[str, str]]:
    name = re.split("[/@]", typed.removeprefix(_MODELS))[0]
    known, scheme = list(_models(client, ctx)), _MODELS if typed.startswith(_MODELS) else scheme
    for each, view in zip(known, Listing(known).to_dicts(), strict=True):
        yield (f"{scheme}{each.name}/latest" if scheme else each.name), ""
        if scheme or each.name == name:
            aliases = ((key.partition(".")[2], at) for key, at in view.items() if key.startswith("aliases.") and at)
            yield from ((f"{scheme}{each.name}@{alias}", f"version {at}") for alias, at in aliases)
    gone = " and deleted = true" if _restores(ctx) else ""
    for found in client.registry.search_versions(f"name = ?{gone}", name, limit=_NEWEST):
        yield f"{scheme}{name}/{found.version}", found.flavor


def _keys(client: Client, ctx: click.Context) -> list[str]:
    rows: list[dict[str, Any]] = [
        {f"{family}.{key}": None for family in c.FAMILIES for key in getattr(each, family)}
        for each in _newest(client, ctx)
    ]
    return c.keys(rows)
