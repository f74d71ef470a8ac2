"""How runs and experiments show themselves: as text, as escaped HTML, as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from time import localtime, strftime
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from mlcore.errors import NotInstalled

if TYPE_CHECKING:
    import pandas

_T = TypeVar("_T", bound="Viewed")


def frame(columns: Mapping[str, Sequence[Any]]) -> pandas.DataFrame:
    """Return columns as a DataFrame. Raises `NotInstalled`."""
    try:
        import pandas
    except ImportError:
        raise NotInstalled("data frames need pandas: pip install pandas") from None
    return pandas.DataFrame(columns)


class Viewed:
    """Show what `_view` returns, a name and a value each."""

    def _view(self) -> dict[str, Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        view = {name: _cell(name, value, whole=True) for name, value in self._view().items()}
        width = max(map(len, view))
        return "\n".join([type(self).__name__, *(f"  {name:<{width}}  {text}" for name, text in view.items())])

    def _repr_html_(self) -> str:
        return _table([[name, _cell(name, value, whole=True)] for name, value in self._view().items()])


class Listing(list[_T]):
    """A list that shows itself as a table, as wide as the terminal: what has no room is named below it."""

    def _columns(self) -> dict[str, list[Any]]:
        views = [each._view() for each in self]
        names = dict.fromkeys(chain.from_iterable(views))  # of all of them, in the order of families
        ordered = sorted(names, key=lambda name: name.partition(".")[0] if "." in name else "")
        return {name: [view.get(name) for view in views] for name in ordered}

    def _rows(self) -> list[tuple[str, ...]]:
        cells = ([_cell(name, value) for value in values] for name, values in self._columns().items())
        return list(zip(*cells, strict=True))

    def __repr__(self) -> str:
        from shutil import get_terminal_size

        names = list(self._columns())
        rows = [tuple(name.removeprefix("metrics.") for name in names), *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        room = get_terminal_size((100, 24)).columns
        fit = max(1, sum(end <= room + 2 for end in accumulate(width + 2 for width in widths)))
        lines = ["  ".join(map(str.ljust, row[:fit], widths)).rstrip() for row in rows]
        more = f"and {len(names) - fit} more columns, in to_pandas(): {', '.join(names[fit:])}"[:room]
        return "\n".join([*lines, more] if names[fit:] else lines) or "nothing"

    def _repr_html_(self) -> str:
        return _table(self._rows(), tuple(self._columns()))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with a row each."""
        return frame(self._columns())


@attrs.frozen(eq=False, repr=False)
class Series(Viewed):
    """Hold the history of one metric as columns of one length: `steps`, `times` (ms since 1970) and `values`.

    They are numpy arrays where numpy is importable, else `array.array`, in order of step.
    """

    key: str
    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]

    def __len__(self) -> int:
        return len(self.values)

    def _view(self) -> dict[str, Any]:
        last = {"last step": self.steps[-1], "last value": self.values[-1]} if len(self) else {}
        return {"key": self.key, "points": len(self), **last}

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with the columns step, time and value."""
        return frame({"step": self.steps, "time": self.times, "value": self.values})


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _cell(name: str, value: Any, whole: bool = False) -> str:
    """Return a value as it stands in a table: a run's id by its last 8 digits, which `get_run` takes, too."""
    text = "" if value is None else _text(value)
    if name == "start_time" and value is not None:
        return strftime("%Y-%m-%d %H:%M", localtime(value / 1000))
    if whole or len(text) <= 40:
        return text[-8:] if name == "id" and len(text) == 32 and not whole else text
    return f"{text[:39]}…"


def _table(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> str:
    from html import escape

    lines = [("th", names), *(("td", row) for row in rows)]
    cells = ("".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in lines if row)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"
