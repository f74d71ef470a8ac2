"""How runs and experiments show themselves: as text, as escaped HTML, as data frames."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import accumulate
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
        view = {name: _text(value) for name, value in self._view().items()}
        width = max(map(len, view))
        return "\n".join([type(self).__name__, *(f"  {name:<{width}}  {text}" for name, text in view.items())])

    def _repr_html_(self) -> str:
        return _table([[name, _text(value)] for name, value in self._view().items()])


class Listing(list[_T]):
    """A list that shows itself as a table, as wide as the terminal: what has no room is named below it."""

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        views = [each._view() for each in self]
        names = list(dict.fromkeys(name for view in views for name in view))
        return names, [[_cell(name, view[name]) if name in view else "" for name in names] for view in views]

    def __repr__(self) -> str:
        from shutil import get_terminal_size

        names, rows = self._rows()
        heads = [name.removeprefix("metrics.") for name in names]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        room = get_terminal_size((100, 24)).columns + 2
        fit = max(1, sum(end <= room for end in accumulate(width + 2 for width in widths)))
        lines = ["  ".join(map(str.ljust, row[:fit], widths)).rstrip() for row in [heads, *rows]]
        if fit < len(names):
            lines.append(f"and {len(names) - fit} more columns, in to_pandas(): {', '.join(names[fit:])}"[: room - 2])
        return "\n".join(lines) if rows else "nothing"

    def _repr_html_(self) -> str:
        return _table(*reversed(self._rows()))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with a row each."""
        views = [each._view() for each in self]
        return frame({name: [view.get(name) for view in views] for name in self._rows()[0]})


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
        return {"key": self.key, "points": len(self), "last step": self.steps[-1], "last value": self.values[-1]}

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with the columns step, time and value."""
        return frame({"step": self.steps, "time": self.times, "value": self.values})


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _cell(name: str, value: Any) -> str:
    """Return a value as it stands in a table: a run's id by its last 8 digits, which `get_run` takes, too."""
    text = _text(value)
    short = text[-8:] if name == "id" and len(text) == 32 else text
    return short if len(short) <= 40 else f"{short[:39]}…"


def _table(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if names else f"<table>{body}</table>"
