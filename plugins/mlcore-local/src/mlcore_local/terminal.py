"""Print to the terminal, or into a pipe, so that nothing that somebody named can break a line, a table or the terminal.

What is not printable is shown as Python escapes it: control characters, line ends, the controls of terminals and of
the direction of writing. Columns are measured in cells, of which wide characters take two (Unicode's UAX #11).
Where rich is installed it draws the tables of a terminal; a pipe never waits for its import.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain, islice
from typing import Any

import click

__all__ = ["Table", "as_csv", "as_json", "cut", "interactive", "plain", "printable", "remark", "room", "show", "status"]
__all__ += ["counted", "show_table", "styled", "width", "wrapped"]

_TOGETHER = 100  # lines of one write, so that whoever reads a pipe need not wait for the last
_MARKS = 3  # on one letter, at most, so that they do not climb into other lines
_COLOURS = {"FINISHED": "green", "RUNNING": "cyan", "FAILED": "red", "KILLED": "magenta", "LOST": "yellow"}


def printable(value: Any) -> str:
    """Return a value as text of one line, with escapes for what would not show as itself."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text.isascii() and text.isprintable():
        return text
    shown, marks = list[str](), _MARKS  # a mark needs a letter before it
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        shown.append(char if char.isprintable() and marks <= _MARKS else char.encode("unicode_escape").decode())
    return "".join(shown)


def _printed(values: Sequence[Any]) -> list[str]:
    """Return values as `printable` does, nothing for what is missing: most need no look at each."""
    texts = ["" if it is None else f"{it:.6g}" if isinstance(it, float) else str(it) for it in values]
    whole = "".join(texts)
    if whole.isascii() and whole.isprintable():
        return texts
    return ["" if it is None else printable(it) for it in values]


def width(text: str) -> int:
    """Return how many cells of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf") or "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff":
        return 0  # combines with the letter before it, as the vowels of Hangul do
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, most: int) -> str:
    """Return a printable text, with … for what has no room."""
    if width(text) <= most:
        return text
    end, used = 0, 1
    while (used := used + _cells(text[end])) <= most:
        end += 1
    return f"{text[:end]}…"


def interactive() -> bool:
    """Tell whether somebody looks at standard output."""
    return sys.stdout.isatty()


def room() -> int | None:
    """Return the width of the terminal, None where there is none and lines stay whole."""
    return _size().columns if interactive() else None


def _size() -> os.terminal_size:
    import shutil  # brings what packs archives, and whoever writes into a pipe does not ask

    return shutil.get_terminal_size((80, 24))


def styled(text: str, **style: Any) -> str:
    """Return text in colour, on a terminal that has some and whose user wants it."""
    return click.style(text, **style) if text and _coloured() else text


def _coloured() -> bool:
    return interactive() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"  # no-color.org


def _drawn() -> bool:
    """Tell whether rich draws tables: it is there, somebody looks, and the terminal knows its lines."""
    able = interactive() and os.environ.get("TERM") != "dumb" and _encodable("─") == "─"
    return able and find_spec("rich") is not None


def status(text: str, padded: str | None = None) -> str:
    """Return a run's status in its colour."""
    return styled(padded or text, fg=_COLOURS.get(text))


def show(lines: Iterable[str]) -> None:
    """Print lines as they come: on a terminal that they do not fit, in the user's pager."""
    coming = (f"{_encodable(line)}\n" for line in lines)
    if interactive() and sys.stdin.isatty():
        first = [*islice(coming, _size().lines - 1)]
        if (more := next(coming, None)) is None:
            return click.echo("".join(first), nl=False)
        os.environ.setdefault("LESS", "FRX")  # as git does: leaves at once if it fits, knows colours, leaves it there
        later = (f"\n{line[:-1]}" for line in chain([more], coming))  # click ends the last line
        return click.echo_via_pager(chain(["".join(first)[:-1]], later))
    while part := "".join(islice(coming, _TOGETHER)):
        click.echo(part, nl=False)
    return None


def show_table(names: Sequence[str], rows: Iterable[Sequence[Any]], *, most: int | Sequence[int] = 40) -> None:
    """Print rows under names; what the terminal has no room for is named below."""
    table = Table(names, rows, most=most)
    show(table.lines())
    if table.left_out:
        remark(f"no room for {', '.join(table.left_out)}: --json has it all")


def wrapped(text: str, indent: int) -> list[str]:
    """Return a printable text as lines that fit the terminal, the later ones indented; in a pipe it stays whole."""
    limit = room()
    if limit is None or max(map(len, text.split()), default=0) >= limit - indent:
        return [text]  # a digest or a path is copied as one word
    import textwrap

    return textwrap.wrap(text, limit - 1, subsequent_indent=" " * indent, break_on_hyphens=False) or [""]


def counted(number: int, thing: str) -> str:
    """Return how many there are of a thing: ``1 run``, ``2 runs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def remark(text: str) -> None:
    """Tell a person at the terminal something about what was printed, on standard error and in one line."""
    if interactive():
        click.echo(styled(cut(text, room() or 80), dim=True), err=True)


def _encodable(text: str) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def plain(value: Any, *, words: bool = True) -> Any:
    """Return a value as JSON has it: arrays as lists, frames as records, what else there is as its text.

    What JSON's numbers lack are the strings NaN, Infinity and -Infinity, or null without `words`.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each, words=words) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, words=words) for each in value]
    if hasattr(value, "toarray"):
        return plain(value.toarray(), words=words)
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        return plain(value.to_dict("records"), words=words)
    if hasattr(value, "tolist"):
        return plain(value.tolist(), words=words)
    if isinstance(value, float) and not math.isfinite(value):
        word = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return word if words else None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def as_json(content: Any) -> Iterator[str]:
    """Yield JSON in ASCII: of a list, or of what comes one by one, a line for each element; else indented."""
    if not isinstance(content, list | Iterator):
        yield from json.dumps(plain(content), indent=2).split("\n")
        return
    before = ""
    for each in content:
        yield f"{before}," if before else "["
        before = json.dumps(plain(each))
    yield from [before, "]"] if before else ["[]"]


def as_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return lines of CSV (RFC 4180), the names first; floats are whole, what is missing is empty."""
    import csv  # few commands print any

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(printable, names))
    for row in rows:
        writer.writerow(
            "" if each is None else printable(repr(each) if isinstance(each, float) else each) for each in row
        )
    return text.getvalue().removesuffix("\n").split("\n")


class Table:
    """Rows under names: whole in a pipe, as wide as the terminal on one.

    Columns that have no room are left out, from the right, and named in `left_out`. Text of more than `most` cells
    is cut, `most` being one for all columns, or one each. Numbers stand to the right.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[Sequence[Any]], *, most: int | Sequence[int] = 40) -> None:
        found, limit = list(rows), room()
        columns = list(zip(*found, strict=True)) or [()] * len(names)
        self._numbers = [_numeric(column) for column in columns]
        cells = [[printable(name), *_printed(column)] for name, column in zip(names, columns, strict=True)]
        if limit is not None:
            widest = [most] * len(names) if isinstance(most, int) else most
            cells = [
                [cut(cell, min(each, limit)) for cell in column] for column, each in zip(cells, widest, strict=True)
            ]
        self._measures = [_measure(column) for column in cells]
        self._widths = [max(map(measure, column)) for measure, column in zip(self._measures, cells, strict=True)]
        self._fit = _fitting(self._widths, limit)
        self.left_out = [printable(name) for name in names[self._fit :]]
        self._cells = cells  # by column, the name first: what is done column by column takes little time
        self._plain = limit is None
        self._status = next((at for at, name in enumerate(names) if name == "status"), -1)

    def lines(self) -> list[str]:
        """Return the lines, the names first."""
        if _drawn():
            return self._draw()
        if self._plain:
            return self._columns()
        names, *rows = zip(*self._cells, strict=True)
        return [styled(self._line(names), bold=True), *(self._line(row, body=True) for row in rows)]

    def _columns(self) -> list[str]:
        """Return the lines for a pipe."""
        padded = []
        for column, most, number, measure in zip(self._cells, self._widths, self._numbers, self._measures, strict=True):
            if measure is len:
                pad = str.rjust if number else str.ljust
                padded.append([pad(cell, most) for cell in column])
                continue
            spaces = (" " * (most - width(cell)) for cell in column)
            padded.append(
                [space + cell if number else cell + space for cell, space in zip(column, spaces, strict=True)]
            )
        return [line.rstrip() for line in map("  ".join, zip(*padded, strict=True))]

    def _draw(self) -> list[str]:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as Drawing
        from rich.text import Text  # which takes no markup, so that a name in brackets is one

        table = Drawing(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), border_style="dim")
        names, *rows = zip(*self._cells, strict=True)
        for name, number in zip(names[: self._fit], self._numbers, strict=False):
            table.add_column(Text(_isolated(name)), justify="right" if number else "left", no_wrap=True)
        for row in rows:
            styles = [_COLOURS.get(cell, "") if at == self._status else "" for at, cell in enumerate(row)]
            table.add_row(*map(Text, map(_isolated, row[: self._fit]), styles))
        text = io.StringIO()
        console = Console(
            file=text, width=room(), color_system="standard" if _coloured() else None,
            force_terminal=True, legacy_windows=False,
        )  # fmt: skip
        console.print(table)
        return [line.rstrip() for line in text.getvalue().removesuffix("\n").split("\n")]

    def _line(self, row: Sequence[str], *, body: bool = False) -> str:
        shown = list[str]()
        for at, cell in enumerate(row[: self._fit]):
            space = " " * (self._widths[at] - width(cell))
            padded = space + cell if self._numbers[at] else _isolated(cell) + space
            shown.append(status(cell, padded) if body and at == self._status else padded)
        return "  ".join(shown).rstrip()


def _measure(cells: Iterable[str]) -> Callable[[str], int]:
    """Return what measures these cells: most need no look at each character."""
    return len if "".join(cells).isascii() else width


def _fitting(widths: Sequence[int], limit: int | None) -> int:
    if limit is None:
        return len(widths)
    used = -2
    for at, each in enumerate(widths):
        used += each + 2
        if used > limit:
            return max(at, 1)
    return len(widths)


def _numeric(values: Sequence[Any]) -> bool:
    kinds = set(map(type, values)) - {type(None)}
    return bool(kinds) and all(issubclass(each, int | float) and each is not bool for each in kinds)


def _isolated(cell: str) -> str:
    """Return a cell that cannot turn the direction of what stands beside it, on a terminal that writes both ways."""
    turned = not cell.isascii() and any(unicodedata.bidirectional(char) in ("R", "AL") for char in cell)
    return f"{cell}\u200e" if turned else cell
