"""``mlcore plugins``: what is installed, what it provides, and what failed to load and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import attrs
import click

from mlcore import plugins
from mlcore.errors import NotFound
from mlcore_local import terminal

__all__ = ["commands", "info", "list_plugins"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("plugins")
def commands() -> None:
    """List what is installed and what it provides."""


@commands.command("list", epilog="Example: mlcore plugins list --json")
@_as_json
def list_plugins(as_json: bool) -> None:
    """List every plugin, those that failed to load and conflicts included."""
    found, conflicts = plugins.installed(), plugins.conflicts()
    heads = [terminal.printable(f"{each.name}  {each.distribution} {each.version}") for each in found]
    lines = [line for head, each in zip(heads, found, strict=True) for line in (head, *map(_indented, _provided(each)))]
    lines += [f"CONFLICT {terminal.printable(each)}" for each in conflicts]
    _print({"plugins": [attrs.asdict(each) for each in found], "conflicts": conflicts}, lines, as_json)


@commands.command(epilog="Example: mlcore plugins info local")
@click.argument("name")
@_as_json
def info(name: str, as_json: bool) -> None:
    """Tell all about one plugin."""
    found = {plugin.name: plugin for plugin in plugins.installed()}
    if name not in found:
        raise NotFound(f"no plugin named {name}; there is: {', '.join(found)}")
    plugin = found[name]
    told = [(each, getattr(plugin, each)) for each in ("name", "distribution", "version", "module", "error")]
    told += [("listens to", ", ".join(plugin.listens))]
    lines = [f"{label:<12}  {terminal.printable(text)}" for label, text in told if text]
    for kind, records in plugin.provides.items():
        table = terminal.Table(
            [kind.replace("_", " "), "summary", "implementation"],
            ([each.name, each.summary, each.implementation] for each in records), most=60,
        )  # fmt: skip
        lines += ["", *table.lines()] if records else []
    _print(attrs.asdict(plugin), lines, as_json)


def _provided(plugin: plugins.Plugin) -> Iterator[str]:
    if plugin.error:
        yield f"FAILED {plugin.error}"
        return
    for kind, records in plugin.provides.items():
        if records:
            yield f"{kind.replace('_', ' ')}: {', '.join(each.name for each in records)}"
    if plugin.listens:
        yield f"listens to: {', '.join(plugin.listens)}"


def _indented(text: str) -> str:
    return "\n".join(terminal.wrapped(f"  {terminal.printable(text)}", 4))


def _print(content: object, lines: Iterable[str], as_json: bool) -> None:
    # an implementation may be a callable, which is no JSON
    terminal.show(json.dumps(content, indent=2, default=str).split("\n") if as_json else lines)
