"""Let no repository run anything, and let none of the bad inputs leave anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import mlcore
from mlcore_local.code import Limits, NotRestored, restore, state_of, use_folder
from repositories import Repository


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember no packs of other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with a commit."""
    made = Repository(tmp_path / "work")
    made.write(train_py="print(1)\n", other_txt="text\n")
    made.commit()
    return made


def record(folder: Path, store: Path) -> mlcore.Run:
    """Record a run with the code in a folder, and read it back."""
    client = mlcore.Client(store)
    with use_folder(folder), client.start_run(capture="git,script") as run:
        pass
    return client.get_run(run.id)


def bait(repository: Repository, marker: Path) -> None:
    """Let everything that git can be told to run leave a marker."""
    script = marker.parent / "bait.sh"
    script.write_text(f'#!/bin/sh\necho "$0 $*" >> {marker}\ncat\n')
    script.chmod(0o755)
    settings = {
        "core.fsmonitor": script, "core.hooksPath": marker.parent / "hooks", "core.pager": script,
        "core.editor": script, "core.sshCommand": script, "core.askPass": script, "credential.helper": script,
        "core.gitProxy": script,
        "diff.external": script, "diff.evil.command": script, "diff.evil.textconv": script, "merge.evil.driver": script,
        "filter.evil.clean": script, "filter.evil.smudge": script, "filter.evil.process": script,
        "filter.evil.required": "true", "gpg.program": script, "uploadpack.packObjectsHook": script,
        "core.alternateRefsCommand": script, "alias.status": f"!{script}", "alias.config": f"!{script}",
        "interactive.diffFilter": script, "remote.origin.url": f"ext::{script}", "remote.origin.uploadpack": script,
        "remote.origin.promisor": "true", "remote.origin.partialclonefilter": "blob:none",
        "extensions.partialClone": "origin", "core.repositoryFormatVersion": "1", "trace2.eventTarget": marker,
    }  # fmt: skip
    for key, value in settings.items():
        repository.git("config", key, str(value))
    hooks = ["pre-commit", "post-index-change", "post-checkout", "fsmonitor-watchman", "reference-transaction"]
    for folder in (marker.parent / "hooks", repository.folder / ".git/hooks"):
        folder.mkdir(exist_ok=True)
        for hook in hooks:
            (folder / hook).write_text(script.read_text())
            (folder / hook).chmod(0o755)
    (repository.folder / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (repository.folder / ".git/info/attributes").write_text("* filter=evil diff=evil\n")


def test_nothing_that_a_repository_is_told_to_run_runs(tmp_path: Path) -> None:
    """Guards who looks at a repository that somebody else made: hooks, filters, drivers, monitors, helpers, aliases."""
    inner, repository = Repository(tmp_path / "inner"), Repository(tmp_path / "work")
    inner.write(inner_py="1\n")
    inner.commit()
    repository.write(train_py="print(1)\n", other_txt="text\n")
    repository.git("submodule", "add", "-q", f"file://{inner.folder}", "sub")
    repository.commit()
    sub, marker = Repository.__new__(Repository), tmp_path / "marker"
    sub.folder = repository.folder / "sub"
    (sub.folder / ".git").unlink()
    (repository.folder / ".git/modules/sub").rename(sub.folder / ".git")
    settings = sub.folder / ".git/config"
    settings.write_text("\n".join(line for line in settings.read_text().splitlines() if "worktree" not in line))
    for each in (sub, repository):
        bait(each, marker)
    repository.write(train_py="print(2)\n", new_py="n\n")
    os.utime(repository.folder / "other.txt", (1, 1))  # so that git has to read it again
    sub.put("inner.py", "2\n")
    marker.unlink(missing_ok=True)
    run = record(repository.folder, tmp_path / "store")
    assert not marker.exists()
    assert run.context["git.tree"]
    assert run.context["git.submodules"][0]["dirty"] is True
    made = restore(run, tmp_path / "again", repository=str(repository.folder))
    assert not marker.exists()
    assert (made.folder / "train.py").read_text() == "print(2)\n"
    assert (made.folder / "sub/inner.py").read_text() == "2\n"
    with pytest.raises(AssertionError, match="clean filter 'evil' failed"):
        repository.git("--no-optional-locks", "diff", "--stat")
    assert marker.exists()  # which a git that is not held back does leave


@pytest.mark.parametrize(
    "remote",
    [
        "ext::sh -c 'touch {marker}'",
        "--upload-pack=touch {marker}",
        "-oProxyCommand=touch {marker}",
        "fd::17",
        "https://127.0.0.1:9/x",
    ],
)
def test_what_a_remote_says_is_no_command(remote: str, repository: Repository, tmp_path: Path) -> None:
    """Guards who reproduces a run that somebody else recorded: one clear error, and nothing is left."""
    marker = tmp_path / "marker"
    client = mlcore.Client(tmp_path / "store")
    run = client.start_run(capture="off")
    values = {"git.commit": "1" * 40, "git.tree": "2" * 40, "git.remote": remote.format(marker=marker)}
    _record(run, values)
    run.end()
    with pytest.raises(NotRestored, match="nobody has commit 1111"):
        restore(client.get_run(run.id), tmp_path / "again")
    assert not marker.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "work"]


def _record(run: mlcore.Run, values: dict[str, Any]) -> None:
    from mlcore.store import AttributesSet

    run._write(AttributesSet("run", run.id, "context", values))


@pytest.mark.parametrize("path", ["../out", ".git/hooks", "/{folder}/out", "a/../../out", "sub/.git/x", ""])
def test_a_submodule_stays_in_its_place(path: str, repository: Repository, tmp_path: Path) -> None:
    """Guards what lies beside the folder that code is restored into."""
    path = path.format(folder=tmp_path)
    run = record(repository.folder, tmp_path / "store")
    client = mlcore.Client(tmp_path / "store")
    made = client.get_run(run.id)
    commit, tree = run.context["git.commit"], run.context["git.tree"]
    _record(made, {"git.submodules": [{"path": path, "commit": commit, "tree": tree, "url": str(repository.folder)}]})
    with pytest.raises(NotRestored):
        restore(client.get_run(run.id), tmp_path / "deep/again")
    assert [*(tmp_path / "deep").iterdir()] == []


def test_a_patch_stays_in_its_place(repository: Repository, tmp_path: Path) -> None:
    """Guards the same from a patch, which goes through a link or upwards, or is not what was kept."""
    repository.put("train.py", "print(2)\n")
    run = record(repository.folder, tmp_path / "store")
    client, patch = mlcore.Client(tmp_path / "store"), b"--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+x\n"
    for name in (b"../out", b"../../out", b".git/hooks/post-checkout", b"a/../../out"):
        client.get_run(run.id).log_bytes(patch % name, ".mlcore/code/changes.patch")
        with pytest.raises(NotRestored):
            restore(client.get_run(run.id), tmp_path / "deep/again")
        assert [*(tmp_path / "deep").iterdir()] == []
    client.get_run(run.id).log_bytes(patch % b"more.py", ".mlcore/code/changes.patch")
    with pytest.raises(NotRestored, match="not what ran: its tree is"):
        restore(client.get_run(run.id), tmp_path / "deep/again")
    client.get_run(run.id).log_bytes(b"garbage", ".mlcore/code/objects.pack")
    with pytest.raises(NotRestored, match="pack"):
        restore(client.get_run(run.id), tmp_path / "deep/again")
    assert [*(tmp_path / "deep").iterdir()] == []


def test_code_is_never_restored_over_something(repository: Repository, tmp_path: Path) -> None:
    """Guards what the user has: only a new or an empty folder will do."""
    run = record(repository.folder, tmp_path / "store")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    for name in ("full", "full/file", "link"):
        with pytest.raises(NotRestored, match="is there already"):
            restore(run, tmp_path / name)
    assert (tmp_path / "full/file").read_text() == "mine"
    assert restore(run, tmp_path / "empty").folder == tmp_path / "empty"
    with mlcore.Client(tmp_path / "store").start_run(capture="off") as other:
        pass
    with pytest.raises(NotRestored, match="did not record its code"):
        restore(other, tmp_path / "other")


def test_a_huge_repository_is_looked_at_within_bounds(repository: Repository, tmp_path: Path) -> None:
    """Guards the training from a folder of data that nobody ignored, and from files that grow."""
    for number in range(300):
        repository.put(f"data/{number}.csv", f"{number}\n")
    repository.put("small.py", "s = 1\n")
    repository.put("big.bin", b"\0" * 3000)
    repository.put("other.txt", "x" * 20_000)
    limits = Limits(file=2000, total=1000, files=50, changed_file=10_000)
    state = state_of(repository.folder, limits)
    assert state is not None
    kept = [each["path"] for each in state.facts["untracked"] if each["kept"]]
    assert len(kept) <= 50
    left = state.facts["left_out"]
    assert "big.bin: 3,000 bytes are more than 2,000" in left
    assert "other.txt: 20,000 bytes are more than 10,000" in left
    assert len(left) <= 201
    assert left[-1].startswith("and ")
    assert "M other.txt" in state.facts["changes"]
    assert len(state.facts["untracked"]) == 200
    assert b"b/other.txt" not in state.files["changes.patch"]
    late = state_of(repository.folder, Limits(seconds=0))
    assert late is not None
    assert late.facts["commit"] == repository.git("rev-parse", "HEAD")
    assert late.facts["branch"] == "main"
    assert "took too long" in late.facts["left_out"][0]
    assert late.files == {}


def test_what_is_no_file_does_not_stop_anything(repository: Repository) -> None:
    """Guards from pipes, broken links, folders where files were, and files that cannot be read."""
    os.mkfifo(repository.folder / "pipe")
    (repository.folder / "broken").symlink_to("nowhere")
    (repository.folder / "train.py").unlink()
    (repository.folder / "train.py").mkdir()
    repository.put("train.py/inside.py", "1\n")
    (repository.folder / "other.txt").unlink()
    os.mkfifo(repository.folder / "other.txt")
    Repository(repository.folder / "nested").write(a_py="a\n")
    (repository.folder / ".git/info/exclude").unlink()
    (repository.folder / ".git/info").rmdir()
    state = state_of(repository.folder)
    assert state is not None
    assert state.facts["changes"] == ["D other.txt", "D train.py"]
    assert {each["path"] for each in state.facts["untracked"]} == {"broken", "train.py/inside.py"}
    assert state.facts["left_out"] == ["nested/: a repository of its own"]
