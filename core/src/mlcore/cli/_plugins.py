"""``mlcore plugins``: what is installed, what each provides, and what failed to load."""

import json

import attrs
import click

from mlcore import plugins
from mlcore.errors import NotFound

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("plugins")
def plugins_group() -> None:
    """List what is installed and what it provides."""


@plugins_group.command("list", epilog="Example: mlcore plugins list --json")
@_as_json
def list_plugins(as_json: bool) -> None:
    """List every plugin, those that failed to load and conflicts included."""
    found, conflicts = plugins.installed(), plugins.conflicts()
    if as_json:
        return _print_json({"plugins": [attrs.asdict(each) for each in found], "conflicts": conflicts})
    for each in found:
        names = [f"{kind}: {', '.join(record.name for record in records)}" for kind, records in each.provides.items()]
        what = f"FAILED {each.error}" if each.error else "; ".join([*names, *each.listens])
        click.echo(f"{each.name}  {each.distribution} {each.version}  {what}")
    for conflict in conflicts:
        click.echo(f"CONFLICT {conflict}")
    return None


@plugins_group.command("info", epilog="Example: mlcore plugins info local")
@click.argument("name")
@_as_json
def info(name: str, as_json: bool) -> None:
    """Tell all about one plugin."""
    found = {plugin.name: plugin for plugin in plugins.installed()}
    if name not in found:
        raise NotFound(f"no plugin named {name}; there is: {', '.join(found)}")
    plugin = found[name]
    if as_json:
        return _print_json(attrs.asdict(plugin))
    lines = [(each, getattr(plugin, each)) for each in ("name", "distribution", "version", "module", "error")]
    for kind, records in plugin.provides.items():
        lines += [(kind, f"{each.name}  {each.summary}  ({each.implementation})") for each in records]
    for label, text in [*lines, *(("listens", event) for event in plugin.listens)]:
        if text:
            click.echo(f"{label:<18} {text}")
    return None


def _print_json(content: object) -> None:
    click.echo(json.dumps(content, indent=2, default=str))  # an implementation may be a callable
