"""Record the code of every kind of repository, of none, and where there is no git."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlcore
from mlcore_local.code import NotRestored, restore, state_of, use_folder
from mlcore_local.code.places import find, head, read_config
from repositories import Repository


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember no packs of other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with three commits and a remote, a repository on this machine."""
    made = Repository(tmp_path / "work")
    for number in range(3):
        made.write(train_py=f"print({number})\n", other_txt="text\n" * (number + 1), lib__deep_py="deep\n")
        made.commit(f"number {number}")
    Repository(tmp_path / "remote.git", "--bare")
    made.git("remote", "add", "origin", f"file://{tmp_path}/remote.git")
    made.git("push", "-q", "-u", "origin", "main")
    return made


def at(folder: Path) -> Repository:
    """Return a repository that is there."""
    found = Repository.__new__(Repository)
    found.folder = folder
    return found


def again(repository: Repository, tmp_path: Path, *, tree: str | None = None) -> mlcore.Run:
    """Record what a repository is like, make it again, and look whether it is the same."""
    client = mlcore.Client(tmp_path / "store")
    with use_folder(repository.folder), client.start_run(capture="git,script") as run:
        pass
    made = restore(client.get_run(run.id), tmp_path / "again")
    assert run.context["git.tree"] == made.tree == (tree or repository.tree())
    found = state_of(made.folder)
    assert found is not None
    assert found.facts["tree"] == made.tree
    return client.get_run(run.id)


def test_a_worktree_beside_the_main_one(repository: Repository, tmp_path: Path) -> None:
    """Guards `git worktree add`: another HEAD and index, the same objects and settings."""
    repository.git("worktree", "add", "-q", "-b", "topic", str(tmp_path / "beside"), "HEAD~1")
    beside = at(tmp_path / "beside")
    beside.write(train_py="print(7)\n")
    context = again(beside, tmp_path).context
    assert context["git.branch"] == "topic"
    assert context["git.commit"] == repository.git("rev-parse", "main~1")
    assert context["git.remote"] == f"file://{tmp_path}/remote.git"


@pytest.mark.parametrize("depth", ["--depth=1", "--filter=blob:none", "--no-checkout"])
def test_clones_that_do_not_have_everything(depth: str, repository: Repository, tmp_path: Path) -> None:
    """Guards the clones of CI, shallow and partial, with a HEAD that is no branch."""
    at(tmp_path / "remote.git").git("config", "uploadpack.allowFilter", "true")
    clone = Repository.clone(f"file://{tmp_path}/remote.git", tmp_path / "clone", depth)
    clone.git("checkout", "-q", "--detach", "HEAD")
    clone.write(train_py="print(8)\n")
    context = again(clone, tmp_path).context
    assert "git.branch" not in context
    assert context["git.commit"] == repository.git("rev-parse", "HEAD")
    assert "git.base" not in context
    assert "git.onto" not in context  # the commit is at the remote, even if the clone cannot see far


def test_commits_that_were_not_pushed_are_kept_alone(repository: Repository, tmp_path: Path) -> None:
    """Guards the size of what is kept: of three new commits the files of the last one that the remote lacks."""
    repository.put(
        "large.py",
        "".join(f"value_{number} = {hashlib.sha256(bytes([number])).hexdigest()!r}\n" for number in range(250)),
    )
    repository.commit()
    repository.git("push", "-q")
    pushed = repository.git("rev-parse", "HEAD")
    for number in range(3):
        repository.write(train_py=f"print({number})  # new\n")
        repository.commit("not pushed")
    run = again(repository, tmp_path)
    assert run.context["git.onto"] == pushed
    assert run.context["git.dirty"] is False
    (pack,) = run.artifacts.list(".mlcore")
    assert pack.path == ".mlcore/code/objects.pack"
    assert pack.size < 1_000
    assert at(tmp_path / "again").git("log", "--format=%H") == repository.git("rev-parse", "HEAD")


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    """Guards the first minutes of a project."""
    repository = Repository(tmp_path / "work")
    repository.write(train_py="print(1)\n", staged_py="1\n")
    repository.git("add", "staged.py")
    context = again(repository, tmp_path).context
    assert "git.commit" not in context
    assert context["git.branch"] == "main"
    assert context["git.changes"] == ["A staged.py"]


@pytest.mark.parametrize(
    "form", ["sha256", "split", "sparse", "sparse index", "intent", "hidden", "packed", "conflict"]
)
def test_every_kind_of_index(form: str, repository: Repository, tmp_path: Path) -> None:
    """Guards what git may have done with its index, and the files that it was told not to look at."""
    if form == "sha256":
        repository = Repository(tmp_path / "sha", "--object-format=sha256")
        repository.write(train_py="print(1)\n", other_txt="text\n", lib__deep_py="deep\n")
        repository.commit()
    elif form == "split":
        repository.git("update-index", "--split-index")
    elif form == "sparse":
        repository.git("sparse-checkout", "set", "--no-cone", "/train.py", "/other.txt")
    elif form == "sparse index":
        repository.git("sparse-checkout", "set", "--cone", "--sparse-index")
    elif form == "intent":
        repository.put("meant.py", "meant\n")
        repository.git("add", "--intent-to-add", "meant.py")
    elif form == "hidden":
        repository.git("update-index", "--assume-unchanged", "other.txt")
        repository.git("update-index", "--skip-worktree", "lib/deep.py")
        repository.put("lib/deep.py", "changed behind git's back\n")
        repository.put("other.txt", "changed, too\n")
    elif form == "packed":
        repository.git("gc", "-q")
    elif form == "conflict":
        repository.git("checkout", "-q", "-b", "topic", "HEAD~1")
        repository.write(train_py="print('ours')\n")
        repository.commit()
        with pytest.raises(AssertionError, match="CONFLICT"):
            repository.git("merge", "main")
    repository.put("new.py", "new\n")
    if form != "conflict":
        repository.write(train_py="print(9)\n")
    if form == "hidden":
        run = again(repository, tmp_path, tree=_plain_tree(repository, tmp_path))
        assert (tmp_path / "again/lib/deep.py").read_text() == "changed behind git's back\n"
        assert run.context["git.changes"] == ["M lib/deep.py", "M other.txt", "M train.py"]
    else:
        again(repository, tmp_path)
    if form == "conflict":
        assert "<<<<<<<" in (tmp_path / "again/train.py").read_text()


def _plain_tree(repository: Repository, tmp_path: Path) -> str:
    copy = Repository(tmp_path / "copy")
    shutil.copytree(repository.folder, copy.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    return copy.tree()


def test_ends_of_lines_are_converted_as_git_does(repository: Repository, tmp_path: Path) -> None:
    """Guards hashes and patches where `.gitattributes` or settings change files between commit and folder."""
    repository.put(".gitattributes", "*.txt text eol=crlf\n*.py text\n*.bin binary\n")
    repository.put("other.txt", "one\r\ntwo\r\n")
    repository.put("mixed.csv", "one\r\ntwo\n")
    repository.commit()
    repository.put("other.txt", "one\r\nthree\r\n")
    repository.put("new.txt", "new\r\n")
    repository.put("data.bin", b"\r\n\0")
    repository.put("mixed.csv", "one\r\ntwo\nthree\n")
    again(repository, tmp_path)
    for name in ("other.txt", "new.txt", "data.bin", "mixed.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (repository.folder / name).read_bytes()


def test_files_of_git_lfs_stay_pointers(repository: Repository, tmp_path: Path) -> None:
    """Guards repositories with large files: what did not change is no change, and no content is kept."""
    content = bytes(range(256)) * 40
    digest = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
    repository.put(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    repository.put("data.bin", pointer)
    repository.commit()
    repository.put("data.bin", content)
    state = state_of(repository.folder)
    assert state is not None
    assert state.facts["tree"] == repository.git("rev-parse", "HEAD^{tree}")
    assert b"GIT binary patch" not in state.files.get("changes.patch", b"")
    client = mlcore.Client(tmp_path / "store")
    with use_folder(repository.folder), client.start_run(capture="git") as run:
        pass
    made = restore(client.get_run(run.id), tmp_path / "again")
    assert (made.folder / "data.bin").read_text() == pointer
    assert "git lfs pull" in made.notes[0]


def test_names_that_are_no_text(repository: Repository, tmp_path: Path) -> None:
    """Guards names with newlines, quotes and bytes of another encoding, in the folder and of the folder."""
    folder = tmp_path / 'a "quoted\\" \nfolder'
    repository.folder.rename(folder)
    moved = at(folder)
    for name in (b"caf\xe9.py", b"new\nline.py", b'"quoted".py', b" spaces .py", b"-dash.py", b"b:colon.py"):
        try:
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:
                file.write(b"1\n")
        except OSError:
            continue  # a file system that knows only UTF-8
    run = again(moved, tmp_path)
    assert len(run.context["git.untracked"]) >= 5
    json.dumps(run.context).encode()


def test_without_git_the_commit_is_still_known(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards images without git: files tell commit, branch and remote, and the script's project is kept."""
    repository.git("remote", "set-url", "origin", "https://me:canary@example.org/x.git")
    repository.git("pack-refs", "--all")
    repository.put("pyproject.toml", "[project]\n")
    repository.put(".env", "canary")
    repository.put("lib/settings.py", 'password = "canary"\n')
    os.chmod(repository.put("lib/tool.sh", "#!/bin/sh\n"), 0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    client = mlcore.Client(tmp_path / "store")
    with use_folder(repository.folder), client.start_run(capture="git,script") as run:
        pass
    context = run.context
    monkeypatch.undo()
    assert context["git.commit"] == repository.git("rev-parse", "HEAD")
    assert (context["git.branch"], context["git.remote"]) == ("main", "https://example.org/x.git")
    assert context["git.left_out"] == ["what changed: git is not installed"]
    assert {*context["script.files"]} == {
        "pyproject.toml", "train.py", "other.txt", "lib/deep.py", "lib/settings.py", "lib/tool.sh",
    }  # fmt: skip
    assert context["script.masked"] == ["lib/settings.py:1"]
    made = restore(client.get_run(run.id), tmp_path / "again")
    assert made.tree == context["script.tree"]
    assert (made.folder / "train.py").read_text() == "print(2)\n"
    assert os.access(made.folder / "lib/tool.sh", os.X_OK)
    kept = at(tmp_path / "kept")
    shutil.copytree(made.folder, kept.folder)
    kept.git("init", "-q")
    assert kept.tree() == made.tree  # the same hash as git's, though there was none
    name = next(iter(context["script.files"]))
    client.get_run(run.id).log_text("other", f".mlcore/code/{name}")
    with pytest.raises(NotRestored, match="not what ran"):
        restore(client.get_run(run.id), tmp_path / "third")
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("marked", [True, False])
def test_a_script_in_no_repository_is_kept_with_its_modules(marked: bool, tmp_path: Path) -> None:
    """Guards who has no git at all: the script, what it imported from beside itself, and nothing else of a folder."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "train.py").write_text(
        "import beside, mlcore\nwith mlcore.start_run(capture='git,script') as run: print(run.id)\n"
    )
    (folder / "beside.py").write_text("x = 1\n")
    (folder / "unrelated.py").write_text("y = 1\n")
    (folder / "data.csv").write_text("1\n")
    if marked:
        (folder / "requirements.txt").write_text("numpy\n")
    done = subprocess.run(
        [sys.executable, "scripts/train.py"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "MLCORE_STORE": str(tmp_path / "store")},
    )  # fmt: skip
    run = mlcore.Client(tmp_path / "store").get_run(done.stdout.strip())
    assert run.context["script.entry"] == "train.py"
    expected = {"train.py", "beside.py"} | ({"requirements.txt", "unrelated.py"} if marked else set())
    assert {*run.context["script.files"]} == expected
    made = restore(run, tmp_path / "again")
    assert {path.name for path in made.folder.iterdir()} == expected


def test_what_git_keeps_in_files_is_read_without_it(repository: Repository, tmp_path: Path) -> None:
    """Guards the reader of git's files."""
    repository.git("config", 'remote.odd"name\\.x.url', "/a b#c")
    repository.git("config", "core.comment", "x ; y")
    found = find(repository.folder / "lib")
    assert found is not None
    assert found.root == repository.folder
    assert head(found) == (repository.git("rev-parse", "HEAD"), "main")
    settings = read_config(found.common / "config")
    assert settings["remote.origin.url"] == f"file://{tmp_path}/remote.git"
    assert settings['remote.odd"name\\.x.url'] == "/a b#c"
    assert settings["branch.main.remote"] == "origin"
    assert find(tmp_path / "remote.git") is None  # there is no working tree in a bare one
    assert state_of(tmp_path / "remote.git") is None
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/.git").write_text("gitdir: /nowhere\n")
    assert find(tmp_path / "broken") is None
