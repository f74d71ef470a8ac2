"""``mlcore plugins``: what is installed, what each provides, and what failed to load."""

import json
from typing import Any

import click

from mlcore import plugins
from mlcore.errors import NotFound
from mlcore.plugins import Plugin

_ABOUT = ("name", "distribution", "version", "module", "error")


@click.group("plugins")
def plugins_group() -> None:
    """List what is installed and what it provides."""


@plugins_group.command("list", epilog="Example: mlcore plugins list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:
    """List every plugin, those that failed to load and conflicts included."""
    found = [_content(plugin) for plugin in plugins.installed()]
    if as_json:
        return click.echo(json.dumps({"plugins": found, "conflicts": plugins.conflicts()}, indent=2))
    for each in found:
        names = [
            f"{kind}: {', '.join(record['name'] for record in records)}" for kind, records in each["provides"].items()
        ]
        what = f"FAILED {each['error']}" if each["error"] else "; ".join([*names, *each["listens"]])
        click.echo(f"{each['name']}  {each['distribution']} {each['version']}  {what}")
    for conflict in plugins.conflicts():
        click.echo(f"CONFLICT {conflict}")
    return None


@plugins_group.command("info", epilog="Example: mlcore plugins info local")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(name: str, as_json: bool) -> None:
    """Tell all about one plugin."""
    found = next((_content(plugin) for plugin in plugins.installed() if plugin.name == name), None)
    if found is None:
        raise NotFound(f"no plugin named {name}; there is: {', '.join(each.name for each in plugins.installed())}")
    if as_json:
        return click.echo(json.dumps(found, indent=2))
    lines = [(each, found[each]) for each in _ABOUT]
    for kind, records in found["provides"].items():
        lines += [(kind, f"{each['name']}  {each['summary']}  ({each['implementation']})") for each in records]
    for label, text in [*lines, *(("listens", event) for event in found["listens"])]:
        if text:
            click.echo(f"{label:<18} {text}")
    return None


def _content(plugin: Plugin) -> dict[str, Any]:
    provides = {
        kind: [{"name": r.name, "summary": r.summary, "implementation": str(r.implementation)} for r in records]
        for kind, records in plugin.provides.items()
    }
    return {**{name: getattr(plugin, name) for name in _ABOUT}, "provides": provides, "listens": list(plugin.listens)}
