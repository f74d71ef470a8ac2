"""Keep the examples running, as README.md and docs/ show them."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlcore
from house.pages import blocks
from house.tree import ROOT, run

EXAMPLES = ROOT / "docs" / "examples"
SHOWN = {
    "store-plugin": ("src/mlcore_onefile/hooks.py", "src/mlcore_onefile/store.py", "tests/test_onefile.py"),
    "flavor-plugin": ("src/mlcore_centroids/hooks.py", "src/mlcore_centroids/flavor.py", "tests/test_centroids.py"),
}


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
        assert {"confusion.png", "data/digits.csv.gz", "model/MLmodel"} <= {each.path for each in each.artifacts.list()}
        assert not each.artifacts.verify()
    best = max(runs, key=lambda run: run.metrics["accuracy.valid"])
    assert best.metrics["accuracy.valid"] > 0.95
    right = round(540 * best.metrics["accuracy.valid"])
    assert f"gets {right} of 540 digits right" in printed


@pytest.mark.parametrize(
    ("example", "name"), [(example, name) for example in SHOWN for name in ("pyproject.toml", *SHOWN[example])]
)
def test_a_page_on_plugins_shows_the_files_of_its_example(example: str, name: str) -> None:
    """Guards that what a reader copies from the page is what tests/plugins has tried."""
    page = (ROOT / "docs" / "how-to" / f"write-a-{example}.md").read_text()
    shown = [code for language in ("toml", "python", "text") for _, code in blocks(page, language)]
    assert (EXAMPLES / example / name).read_text() in shown
