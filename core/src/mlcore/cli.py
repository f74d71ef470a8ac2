"""The ``mlcore`` program: a group, whose commands plugins provide."""

import sys

import click

from mlcore import __version__, plugins
from mlcore.errors import MlcoreError

__all__ = ["main", "program"]


class _Program(click.Group):
    """List the commands of plugins without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(plugins.provided("commands"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = cmd_name in {*plugins.provided("commands"), *plugins.FIRST_PARTY["commands"]}
        return plugins.load("commands", cmd_name) if known else None  # type: ignore[return-value]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = plugins.provided("commands")
        with formatter.section("Commands"):
            formatter.write_dl([(name, found[name][0][1].summary) for name in sorted(found)])


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
        text = "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in str(error))
        click.echo(f"mlcore: {text}", err=True)
        sys.exit(1)
