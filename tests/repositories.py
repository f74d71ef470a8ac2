"""Make git repositories for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["git_in"]

_SETTINGS = ("user.name=me", "user.email=me@example.com", "protocol.file.allow=always", "init.defaultBranch=main")


def git_in(folder: Path, *arguments: str) -> str:
    """Run git in a folder, made if need be, as somebody whose settings are nobody's; return what it prints."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed: apt-get install git, or the like")
    folder.mkdir(parents=True, exist_ok=True)
    options = [part for each in _SETTINGS for part in ("-c", each)]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *options, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()
