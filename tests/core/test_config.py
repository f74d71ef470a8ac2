"""Where the store is: argument, environment, then the nearest project, and never beyond home."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcore.config import experiment_setting, project_root, store_setting, user_cache


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder, with nothing set."""
    for name in ("MLCORE_STORE", "MLCORE_EXPERIMENT", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/project/src/deep").mkdir(parents=True)
    return tmp_path / "home"


@pytest.mark.parametrize("mark", [".git", "pyproject.toml", "MLproject", ".mlcore"])
def test_the_store_is_at_the_nearest_project(mark: str, home: Path) -> None:
    """Guards discovery: each mark is found from deep inside, and named as the reason."""
    project = home / "project"
    (project / mark).mkdir() if mark.startswith(".") else (project / mark).touch()
    assert project_root(project / "src/deep")[0] == project
    assert mark in project_root(project / "src/deep")[1]
    (project / "src/MLproject").touch()
    assert project_root(project / "src/deep")[0] == project / "src", "the nearest"


def test_a_worktree_s_git_file_marks_a_project_too(home: Path) -> None:
    """Guards git worktrees and submodules, where .git is a file."""
    (home / "project/.git").write_text("gitdir: elsewhere")
    assert project_root(home / "project/src")[0] == home / "project"


def test_a_store_counts_before_another_mark_of_its_folder_and_after_a_nearer_one(home: Path) -> None:
    """Guards the order: folders from here upwards, whichever mark they have."""
    (home / "project/.mlcore").mkdir()
    (home / "project/.git").mkdir()
    assert project_root(home / "project/src")[1] == f"found {home / 'project/.mlcore'}"
    (home / "project/src/.git").mkdir()
    assert project_root(home / "project/src/deep")[0] == home / "project/src"


def test_the_search_ends_at_home(home: Path) -> None:
    """Guards whoever has a project above home: home itself may be one, what is above is not looked at."""
    (home.parent / ".git").mkdir()
    deep = home / "project/src"
    assert project_root(deep)[0] == deep
    assert "current folder" in project_root(deep)[1]
    (home / ".git").mkdir()
    assert project_root(deep)[0] == home
    outside = home.parent / "elsewhere/deep"
    outside.mkdir(parents=True)
    assert project_root(outside)[0] == home.parent


def test_a_home_behind_a_link_is_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards homes on network disks: HOME may be a link."""
    (home.parent / ".git").mkdir()
    (home.parent / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home.parent / "link"))
    assert project_root(home.parent / "link/project/src")[0] == home / "project/src"


@pytest.fixture
def mounted(home: Path) -> Iterator[Path]:
    """Return a folder of another file system within a project."""
    (home / "project/.git").mkdir()
    folder = home / "project/mounted"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_search_ends_at_a_file_system_border(mounted: Path) -> None:
    """Guards scratch disks: a project on another file system is not this one's."""
    assert project_root(mounted)[0] == mounted
    assert "on this file system" in project_root(mounted)[1]


def test_a_store_of_another_user_is_not_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards shared folders such as /tmp: a store that somebody else made there does not get our runs."""
    (home / "project/.mlcore").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: (home / "project/.mlcore").stat().st_uid + 1)
    here = home / "project/src"
    assert project_root(here) == (here, f"{home / 'project/.mlcore'} belongs to another user")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert project_root(here)[0] == home / "project", "root may"


def test_an_argument_wins_over_the_environment_and_that_over_discovery(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the order of settings, each with its reason."""
    monkeypatch.chdir(home / "project")
    (home / "project/.git").mkdir()
    assert store_setting().value == str(home / "project/.mlcore")
    assert experiment_setting().value == "Default"
    monkeypatch.setenv("MLCORE_STORE", "http://server")
    monkeypatch.setenv("MLCORE_EXPERIMENT", "x")
    assert (store_setting().value, store_setting().reason) == ("http://server", "environment variable MLCORE_STORE")
    assert experiment_setting().value == "x"
    assert (store_setting(Path("here")).value, store_setting("here").reason) == ("here", "given as an argument")
    monkeypatch.setenv("MLCORE_STORE", "")
    assert store_setting().value == str(home / "project/.mlcore"), "empty is not set"


def test_the_cache_is_where_the_system_keeps_caches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards XDG: the folder for what may be deleted."""
    assert user_cache() == home / ".cache/mlcore"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert user_cache() == Path("/x/mlcore")


def test_a_user_without_a_home_has_a_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards containers that run as a number: no HOME and no name is no error."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert project_root(home / "project")[0] == home / "project"
    user_cache()
