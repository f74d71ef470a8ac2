"""``mlcore runs diff``: print what two runs do not have alike, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import click

from mlcore import Client
from mlcore.errors import InvalidValue
from mlcore_local import columns as c, completing, terminal
from mlcore_local.arguments import JSON, STORE
from mlcore_local.comparing import compare
from mlcore_local.differences import Change, Differences

__all__ = ["OPTIONS", "allowed", "conclude", "diff", "lines", "shown"]

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def OPTIONS(function: Callable[..., Any]) -> Callable[..., Any]:  # noqa: N802 - as those of `arguments`
    """Add what a comparison may be told: what counts as alike, what is left out, and how to exit."""
    for add in (
        click.option("--exit-code", "tell", is_flag=True, help="Exit with 1 if anything differs, with 0 if not."),
        click.option(
            "--ignore", "-i", multiple=True, metavar="PATTERN",
            help="Leave out what fits, such as 'code.docs/*' or 'metrics.seconds*'; can be repeated.",
        ),
        click.option(
            "--within", "-w", multiple=True, metavar="METRIC=NUMBER",
            help="What one metric may differ by; can be repeated.",
        ),
        click.option(
            "--tolerance", type=click.FloatRange(min=0), default=0.0, metavar="SHARE",
            help="Metrics are alike that differ by this share of the larger at most, such as 1e-6.",
        ),
    ):  # fmt: skip
        function = add(function)
    return function


@click.command(epilog="Example: mlcore runs diff 5b0540c9 @last --within accuracy=0.001 --ignore 'metrics.seconds*'")
@click.argument("first", metavar="A", shell_complete=completing.run)
@click.argument("second", metavar="B", shell_complete=completing.run)
@OPTIONS
@STORE
@JSON
def diff(
    *, first: str, second: str, tolerance: float, within: tuple[str, ...], ignore: tuple[str, ...], tell: bool,
    uri: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print what differs between two runs, and nothing else.

    Changed lines of code, the command, Python, packages, parameters, data, models and the latest values of metrics.
    What could not be compared is told on standard error.
    """
    client = Client(uri)
    one, other = c.find_run(client, first), c.find_run(client, second)
    found = compare(one, other, tolerance=tolerance, within=allowed(within), ignore=ignore, client=client)
    conclude(found, {"runs": [found.first, found.second]}, as_json=as_json, tell=tell)


def conclude(found: Differences, about: dict[str, Any], *, as_json: bool, tell: bool) -> None:
    """Print what differs, and on standard error what could not be compared; exit with 1 if that was asked for."""
    content = about | {"same": not found} | {
        name: [attrs.asdict(each) for each in getattr(found, name)] for name in found.parts
    } | {"unknown": list(found.unknown)}  # fmt: skip
    terminal.show(terminal.as_json(content) if as_json else lines(found))
    for each in found.unknown:
        click.echo(f"mlcore: not compared: {terminal.printable(each)}", err=True)
    if tell and found:
        sys.exit(1)


def allowed(within: Iterable[str]) -> dict[str, float]:
    """Return what each metric may differ by, of words such as ``accuracy=0.001``. Raises `InvalidValue`."""
    return dict(map(_allowed, within))


def _allowed(text: str) -> tuple[str, float]:
    key, value = c.pair(text)
    try:
        return key, float(value)
    except ValueError:
        raise InvalidValue(f"--within {text!r}: {value!r} is no number") from None


def lines(found: Differences) -> Iterator[str]:
    """Yield what differs as lines to print, part by part."""
    for part in found.parts:
        if getattr(found, part):
            yield terminal.styled(part, bold=True)
            yield from shown(found, part)


def shown(found: Differences, part: str) -> Iterator[str]:
    """Yield what differs in one part."""
    changes: tuple[Change, ...] = getattr(found, part)
    width = max((terminal.width(terminal.printable(each.name)) for each in changes), default=0)
    for each in changes:
        name = terminal.printable(each.name)
        yield f"  {name}{' ' * (width - terminal.width(name))}  {_told(part, each)}".rstrip()
        yield from (terminal.styled(f"    {_line(line)}", fg=_COLOURS.get(line[:1])) for line in each.lines)


def _line(text: str) -> str:
    """Return a line as it is shown, with its tabs: they are how code is indented."""
    return "    ".join(map(terminal.printable, text.split("\t")))


def _told(part: str, change: Change) -> str:
    """Return what both have; of files, whose lines follow, only if one has none."""
    if change.kind != "changed":
        value = change.after if change.kind == "added" else change.before
        return change.kind if value is None or part == "code" else f"{change.kind}: {_value(value)}"
    return "" if part == "code" and change.lines else f"{_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    return repr(value) if isinstance(value, float) else terminal.printable("none" if value is None else value)
