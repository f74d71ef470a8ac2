"""Keep the arrows between packages one way, and start-up light."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from house.tree import CORE, HEAVY, PLUGINS, ROOT, import_name, run

PROBE = "import sys; bare = set(sys.modules); {code}; print(*sorted(set(sys.modules) - bare))"


def loaded(code: str, empty: Path) -> set[str]:
    """Return the modules that `code`, run in an empty folder, loads beyond those of a bare Python."""
    return set(run("-c", PROBE.format(code=code), cwd=empty).splitlines()[-1].split())


def heavy(names: set[str]) -> set[str]:
    """Return the heavy libraries among modules."""
    return {name.partition(".")[0] for name in names}.intersection(HEAVY)


def test_every_import_contract_is_kept() -> None:
    """Guards the layers of core and that core knows no plugin: the contracts in pyproject.toml."""
    command = shutil.which("lint-imports", path=Path(sys.executable).parent)
    assert command, "import-linter is not installed beside this Python"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nobody_imports_the_private_modules_of_another_package() -> None:
    """Guards the freedom to change `_x.py`: only its own distribution may know it."""
    names = [import_name(folder) for folder in (CORE, *PLUGINS)]
    graph = grimp.build_graph(*names, cache_dir=None)
    assert [
        f"{importer} imports {module}"
        for module in graph.modules
        if re.search(r"\._[^_]", module)
        for importer in graph.find_modules_that_directly_import(module)
        if importer.partition(".")[0] != module.partition(".")[0]
    ] == []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_imports_only_the_packages_it_depends_on(folder: Path) -> None:
    """Guards that a plugin installed alone works: those of our packages it imports are its dependencies."""
    declared = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
    depends = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in declared}
    imported = {
        name.partition(".")[0]
        for path in (folder / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
    }
    ours = {name for name in imported if re.match(r"mlcore(_|$)", name)}
    assert ours - {import_name(folder)} <= depends


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_hooks_load_nothing_heavy(folder: Path, tmp_path: Path) -> None:
    """Guards `mlcore --help`, which loads the hooks of every installed plugin."""
    assert heavy(loaded(f"import {import_name(folder)}.hooks", tmp_path)) == set()
