"""Read Markdown pages: their code blocks, headings and links."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from house.tree import PLUGINS, ROOT

# Pages whose code is run, then those whose links only are followed.
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
READ = sorted({*RUN, *ROOT.glob("*.md"), ROOT / "core/README.md", *(path / "README.md" for path in PLUGINS)})

_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """Yield the blocks of one language, each with the number of its first line."""
    for fence in _FENCE.finditer(text):
        if fence[2].strip() == language:
            yield text.count("\n", 0, fence.start(3)) + 1, textwrap.dedent(fence[3])


def script(text: str) -> str:
    """Return the Python blocks of a page as one script, each on the very lines it has in the page."""
    lines: list[str] = []
    for first, block in blocks(text, "python"):
        lines += [""] * (first - 1 - len(lines)) + block.splitlines()
    return "\n".join(lines) + "\n"


def headings(text: str) -> list[str]:
    """Return the page's headings of any level, without the `#`."""
    return [match.strip() for match in re.findall(r"^#+ (.+)$", _prose(text), re.MULTILINE)]


def anchors(text: str) -> set[str]:
    """Return what a link to this page may name after `#`, as code hosts make it from headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def links(text: str) -> list[str]:
    """Return the targets of the page's links within this tree."""
    found = _LINK.findall(re.sub(r"`[^`\n]*`", "", _prose(text)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def _prose(text: str) -> str:
    return _FENCE.sub("", text)
