"""Ask git once for many runs of code that did not change, and again as soon as anything did."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcore_local.code import places, scripts, state, unchanged
from mlcore_local.code.unchanged import current_state
from repositories import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with a commit, and changes since."""
    made = Repository(tmp_path / "work")
    made.write(train_py="print(1)\n", lib__deep__model_py="a = 1\n")
    made.put(".gitignore", "*.log\n")
    made.commit("first")
    made.put("new.py", "n = 1\n")
    (made.folder / "empty").mkdir()
    made.put("lib/deep/model.py", "a = 2\n")
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the folders that git was asked about, and let what changed just now count as old."""
    folders: list[Path] = []

    def state_of(folder: Path) -> state.State | None:
        folders.append(folder)
        return state.state_of(folder)

    monkeypatch.setattr(unchanged, "state_of", state_of)
    monkeypatch.setattr(unchanged, "_seen", None)
    monkeypatch.setattr(places, "_RECENT", 0)
    return folders


CHANGES: dict[str, Callable[[Repository], object]] = {
    "a tracked file": lambda it: it.put("train.py", "print(2)\n"),
    "a changed file again": lambda it: it.put("lib/deep/model.py", "a = 3\n"),
    "an untracked file": lambda it: it.put("new.py", "n = 2\n"),
    "a new file": lambda it: it.put("lib/other.py", "o = 1\n"),
    "a new file where nothing was": lambda it: it.put("empty/other.py", "o = 1\n"),
    "a new folder": lambda it: it.put("more/other.py", "o = 1\n"),
    "a file that is gone": lambda it: (it.folder / "train.py").unlink(),
    "a mode": lambda it: os.chmod(it.folder / "train.py", 0o755),
    "what is staged": lambda it: it.git("add", "new.py"),
    "a commit": lambda it: it.commit("second"),
    "a branch": lambda it: it.git("checkout", "-q", "-b", "other"),
    "a remote": lambda it: it.git("remote", "add", "origin", "https://example.org/x.git"),
    "what is ignored": lambda it: it.put(".gitignore", "*.log\nnew.py\n"),
    "a link": lambda it: (it.folder / "link").symlink_to("train.py"),
}


def test_what_did_not_change_is_asked_for_once(repository: Repository, asked: list[Path]) -> None:
    """Guards a sweep: a thousand runs in a process cost one look, and who changes what they got changes no other."""
    repository.put(".env", "TOKEN=1\n")  # which is left out
    first = current_state(repository.folder)
    for _ in range(3):
        found = current_state(repository.folder)
        assert found == first
        assert found is not None
        found.facts["changes"].clear()
    assert len(asked) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_by_the_next_run(repository: Repository, asked: list[Path], change: str) -> None:
    """Guards that what is remembered is never told of other code."""
    before = current_state(repository.folder)
    CHANGES[change](repository)
    found, fresh = current_state(repository.folder), state.state_of(repository.folder)
    assert found is not None
    assert fresh is not None
    assert found != before
    assert (found.facts, found.files) == (fresh.facts, fresh.files)


def test_what_changed_just_before_is_looked_at_again(
    repository: Repository, asked: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards clocks of file systems, which may give two changes one time."""
    monkeypatch.setattr(places, "_RECENT", 3_600 * 10**9)
    for _ in range(2):
        current_state(repository.folder)
    assert len(asked) == 2


def test_a_file_that_git_ignores_changes_nothing(repository: Repository, asked: list[Path]) -> None:
    """Guards logs that a training writes to."""
    repository.put("train.log", "1\n")
    current_state(repository.folder)
    time.sleep(0.01)
    repository.put("train.log", "2\n")
    current_state(repository.folder)
    assert len(asked) == 1


def test_a_script_without_a_repository_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the same where there is no git: files are read and searched for secrets again when one has changed."""
    monkeypatch.setattr(places, "_RECENT", 0)
    monkeypatch.setattr(scripts, "_last", None)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "train.py").write_text("print(1)\n")
    first = scripts.script_files(tmp_path)
    reads: list[Path] = []
    monkeypatch.setattr(scripts, "read_small", lambda path: reads.append(path) or path.read_bytes())
    assert scripts.script_files(tmp_path) == first
    assert reads == []
    (tmp_path / "train.py").write_text("print(2)\n")
    assert scripts.script_files(tmp_path)[1]["train.py"] == b"print(2)\n"
    (tmp_path / "other.py").write_text("print(3)\n")
    assert "other.py" in scripts.script_files(tmp_path)[1]
