"""Keep the pages on the shell true: what they show is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlcore
from faults.processes import environment
from house.pages import blocks
from house.tree import ROOT


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    """Guards what readers paste: all sh blocks of the page, in order, as one script in an empty folder."""
    page = (ROOT / "docs" / "how-to" / "work-from-the-shell.md").read_text()
    script = "set -e\n" + "\n".join(block for _, block in blocks(page, "sh"))
    settings = environment(tmp_path, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    client = mlcore.Client(tmp_path / ".mlcore")
    assert [run.status for run in client.list_runs("*")] == ["FINISHED"] * 4
    assert client.search_runs("name = 'from a script'", experiment="*")[0].metrics == {"loss": 0.25, "acc": 0.9}
    assert "rate 0.3\n" in done.stdout
