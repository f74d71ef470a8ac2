"""Keep the examples running, as README.md and docs/ show them."""

from __future__ import annotations

import pytest

from house.pages import blocks
from house.tree import ROOT

EXAMPLES = ROOT / "docs" / "examples"
SHOWN = {
    "store-plugin": ("src/mlcore_onefile/hooks.py", "src/mlcore_onefile/store.py", "tests/test_onefile.py"),
    "flavor-plugin": ("src/mlcore_centroids/hooks.py", "src/mlcore_centroids/flavor.py", "tests/test_centroids.py"),
}


@pytest.mark.parametrize(
    ("example", "name"), [(example, name) for example in SHOWN for name in ("pyproject.toml", *SHOWN[example])]
)
def test_a_page_on_plugins_shows_the_files_of_its_example(example: str, name: str) -> None:
    """Guards that what a reader copies from the page is what tests/plugins has tried."""
    page = (ROOT / "docs" / "how-to" / f"write-a-{example}.md").read_text()
    shown = [code for language in ("toml", "python", "text") for _, code in blocks(page, language)]
    assert (EXAMPLES / example / name).read_text() in shown
