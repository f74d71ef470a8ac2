"""Keep the tutorial on the registry true: what it shows is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlcore
from faults.processes import environment
from house.pages import blocks
from house.tree import ROOT


def test_the_commands_of_the_tutorial_run_and_say_what_it_shows(tmp_path: Path) -> None:
    """Guards what readers paste: all sh blocks of the page, in order, as one script in an empty folder."""
    page = (ROOT / "docs" / "tutorial" / "register-a-model.md").read_text()
    script = "set -e\n" + "\n".join(block for _, block in blocks(page, "sh"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment(tmp_path, PATH=path), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for block in (block for _, block in blocks(page, "text")):
        assert block in done.stdout, block
    assert "DigestMismatch" in done.stderr
    assert done.stdout.count("exit code 1\n") == 2
    client = mlcore.Client(tmp_path / ".mlcore")
    model = client.registry.get("digits")
    assert [each.version for each in model.versions] == ["3", "2", "1"]
    assert model.aliases["champion"].version == "3"
    accuracies = [client.get_run(str(each.run_id)).metrics["accuracy"] for each in model.versions]
    assert accuracies == sorted(accuracies, reverse=True)
