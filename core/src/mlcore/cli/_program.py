"""Put together the commands of core and of the plugins, and turn errors into one line and an exit code."""

import importlib
import sys
from typing import Any

import click

import mlcore
from mlcore import plugins
from mlcore.errors import MlcoreError

_OWN = {"plugins": ("mlcore.cli._plugins:plugins_group", "List what is installed and what it provides.")}


class _Program(click.Group):
    """List commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_OWN, *plugins.provided("commands")})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _OWN:
            module, _, attribute = _OWN[cmd_name][0].partition(":")
            return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
        if cmd_name not in plugins.provided("commands") and cmd_name not in plugins.FIRST_PARTY["commands"]:
            return None
        command: Any = plugins.load("commands", cmd_name)
        return command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summaries = {name: who[0][1].summary for name, who in plugins.provided("commands").items()}
        summaries |= {name: summary for name, (_, summary) in _OWN.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(summaries.items()))


@click.group(
    cls=_Program, epilog="Example: mlcore plugins list", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(mlcore.__version__, prog_name="mlcore")
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
