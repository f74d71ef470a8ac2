"""``mlcore doctor`` and ``mlcore completion``: what is set up, what is wrong, and how it is mended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlcore
from faults.processes import environment, mlcore as program


def doctor(home: Path, code: int, **settings: str) -> list[dict[str, Any]]:
    """Ask the doctor, whose exit code must be this; return what is wrong."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = program(home, "doctor", "--json", **{"PATH": path, **settings})
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["healthy"] is (code == 0)
    assert all(list(each) == ["what", "value", "problem", "mend"] for each in found["findings"])
    wrong = [each for each in found["findings"] if each["problem"]]
    assert all(each["mend"] for each in wrong)
    return wrong


def test_a_sound_set_up_is_told_as_such(tmp_path: Path) -> None:
    """Guards the exit code, before and after the first run."""
    assert doctor(tmp_path, 0) == []
    with mlcore.Client(tmp_path / ".mlcore").start_run():
        pass
    done = program(tmp_path, "doctor")
    assert f"{tmp_path}/.mlcore, because: found {tmp_path}/.mlcore; 1 run in 1 experiment" in done.stdout
    assert "local, mlcore-local" in done.stdout


def test_what_is_wrong_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Guards the four usual mishaps: a misspelt variable, a strange store, a broken plugin, a lost run."""
    (found,) = doctor(tmp_path, 1, MLCORE_STROE="x")
    assert found["mend"] == "rename it to MLCORE_STORE"
    (found,) = doctor(tmp_path, 1, MLCORE_STORE="postgres://host/runs")
    assert "pip install mlcore-sql" in found["problem"]
    about = tmp_path / "installed" / "broken-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mlcore]\nbroken = no_such_module\n")
    (found,) = doctor(tmp_path, 1, PYTHONPATH=str(about.parent))
    assert "no_such_module" in found["problem"]
    assert doctor(tmp_path, 0, PYTHONPATH=str(about.parent), MLCORE_DISABLE_PLUGINS="broken") == []
    run = program(tmp_path, "runs", "start").stdout.strip()
    code = "import mlcore, os; mlcore.Client().start_run(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), check=True)
    (found,) = doctor(tmp_path, 1)
    assert "mlcore runs end" in found["mend"]
    program(tmp_path, "runs", "end", run)
    program(tmp_path, "runs", "end", found["mend"].split()[-3], "--status", "KILLED")
    assert doctor(tmp_path, 0) == []


def test_another_mlcore_on_the_path_is_found(tmp_path: Path) -> None:
    """Guards the usual confusion of environments."""
    other = tmp_path / "bin" / "mlcore"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    (found,) = doctor(tmp_path, 1, PATH=f"{other.parent}:/usr/bin:/bin")
    assert str(other) in found["problem"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(tmp_path: Path, shell: str) -> None:
    """Guards completion: the script is the shell's own, and asks the program for words."""
    done = program(tmp_path, "completion", shell)
    assert done.returncode == 0, done.stderr
    assert f"_MLCORE_COMPLETE={shell}_complete" in done.stdout
    assert "2>/dev/null" in done.stdout


def test_the_program_completes_what_is_typed(tmp_path: Path) -> None:
    """Guards what a shell asks for: names of commands, and of options."""
    asked = {"_MLCORE_COMPLETE": "bash_complete", "COMP_WORDS": "mlcore runs wa", "COMP_CWORD": "2"}
    assert program(tmp_path, **asked).stdout == "plain,watch\n"
