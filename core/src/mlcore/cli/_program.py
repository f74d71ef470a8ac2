"""Put together the commands of core and of the plugins, and turn errors into one line and an exit code."""

import sys
from typing import Any

import click

import mlcore
from mlcore import plugins
from mlcore.cli._plugins import plugins_group
from mlcore.errors import MlcoreError


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


@click.group(
    cls=_Program, epilog="Example: mlcore plugins list", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(mlcore.__version__, prog_name="mlcore")
def program() -> None:
    """Track, package and reproduce machine-learning experiments.

    Exit codes: 0 done, 1 failed, 2 wrong usage.
    """


program.add_command(plugins_group)


def main() -> None:
    """Run the program; what mlcore raises, or the system refuses, becomes one line on stderr and exit code 1."""
    try:
        program(prog_name="mlcore")
    except (MlcoreError, OSError) as error:
        click.echo(f"mlcore: {error}", err=True)
        sys.exit(1)
