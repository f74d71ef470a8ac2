"""What commands print: whatever somebody named, a line stays a line, a table a table, and JSON is JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from importlib.util import find_spec
from typing import Any

import numpy
import pandas
import pytest
import scipy.sparse
from hypothesis import given, settings, strategies as st
from rich.cells import cell_len

from mlcore_local import terminal

HOSTILE = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\nb", "a\rb", "a\tb", "\x00", "\x9b2J", "\u202eabc", "\u2066x\u2069",
    "<script>alert(1)</script>", "x" * 250, "深層学習" * 20, "e\u0301" * 10, "\u0301lone", "Z" + "\u0335" * 60,
    "שלום", "مرحبا", "\u2028", "\ud800", "👩\u200d🔬", "한글", "ㅤ", "a|b", '"quoted", and', "=1+1", "",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec=None), max_size=60))
CELLS = st.one_of(TEXTS, st.none(), st.integers(), st.floats(), st.booleans())
ROWS = st.integers(1, 5).flatmap(lambda size: st.lists(st.lists(CELLS, min_size=size, max_size=size), max_size=6))


def on_a_terminal(patch: pytest.MonkeyPatch, columns: int, *, rich: bool) -> None:
    """Let standard output be a terminal of so many columns, with or without rich to draw tables on it."""
    patch.setattr(terminal, "interactive", lambda: True)
    patch.setattr(terminal, "room", lambda: columns)
    patch.setattr(terminal, "find_spec", lambda name: find_spec(name) if rich else None)
    patch.setattr(terminal, "_encodable", str)  # what catches the output of tests may know ASCII only
    patch.setenv("TERM", "xterm-256color")
    patch.delenv("NO_COLOR", raising=False)


def printed(names: list[str], rows: list[list[Any]], columns: int, *, rich: bool) -> tuple[list[str], list[str]]:
    """Return what the lines of a table hold, without the rule and colours of the printer, and what is left out."""
    with pytest.MonkeyPatch.context() as patch:
        on_a_terminal(patch, columns, rich=rich)
        table = terminal.Table(names, rows)
        lines = [*map(bare, table.lines())]
    if rich:
        assert set(lines.pop(1)) == {"─"}
    return lines, table.left_out


def bare(line: str) -> str:
    """Return a line without the colours and marks of direction that the printer itself puts in."""
    return re.sub(r"\x1b\[[\d;]+m|\u200e", "", line)


@given(TEXTS)
def test_what_is_shown_is_printable_and_of_one_line(text: str) -> None:
    """Guards the terminal from commands, and lines from ends, that a name brings along."""
    shown = terminal.printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert terminal.printable(shown) == shown
    if text.isascii() and text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("abc", 3),
        ("深層", 4),
        ("e\u0301", 1),
        ("한글", 4),
        ("\u1112\u1161\u11ab", 2),
        ("שלום", 4),
        ("\uff57", 2),
        ("", 0),
    ],
)
def test_text_is_as_wide_as_a_terminal_draws_it(text: str, cells: int) -> None:
    """Guards the columns of whoever does not write in ASCII."""
    assert terminal.width(text) == cells


@given(TEXTS, st.integers(1, 50))
def test_what_is_cut_fits(text: str, most: int) -> None:
    """Guards that nothing runs over its column, wide characters included."""
    shown = terminal.printable(text)
    left = terminal.cut(shown, most)
    assert terminal.width(left) <= most
    assert left == shown if terminal.width(shown) <= most else left.endswith("…")


@settings(deadline=None)
@given(ROWS, st.sampled_from([20, 80, 200]), st.booleans())
def test_a_table_fits_the_terminal_and_its_columns_line_up(rows: list[list[Any]], columns: int, rich: bool) -> None:
    """Guards tables from every name there can be: a line a row, none too long, cells under their heading."""
    names = [f"c{at}" for at in range(len(rows[0]) if rows else 1)]
    shown, left_out = printed(names, rows, columns, rich=rich)
    assert len(shown) == len(rows) + 1
    assert all(line.isprintable() for line in shown)
    measure = cell_len if rich else terminal.width
    assert max(map(measure, shown)) <= columns
    assert all(measure(line) <= measure(shown[0]) or len(left_out) < len(names) for line in shown)


@settings(deadline=None)
@given(ROWS, st.sampled_from([20, 80, 200]))
def test_with_rich_the_table_says_the_same(rows: list[list[Any]], columns: int) -> None:
    """Guards that installing rich changes how a table looks, and neither its columns nor its content."""
    names = [f"c{at}" for at in range(len(rows[0]) if rows else 1)]
    drawn, left_out = printed(names, rows, columns, rich=True)
    plain, also = printed(names, rows, columns, rich=False)
    assert left_out == also
    agreed = all(cell_len(line) == terminal.width(line) for line in plain)  # they differ on a few scripts' letters
    assert [line.split() for line in drawn] == [line.split() for line in plain] or not agreed


def test_what_looks_like_markup_of_rich_is_text() -> None:
    """Guards names in brackets, between colons, and links: they are shown, and mean nothing."""
    names = ["[red]x[/red]", ":smile:", "[link=https://example.org]y[/link]", "[/]", "\\[b]"]
    lines, _ = printed(names, [names], 200, rich=True)
    assert [*map(str.split, lines)] == [names, names]


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_whoever_wants_no_colour_gets_none(setting: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards no-color.org with both printers, and terminals that know no colour."""
    for rich in (True, False):
        on_a_terminal(monkeypatch, 80, rich=rich)
        for name, value in setting.items():
            monkeypatch.setenv(name, value)
        lines = terminal.Table(["name", "status"], [["a", "FAILED"]]).lines()
        assert "\x1b" not in "".join(lines)
        assert lines[-1].split() == ["a", "FAILED"]


@given(ROWS)
def test_in_a_pipe_every_cell_is_whole(rows: list[list[Any]]) -> None:
    """Guards programs that read what is printed: no colour, nothing cut, a line a row."""
    names = [f"c{at}" for at in range(len(rows[0]) if rows else 1)]
    lines = terminal.Table(names, rows).lines()
    assert len(lines) == len(rows) + 1
    for row, line in zip(rows, lines[1:], strict=True):
        assert "\x1b" not in line
        assert all(terminal.printable(each).strip() in line for each in row if each is not None)


@given(st.recursive(CELLS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_json_is_json_in_plain_ascii(content: Any) -> None:
    """Guards what programs read: one that takes JSON as RFC 8259 has it, in any encoding, gets all of it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    text = "\n".join(terminal.as_json(content))
    assert text.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert json.loads(text, parse_constant=refuse) == json.loads(json.dumps(terminal.plain(content)))


def test_numbers_that_json_lacks_are_words() -> None:
    """Guards a diverged loss: it is told, in the words of JavaScript."""
    assert terminal.plain([math.nan, math.inf, -math.inf, 0.5]) == ["NaN", "Infinity", "-Infinity", 0.5]


@given(ROWS)
def test_csv_has_a_line_for_each_row_and_floats_to_the_last_digit(rows: list[list[Any]]) -> None:
    """Guards what is read by spreadsheets and pandas."""
    names = [f"c{at}" for at in range(len(rows[0]) if rows else 1)]
    lines = terminal.as_csv(names, rows)
    assert len(lines) == len(rows) + 1
    for row, read in zip(rows, [*csv.reader(lines)][1:], strict=True):
        for value, cell in zip(row, read or [""], strict=True):
            if isinstance(value, float):
                assert float(cell) == value or math.isnan(value)
            else:
                assert cell == ("" if value is None else terminal.printable(value))


def test_letters_that_run_to_the_left_do_not_turn_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards numbers beside a Hebrew or Arabic name on terminals that know both directions."""
    for rich in (True, False):
        on_a_terminal(monkeypatch, 80, rich=rich)
        assert "שלום\u200e" in terminal.Table(["name", "loss"], [["שלום", 0.5]]).lines()[-1]


def test_what_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards terminals and cron jobs whose encoding is ASCII."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    terminal.show(["深 é …"])
    assert written.getvalue() == b"\\u6df1 \\xe9 \\u2026\n"


def test_json_comes_while_it_is_made() -> None:
    """Guards streams of many runs: a line is there before the next one is asked for."""
    asked = list[int]()
    lines = terminal.as_json(asked.append(at) or at for at in range(3))
    assert (next(lines), next(lines), asked) == ("[", "0,", [0, 1])
    assert [*lines] == ["1,", "2", "]"]
    assert [*terminal.as_json(iter(()))] == ["[]"]


def test_arrays_and_frames_are_lists_and_records() -> None:
    """Guards predictions: JSON has them, and NaN is null where no words are wanted."""
    frame = pandas.DataFrame({"a": [1, 2], "b": [0.5, math.nan]})
    assert terminal.plain(frame, words=False) == [{"a": 1, "b": 0.5}, {"a": 2, "b": None}]
    assert terminal.plain({"x": numpy.array([[1, 2]]), "y": numpy.float32(0.5)}) == {"x": [[1, 2]], "y": 0.5}
    assert terminal.plain(scipy.sparse.csr_array([[1.0, 0.0]])) == [[1.0, 0.0]]
    assert terminal.plain(pandas.Series([1, 2])) == [1, 2]


def test_text_is_wrapped_between_words_and_a_digest_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what is copied from a terminal, and what a pipe reads."""
    on_a_terminal(monkeypatch, 30, rich=False)
    assert terminal.wrapped("files  a.txt, b.txt, c.txt, d.txt, e.txt", 7) == [
        "files  a.txt, b.txt, c.txt,", "       d.txt, e.txt"
    ]  # fmt: skip
    assert terminal.wrapped(f"digest {'0' * 64}", 7) == [f"digest {'0' * 64}"]
    assert [terminal.counted(number, "run") for number in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]
    monkeypatch.setattr(terminal, "room", lambda: None)
    assert terminal.wrapped("word " * 50, 7) == ["word " * 50]
