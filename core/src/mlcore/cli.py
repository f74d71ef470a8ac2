"""The ``mlcore`` program: a group whose commands plugins provide, and ``mlcore plugins``, which tells of them."""

import json
import sys
from collections.abc import Iterable
from typing import Any

import attrs
import click

from mlcore import __version__, plugins
from mlcore.errors import MlcoreError, NotFound

__all__ = ["main", "program"]


class _Program(click.Group):
    """List the commands of plugins without importing them; core's own win."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *plugins.provided("commands")})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command: Any = self.commands.get(cmd_name)
        if command is None and cmd_name in {*plugins.provided("commands"), *plugins.FIRST_PARTY["commands"]}:
            command = plugins.load("commands", cmd_name)
        return command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summaries = {name: who[0][1].summary for name, who in plugins.provided("commands").items()}
        summaries |= {name: command.help or "" for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(summaries.items()))


_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(cls=_Program, epilog="Example: mlcore plugins list", context_settings=_HELP)
@click.version_option(__version__, prog_name="mlcore")
def program() -> None:
    """Track, package and reproduce machine-learning experiments.

    Exit codes: 0 done, 1 failed, 2 wrong usage.
    """


def main() -> None:
    """Run the program; what mlcore raises, or the system refuses, becomes one line on stderr and exit code 1."""
    try:
        program(prog_name="mlcore")
    except (MlcoreError, OSError) as error:
        click.echo(f"mlcore: {error}", err=True)
        sys.exit(1)


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@program.group("plugins")
def _plugins() -> None:
    """List what is installed and what it provides."""


@_plugins.command("list", epilog="Example: mlcore plugins list --json")
@_as_json
def _list(as_json: bool) -> None:
    """List every plugin, those that failed to load and conflicts included."""
    found, conflicts = plugins.installed(), plugins.conflicts()
    lines = [f"{each.name}  {each.distribution} {each.version}  {_summary(each)}" for each in found]
    lines += [f"CONFLICT {each}" for each in conflicts]
    _print({"plugins": [attrs.asdict(each) for each in found], "conflicts": conflicts}, lines, as_json)


@_plugins.command("info", epilog="Example: mlcore plugins info local")
@click.argument("name")
@_as_json
def _info(name: str, as_json: bool) -> None:
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
