"""Keep the examples running, as README.md and docs/ show them."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlcore
from house.pages import blocks
from house.tree import ROOT, run

EXAMPLES = ROOT / "docs" / "examples"
PLUGIN = EXAMPLES / "store-plugin"
SHOWN = ("pyproject.toml", "src/mlcore_onefile/hooks.py", "src/mlcore_onefile/store.py", "tests/test_onefile.py")


def test_the_digits_are_learned_and_printed_from_the_store(tmp_path: Path) -> None:
    """Guards the first code a stranger sees: no warning, lines that fit, and curves that are in the store."""
    printed = run("-W", "error", EXAMPLES / "digits" / "first_run.py", cwd=tmp_path)
    runs = mlcore.Client(tmp_path / ".mlcore").list_runs("digits")
    assert [each.status for each in runs] == ["FINISHED"] * 5
    assert all(each.id[-8:] in printed for each in runs)
    assert max(map(len, printed.splitlines())) <= 100
    for each in runs:
        assert list(each.series("loss.valid").steps) == list(range(15))
        assert len(each.series("loss.batch")) == 15 * 19
    assert max(each.metrics["accuracy.valid"] for each in runs) > 0.95


@pytest.mark.parametrize("name", SHOWN)
def test_the_page_on_store_plugins_shows_the_files_of_the_example(name: str) -> None:
    """Guards that what a reader copies from the page is what tests/plugins/test_outside.py has tried."""
    page = (ROOT / "docs" / "how-to" / "write-a-store-plugin.md").read_text()
    shown = [code for language in ("toml", "python", "text") for _, code in blocks(page, language)]
    assert (PLUGIN / name).read_text() in shown
