"""``mlcore plugins``: what is installed, what it provides, and what failed to load and why."""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs
import click

from mlcore import plugins
from mlcore.errors import NotFound

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
    lines = [f"{each.name}  {each.distribution} {each.version}  {_summary(each)}" for each in found]
    lines += [f"CONFLICT {each}" for each in conflicts]
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
    for kind, records in plugin.provides.items():
        told += [(kind, f"{each.name}  {each.summary}  ({each.implementation})") for each in records]
    told += [("listens", event) for event in plugin.listens]
    _print(attrs.asdict(plugin), (f"{label:<18} {text}" for label, text in told if text), as_json)


def _summary(plugin: plugins.Plugin) -> str:
    kinds = [f"{kind}: {', '.join(each.name for each in records)}" for kind, records in plugin.provides.items()]
    return f"FAILED {plugin.error}" if plugin.error else "; ".join([*kinds, *plugin.listens])


def _print(content: object, lines: Iterable[str], as_json: bool) -> None:
    # an implementation may be a callable, which is no JSON
    for line in [json.dumps(content, indent=2, default=str)] if as_json else lines:
        click.echo(line)
