"""Record with a run what code it ran, and make it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mlcore
from mlcore_local.code import NotRestored, Restored, restore, state_of, use_folder
from repositories import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with two commits and a remote that has them."""
    made = Repository(tmp_path / "work")
    made.write(train_py="print(1)\n", lib__model_py="a = 1\nb = 2\nc = 3\n", gone_py="gone\n")
    made.put(".gitignore", "*.log\ndata/\n")
    made.commit("first")
    made.put("old name.txt", "x" * 300)
    made.commit("second")
    Repository(tmp_path / "remote.git", "--bare")
    made.git("remote", "add", "origin", f"file://{tmp_path}/remote.git")
    made.git("push", "-q", "origin", "main")
    return made


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember no packs of other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def dirty(repository: Repository) -> None:
    """Change, delete, add and stage files of every kind."""
    repository.write(train_py="print(2)\n", lib__new_py="n = 1\n")
    repository.put('späte datei \t"x".py', "ü = 1\n")
    repository.put("binary.bin", bytes(range(256)) * 4)
    repository.put("staged.py", "staged\n")
    repository.git("add", "staged.py")
    repository.put("staged.py", "changed after\n")
    repository.put("data/ignored.csv", "1\n")
    (repository.folder / "gone.py").unlink()
    (repository.folder / "link").symlink_to("train.py")
    os.chmod(repository.put("tool.sh", "#!/bin/sh\n"), 0o755)
    os.chmod(repository.folder / "lib/model.py", 0o755)
    repository.git("mv", "old name.txt", "new name.txt")


def record(folder: Path, store: Path) -> mlcore.Run:
    """Record a run with the code in a folder, and read it back."""
    client = mlcore.Client(store)
    with use_folder(folder), client.start_run(capture="git,script") as run:
        pass
    return client.get_run(run.id)


def files(folder: Path) -> dict[str, object]:
    """Return what a folder holds, beside git's own."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if ".git" not in path.relative_to(folder).parts and (path.is_symlink() or path.is_file()):
            content = os.readlink(path) if path.is_symlink() else path.read_bytes()
            found[name] = (content, path.is_symlink() or os.access(path, os.X_OK))
    return found


def unchanged(folder: Path) -> dict[str, object]:
    """Return everything in a folder, with sizes and times; git renews the times of objects that it finds."""
    return {
        str(path): (0 if path.parts[-3] == "objects" else path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in sorted(folder.rglob("*"))
    }


def test_a_clean_commit_is_recorded_and_made_again(repository: Repository, tmp_path: Path) -> None:
    """Guards the simple case: commit, branch, remote, and nothing kept beside."""
    run = record(repository.folder, tmp_path / "store")
    context = run.context
    assert context["git.commit"] == repository.git("rev-parse", "HEAD")
    assert context["git.branch"] == "main"
    assert context["git.remote"] == f"file://{tmp_path}/remote.git"
    assert context["git.dirty"] is False
    assert context["git.tree"] == repository.git("rev-parse", "HEAD^{tree}")
    assert "git.changes" not in context
    assert [*run.artifacts.list(".mlcore")] == []
    made = restore(run, tmp_path / "again")
    assert made == Restored(context["git.tree"], tmp_path / "again")
    assert files(made.folder) == files(repository.folder)


def test_a_dirty_tree_is_made_again_elsewhere(repository: Repository, tmp_path: Path) -> None:
    """Guards what the package is for: changed, deleted, staged, untracked files, modes, links; not ignored ones."""
    dirty(repository)
    status, before = repository.git("status", "--porcelain"), unchanged(repository.folder)
    run = record(repository.folder / "lib", tmp_path / "store")
    assert unchanged(repository.folder) == before
    assert repository.git("status", "--porcelain") == status
    assert run.context["git.tree"] == repository.tree()
    assert run.context["git.dirty"] is True
    assert run.context["git.changes"] == [
        "D gone.py", "M lib/model.py", "A new name.txt", "D old name.txt", "A staged.py", "M train.py",
    ]  # fmt: skip
    assert {each["path"] for each in run.context["git.untracked"]} == {
        "binary.bin", "lib/new.py", "link", "späte datei \t\"x\".py", "tool.sh",
    }  # fmt: skip
    repository.folder.rename(tmp_path / "moved")
    made = restore(run, tmp_path / "elsewhere" / "again")
    expected = files(tmp_path / "moved")
    del expected["data/ignored.csv"]
    assert files(made.folder) == expected
    again = state_of(made.folder)
    assert again is not None
    assert again.facts["tree"] == made.tree == run.context["git.tree"]
    assert again.facts["commit"] == run.context["git.commit"]


@pytest.mark.parametrize("way", ["local", "pack", "repository"])
def test_without_a_remote_the_code_comes_from_here_or_from_what_was_kept(
    way: str, repository: Repository, tmp_path: Path
) -> None:
    """Guards the three other places that code comes from."""
    if way == "pack":
        repository.git("remote", "remove", "origin")
    dirty(repository)
    run = record(repository.folder, tmp_path / "store")
    assert ("git.remote" in run.context) == (way != "pack")
    if way == "local":
        (tmp_path / "remote.git").rename(tmp_path / "away")
    else:
        repository.folder.rename(tmp_path / "moved")
        (tmp_path / "remote.git").rename(tmp_path / "away")
    if way == "repository":
        with pytest.raises(NotRestored, match="nobody has commit"):
            restore(run, tmp_path / "again")
        assert not (tmp_path / "again").exists()
        made = restore(run, tmp_path / "again", repository=str(tmp_path / "moved"))
    else:
        made = restore(run, tmp_path / "again")
    assert made.tree == run.context["git.tree"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mlcore-restore")]


def test_submodules_come_back_with_what_was_changed_in_them(repository: Repository, tmp_path: Path) -> None:
    """Guards nested submodules: one at another commit, one with changes, one that was never checked out."""
    inner, outer = Repository(tmp_path / "inner"), Repository(tmp_path / "outer")
    inner.write(deep_py="deep = 1\n")
    inner.commit()
    outer.write(sub_py="sub = 1\n")
    outer.git("submodule", "add", "-q", f"file://{inner.folder}", "deep")
    outer.commit()
    for path in ("libs/outer", "libs/other", "libs/empty", "libs/gone"):
        repository.git("submodule", "add", "-q", f"file://{outer.folder}", path)
    repository.commit("submodules")
    repository.git("push", "-q", "origin", "main")
    repository.git("submodule", "-q", "update", "--init", "--recursive")
    repository.git("submodule", "-q", "deinit", "libs/empty")
    repository.git("rm", "-q", "libs/gone")
    repository.put("libs/outer/deep/deep.py", "deep = 2\n")
    repository.put("libs/outer/new.py", "new\n")
    other = Repository.__new__(Repository)
    other.folder = repository.folder / "libs/other"
    other.write(sub_py="sub = 2\n")
    other.commit("at no remote")
    dirty(repository)

    run = record(repository.folder, tmp_path / "store")
    modules = {each["path"]: each for each in run.context["git.submodules"]}
    assert [*modules] == ["libs/empty", "libs/other", "libs/other/deep", "libs/outer", "libs/outer/deep"]
    assert [each["dirty"] for each in modules.values()] == [False, False, False, True, True]
    assert modules["libs/other"]["commit"] == other.git("rev-parse", "HEAD")
    assert modules["libs/other"]["onto"] == outer.git("rev-parse", "HEAD")
    assert modules["libs/outer"]["url"] == f"file://{outer.folder}"
    assert {each.path for each in run.artifacts.list(".mlcore")} == {
        ".mlcore/code/changes.patch",
        ".mlcore/code/libs/other/objects.pack",
        ".mlcore/code/libs/outer/changes.patch",
        ".mlcore/code/libs/outer/deep/changes.patch",
    }
    repository.folder.rename(tmp_path / "moved")
    made = restore(run, tmp_path / "again")
    expected = files(tmp_path / "moved")
    del expected["data/ignored.csv"]
    assert files(made.folder) == expected
    again = state_of(made.folder)
    assert again is not None
    assert again.facts["tree"] == run.context["git.tree"]
    for each in again.facts["submodules"]:
        assert {**each, "url": ""} == {**modules[each["path"]], "url": ""}
