"""Keep the tutorial on reproducing true: what it shows is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlcore
from faults.processes import environment
from house.pages import blocks
from house.tree import ROOT


def test_the_commands_of_the_tutorial_run_and_say_what_it_shows(tmp_path: Path) -> None:
    """Guards what readers paste: all sh blocks of the page, in order, as one script in an empty folder."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed: apt-get install git, or the like")
    page = (ROOT / "docs" / "tutorial" / "reproduce-a-run.md").read_text()
    script = "set -e\n" + "\n".join(block for _, block in blocks(page, "sh"))
    (tmp_path / "work").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = environment(tmp_path, PATH=path, TMPDIR=str(tmp_path))
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path / "work", env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = mlcore.Client(tmp_path / "work" / "lines" / ".mlcore").list_runs("*")
    assert [run.status for run in runs] == ["FINISHED"] * 5
    assert [run.tags.get("reproduces") for run in runs] == [runs[-1].id] * 4 + [None]
    for block in (block for _, block in blocks(page, "text")):
        for line in block.splitlines():
            if not line.startswith(("run ", "reproduces ", "its folder ")):
                assert f"{line}\n" in done.stdout, line
