"""Count lines of code: neither blank lines, nor comments, nor docstrings.

``python tests/house/count_lines.py`` prints a table of core; other folders can be named as arguments.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

CORE = Path(__file__).resolve().parents[2] / "core" / "src"
_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_BESIDE = {"models", "artifacts", "query"}
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTION)


@dataclass(frozen=True)
class Count:
    """Hold the lines of code of a file, and of each of its functions, from `def` to the end."""

    lines: int
    functions: dict[str, int]

    @property
    def longest(self) -> tuple[int, str]:
        """Return the size and the name of the longest function."""
        return max(((size, name) for name, size in self.functions.items()), default=(0, ""))


def count(source: str) -> Count:
    """Count the lines of code of one module."""
    tree = ast.parse(source)
    code = _code_lines(source, tree)
    functions = {
        f"{node.name}:{node.lineno}": len(code & set(range(node.lineno, _end(node) + 1)))
        for node in ast.walk(tree)
        if isinstance(node, _FUNCTION)
    }
    return Count(len(code), functions)


def count_folder(folder: Path) -> dict[Path, Count]:
    """Count every module under `folder`."""
    return {path: count(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}


def budgeted(counts: dict[Path, Count]) -> int:
    """Add up what the budget counts: all but `testing`, which no user's process loads."""
    return sum(each.lines for path, each in counts.items() if "testing" not in path.parts)


def spine(counts: dict[Path, Count]) -> int:
    """Add up what stands without models and files: what names a module or its package after them is left out."""
    return budgeted({path: each for path, each in counts.items() if not _BESIDE & _names(path)})


def _names(path: Path) -> set[str]:
    return {name.strip("_") for name in path.relative_to(CORE).with_suffix("").parts}


def _code_lines(source: str, tree: ast.Module) -> set[int]:
    docstrings = {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in ast.walk(tree)
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT and token.start not in docstrings:
            lines.update(range(token.start[0], token.end[0] + 1))
    blank = {number for number, line in enumerate(source.splitlines(), 1) if not line.strip()}
    return lines - blank


def _end(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno


def main(folders: list[Path]) -> None:
    """Print a table of the modules, the largest first."""
    for folder in folders:
        counts = count_folder(folder)
        print(f"{'code':>6} {'longest function':>40}  module")
        for path, each in sorted(counts.items(), key=lambda item: -item[1].lines):
            size, name = each.longest
            print(f"{each.lines:6} {name:>36} {size:3}  {path.relative_to(folder)}")
        if folder == CORE:
            print(f"{spine(counts):6} {'':40}  {folder} without testing, models, artifacts and query")
        print(f"{budgeted(counts):6} {'':40}  {folder} without testing")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or [CORE])
