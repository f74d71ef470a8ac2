"""Keep core small, and every file and function short enough to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from house.count_lines import budgeted, count, count_folder, spine
from house.tree import CORE, PLUGINS

# docs/decisions/0012-what-core-may-weigh.md
CORE_LIMIT = 5_520
SPINE_LIMIT = 3_497
FILE_LIMIT = 500
FUNCTION_LIMIT = 50

EXAMPLE = '''"""A module's docstring
of two lines."""

import os  # a comment beside code

# a comment alone
@staticmethod
def f():
    """A docstring."""
    text = """

    a string is code
    """
    return text


class C:
    "Another docstring."
    x = (
        1,

        2,
    )
'''


def test_the_counter_sees_code_and_nothing_else() -> None:
    """Guards the measure itself: blank lines, comments and docstrings are free, strings are not."""
    counted = count(EXAMPLE)
    assert (counted.lines, counted.functions) == (12, {"f:8": 5})


def test_core_stays_within_its_budget() -> None:
    """Guards the size of what everybody installs; `python tests/house/count_lines.py` shows where it went."""
    assert 0 < budgeted(count_folder(CORE / "src")) <= CORE_LIMIT


def test_what_models_and_files_hang_on_stays_within_its_own() -> None:
    """Guards the spine, plugins and stores and tracking, from growing on what models and artifacts save."""
    assert 0 < spine(count_folder(CORE / "src")) <= SPINE_LIMIT


@pytest.mark.parametrize("folder", [CORE, *PLUGINS], ids=lambda folder: folder.name)
def test_files_and_functions_stay_short(folder: Path) -> None:
    """Guards against the tails, which tell good code from bad."""
    counts = count_folder(folder / "src")
    assert [str(path) for path, each in counts.items() if each.lines > FILE_LIMIT] == []
    assert [
        f"{path}: {name}"
        for path, each in counts.items()
        for name, size in each.functions.items()
        if size > FUNCTION_LIMIT
    ] == []
