"""Make real git repositories for tests, as their users would, and with nothing of who runs the tests in them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

if shutil.which("git") is None:
    pytest.skip("git is not installed: apt-get install git, or see git-scm.com", allow_module_level=True)


class Repository:
    """A repository in a folder, which is made."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main", *options)

    @classmethod
    def clone(cls, source: str | Path, folder: Path, *options: str) -> Repository:
        """Clone a repository."""
        made = cls.__new__(cls)
        made.folder = folder
        folder.mkdir(parents=True)
        made.git("clone", "-q", *options, str(source), ".")
        return made

    def git(self, *arguments: str) -> str:
        """Return what git prints."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        environment |= {
            f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        options = ("-c", "protocol.file.allow=always")
        done = subprocess.run(
            ["git", *options, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"git {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def write(self, **files: str) -> None:
        """Write files, where `__` stands for a slash and `_` before the ending for a dot."""
        for name, text in files.items():
            self.put(name.replace("__", "/")[::-1].replace("_", ".", 1)[::-1], text)

    def put(self, name: str, content: str | bytes) -> Path:
        """Write one file, and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def commit(self, message: str = "a change") -> str:
        """Commit everything, and return the commit."""
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def tree(self) -> str:
        """Return the tree of everything that is not ignored, as git itself makes it, in an index beside its own."""
        index = self.folder.parent / f"{self.folder.name}.index"
        if (own := Path(self.git("rev-parse", "--absolute-git-dir"), "index")).exists():
            shutil.copy2(own, index)
        before = os.environ.get("GIT_INDEX_FILE")
        environment = {**os.environ, "GIT_INDEX_FILE": str(index), "GIT_CONFIG_GLOBAL": os.devnull}
        for command in (["add", "--all", "--sparse"], ["write-tree"]):
            done = subprocess.run(
                ["git", *command], cwd=self.folder, env=environment, capture_output=True, text=True, check=True
            )
        assert before is None
        index.unlink()
        return done.stdout.strip()


_SETTINGS = ("user.name=me", "user.email=me@example.com", "protocol.file.allow=always", "init.defaultBranch=main")


def git_in(folder: Path, *arguments: str) -> str:
    """Run git in a folder, made if need be, as somebody whose settings are nobody's; return what it prints."""
    folder.mkdir(parents=True, exist_ok=True)
    options = [part for each in _SETTINGS for part in ("-c", each)]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *options, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()
