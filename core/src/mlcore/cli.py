"""The ``mlcore`` program: a group, whose commands plugins provide."""

import sys

import click

from mlcore import __version__, plugins
from mlcore.errors import MlcoreError

__all__ = ["Group", "main", "program"]


class Group(click.Group):
    """Hold commands of its own, and those that plugins provide under its word and theirs: ``"runs diff"``.

    Those of plugins are listed without importing them.
    """

    def _provided(self) -> dict[str, str]:
        named = ((name.rpartition(" "), who[0][1]) for name, who in plugins.provided("commands").items())
        return {word: record.summary for (group, _, word), record in named if group == self._word}

    @property
    def _word(self) -> str:
        return "" if self is program else self.name or ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the words of all commands, sorted."""
        return sorted({*self.commands, *self._provided()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, imported now. Raises `NotInstalled` with the line that would bring it."""
        name = f"{self._word} {cmd_name}".lstrip()
        known = name in plugins.FIRST_PARTY["commands"] or cmd_name in self._provided()
        if cmd_name in self.commands or not known:
            return super().get_command(ctx, cmd_name)
        return plugins.load("commands", name)  # type: ignore[return-value]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        room = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        told = self._provided() | {name: each.get_short_help_str(room) for name, each in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(told.items()))


_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(cls=Group, epilog="Example: mlcore plugins list", context_settings=_HELP)
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
