"""Keep every test running where all of them should: what is skipped in CI is not tested anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from house.tree import ROOT

SAMPLES = {
    "slow": "@pytest.mark.slow\ndef test(): pass",
    "skipped": "@pytest.mark.skip\ndef test(): pass",
    "skipping": "def test(): pytest.skip('no graphics card')",
    "importing": "pytest.importorskip('no_such_module')\ndef test(): pass",
    "expecting": "@pytest.mark.xfail(strict=True)\ndef test(): assert False",
}


def outcome(sample: str, folder: Path, everything: str) -> str:
    """Return what pytest says in the end of a sample, run with the configuration and conftest.py of this tree."""
    shutil.copy(ROOT / "tests/conftest.py", folder)
    (folder / "test_sample.py").write_text(f"import pytest\n{SAMPLES[sample]}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", "-rs", folder]
    done = subprocess.run(
        command, env={**os.environ, "MLCORE_TEST_ALL": everything}, capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.mark.parametrize("sample", ["skipped", "skipping", "importing"])
def test_with_all_asked_for_a_skip_is_a_failure(sample: str, tmp_path: Path) -> None:
    """Guards CI against green by absence, with the reason shown."""
    said = outcome(sample, tmp_path, "1")
    assert "nothing may be skipped" in said
    assert "passed" not in said
    assert "skipped in" not in said


@pytest.mark.parametrize(("sample", "end"), [("slow", "1 passed"), ("expecting", "1 xfailed")])
def test_with_all_asked_for_the_rest_is_as_ever(sample: str, end: str, tmp_path: Path) -> None:
    """Guards that slow tests run, and that an expected failure is still one."""
    assert end in outcome(sample, tmp_path, "1")


@pytest.mark.parametrize("sample", ["slow", "skipping", "importing"])
def test_on_a_laptop_a_skip_is_a_skip(sample: str, tmp_path: Path) -> None:
    """Guards whoever has no graphics card or little time, and tells them how to get the slow ones."""
    said = outcome(sample, tmp_path, "")
    assert "1 skipped" in said
    assert ("set MLCORE_TEST_ALL=1" in said) == (sample == "slow")
