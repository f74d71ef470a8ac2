"""Keep the examples running, as README.md and docs/ show them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
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
    """Guards that what a reader copies from the page is what the test below has tried."""
    page = (ROOT / "docs" / "how-to" / "write-a-store-plugin.md").read_text()
    shown = [code for language in ("toml", "python", "text") for _, code in blocks(page, language)]
    assert (PLUGIN / name).read_text() in shown


def test_a_store_plugin_built_outside_the_tree_is_found_and_keeps_the_contract(tmp_path: Path) -> None:
    """Guards the door: a wheel of nobody here, installed, is found by its scheme and passes the kit in 15 lines."""
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, PLUGIN)
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")  # all that installing a pure wheel is

    file = PLUGIN / "tests" / "test_onefile.py"
    assert len(file.read_text().splitlines()) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, file],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
