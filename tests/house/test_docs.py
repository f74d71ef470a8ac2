"""Keep the docs true: their code runs, their links lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from house.pages import READ, RUN, anchors, links, script
from house.tree import ROOT, run


def name(page: Path) -> str:
    """Return a page's path as a test's id."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in RUN if "```python" in page.read_text()], ids=name)
def test_the_code_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    """Guards what readers paste: all Python blocks of a page, in order, as one script in an empty folder.

    A traceback names the lines of the page, since each block keeps its place.
    """
    file = tmp_path / f"{page.name}.py"
    file.write_text(script(page.read_text()))
    run("-W", "error", file, cwd=tmp_path)


@pytest.mark.parametrize("page", READ, ids=name)
def test_every_link_within_the_tree_leads_somewhere(page: Path) -> None:
    """Guards readers from dead ends, headings included."""
    broken = []
    for link in links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []
